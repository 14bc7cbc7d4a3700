//! The resolved form of a condition.

use std::time::Duration;

use unisono_core::{Decimal, Value};

/// One operation of a condition. Which operands fit was checked when it was resolved, except below `json`.
#[derive(Debug)]
pub(super) enum Node {
    /// A literal.
    Constant(Value),
    /// A literal number with a point, in both forms.
    Number(Decimal, f64),
    /// `duration("…")`.
    Duration(Duration),
    /// The time at which it is decided.
    Now,
    /// The n-th field of the record.
    Field(usize),
    /// The element of the n-th enclosing `exists` or `all`, counted from outside.
    Element(usize),
    /// The n-th declared sub-field of an element.
    SubField(Box<Node>, usize),
    /// A member of a JSON object.
    Member(Box<Node>, String),
    /// An element of a list, or of a JSON array.
    At(Box<Node>, usize),
    /// Whether something is there and not null.
    Has(Box<Node>),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    /// Condition, then, else.
    Choose(Box<[Node; 3]>),
    Compare(Comparison, Box<[Node; 2]>),
    Calculate(Arithmetic, Box<[Node; 2]>),
    Negate(Box<Node>),
    /// Whether a value is an element of a list, or the name of a member of a JSON object.
    In(Box<[Node; 2]>),
    /// Whether a value is one of these.
    Among(Box<Node>, Vec<Node>),
    Text(TextTest, Box<[Node; 2]>),
    Size(Box<Node>),
    /// List and test of its elements.
    Exists(Box<[Node; 2]>),
    /// List and test of its elements.
    All(Box<[Node; 2]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Lte,
    Gt,
    Gte,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}
