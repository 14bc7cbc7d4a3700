//! The kind and its tables as text: no server is needed.

use std::sync::Arc;

use unisono_core::kind::{Options, SourceKind};
use unisono_core::source::Binding;
use unisono_core::{Capture, Entity, Field, FieldType, Key, Role};
use unisono_sql::Dialect;
use unisono_testkit::Sample;

use crate::Postgres;
use crate::codec::declared_type;
use crate::table::{Column, Shape, Table, quote};

/// A table of our own in the schema `s`.
pub(crate) fn table(entity: &Arc<Entity>, role: Role) -> Table {
    let columns = entity.fields().iter();
    let columns = columns.map(|f| Column::new(f, Shape::Own, &declared_type(&f.ty))).collect();
    let (entity, place) = (Arc::clone(entity), Arc::clone(entity.name()));
    Table::new(&Binding { entity, role, place, options: Options::default() }, "s", columns)
}

#[test]
fn every_option_can_be_left_out_but_the_url() {
    let required = Postgres.options().iter().filter(|o| o.default.is_none() && !o.optional);
    let required: Vec<_> = required.map(|o| o.name).collect();
    assert_eq!(required, ["url"]);
    let of_truth = Postgres.entity_options(Role::Truth).iter().map(|o| o.name);
    assert_eq!(of_truth.collect::<Vec<_>>(), [Capture::OPTION.name]);
    assert!(Postgres.entity_options(Role::Follower).is_empty());
}

#[test]
fn a_truth_refuses_what_it_cannot_keep_unique() {
    let refuses = Postgres.capability().refuses;
    let unique = |ty| Field { unique: true, ..Field::new("x", ty) };
    let list = FieldType::List(Box::new(FieldType::String));
    assert!(refuses(Role::Truth, &unique(list.clone())).is_some_and(|r| r.contains("unique")));
    assert!(refuses(Role::Truth, &unique(FieldType::Json)).is_some());
    // The truth has decided already.
    assert_eq!(refuses(Role::Follower, &unique(list)), None);
    for ty in [FieldType::String, FieldType::Bytes, FieldType::Float] {
        assert_eq!(refuses(Role::Truth, &unique(ty)), None);
    }
}

#[test]
fn names_cannot_break_out_of_a_statement() {
    assert_eq!(quote("a\"; DROP TABLE b; --"), "\"a\"\"; DROP TABLE b; --\"");
    let table = table(&Sample::person(), Role::Truth);
    assert_eq!(table.name, "\"s\".\"person\"");
    assert_eq!(table.key(), "\"number\"");
}

#[test]
fn one_key_is_compared_and_many_are_sent_as_one_parameter() {
    let table = table(&Sample::person(), Role::Truth);
    let (one, parameter) = table.get(&[Key::Integer(7)]);
    assert!(one.ends_with("WHERE \"number\" = $1) t ON TRUE"), "{one}");
    assert_eq!(parameter.bytes, Some(7_i64.to_be_bytes().to_vec()));
    let (many, parameter) = table.get(&[Key::Integer(7), Key::Integer(8)]);
    assert!(many.ends_with("WHERE \"number\" = ANY ($1)) t ON TRUE"), "{many}");
    assert_eq!(parameter.ty, tokio_postgres::types::Type::INT8_ARRAY);
}

#[test]
fn columns_of_other_types_are_compared_as_the_reference_compares() {
    let text = Field::new("name", FieldType::String);
    let at = Field::new("at", FieldType::Timestamp { precision: 6 });
    let column = |field, shape, native| Column::new(field, shape, native);
    let collated = column(&text, Shape::Text, "character varying(80)");
    assert!(!collated.is_in_order());
    assert_eq!(collated.ordered(), "(\"name\" COLLATE \"C\")");
    let word = column(&text, Shape::Word, "s.colour");
    assert_eq!(word.stored("$1"), "$1::text::s.colour");
    assert_eq!(word.ordered(), "(\"name\"::text COLLATE \"C\")");
    let local = column(&at, Shape::Local, "timestamp without time zone");
    assert_eq!(local.selected(), "(\"at\" AT TIME ZONE 'UTC')");
    assert_eq!(local.stored("$1"), "($1 AT TIME ZONE 'UTC')");
    assert!(local.is_in_order());
}

#[test]
fn null_comes_before_every_value() {
    let table = table(&Sample::person(), Role::Truth);
    assert_eq!(table.order("x", false), "x NULLS FIRST");
    assert_eq!(table.order("x", true), "x DESC NULLS LAST");
}

#[test]
fn a_follower_without_its_first_copy_is_at_zero() {
    let table = table(&Sample::person(), Role::Follower);
    let log = "00000000-0000-0000-0000-000000000001";
    let at = |text: &str| table.position_of(Some(text)).unwrap().as_u64();
    assert_eq!(at(&format!("{{\"log\":\"{log}\",\"position\":\"7\"}}")), 7);
    assert_eq!(at(&format!("{{\"log\":\"{log}\",\"position\":\"7\",\"backfill\":\"a\"}}")), 0);
    assert_eq!(table.position_of(None).unwrap().as_u64(), 0);
    assert!(table.position_of(Some("no checkpoint")).is_err());
}
