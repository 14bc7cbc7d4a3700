//! The types of a condition: which operands fit together.

use std::fmt;
use std::sync::Arc;

use unisono_core::error::Result;
use unisono_core::{Field, FieldType, Value};

use super::invalid;
use super::tree::Node;

/// What a part of a condition gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    Null,
    Boolean,
    Number,
    Text,
    Bytes,
    Date,
    Timestamp,
    Duration,
    Uuid,
    List(Box<Type>),
    /// An element of a list of objects.
    Object(Arc<[Field]>),
    /// Known only at run time: below a `json` field.
    Any,
}

impl Type {
    pub(super) fn of_field(ty: &FieldType) -> Type {
        match ty {
            FieldType::String | FieldType::Text => Type::Text,
            FieldType::Integer | FieldType::Decimal { .. } | FieldType::Float => Type::Number,
            FieldType::Boolean => Type::Boolean,
            FieldType::Date => Type::Date,
            FieldType::Timestamp { .. } => Type::Timestamp,
            FieldType::Uuid => Type::Uuid,
            FieldType::Bytes => Type::Bytes,
            FieldType::Json => Type::Any,
            FieldType::List(of) => Type::List(Box::new(Type::of_field(of))),
            FieldType::Objects(fields) => Type::List(Box::new(Type::Object(Arc::clone(fields)))),
        }
    }

    /// Whether equality between the two can ever be meant.
    pub(super) fn meets(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Any | Type::Null, _) | (_, Type::Any | Type::Null) => true,
            (Type::Object(_), _) | (_, Type::Object(_)) => false,
            (Type::List(a), Type::List(b)) => a.meets(b),
            (a, b) => a == b,
        }
    }

    /// Whether values of the type have an order.
    fn is_ordered(&self) -> bool {
        !matches!(self, Type::List(_) | Type::Object(_) | Type::Null)
    }

    pub(super) fn require(&self, wanted: &Type, place: &str) -> Result<()> {
        if *self == *wanted || *self == Type::Any {
            return Ok(());
        }
        Err(invalid(format!("{place} takes {wanted}, not {self}")))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Null => "null",
            Type::Boolean => "true or false",
            Type::Number => "a number",
            Type::Text => "text",
            Type::Bytes => "bytes",
            Type::Date => "a date",
            Type::Timestamp => "a timestamp",
            Type::Duration => "a duration",
            Type::Uuid => "a uuid",
            Type::List(_) => "a list",
            Type::Object(_) => "an object",
            Type::Any => "a json value",
        })
    }
}

/// A node with its type.
pub(super) struct Typed {
    pub(super) node: Node,
    pub(super) ty: Type,
}

impl Typed {
    pub(super) fn new(node: Node, ty: Type) -> Self {
        Typed { node, ty }
    }
}

/// Makes two sides of a comparison fit, or says why they do not.
pub(super) fn agree(a: &mut Typed, b: &mut Typed, ordered: bool, operator: &str) -> Result<()> {
    take_literal(a, &b.ty)?;
    take_literal(b, &a.ty)?;
    if !a.ty.meets(&b.ty) {
        let mut error = invalid(format!("`{operator}` compares {} with {}", a.ty, b.ty));
        if a.ty == Type::Number || b.ty == Type::Number {
            error = error.hint("numbers are written without quotes");
        }
        return Err(error);
    }
    if ordered && !(a.ty.is_ordered() && b.ty.is_ordered()) {
        return Err(invalid(format!("`{operator}` has no order for {} and {}", a.ty, b.ty)));
    }
    Ok(())
}

/// CEL has no literals for dates, timestamps and UUIDs: quoted text beside one of them is taken as one.
pub(super) fn take_literal(side: &mut Typed, other: &Type) -> Result<()> {
    let ty = match other {
        Type::Date => FieldType::Date,
        Type::Timestamp => FieldType::Timestamp { precision: 6 },
        Type::Uuid => FieldType::Uuid,
        _ => return Ok(()),
    };
    if let Node::Constant(Value::String(text)) = &side.node {
        let value = parse_literal(&ty, text)?;
        *side = Typed::new(Node::Constant(value), other.clone());
    }
    Ok(())
}

/// A quoted literal of a type that CEL has no literals for.
pub(super) fn parse_literal(ty: &FieldType, text: &str) -> Result<Value> {
    unisono_core::json::parse_text(ty, text)
        .map_err(|e| invalid(format!("\"{text}\" {}", e.message())))
}
