//! Filters as SQL conditions.
//!
//! SQL's logic has three values and a filter's two. Without negation both find the same rows, as null counts as false
//! in the end; a negation is written `IS NOT TRUE`, which makes two values of three.

use rusqlite::types::Value as Sql;
use unisono_core::Value;
use unisono_core::query::{Comparison, Filter, Path, Step, successor};

use crate::codec::{Form, comparable};
use crate::query::functions::Test;
use crate::table::{Column, Table};

/// A condition with its parameters and the tests that it calls.
pub(crate) struct Conditions<'a> {
    table: &'a Table,
    /// In the order of the question marks.
    pub(crate) parameters: Vec<Sql>,
    /// By their number in `unisono_test`.
    pub(crate) tests: Vec<Test>,
}

impl<'a> Conditions<'a> {
    /// Nothing said yet about a table.
    pub(crate) fn new(table: &'a Table) -> Self {
        Conditions { table, parameters: Vec::new(), tests: Vec::new() }
    }

    /// The condition that a filter's records satisfy.
    pub(crate) fn filter(&mut self, filter: &Filter) -> String {
        match filter {
            Filter::All => "1".into(),
            Filter::And(all) => self.join(all, " AND ", "1"),
            Filter::Or(any) => self.join(any, " OR ", "0"),
            Filter::Not(inner) => format!("({}) IS NOT TRUE", self.filter(inner)),
            Filter::Compare(path, comparison, value) => {
                let sign = sign(*comparison);
                self.native(filter, path, &[value], |column, marks| {
                    format!("{column} {sign} {}", marks.join(""))
                })
            }
            Filter::In(path, values) => {
                let values: Vec<_> = values.iter().collect();
                self.native(filter, path, &values, |column, marks| {
                    format!("{column} IN ({})", marks.join(", "))
                })
            }
            Filter::Between(path, low, high) => {
                self.native(filter, path, &[low, high], |column, marks| {
                    format!("{column} BETWEEN {}", marks.join(" AND "))
                })
            }
            Filter::Like(path, like) => {
                let narrowed = self.begins_with(path, &literal_start(&like.0));
                let tested = self.test(filter, path);
                narrowed.map_or(tested.clone(), |narrowed| format!("({narrowed} AND {tested})"))
            }
            Filter::Prefix(path, start) => {
                self.begins_with(path, start).unwrap_or_else(|| self.test(filter, path))
            }
            Filter::Contains(path, _) => self.test(filter, path),
            Filter::IsNull(path) if path.step == Step::Whole => match self.column(path) {
                Some(column) => format!("{} IS NULL", column.name),
                None => "1".into(),
            },
            Filter::IsNull(path) => self.test(filter, path),
        }
    }

    /// The mark of a parameter.
    pub(crate) fn bind(&mut self, value: Sql) -> String {
        self.parameters.push(value);
        format!("?{}", self.parameters.len())
    }

    fn join(&mut self, filters: &[Filter], word: &str, of_none: &str) -> String {
        if filters.is_empty() {
            return of_none.into();
        }
        let parts: Vec<_> = filters.iter().map(|f| self.filter(f)).collect();
        format!("({})", parts.join(word))
    }

    /// A condition on the column itself, if the column orders like its values and can hold the given ones.
    fn native(
        &mut self,
        filter: &Filter,
        path: &Path,
        values: &[&Value],
        condition: impl FnOnce(&str, &[String]) -> String,
    ) -> String {
        let column = self.column(path).filter(|_| path.step == Step::Whole);
        let encoded =
            column.and_then(|c| values.iter().map(|v| comparable(c.form, &c.ty, v)).collect());
        let (Some(column), Some(encoded)) = (column, encoded) else {
            return self.test(filter, path);
        };
        let encoded: Vec<Sql> = encoded;
        let marks: Vec<_> = encoded.into_iter().map(|value| self.bind(value)).collect();
        condition(&column.name, &marks)
    }

    /// The test of one field by the reference evaluator.
    fn test(&mut self, filter: &Filter, path: &Path) -> String {
        // A path is resolved against the entity, so its column is there; eval finds nothing where there is no field.
        let Some(column) = self.column(path) else { return "0".into() };
        self.tests.push(Test::new(&self.table.entity, filter, path.field, &column.ty, column.form));
        format!("unisono_test({}, {})", self.tests.len() - 1, column.name)
    }

    /// Text that begins with another lies in a range, which an index serves; `None` for what is not a text column.
    fn begins_with(&mut self, path: &Path, start: &str) -> Option<String> {
        let column =
            self.column(path).filter(|c| path.step == Step::Whole && c.form == Form::Text)?;
        let low = self.bind(Sql::Text(start.to_owned()));
        let Some(end) = successor(start) else { return Some(format!("{} >= {low}", column.name)) };
        let high = self.bind(Sql::Text(end));
        Some(format!("({0} >= {low} AND {0} < {high})", column.name))
    }

    fn column(&self, path: &Path) -> Option<&'a Column> {
        self.table.columns.get(path.field)
    }
}

fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Eq => "=",
        Comparison::Ne => "<>",
        Comparison::Lt => "<",
        Comparison::Lte => "<=",
        Comparison::Gt => ">",
        Comparison::Gte => ">=",
    }
}

/// What every text that matches a pattern begins with.
fn literal_start(pattern: &str) -> String {
    let mut start = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' | '_' => break,
            '\\' => start.push(chars.next().unwrap_or('\\')),
            c => start.push(c),
        }
    }
    start
}
