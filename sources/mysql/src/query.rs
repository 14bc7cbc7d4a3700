//! Questions as SQL of the server, run in one snapshot.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use mysql_async::Row;
use unisono_core::source::At;
use unisono_core::{Entity, Error, Position, Record, Result, Stored, Value};
use unisono_sql::text::escape;
use unisono_sql::{Dialect, Each, Rows, Statement};

use crate::client::{Client, Snapshot};
use crate::codec::{Form, comparable, decode, number_of};
use crate::error::Failed;
use crate::literal::text;
use crate::pool::Session;
use crate::table::{Table, cell};

/// Statements carry their values as literals, which stand where the marks would.
impl Dialect for Table {
    type Parameter = String;

    fn entity(&self) -> &Arc<Entity> {
        &self.entity
    }

    fn table(&self) -> &str {
        &self.name
    }

    fn selected(&self, field: usize) -> &str {
        self.columns.get(field).map_or("NULL", |c| &c.name)
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn mark(&self, _number: usize, literal: &String) -> String {
        literal.clone()
    }

    fn comparable(&self, field: usize) -> Option<Cow<'_, str>> {
        let column = self.columns.get(field).filter(|c| c.form != Form::Json)?;
        Some(Cow::Borrowed(&column.compared))
    }

    fn parameter(&self, field: usize, value: &Value) -> Option<String> {
        let column = self.columns.get(field)?;
        comparable(column.form, &column.ty, value)
    }

    fn stored_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        escape(text)
    }

    fn irregular(&self, column: &str) -> Option<String> {
        Some(format!("{column} LIKE '%\u{1}%'"))
    }

    fn pattern(&self, pattern: String) -> String {
        text(&pattern)
    }

    /// The server too takes null for less than every value.
    fn order(&self, column: &str, descending: bool) -> String {
        format!("{column}{}", if descending { " DESC" } else { "" })
    }
}

/// A table in an open snapshot.
pub(crate) struct TableRows {
    table: Arc<Table>,
    session: Session,
    position: Position,
    source: Arc<str>,
    operation: &'static str,
}

impl TableRows {
    /// Opens a snapshot of the table of an entity.
    pub(crate) async fn open(
        client: &Client,
        operation: &'static str,
        entity: &Entity,
    ) -> Result<Self> {
        let table = client.table(entity.name())?;
        let source = Arc::clone(client.name());
        let opened = client.snapshot(&table, "").await;
        let Snapshot { session, position, .. } =
            opened.map_err(|failed| failed.error.on(operation).at(&source).of(entity.name()))?;
        Ok(TableRows { table, session, position, source, operation })
    }

    /// The table.
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table)
    }

    /// Closes the snapshot; the answer gets its position, and a failure the place where it happened.
    pub(crate) async fn end<T>(self, answer: Result<T>) -> Result<At<T>> {
        let TableRows { table, session, position, source, operation } = self;
        let place = |e: Error| e.on(operation).at(&source).of(table.entity.name());
        // After a failure rows may be under way on the connection: it is closed.
        let value = answer.map_err(place)?;
        session.end().await.map_err(|failed| place(failed.error))?;
        Ok(At { value, position })
    }

    /// The rows of a statement.
    pub(crate) async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, Failed> {
        Ok(self.session.run(sql).await?.into_iter().next().unwrap_or_default())
    }
}

#[async_trait]
impl Rows<String> for TableRows {
    async fn records(&mut self, statement: Statement<String>) -> Result<Vec<Stored>> {
        let rows = self.rows(&statement.sql).await?;
        self.table.records(&rows)
    }

    async fn parts(
        &mut self,
        statement: Statement<String>,
        fields: &[usize],
        each: &mut Each<'_>,
    ) -> Result<()> {
        let TableRows { table, session, .. } = self;
        let columns: Vec<_> =
            fields.iter().filter_map(|f| Some((*f, table.columns.get(*f)?))).collect();
        let mut record = Record::new(vec![Value::Null; table.columns.len()]);
        let mut one = |_: usize, row: Row| {
            for (n, (field, column)) in columns.iter().enumerate() {
                let value = decode(column.form, &column.ty, cell(&row, n)?)
                    .map_err(|e| e.with("field", &column.field))?;
                if let Some(place) = record.values_mut().get_mut(*field) {
                    *place = value;
                }
            }
            each(&record)
        };
        session.connection().each(&statement.sql, &mut one).await?;
        Ok(())
    }

    async fn number(&mut self, statement: Statement<String>) -> Result<u64> {
        let rows = self.rows(&statement.sql).await?;
        let number = rows.first().map(|row| number_of(cell(row, 0)?)).transpose()?.flatten();
        Ok(number.unwrap_or_default().unsigned_abs())
    }

    async fn numbers(
        &mut self,
        statement: Statement<String>,
        field: usize,
    ) -> Result<Vec<(Value, u64)>> {
        let rows = self.rows(&statement.sql).await?;
        let Some(column) = self.table.columns.get(field) else { return Ok(Vec::new()) };
        let pair = |row: &Row| {
            let value = decode(column.form, &column.ty, cell(row, 0)?)?;
            Ok((value, number_of(cell(row, 1)?)?.unwrap_or_default().unsigned_abs()))
        };
        rows.iter().map(pair).collect()
    }
}
