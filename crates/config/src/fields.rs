//! `[entities.NAME.fields]`: types, and the rules of each field.

use std::sync::Arc;

use serde_json::Value as Json;
use unisono_core::entity::check_name;
use unisono_core::spelling::closest;
use unisono_core::{Field, FieldType, Value};

use crate::document::{Data, Item, Name};
use crate::problem::{Report, Spot};
use crate::sections::FIELD;
use crate::table::{Found, Table, list};
use crate::types::{Named, parse_type};

/// A field with the place of its name and of its type.
pub(crate) struct DeclaredField {
    pub(crate) field: Field,
    pub(crate) spot: Spot,
}

/// Where fields are declared decides which rules they can have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Record,
    Object,
}

/// The fields of an entity, in the order of the file.
pub(crate) fn fields(report: &Report<'_>, entries: &[(&Name, Found<&Item>)]) -> Vec<DeclaredField> {
    declared(report, entries, Level::Record)
}

fn declared(
    report: &Report<'_>,
    entries: &[(&Name, Found<&Item>)],
    level: Level,
) -> Vec<DeclaredField> {
    let mut fields = Vec::with_capacity(entries.len());
    for (name, found) in entries {
        let spot = Spot { span: name.span.clone(), key: found.spot.key.clone() };
        if let Err(error) = check_name(&name.text) {
            report.error(
                &spot,
                format!("`{}` cannot be the name of a field: {}", name.text, error.message()),
            );
            continue;
        }
        if let Some(field) = field(report, &name.text, found, level) {
            fields.push(DeclaredField { field, spot });
        }
    }
    fields
}

fn field(report: &Report<'_>, name: &str, found: &Found<&Item>, level: Level) -> Option<Field> {
    if let Data::Text { text, .. } = &found.value.data {
        let ty = parse_type(report, text, &found.spot)?;
        if ty == Named::List {
            report.error_with(&found.spot, "a list needs the type of its elements", LIST_HINT);
            return None;
        }
        let ty = ty.plain()?;
        let search = ty == FieldType::Text && level == Level::Record;
        return Some(Field { search, ..Field::new(name, ty) });
    }
    if matches!(found.value.data, Data::Broken) {
        return None;
    }
    if !matches!(found.value.data, Data::Table(_)) {
        report.error(
            &found.spot,
            format!("a field is a type or a table, not {}", found.value.describe()),
        );
        return None;
    }
    let table = Table::new(report, &FIELD, found.value, found.spot.clone())?;
    let field = field_of_table(&table, name, level);
    table.finish();
    field
}

const LIST_HINT: &str =
    "write { type = \"list\", of = \"string\" }, or of = { name = \"string\" } for objects";

fn field_of_table(table: &Table<'_>, name: &str, level: Level) -> Option<Field> {
    let ty = field_type(table, level);
    let flag = |key: &'static str| table.boolean(key).unwrap_or_default();
    let (required, unique, index, search) =
        (flag("required"), flag("unique"), flag("index"), table.boolean("search"));
    let max_length = table.integer("max_length").and_then(|n| u32::try_from(n).ok());
    let (default, allowed) = (table.item("default"), table.item("enum"));
    let ty = ty?;
    let is_text = ty == FieldType::Text && level == Level::Record;
    let mut field = Field {
        required,
        unique,
        index,
        search: search.unwrap_or(is_text),
        max_length,
        ..Field::new(name, ty)
    };
    check_rules(table, &field, level);
    if let Some(found) = allowed {
        field.allowed = allowed_values(table, &field, &found);
    }
    if let Some(found) = default {
        field.default = default_value(table, &field, &found, level);
    }
    Some(field)
}

fn field_type(table: &Table<'_>, level: Level) -> Option<FieldType> {
    let (named, of) = (table.text("type"), table.item("of"));
    let Found { value, spot } = named?;
    let ty = parse_type(table.report, &value, &spot)?;
    match (ty, of) {
        (Named::List, _) if level == Level::Object => {
            table.report.error_with(
                &spot,
                "objects of a list cannot hold lists",
                "use type json for nested data",
            );
            None
        }
        (Named::List, None) => {
            table.report.error_with(
                &spot,
                "a list needs `of`: the type of its elements",
                LIST_HINT,
            );
            None
        }
        (Named::List, Some(of)) => elements(table.report, &of),
        (ty, Some(of)) => {
            table.report.error(&of.spot, "`of` is only for type list");
            ty.plain()
        }
        (ty, None) => ty.plain(),
    }
}

fn elements(report: &Report<'_>, of: &Found<&Item>) -> Option<FieldType> {
    match &of.value.data {
        Data::Text { text, .. } => {
            let ty = parse_type(report, text, &of.spot)?.plain();
            match ty.filter(FieldType::is_scalar) {
                Some(ty) => Some(FieldType::List(Box::new(ty))),
                None => {
                    report.error_with(
                        &of.spot,
                        format!("a list cannot hold `{text}`"),
                        "use type json for nested data",
                    );
                    None
                }
            }
        }
        Data::Table(entries) => {
            let named = entries.iter().map(|(name, item)| {
                (name, Found { value: item, spot: of.spot.below(&name.text, &item.span) })
            });
            let fields = declared(report, &named.collect::<Vec<_>>(), Level::Object);
            if entries.is_empty() {
                report.error(&of.spot, "the objects of a list need at least one field");
                return None;
            }
            Some(FieldType::Objects(fields.into_iter().map(|f| f.field).collect::<Arc<[_]>>()))
        }
        Data::Broken => None,
        _ => {
            report.error(
                &of.spot,
                format!("`of` is a type or a table of fields, not {}", of.value.describe()),
            );
            None
        }
    }
}

