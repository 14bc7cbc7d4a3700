//! [`Dialect`]: how one table of an engine is spoken of in SQL; [`Rows`]: how its statements are run.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::query::Filter;
use unisono_core::{Entity, Record, Result, Stored, Value};

/// How one entity's table is spoken of in the SQL of its engine.
///
/// The engine must know `TRUE`, `FALSE`, `IS NULL`, `IS NOT TRUE`, `IN`, `BETWEEN`, `LIKE … ESCAPE` and `LIMIT`.
pub trait Dialect: Sync {
    /// What a statement carries in the place of a mark.
    type Parameter: Clone + Send + Sync;

    /// The entity, whose fields are meant by their index.
    fn entity(&self) -> &Arc<Entity>;

    /// What stands behind `FROM`: the quoted name of the table, or a join.
    fn table(&self) -> &str;

    /// The column of a field as it is selected.
    fn selected(&self, field: usize) -> &str;

    /// The version as it is selected.
    fn version(&self) -> &str;

    /// The mark of a parameter by its number, from 1: `$1`, or `?` where marks have no number.
    ///
    /// Parameters are always given in the order in which their marks stand in the text, each used once.
    fn mark(&self, number: usize, parameter: &Self::Parameter) -> String;

    /// The column of a scalar field as an expression whose `=`, `<`, `>` are exactly [`Value::order`];
    /// `None` if the engine cannot compare it so.
    fn comparable(&self, field: usize) -> Option<Cow<'_, str>>;

    /// A value as [`Dialect::comparable`] is compared with it; `None` for one that the column cannot hold.
    fn parameter(&self, field: usize, value: &Value) -> Option<Self::Parameter>;

    /// A pattern of `LIKE … ESCAPE '|'`, its text already as columns keep it.
    fn pattern(&self, pattern: String) -> Self::Parameter;

    /// Text as columns keep it; see [`crate::text`]. Must keep order and concatenation.
    fn stored_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        Cow::Borrowed(text)
    }

    /// What is true of the values of a text column that [`Dialect::stored_text`] keeps in another form; `None` if
    /// there is no other form. Tests that go by character (`_`) or look for a text in another cannot decide these.
    fn irregular(&self, _column: &str) -> Option<String> {
        None
    }

    /// An order criterion with null before every value: `name DESC NULLS LAST`.
    fn order(&self, column: &str, descending: bool) -> String;

    /// A condition for a test below a `json` field, a list or a list of objects, or on a column that is not
    /// comparable; `None` if the engine cannot narrow it down. `bind` gives a parameter's mark.
    fn nested(
        &self,
        _test: &Filter,
        _bind: &mut dyn FnMut(Self::Parameter) -> String,
    ) -> Option<Condition> {
        None
    }
}

/// An SQL condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its text, safe to be joined by `AND` and `OR`.
    pub sql: String,
    /// Whether records that do not match can satisfy it too; all that match do.
    pub narrowed: bool,
}

/// A statement with its parameters.
#[derive(Clone, Debug)]
pub struct Statement<P> {
    /// The text.
    pub sql: String,
    /// In the order of the marks.
    pub parameters: Vec<P>,
}

/// Takes one record after the other.
pub type Each<'a> = dyn FnMut(&Record) -> Result<()> + Send + 'a;

/// Runs statements, all of one snapshot, and decodes their rows.
#[async_trait]
pub trait Rows<P>: Send {
    /// The records of a statement that selects every field in order, then the version.
    async fn records(&mut self, statement: Statement<P>) -> Result<Vec<Stored>>;

    /// Gives `each` one record for every row of a statement that selects the given fields in order, then the
    /// version; its other fields are null. Rows must not be gathered: there may be very many.
    async fn parts(
        &mut self,
        statement: Statement<P>,
        fields: &[usize],
        each: &mut Each<'_>,
    ) -> Result<()>;

    /// The number in the only row.
    async fn number(&mut self, statement: Statement<P>) -> Result<u64>;

    /// Pairs of a field's value and a number.
    async fn numbers(&mut self, statement: Statement<P>, field: usize)
    -> Result<Vec<(Value, u64)>>;
}
