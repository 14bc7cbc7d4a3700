//! [`Snapshot`]: a read-only transaction whose statements all see the same, and the position that it is of.

use futures::future::try_join3;
use tokio_postgres::Row;
use unisono_core::{Error, ErrorKind, Position, Record, Result, Stored, Value};
use unisono_sql::{Each, Rows, Statement};

use crate::error::Failed;
use crate::parameter::{Parameter, integer, optional_text};
use crate::session::{Session, Use};
use crate::table::Table;

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A read-only transaction on one table.
pub(crate) struct Snapshot<'a> {
    session: &'a Session,
    table: &'a Table,
    on_replica: bool,
    position: Option<Position>,
    failed: Option<Failed>,
}

impl<'a> Snapshot<'a> {
    /// Not yet begun: the first statement goes together with the beginning, in one round trip.
    pub(crate) fn new(session: &'a Session, table: &'a Table) -> Self {
        Snapshot { session, table, on_replica: false, position: None, failed: None }
    }

    /// The same on a replica, which answers only while it is one: once promoted, it has a history of its own.
    pub(crate) fn on_replica(session: &'a Session, table: &'a Table) -> Self {
        Snapshot { on_replica: true, ..Snapshot::new(session, table) }
    }

    /// The position of the snapshot, which begins it.
    pub(crate) async fn position(&mut self) -> Result<Position, Failed> {
        match self.position {
            Some(position) => Ok(position),
            None => {
                self.first("SELECT 1", &[]).await?;
                Ok(self.position.unwrap_or_default())
            }
        }
    }

    /// Ends the transaction; the session is of further use. `answer` is of its statements.
    pub(crate) async fn end<T>(mut self, answer: Result<T>) -> Result<(T, Position), Failed> {
        let position = match (answer, self.failed.take()) {
            (_, Some(failed)) => return Err(failed),
            (Err(error), None) => return Err(error.into()),
            (Ok(answer), None) => (answer, self.position().await?),
        };
        self.session.run("COMMIT").await?;
        Ok(position)
    }

    /// The rows of a statement.
    pub(crate) async fn rows(
        &mut self,
        statement: &Statement<Parameter>,
    ) -> Result<Vec<Row>, Failed> {
        let Statement { sql, parameters } = statement;
        match self.position {
            Some(_) => self.session.rows(Use::Once, sql, parameters).await,
            None => self.first(sql, parameters).await,
        }
    }

    /// Begins, reads the position, and runs a statement.
    async fn first(&mut self, sql: &str, parameters: &[Parameter]) -> Result<Vec<Row>, Failed> {
        let condition = if self.on_replica { " WHERE pg_is_in_recovery()" } else { "" };
        let position = format!("SELECT {}{condition}", self.table.position);
        let session = self.session;
        let (_, place, rows) = if session.is_pipelining() {
            try_join3(
                session.run(BEGIN),
                session.rows(Use::Once, &position, &[]),
                session.rows(Use::Once, sql, parameters),
            )
            .await?
        } else {
            session.run(BEGIN).await?;
            let place = session.rows(Use::Once, &position, &[]).await?;
            ((), place, session.rows(Use::Once, sql, parameters).await?)
        };
        if self.on_replica && place.is_empty() {
            return Err(Error::new(ErrorKind::Unavailable, "the replica was promoted").into());
        }
        let said = place.first().map(|row| optional_text(row, 0)).transpose()?.flatten();
        self.position = Some(self.table.position_of(said)?);
        Ok(rows)
    }

    /// Keeps the class of a failure, which the shared SQL does not know; it is told at the end.
    pub(crate) fn noted(&mut self, failed: Failed) -> Error {
        let error = failed.error.duplicate();
        self.failed = Some(failed);
        error
    }
}

#[async_trait::async_trait]
impl Rows<Parameter> for Snapshot<'_> {
    async fn records(&mut self, statement: Statement<Parameter>) -> Result<Vec<Stored>> {
        let rows = self.rows(&statement).await.map_err(|failed| self.noted(failed))?;
        rows.iter().map(|row| self.table.stored(row, 0)).collect()
    }

    async fn parts(
        &mut self,
        statement: Statement<Parameter>,
        fields: &[usize],
        each: &mut Each<'_>,
    ) -> Result<()> {
        self.position().await.map_err(|failed| self.noted(failed))?;
        let table = self.table;
        let mut record = Record::new(vec![Value::Null; table.columns.len()]);
        let mut decoded = |row: &Row| {
            for (column, field) in fields.iter().enumerate() {
                let value = table.value(*field, row, column)?;
                if let Some(place) = record.values_mut().get_mut(*field) {
                    *place = value;
                }
            }
            each(&record)
        };
        let Statement { sql, parameters } = statement;
        let done = self.session.each_row(&sql, &parameters, &mut decoded).await;
        done.map_err(|failed| self.noted(failed))
    }

    async fn number(&mut self, statement: Statement<Parameter>) -> Result<u64> {
        let rows = self.rows(&statement).await.map_err(|failed| self.noted(failed))?;
        let row = rows.first().ok_or_else(|| Error::internal("a count gave no row"))?;
        Ok(integer(row, 0)?.unsigned_abs())
    }

    async fn numbers(
        &mut self,
        statement: Statement<Parameter>,
        field: usize,
    ) -> Result<Vec<(Value, u64)>> {
        let rows = self.rows(&statement).await.map_err(|failed| self.noted(failed))?;
        let pair =
            |row: &Row| Ok((self.table.value(field, row, 0)?, integer(row, 1)?.unsigned_abs()));
        rows.iter().map(pair).collect()
    }
}
