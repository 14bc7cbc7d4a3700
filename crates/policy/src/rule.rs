//! [`Rule`]: a condition in CEL over a record.

use unisono_core::error::{Error, Result};
use unisono_core::{Entity, Record};

/// A compiled condition such as `record.amount > 1000`.
pub struct Rule {
    text: String,
}

impl Rule {
    /// Compiles a condition that may use `record` and its declared fields.
    pub fn compile(_entity: &Entity, _text: &str) -> Result<Rule> {
        Err(Error::internal("not built"))
    }

    /// The text that it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a record satisfies it. A condition that cannot be decided for a record (a null operand) is not satisfied.
    pub fn holds(&self, _entity: &Entity, _record: &Record) -> bool {
        false
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rule").field(&self.text).finish()
    }
}
