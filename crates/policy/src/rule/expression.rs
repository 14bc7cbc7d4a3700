//! [`Expression`]: a value in CEL over a record, and over one element of a list in it.

use unisono_core::error::{Error, Result};
use unisono_core::json::parse_text;
use unisono_core::{Entity, FieldType, Record, Value};

use super::check::Type;
use super::resolve::{self, Names};
use super::tree::{Arithmetic, Node};
use super::{Rule, evaluate, invalid};

/// What an expression calls the element of the list that it is worked out for.
pub const ITEM: &str = "item";

/// A compiled value such as `record.user_id` or `item.price * item.quantity`.
#[derive(Debug)]
pub struct Expression {
    text: String,
    node: Node,
    ty: Type,
    declared: Option<FieldType>,
    /// The type of an element, if it is a list.
    element: Option<FieldType>,
}

impl Expression {
    /// Compiles a value over `record` and, if a list is given, one of its elements, `item`.
    ///
    /// Fails with `invalid_config`, naming what is not known or does not fit.
    pub fn compile(entity: &Entity, each: Option<&Expression>, text: &str) -> Result<Expression> {
        let value = Self::compile_any(entity, each, text)?;
        match value.ty {
            Type::Null => Err(no_value(&value.ty).of(entity.name())),
            _ => Ok(value),
        }
    }

    /// Compiles a value over `record`, which may be null.
    ///
    /// Fails with `invalid_config`, naming what is not known or does not fit.
    pub(crate) fn of_record(entity: &Entity, text: &str) -> Result<Expression> {
        Self::compile_any(entity, None, text)
    }

    fn compile_any(entity: &Entity, each: Option<&Expression>, text: &str) -> Result<Expression> {
        let names = Names { root: "record", other: None, entity, clock: false };
        let elements = each.iter().map(|list| (ITEM.to_owned(), list.element_type())).collect();
        let typed =
            Rule::within_stack(entity, text, |parsed| resolve::value(names, elements, parsed))?;
        let inferred = Inferred { entity, item: each.and_then(|list| list.element.clone()) };
        let declared = inferred.of(&typed.node, &typed.ty);
        let element = match (&declared, &typed.ty) {
            (Some(FieldType::List(of)), _) => Some((**of).clone()),
            // Its elements are objects: what is asked of them are their fields.
            (Some(objects @ FieldType::Objects(_)), _) => Some(objects.clone()),
            _ => None,
        };
        Ok(Expression { text: text.to_owned(), node: typed.node, ty: typed.ty, declared, element })
    }

    /// The text that it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The type of its values, as far as the declared fields tell: nothing is known of what is below `json`, nor of the
    /// digits of a quotient.
    pub fn field_type(&self) -> Option<&FieldType> {
        self.declared.as_ref()
    }

    /// Whether it gives a list, or may.
    pub fn is_list(&self) -> bool {
        matches!(self.ty, Type::List(_) | Type::Any)
    }

    /// Whether it gives true or false, or may.
    pub fn is_condition(&self) -> bool {
        matches!(self.ty, Type::Boolean | Type::Any)
    }

    /// Whether it is always null.
    pub(crate) fn is_null(&self) -> bool {
        self.ty == Type::Null
    }

    /// Whether its values can be those of a type, as far as can be told without a record.
    pub(crate) fn may_be(&self, ty: &FieldType) -> bool {
        if self.is_null() {
            return true;
        }
        match (ty, &self.declared) {
            (FieldType::List(_) | FieldType::Objects(_), declared) => declared.as_ref() == Some(ty),
            (FieldType::Json, Some(FieldType::Integer | FieldType::Float)) => true,
            (FieldType::Json, _) => matches!(self.ty, Type::Any | Type::Boolean | Type::Text),
            (FieldType::Integer, Some(FieldType::Decimal { .. } | FieldType::Float)) => false,
            (ty, _) => Type::of_field(ty).meets(&self.ty),
        }
    }

    /// What it gives, in words.
    pub(crate) fn described(&self) -> String {
        self.declared.as_ref().map_or_else(|| self.ty.to_string(), ToString::to_string)
    }

    /// How many elements its list has for a record; none if there is no list.
    pub fn length(&self, record: &Record) -> usize {
        evaluate::elements(&self.node, record)
    }

    /// Its value for a record, and the n-th element of a list. What cannot be worked out, such as a member that is not
    /// there or a division by zero, is null.
    pub fn value(&self, record: &Record, item: Option<(&Expression, usize)>) -> Value {
        evaluate::value(&self.node, record, item.map(|(list, n)| (&list.node, n)))
    }

