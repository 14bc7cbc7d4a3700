//! [`Mapping`]: what a follower keeps of a record where its `map` works some fields out anew.
//!
//! A mapping is a pure function of the record, so the same record is kept in the same way whenever and by whomever it is
//! delivered, copied, compared or repaired. Along `after` mappings follow each other: each takes what the one before
//! leaves. A record of which a field cannot be kept as it is worked out is refused as a whole.

use std::fmt::Write as _;
use std::sync::Arc;

use unisono_core::json::value_to_json;
use unisono_core::{Entity, Error, ErrorKind, Field, FieldType, Record, Result, Value};

use crate::declaration::FollowerDeclaration;
use crate::rule::{Expression, fit};

/// Fields of a record that are worked out anew, and what is done before.
#[derive(Debug)]
pub struct Mapping {
    before: Option<Arc<Mapping>>,
    /// The number of each field, and its value.
    fields: Vec<(usize, Arc<Expression>)>,
    text: String,
}

impl Mapping {
    /// Compiles a `map`: names of fields, and their values in CEL over `record`.
    ///
    /// Fails with `invalid_config`, naming the `field` that cannot be worked out so.
    pub fn compile<'a>(
        entity: &Entity,
        map: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Mapping> {
        let (mut fields, mut text) = (Vec::new(), String::from("map"));
        for (name, value) in map {
            fields.push(field(entity, name, value).map_err(|error| error.with("field", name))?);
            // Writing to a text does not fail.
            let _ = write!(text, " {name}: {value};");
        }
        Ok(Mapping { before: None, fields, text })
    }

    /// What a follower keeps of a record: its own `map`, behind those of the followers that it comes `after`, nearest
    /// last; nothing if all of them keep records as they are.
    pub fn of(source: &str, followers: &[FollowerDeclaration]) -> Option<Arc<Mapping>> {
        let mut steps = Vec::new();
        let mut next = Some(source);
        // Each follower is in a chain once, unless it comes after itself, which nobody runs.
        for _ in 0..followers.len() {
            let Some(name) = next else { break };
            let Some(follower) = followers.iter().find(|f| *f.source == *name) else { break };
            steps.extend(follower.map.clone());
            next = follower.delivery.after.as_deref();
        }
        let behind = |before: Option<Arc<Mapping>>, step: Arc<Mapping>| {
            Some(match before {
                None => step,
                Some(before) => Arc::new(Self::chained(before, &step)),
            })
        };
        steps.into_iter().rev().fold(None, behind)
    }

    fn chained(before: Arc<Mapping>, step: &Mapping) -> Mapping {
        let text = format!("{} {}", before.text, step.text);
        Mapping { before: Some(before), fields: step.fields.clone(), text }
    }

    /// What is kept of a record.
    ///
    /// Fails with `constraint_violated`, naming the `field`, if a value is none that the field takes. Nothing is rounded.
    /// What cannot be worked out, such as a quotient of zero, is null, which a required field does not take.
    pub fn apply(&self, entity: &Entity, record: &Record) -> Result<Record> {
        let record = match &self.before {
            None => record.clone(),
            Some(before) => before.apply(entity, record)?,
        };
        // All are worked out from the record as it comes, not from each other.
        let worked_out = self.fields.iter().map(|(n, expression)| {
            let field = &entity.fields()[*n];
            let value = kept(field, expression.value(&record, None));
            value.map(|value| (*n, value)).map_err(|why| {
                // Without the value: reasons are shown where records are not.
                let why = why.message();
                let message = format!("`map` gives no value that the field takes: it {why}");
                Error::new(ErrorKind::ConstraintViolated, message).with("field", &field.name)
            })
        });
        let worked_out = worked_out.collect::<Result<Vec<_>>>()?;
        let mut mapped = record;
        for (n, value) in worked_out {
            mapped.values_mut()[n] = value;
        }
        Ok(mapped)
    }

    /// The texts that it was compiled from: what is the same has the same.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Mapping {
    /// Whether the texts are the same; over the same fields they mean the same.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// One field of a `map`.
fn field(entity: &Entity, name: &str, value: &str) -> Result<(usize, Arc<Expression>)> {
    let refuse = |message: String| Error::new(ErrorKind::InvalidConfig, message);
    let Some(number) = entity.index_of(name) else {
        return Err(refuse(format!("the entity has no field `{name}`"))
            .hint("a `map` works out fields of the entity: declare it there"));
    };
    if number == entity.key_index() {
        return Err(refuse(format!("`{name}` is the key, by which records are told apart"))
            .hint("leave it out"));
    }
    let is_personal = |p: &Arc<unisono_core::personal::Personal>| {
        p.fields.iter().any(|path| path.field == number)
    };
    if entity.personal().is_some_and(is_personal) {
        return Err(refuse(format!("`{name}` is personal, and sources hold it encrypted"))
            .hint("work out fields that are not personal"));
    }
    let expression = Expression::of_record(entity, value)?;
    let field = &entity.fields()[number];
    if field.required && expression.is_null() {
        return Err(refuse(format!("`{name}` is required, and cannot be null")));
    }
    match expression.may_be(&field.ty) {
        true => Ok((number, Arc::new(expression))),
        false => {
            let given = expression.described();
            Err(refuse(format!("`{name}` is a field of type {}, and gets {given}", field.ty)))
        }
    }
}

/// A value as the field keeps it, if it takes it.
fn kept(field: &Field, value: Value) -> Result<Value> {
    let value = match (&field.ty, value) {
        (FieldType::Json, value) => json(value)?,
        // Only lists of the same type come so far.
        (FieldType::List(_) | FieldType::Objects(_), value) => value,
        (ty, value) => fit(ty, value)?,
    };
    field.check(&value)?;
    Ok(value)
}

/// A value as JSON.
fn json(value: Value) -> Result<Value> {
    let ty = match &value {
        Value::Null | Value::Json(_) => return Ok(value),
        Value::String(_) => FieldType::String,
        Value::Integer(_) => FieldType::Integer,
        Value::Float(_) => FieldType::Float,
        Value::Boolean(_) => FieldType::Boolean,
        _ => return Err(Error::invalid("is not a value of JSON")),
    };
    Ok(Value::Json(value_to_json(&ty, &value)))
}

#[cfg(test)]
mod tests;
