//! [`Declared`]: a projection as a configuration has it, in CEL.

use std::sync::Arc;

use unisono_core::{Entity, Error, ErrorKind, FieldType, Record, Result, Value};

use super::{Contributes, Contribution, Function, Kept, Projection, Shape};
use crate::rule::{Expression, Rule, fit};

/// A projection as a configuration has it.
pub struct Declared {
    /// Which records contribute; all if absent.
    pub filter: Option<Arc<Rule>>,
    /// A list in a record, each of whose elements contributes; the record itself does if absent.
    pub each: Option<Arc<Expression>>,
    /// What contributions are grouped by.
    pub key: Vec<DeclaredKey>,
    /// What is kept of each group.
    pub fields: Vec<DeclaredValue>,
}

/// One part of a key.
pub struct DeclaredKey {
    /// Its name.
    pub name: Arc<str>,
    /// Its value for a contribution.
    pub value: Expression,
}

/// One field.
pub struct DeclaredValue {
    /// Its name.
    pub name: Arc<str>,
    /// How it is worked out.
    pub function: Function,
    /// Of what; nothing is needed for a count.
    pub value: Option<Expression>,
    /// Which contributions it is worked out from; all if absent.
    pub filter: Option<Expression>,
    /// The type of the values, where it cannot be told from declared fields or is to be another one.
    pub ty: Option<FieldType>,
}

/// Works out contributions by expressions.
struct Expressions {
    each: Option<Arc<Expression>>,
    key: Vec<(Expression, FieldType)>,
    fields: Vec<(Option<Expression>, Option<Expression>, FieldType)>,
}

impl Declared {
    /// The projection; `invalid_config` for what does not fit together.
    pub fn compile(self, name: &str, from: &Arc<Entity>) -> Result<Projection> {
        let definition = self.definition(from);
        let mut shape = Shape { key: Vec::new(), fields: Vec::new() };
        let mut by = Expressions { each: self.each, key: Vec::new(), fields: Vec::new() };
        for DeclaredKey { name, value } in self.key {
            let ty = match value.field_type().filter(|ty| ty.is_scalar()) {
                Some(FieldType::Text) => FieldType::String,
                Some(ty) => ty.clone(),
                // What is below `json` is grouped by its text.
                None => FieldType::String,
            };
            shape.key.push((name, ty.clone()));
            by.key.push((value, ty));
        }
        for DeclaredValue { name, function, value, filter, ty } in self.fields {
            let inferred = value.as_ref().and_then(|value| value.field_type().cloned());
            let input = match (function, ty.or(inferred)) {
                (Function::Count, _) => FieldType::Boolean,
                (_, Some(ty)) => ty,
                (Function::Distinct, None) => FieldType::String,
                (_, None) => {
                    let message = "it cannot be told of which type the values are";
                    return Err(Error::new(ErrorKind::InvalidConfig, message)
                        .with("field", &name)
                        .hint("give it a `type`, such as \"decimal(18,2)\""));
                }
            };
            shape.fields.push(Kept::new(&name, function, input.clone())?);
            by.fields.push((value, filter, input));
        }
        Projection::new(name, from, self.filter, shape, &definition, Arc::new(by))
    }

    /// Everything that decides what rows are like, as a text.
    fn definition(&self, from: &Entity) -> String {
        let text = |value: &Option<Expression>| match value {
            Some(value) => value.text().to_owned(),
            None => String::new(),
        };
        let mut definition = format!("from {}", from.name());
        if let Some(filter) = &self.filter {
            definition += &format!("; where {}", filter.text());
        }
        if let Some(each) = &self.each {
            definition += &format!("; each {}", each.text());
        }
        for key in &self.key {
            definition += &format!("; by {}: {}", key.name, key.value.text());
        }
        for field in &self.fields {
            let (value, filter) = (text(&field.value), text(&field.filter));
            let ty = field.ty.as_ref().map_or(String::new(), ToString::to_string);
            let (name, function) = (&field.name, field.function);
            definition += &format!("; {name}: {function:?}({value}) where {filter} as {ty}");
        }
        definition
    }
}

impl Expressions {
    fn contribution(&self, record: &Record, n: Option<usize>) -> Result<Contribution> {
        let item = self.each.as_deref().zip(n);
        let key = self.key.iter().map(|(value, ty)| fit(ty, value.value(record, item)));
        let values = self.fields.iter().map(|(value, filter, ty)| {
            let counts = |f: &Expression| f.value(record, item) == Value::Boolean(true);
            match (filter.as_ref().is_none_or(counts), value) {
                (false, _) => Ok(Value::Null),
                (true, None) => Ok(Value::Boolean(true)),
                (true, Some(value)) => fit(ty, value.value(record, item)),
            }
        });
        Ok(Contribution {
            key: key.collect::<Result<_>>()?,
            values: values.collect::<Result<_>>()?,
        })
    }
}

impl Contributes for Expressions {
    fn contributions(&self, record: &Record) -> Result<Vec<Contribution>> {
        match &self.each {
            None => Ok(vec![self.contribution(record, None)?]),
            Some(each) => {
                (0..each.length(record)).map(|n| self.contribution(record, Some(n))).collect()
            }
        }
    }
}
