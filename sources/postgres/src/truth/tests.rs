//! Plans and the statements made of them; no server is needed.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::json;
use unisono_core::write::{Action, Condition, Idempotency, Unit, Write};
use unisono_core::{Entity, ErrorKind, Key, Position, Role, Stored, Timestamp};
use unisono_testkit::Sample;

use crate::client::Tables;
use crate::tests::table;
use crate::truth::plan::{Decision, Known, Needs, Plan};
use crate::truth::statement;

fn tables() -> Tables {
    let all = [Sample::product(), Sample::person()];
    all.map(|e| (Arc::clone(e.name()), Arc::new(table(&e, Role::Truth)))).into_iter().collect()
}

fn unit(entity: &Arc<Entity>, key: Key, action: Action) -> Unit {
    let write = Write { entity: Arc::clone(entity), key, action, condition: Condition::None };
    let (idempotency, time) = (None, Timestamp::EPOCH);
    Unit { writes: vec![write], idempotency, time, actor: None, trace: None }
}

fn product(number: u32) -> Unit {
    let key = Sample::key(&format!("p{number}"));
    unit(&Sample::product(), key, Action::Put(Sample::product_record(number)))
}

fn person(number: i64, email: &str) -> Unit {
    let record = Sample::record(&Sample::person(), &json!({"number": number, "email": email}));
    unit(&Sample::person(), Key::Integer(number), Action::Put(record))
}

fn once(unit: Unit, fingerprint: u128) -> Unit {
    Unit { idempotency: Some(Idempotency { key: "k".into(), fingerprint }), ..unit }
}

fn sql(units: &[Unit], known: &Known) -> (String, usize) {
    let plan = Plan::new(units, &tables(), known);
    let commit = statement::commit("s", &plan, units, known.head);
    (commit.sql, commit.parameters.len())
}

/// The marks `$1`, `$2`, … of a statement.
fn marks(sql: &str) -> usize {
    let marks = sql.split('$').skip(1).filter_map(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<usize>().ok()
    });
    let marks: HashSet<_> = marks.collect();
    assert_eq!(marks.iter().max(), Some(&marks.len()), "every mark is used: {sql}");
    marks.len()
}

#[test]
fn a_lone_put_needs_neither_arrays_nor_a_read() {
    let units = [product(1)];
    assert!(Needs::of(&units).is_empty());
    let (sql, parameters) = sql(&units, &Known::default());
    assert!(!sql.contains("unnest"), "{sql}");
    assert_eq!(marks(&sql), parameters);
}

#[test]
fn a_statement_is_the_same_for_any_number_of_units_in_any_order() {
    let few = [product(1), person(1, "a"), product(2)];
    let many: Vec<_> =
        (0..50).map(|n| person(n, &n.to_string())).chain((0..50).map(product)).collect();
    let (of_few, parameters) = sql(&few, &Known::default());
    let (of_many, _) = sql(&many, &Known::default());
    assert_eq!(of_few, of_many);
    assert_eq!(marks(&of_few), parameters);
    assert!(of_few.contains("coalesce($1, (SELECT position FROM s.unisono_head))"), "{of_few}");
}

#[test]
fn what_depends_on_a_record_asks_for_no_more_than_it_needs() {
    let entity = Sample::product();
    let key = || Sample::key("p1");
    let delete = unit(&entity, key(), Action::Delete);
    let patch = unit(&entity, key(), Action::Patch(json!({"stock": 1})));
    let place = (Arc::clone(entity.name()), key());
    assert_eq!(Needs::of(std::slice::from_ref(&delete)).records.get(&place), Some(&false));
    assert_eq!(Needs::of(&[delete, patch, product(2)]).records, [(place, true)].into());
    let needs = Needs::of(&[once(product(1), 7)]);
    assert_eq!((needs.records.len(), needs.outcomes.len()), (0, 1));
}

#[test]
fn a_later_write_of_the_same_call_sees_the_earlier_one() {
    let entity = Sample::product();
    let key = || Sample::key("p1");
    let patch = |n| unit(&entity, key(), Action::Patch(json!({ "stock": n })));
    let delete = || unit(&entity, key(), Action::Delete);
    let units = [product(1), patch(5), delete(), delete(), product(1)];
    let head = Some(Position::new(10).unwrap());
    let plan = Plan::new(&units, &tables(), &Known { head, ..Known::default() });
    let previous: Vec<_> = plan.items.iter().map(|i| i.previous).collect();
    assert_eq!(previous, [None, Some(0), Some(1), Some(2)]);
    let Decision::Fails(error) = &plan.decisions[3] else { panic!("deleted twice") };
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(matches!(plan.decisions[4], Decision::Takes { first: 3, count: 1 }));
}

#[test]
fn a_unit_that_fails_leaves_no_item() {
    let mut both = product(1);
    both.writes.extend(unit(&Sample::product(), Sample::key("p2"), Action::Delete).writes);
    let plan = Plan::new(&[both, product(3)], &tables(), &Known::default());
    assert!(matches!(plan.decisions[0], Decision::Fails(_)));
    assert!(matches!(plan.decisions[1], Decision::Takes { first: 0, count: 1 }));
    assert_eq!(plan.items.len(), 1);
}

#[test]
fn unique_values_that_change_hands_need_an_order() {
    let plan = |units: &[Unit]| Plan::new(units, &tables(), &Known::default()).is_set();
    assert!(plan(&[person(1, "a"), person(2, "b")]));
    assert!(!plan(&[person(1, "a"), person(1, "b")]), "twice the same record");
    assert!(plan(&[product(1), product(1)]), "nothing of a product is unique");
    let entity = Sample::person();
    let stored = |unit: &Unit| {
        let Action::Put(record) = &unit.writes[0].action else { panic!("no put") };
        let key = unit.writes[0].key.clone();
        let place = (Arc::clone(entity.name()), key.clone());
        (place, Ok(Stored::new(key, Position::new(1).unwrap(), Arc::new(record.clone()))))
    };
    let known = Known { records: [stored(&person(1, "a"))].into(), ..Known::default() };
    let units = [unit(&entity, Key::Integer(1), Action::Delete), person(2, "a")];
    assert!(!Plan::new(&units, &tables(), &known).is_set(), "given up and taken");
}

#[test]
fn an_idempotency_key_is_taken_once_in_a_call() {
    let units = [once(product(1), 7), once(product(1), 7), once(product(2), 8)];
    let plan = Plan::new(&units, &tables(), &Known::default());
    assert!(matches!(plan.decisions[1], Decision::Repeats(0)));
    let Decision::Fails(error) = &plan.decisions[2] else { panic!("another request") };
    assert_eq!(error.kind(), ErrorKind::IdempotencyKeyReused);
    assert_eq!(plan.items.len(), 1);
    let (sql, parameters) = sql(&units, &Known::default());
    assert!(sql.contains("unisono_outcomes"), "{sql}");
    assert_eq!(marks(&sql), parameters);
}
