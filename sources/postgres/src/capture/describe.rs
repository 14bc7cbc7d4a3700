//! What a table of an application is like, as an entity would be declared over it.

use std::sync::Arc;

use unisono_core::entity::check_name;
use unisono_core::kind::Options;
use unisono_core::source::Binding;
use unisono_core::{Described, Entity, Error, ErrorKind, Field, FieldType, Result, Role};

use crate::error::Failed;
use crate::schema::{Catalog, Found, Step};
use crate::session::Session;

/// The greatest number of digits that a decimal field has.
const DIGITS_MAX: i32 = 28;

/// Tries for every column whether all its values have the type that it is of; reads the whole table.
pub(crate) async fn describe(
    session: &Session,
    schema: &str,
    place: &str,
) -> Result<Described, Failed> {
    let catalog = Catalog { session, schema };
    let Some(columns) = catalog.columns(place).await? else {
        let error = Error::new(ErrorKind::NotFound, "there is no such table in the schema");
        return Err(error.with("table", place).with("schema", schema).into());
    };
    let mut described = Described { place: place.to_owned(), ..Described::default() };
    let ours = |name: &str| name.starts_with("unisono_");
    for name in catalog.order(place).await?.iter().filter(|name| !ours(name)) {
        let Some(found) = columns.get(name) else { continue };
        match fitting(&catalog, place, name, found).await? {
            Ok(field) => described.fields.push(field),
            Err(reason) => {
                if found.required && !found.has_default && !found.computed {
                    described.notes.push(format!(
                        "{name} needs a value: give it a default, or Unisono cannot make records"
                    ));
                }
                described.left_out.push((name.clone(), reason));
            }
        }
    }
    let can_be_key = |f: &&Field| {
        let is_scalar = matches!(f.ty, FieldType::String | FieldType::Integer | FieldType::Uuid);
        is_scalar && columns.get(f.name.as_ref()).is_some_and(|c| c.unique && c.required)
    };
    let primary = catalog.primary_key(place).await?;
    let keys: Vec<_> = described.fields.iter().filter(can_be_key).collect();
    let key = keys.iter().find(|f| Some(f.name.as_ref()) == primary.as_deref()).or(keys.first());
    described.key = key.map(|f| Arc::clone(&f.name));
    Ok(described)
}

async fn fitting(
    catalog: &Catalog<'_>,
    place: &str,
    name: &str,
    found: &Found,
) -> Result<std::result::Result<Field, String>, Failed> {
    if let Err(error) = check_name(name) {
        return Ok(Err(format!("the name cannot be that of a field: {}", error.message())));
    }
    let Some(ty) = candidate(found) else {
        return Ok(Err(format!("no type of a field is kept in {}", found.full)));
    };
    let field = Field { required: found.required, unique: found.unique, ..Field::new(name, ty) };
    // The key matters to neither test.
    let fields = vec![field.clone(), Field::new("unisono", FieldType::String)];
    let entity = Arc::new(Entity::new("described", "unisono", fields)?);
    let binding =
        Binding { entity, role: Role::Truth, place: place.into(), options: Options::default() };
    let step = Step { catalog, binding: &binding, notes: &mut Vec::new() };
    match step.try_field(&field, found).await {
        Ok(()) => Ok(Ok(field)),
        Err(failed) if failed.error.kind() == ErrorKind::SchemaMismatch => {
            Ok(Err(format!("not {}: {}", field.ty, failed.error)))
        }
        Err(failed) => Err(failed),
    }
}

/// The type of a field that a column keeps as it is.
fn candidate(found: &Found) -> Option<FieldType> {
    let inner = found.full.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    let numbers: Vec<i32> = inner
        .map_or("", |(inner, _)| inner)
        .split(',')
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    let precision = numbers.first().copied().unwrap_or(6).clamp(0, 6).unsigned_abs() as u8;
    Some(match found.base.as_str() {
        _ if found.is_enumeration => FieldType::String,
        "text" | "character varying" => FieldType::String,
        "bigint" | "integer" | "smallint" => FieldType::Integer,
        "numeric" => match numbers[..] {
            [digits @ 1..=DIGITS_MAX, scale] if (0..=digits).contains(&scale) => {
                FieldType::Decimal { precision: digits as u8, scale: scale as u8 }
            }
            [] => FieldType::Decimal { precision: DIGITS_MAX as u8, scale: 8 },
            _ => return None,
        },
        "boolean" => FieldType::Boolean,
        "double precision" => FieldType::Float,
        "date" => FieldType::Date,
        "timestamp with time zone" | "timestamp without time zone" => {
            FieldType::Timestamp { precision }
        }
        "uuid" => FieldType::Uuid,
        "bytea" => FieldType::Bytes,
        "json" | "jsonb" => FieldType::Json,
        _ => return None,
    })
}