/// Rules that the type of the field, or its level, does not have.
fn check_rules(table: &Table<'_>, field: &Field, level: Level) {
    let refuse = |key: &str, message: String| table.report.error(&table.spot_of(key), message);
    let ty = &field.ty;
    for (key, given) in [("unique", field.unique), ("index", field.index), ("search", field.search)]
    {
        if given && level == Level::Object {
            refuse(key, format!("`{key}` is not available for the fields of a list's objects"));
        }
    }
    if level == Level::Record {
        for (key, given) in [("unique", field.unique), ("index", field.index)] {
            if given && !ty.is_scalar() {
                refuse(key, format!("`{key}` is for single values, not for {ty}"));
            }
        }
        if field.search && !ty.is_text() {
            refuse("search", format!("`search` is for string and text, not for {ty}"));
        }
    }
    let has_length =
        matches!(ty, FieldType::Bytes | FieldType::List(_) | FieldType::Objects(_)) || ty.is_text();
    if field.max_length.is_some() && !has_length {
        refuse("max_length", format!("`max_length` is for text, bytes and lists, not for {ty}"));
    }
}

fn allowed_values(table: &Table<'_>, field: &Field, found: &Found<&Item>) -> Vec<Value> {
    if !field.ty.is_scalar() {
        table
            .report
            .error(&found.spot, format!("`enum` is for single values, not for {}", field.ty));
        return Vec::new();
    }
    let items = list(table.report, found.value, &found.spot);
    if items.is_empty() && matches!(found.value.data, Data::List(_)) {
        table.report.error(&found.spot, "`enum` allows nothing");
    }
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        let spot = Spot { span: item.span.clone(), key: found.spot.key.clone() };
        if let Some(value) = value(table.report, &field.ty, item, &spot) {
            if values.contains(&value) {
                table.report.error(&spot, "the value is given twice");
            }
            values.push(value);
        }
    }
    values
}

fn default_value(
    table: &Table<'_>,
    field: &Field,
    found: &Found<&Item>,
    level: Level,
) -> Option<Value> {
    if level == Level::Object {
        table
            .report
            .error(&found.spot, "`default` is not available for the fields of a list's objects");
        return None;
    }
    let value = value(table.report, &field.ty, found.value, &found.spot)?;
    if let Err(error) = field.check(&value) {
        table.report.error(&found.spot, format!("the default {}", error.message()));
    }
    Some(value)
}

fn value(report: &Report<'_>, ty: &FieldType, item: &Item, spot: &Spot) -> Option<Value> {
    let json = json(ty, item)?;
    match unisono_core::json::parse_value(ty, &json) {
        Ok(value) => Some(value),
        Err(error) => {
            report.error_maybe(
                spot,
                format!("the value {}", error.message()),
                error.hint_text().map(str::to_owned),
            );
            None
        }
    }
}

/// A TOML value as JSON; `None` if it is broken. Numbers for exact types go by their text.
pub(crate) fn json(ty: &FieldType, item: &Item) -> Option<Json> {
    Some(match &item.data {
        Data::Text { text, .. } | Data::Time(text) => Json::String(text.clone()),
        Data::Integer(n) => Json::from(*n),
        Data::Float(text) if matches!(ty, FieldType::Decimal { .. }) => Json::String(text.clone()),
        Data::Float(text) => Json::from(text.parse::<f64>().ok()?),
        Data::Boolean(b) => Json::Bool(*b),
        Data::List(items) => {
            let of = if let FieldType::List(of) = ty { of } else { ty };
            Json::Array(items.iter().map(|i| json(of, i)).collect::<Option<_>>()?)
        }
        Data::Table(entries) => {
            let fields = entries
                .iter()
                .map(|(name, item)| Some((name.text.clone(), json(&FieldType::Json, item)?)));
            Json::Object(fields.collect::<Option<_>>()?)
        }
        Data::Broken => return None,
    })
}

/// What is wrong with the key of an entity, if anything.
pub(crate) fn check_key(
    fields: &[DeclaredField],
    key: &Found<String>,
    report: &Report<'_>,
) -> bool {
    let Some(found) = fields.iter().find(|f| *f.field.name == *key.value) else {
        let hint = closest(&key.value, fields.iter().map(|f| f.field.name.as_ref()));
        let hint = hint.map(|meant| format!("did you mean `{meant}`?"));
        report.error_maybe(
            &key.spot,
            format!("the key `{}` is not among the fields", key.value),
            hint,
        );
        return false;
    };
    if !matches!(found.field.ty, FieldType::String | FieldType::Integer | FieldType::Uuid) {
        let message = format!("the key `{}` is of type {}", key.value, found.field.ty);
        report.error_with(&key.spot, message, "a key is of type string, integer or uuid");
        return false;
    }
    if found.field.default.is_some() {
        report.error(&found.spot, "a key cannot have a default: every record has its own");
        return false;
    }
    true
}
