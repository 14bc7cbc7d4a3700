//! What becomes of a field that both truths wrote without having seen each other: one file for each way.

mod counter;
mod last_writer;
mod max;
mod min;
mod union;

use unisono_core::{FieldType, Result, Value};

/// A way to bring two concurrent values of a field together.
#[derive(Debug)]
pub struct Merge {
    /// The word used in the configuration.
    pub name: &'static str,
    /// Which fields it is for, for people.
    pub takes: &'static str,
    /// Whether it is for fields of a type.
    pub fits: fn(&FieldType) -> bool,
    /// Whether one of two different values is lost by it.
    pub loses: bool,
    /// How.
    pub how: How,
}

/// How two values become one.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// From the values of the first and the second truth, and the number of the one that wins.
    Of(fn([&Value; 2], usize) -> Value),
    /// Each truth keeps what it has added, and the value is the sum.
    Sum,
}

impl PartialEq for Merge {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Every way.
pub const ALL: &[Merge] =
    &[last_writer::LAST_WRITER, counter::COUNTER, max::MAX, min::MIN, union::UNION];

/// Their words, as a configuration lists them.
pub const NAMES: &[&str] = &["last_writer", "counter", "max", "min", "union"];

/// That of fields for which none is declared.
pub const DEFAULT: &Merge = &ALL[0];

/// A way by its word.
pub fn named(name: &str) -> Option<&'static Merge> {
    ALL.iter().find(|merge| merge.name == name)
}

pub use counter::{part, sum};

/// Types whose values have an order that means something.
fn is_ordered(ty: &FieldType) -> bool {
    matches!(
        ty,
        FieldType::Integer
            | FieldType::Decimal { .. }
            | FieldType::Float
            | FieldType::Date
            | FieldType::Timestamp { .. }
            | FieldType::String
    )
}

/// What is the sum in the field's own type.
pub(super) type Sum = Result<Value>;