    fn element_type(&self) -> Type {
        match &self.ty {
            Type::List(of) => (**of).clone(),
            _ => Type::Any,
        }
    }
}

/// Works out the declared type of a value from the declared types of the fields in it.
struct Inferred<'a> {
    entity: &'a Entity,
    item: Option<FieldType>,
}

impl Inferred<'_> {
    fn of(&self, node: &Node, ty: &Type) -> Option<FieldType> {
        match node {
            Node::Field(n) => match &self.entity.fields().get(*n)?.ty {
                FieldType::Json => None,
                ty => Some(ty.clone()),
            },
            Node::Element(0) => self.item.clone().filter(FieldType::is_scalar),
            Node::SubField(of, n) => match (&**of, &self.item) {
                (Node::Element(0), Some(FieldType::Objects(fields))) => {
                    Some(fields.get(*n)?.ty.clone())
                }
                _ => None,
            },
            Node::Calculate(operator, parts) => {
                let [a, b] = parts.as_ref();
                calculated(*operator, self.of(a, ty)?, self.of(b, ty)?)
            }
            Node::Negate(of) => self.of(of, ty),
            Node::Choose(parts) => {
                let [_, then, other] = parts.as_ref();
                let (then, other) = (self.of(then, ty)?, self.of(other, ty)?);
                (then == other).then_some(then)
            }
            Node::Constant(Value::Integer(_)) | Node::Size(_) => Some(FieldType::Integer),
            _ => match ty {
                Type::Boolean => Some(FieldType::Boolean),
                Type::Text => Some(FieldType::String),
                Type::Date => Some(FieldType::Date),
                Type::Timestamp => Some(FieldType::Timestamp { precision: 6 }),
                Type::Uuid => Some(FieldType::Uuid),
                _ => None,
            },
        }
    }
}

/// The type of a result that is exact whatever the operands are.
fn calculated(operator: Arithmetic, a: FieldType, b: FieldType) -> Option<FieldType> {
    let scale = |ty: &FieldType| match ty {
        FieldType::Integer => Some(0),
        FieldType::Decimal { scale, .. } => Some(*scale),
        _ => None,
    };
    if a == FieldType::Integer && b == FieldType::Integer {
        return Some(FieldType::Integer);
    }
    let (a, b) = (scale(&a)?, scale(&b)?);
    let scale = match operator {
        Arithmetic::Add | Arithmetic::Subtract => a.max(b),
        Arithmetic::Multiply => a.checked_add(b)?,
        Arithmetic::Divide | Arithmetic::Modulo => return None,
    };
    // As many digits as every kind of source keeps, unless the scale asks for more.
    let precision = if scale <= 14 { 18 } else { 28 };
    (scale <= 28).then_some(FieldType::Decimal { precision, scale })
}

/// The error for what no field can hold.
pub(super) fn refuse_as_value(ty: &Type) -> Result<()> {
    match ty {
        Type::Duration | Type::Object(_) => Err(no_value(ty)),
        _ => Ok(()),
    }
}

fn no_value(ty: &Type) -> Error {
    invalid(format!("a value is wanted, not {ty}"))
}

/// A value as one of a type; `invalid_input` if it is none. Nothing is rounded.
pub(crate) fn fit(ty: &FieldType, value: Value) -> Result<Value> {
    let same = matches!(
        (ty, &value),
        (_, Value::Null)
            | (FieldType::Json, _)
            | (FieldType::String | FieldType::Text, Value::String(_))
            | (FieldType::Integer, Value::Integer(_))
            | (FieldType::Boolean, Value::Boolean(_))
            | (FieldType::Float, Value::Float(_))
            | (FieldType::Bytes, Value::Bytes(_))
            | (FieldType::Date, Value::Date(_))
            | (FieldType::Uuid, Value::Uuid(_))
    );
    if same {
        return Ok(value);
    }
    let text = match value {
        Value::String(text) => text,
        Value::Integer(n) => n.to_string(),
        Value::Decimal(n) => n.normalize().to_string(),
        Value::Float(n) => n.to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Timestamp(time) => time.to_string(),
        Value::Date(date) => date.to_string(),
        Value::Uuid(uuid) => uuid.to_string(),
        Value::Json(json) => json.to_string(),
        _ => return Err(Error::invalid(format!("is not a value of type {ty}"))),
    };
    parse_text(ty, &text)
}
