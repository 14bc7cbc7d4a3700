//! `[projections.NAME]`: rows worked out from the records of an entity, which are kept as an entity of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::{Entity, Error, FieldType, stream};
use unisono_policy::ack::AckPolicy;
use unisono_policy::declaration::EntityDeclaration;
use unisono_policy::projection::{
    BESIDE, Declared, DeclaredKey, DeclaredValue, Function, Projection,
};
use unisono_policy::rule::{Expression, Rule};
use unisono_policy::write::WritePolicy;

use crate::document::Data;
use crate::entities::{DeclaredEntity, Surroundings, is_free_name, targets};
use crate::fields::DeclaredField;
use crate::policies;
use crate::problem::{Spot, meant};
use crate::sections::{PROJECTED, PROJECTION};
use crate::table::{Found, Table};
use crate::types;

type Entities = BTreeMap<String, DeclaredEntity>;

/// Reads `[projections]` and adds what their rows are to the entities.
pub(crate) fn projections(file: &Table<'_>, around: Surroundings<'_>, entities: &mut Entities) {
    let mut found: Vec<(String, DeclaredEntity)> = Vec::new();
    for (name, item) in file.named("projections") {
        let spot = Spot { span: name.span.clone(), key: item.spot.key.clone() };
        if entities.contains_key(&name.text) {
            let message = format!("`{}` is an entity already", name.text);
            file.report.error_with(&spot, message, "give the projection another name");
            continue;
        }
        let beside = format!("{}{BESIDE}", name.text);
        let is_taken = |other: &String| *other == beside || format!("{other}{BESIDE}") == name.text;
        if entities.contains_key(&beside) || found.iter().any(|(other, _)| is_taken(other)) {
            let message =
                format!("`{}` is rebuilt beside itself, under a name that is taken", name.text);
            file.report.error_with(&spot, message, "give one of the two another name");
            continue;
        }
        if !is_free_name(file.report, &name.text, "a projection", &spot) {
            continue;
        }
        let Some(table) = Table::new(file.report, &PROJECTION, item.value, item.spot) else {
            continue;
        };
        found.push((name.text.clone(), projection(table, &name.text, &spot, around, entities)));
    }
    // What a projection is worked out from is no projection.
    entities.extend(found);
}

fn projection(
    table: Table<'_>,
    name: &str,
    spot: &Spot,
    around: Surroundings<'_>,
    entities: &Entities,
) -> DeclaredEntity {
    let from = from(&table, entities);
    let source = from.as_ref().and_then(|from| from.declaration.as_ref());
    let projection = declared(&table, source.map(|source| &source.entity), name, spot);
    let field = |f: &unisono_core::Field| DeclaredField { field: f.clone(), spot: spot.clone() };
    let fields: Vec<_> = projection
        .iter()
        .flat_map(|p| p.rows.fields().iter().chain(p.groups.fields()))
        .map(field)
        .collect();
    let rows = projection.as_ref().map(|p| &p.rows);
    let (followers, uses) = targets(&table, name, &fields, rows, around);
    if uses.is_empty() {
        let hint = format!("name a source that keeps them: [[projections.{name}.targets]]");
        table.report.error_with(&table.spot, "the rows are kept nowhere".to_owned(), hint);
    }
    let targets = followers.as_ref().map_or(0, Vec::len);
    let read = policies::read(&table, &uses, targets);
    table.finish();
    let all = || {
        let projection = projection?;
        Some(EntityDeclaration {
            entity: Arc::clone(&projection.rows),
            truth: Arc::clone(&source?.truth),
            table: None,
            truth_options: Default::default(),
            cache: None,
            followers: followers?,
            read: read?,
            write: WritePolicy::default(),
            ack: AckPolicy::default(),
            strategy: None,
            adaptive: None,
            projection: Some(Arc::new(projection)),
            sync: None,
        })
    };
    DeclaredEntity { declaration: all(), uses }
}

/// What it is worked out from.
fn from<'e>(table: &Table<'_>, entities: &'e Entities) -> Option<&'e DeclaredEntity> {
    let (from, streams) = (table.text("from"), table.text("streams"));
    let (found, name, kind) = match (from, streams) {
        (Some(from), None) => {
            let name = from.value.clone();
            (from, name, "entity")
        }
        (None, Some(streams)) => {
            let name = stream::entity_name(&streams.value);
            (streams, name, "type of streams")
        }
        _ => {
            let message = "a projection is worked out either `from` an entity or from `streams`";
            table.report.error_with(&table.spot, message.to_owned(), "give one of the two");
            return None;
        }
    };
    let declared = entities.get(&name);
    if declared.is_none() {
        let hint = meant(&found.value, entities.keys().map(String::as_str), || {
            "declare it, or name another one".to_owned()
        });
        let message = format!("there is no {kind} `{}`", found.value);
        table.report.error_with(&found.spot, message, hint);
    }
    declared
}

/// What is worked out; `None` if a problem was reported, or is of the entity.
fn declared(
    table: &Table<'_>,
    from: Option<&Arc<Entity>>,
    name: &str,
    spot: &Spot,
) -> Option<Projection> {
    let (filter, each) = (table.text("where"), table.text("each"));
    let (keys, fields) = (table.named("key"), table.named("fields"));
    let from = from?;
    let report = |spot: &Spot, error: &Error| refuse(table, spot, error);
    let checked = |found: &Found<String>, result: unisono_core::Result<Expression>| {
        result.map_err(|error| report(&found.spot, &error)).ok()
    };
    let filter = match filter {
        None => None,
        Some(text) => match Rule::compile(from, &text.value) {
            Ok(rule) => Some(Arc::new(rule)),
            Err(error) => {
                report(&text.spot, &error);
                return None;
            }
        },
    };
    let each = match each {
        None => None,
        Some(text) => {
            let list = checked(&text, Expression::compile(from, None, &text.value))?;
            Some(Arc::new(some_list(table, &text.spot, list)?))
        }
    };
    let compile = |text: &Found<String>| {
        checked(text, Expression::compile(from, each.as_deref(), &text.value))
    };
    let key = keys.into_iter().map(|(name, found)| {
        let Data::Text { text, .. } = &found.value.data else {
            let message = format!("takes a value in CEL, not {}", found.value.describe());
            table.report.error(&found.spot, message);
            return None;
        };
        let text = Found { value: text.clone(), spot: found.spot };
        Some(DeclaredKey { name: name.text.as_str().into(), value: compile(&text)? })
    });
    let key: Vec<_> = key.collect();
    let fields = fields.into_iter().map(|(name, found)| {
        let table = Table::new(table.report, &PROJECTED, found.value, found.spot)?;
        field(table, &name.text, &compile)
    });
    let fields: Vec<_> = fields.collect();
    let declared = Declared {
        filter,
        each: each.clone(),
        key: key.into_iter().collect::<Option<_>>()?,
        fields: fields.into_iter().collect::<Option<_>>()?,
    };
    declared
        .compile(name, from)
        .map_err(|error| {
            let at = error.detail("field").map(|field| format!("the field `{field}`: "));
            let message = format!("{}{}", at.unwrap_or_default(), error.message());
            table.report.error_maybe(spot, message, error.hint_text().map(str::to_owned));
        })
        .ok()
}

/// Reports what is wrong with an expression.
fn refuse(table: &Table<'_>, spot: &Spot, error: &Error) {
    let at = error.detail("column").map_or(String::new(), |n| format!(" (at its character {n})"));
    let message = format!("{}{at}", error.message());
    table.report.error_maybe(spot, message, error.hint_text().map(str::to_owned));
}

fn some_list(table: &Table<'_>, spot: &Spot, each: Expression) -> Option<Expression> {
    if each.is_list() {
        return Some(each);
    }
    let hint = "name a field that is a list, such as record.lines";
    table.report.error_with(spot, "`each` takes a list".to_owned(), hint);
    None
}

/// One field; `None` if a problem was reported.
fn field(
    table: Table<'_>,
    name: &str,
    compile: &dyn Fn(&Found<String>) -> Option<Expression>,
) -> Option<DeclaredValue> {
    let counts = table.item("count").is_some() && table.boolean("count") != Some(false);
    let mut given: Vec<(Function, Option<Found<String>>)> = Vec::new();
    given.extend(counts.then_some((Function::Count, None)));
    for (key, function) in Function::ALL.into_iter().filter(|(_, f)| *f != Function::Count) {
        if let Some(text) = table.text(key) {
            given.push((function, Some(text)));
        }
    }
    let (filter, ty) = (table.text("where"), table.text("type"));
    let (report, spot) = (table.report, table.spot.clone());
    table.finish();
    if given.len() != 1 {
        let names = Function::ALL.map(|(name, _)| name).join(", ");
        let message = format!("`{name}` is one of {names}");
        report.error_with(&spot, message, "write it like { sum = \"record.amount\" }".to_owned());
        return None;
    }
    let (function, value) = given.pop()?;
    let value = match &value {
        None => None,
        Some(text) => Some(compile(text)?),
    };
    let filter = match &filter {
        None => None,
        Some(text) => Some(compile(text).filter(|filter| {
            let decides = filter.is_condition();
            if !decides {
                report.error(&text.spot, "a condition is wanted");
            }
            decides
        })?),
    };
    let ty: Option<FieldType> = match ty {
        None => None,
        Some(text) => Some(types::parse_type(report, &text.value, &text.spot)?.plain()?),
    };
    Some(DeclaredValue { name: name.into(), function, value, filter, ty })
}
