//! [`Snapshot`]: one moment, which all statements see, and its position.

use futures::future::try_join3;
use tokio_postgres::Row;
use unisono_core::source::At;
use unisono_core::{Error, ErrorKind, Position, Record, Result, Stored, Value};
use unisono_sql::{Each, Rows, Statement};

use crate::error::Failed;
use crate::parameter::{Parameter, cell, integer, optional_text};
use crate::session::{Session, Use};
use crate::table::Table;

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// One moment of one table: a read-only transaction, or one statement, which needs none.
pub(crate) struct Snapshot<'a> {
    session: &'a Session,
    table: &'a Table,
    extent: Extent,
    on_replica: bool,
    position: Option<Position>,
    failed: Option<Failed>,
}

/// How much is asked of a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Any number of statements.
    Several,
    /// One, in which the position is asked for as well.
    One,
    /// It was to be one, and there is another.
    NotEnough,
}

/// The rows of a statement, each of which may begin with what is no part of the statement.
pub(crate) struct Found {
    pub(crate) rows: Vec<Row>,
    /// The column where the statement's own begin.
    pub(crate) from: usize,
}

impl<'a> Snapshot<'a> {
    /// Not yet begun: the first statement goes together with the beginning, in one round trip.
    ///
    /// A replica answers only while it is one: once promoted, it has a history of its own.
    pub(crate) fn new(
        session: &'a Session,
        table: &'a Table,
        extent: Extent,
        on_replica: bool,
    ) -> Self {
        Snapshot { session, table, extent, on_replica, position: None, failed: None }
    }

    /// How much was asked.
    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    /// The position of the snapshot, which begins it.
    async fn position(&mut self) -> Result<Position, Failed> {
        match self.position {
            Some(position) => Ok(position),
            None => {
                self.first("SELECT 1", &[]).await?;
                Ok(self.position.unwrap_or_default())
            }
        }
    }

    /// Ends it; the session is of further use. `answer` is of its statements.
    pub(crate) async fn end<T>(mut self, answer: Result<T>) -> Result<At<T>, Failed> {
        let at = match (answer, self.failed.take()) {
            (_, Some(failed)) => return Err(failed),
            (Err(error), None) => return Err(error.into()),
            (Ok(value), None) => At { value, position: self.position().await? },
        };
        if self.extent == Extent::Several {
            self.session.run("COMMIT").await?;
        }
        Ok(at)
    }

    /// The rows of a statement whose last column is never null.
    pub(crate) async fn rows(&mut self, statement: &Statement<Parameter>) -> Result<Found, Failed> {
        let Statement { sql, parameters } = statement;
        if self.position.is_none() {
            return self.first(sql, parameters).await;
        }
        self.must_be_several()?;
        let rows = self.session.rows(Use::Once, sql, parameters).await?;
        Ok(Found { rows, from: 0 })
    }

    /// Begins, reads the position, and runs a statement.
    async fn first(&mut self, sql: &str, parameters: &[Parameter]) -> Result<Found, Failed> {
        let condition = if self.on_replica { " WHERE pg_is_in_recovery()" } else { "" };
        let position = format!("SELECT {} AS position{condition}", self.table.position);
        let session = self.session;
        // The position is in the first column of a row of its own, or of every row.
        let (place, found) = if self.extent == Extent::One {
            // The only row of the left side is met with every row of the right side, in their order.
            let sql =
                format!("SELECT p.position, t.* FROM ({position}) p LEFT JOIN ({sql}) t ON TRUE");
            let mut rows = session.rows(Use::Again, &sql, parameters).await?;
            let place = place_in(&rows)?;
            let is_none = |row: &Row| Ok::<_, Failed>(cell(row, row.len() - 1)?.is_none());
            if rows.first().map(is_none).transpose()? == Some(true) {
                rows.clear();
            }
            (place, Found { rows, from: 1 })
        } else if session.is_pipelining() {
            let begun = session.run(BEGIN);
            let placed = session.rows(Use::Once, &position, &[]);
            let asked = session.rows(Use::Once, sql, parameters);
            let ((), place, rows) = try_join3(begun, placed, asked).await?;
            (place_in(&place)?, Found { rows, from: 0 })
        } else {
            session.run(BEGIN).await?;
            let place = session.rows(Use::Once, &position, &[]).await?;
            let rows = session.rows(Use::Once, sql, parameters).await?;
            (place_in(&place)?, Found { rows, from: 0 })
        };
        if self.on_replica && place.is_none() {
            return Err(Error::new(ErrorKind::Unavailable, "the replica was promoted").into());
        }
        self.position = Some(self.table.position_of(place.flatten().as_deref())?);
        Ok(found)
    }

    /// Ends what was to be one statement: it is asked again, as several.
    pub(crate) fn must_be_several(&mut self) -> Result<(), Failed> {
        if self.extent == Extent::Several {
            return Ok(());
        }
        self.extent = Extent::NotEnough;
        Err(Error::internal("one statement was expected, and there is another").into())
    }

    /// Keeps the class of a failure, which the shared SQL does not know; it is told at the end.
    pub(crate) fn noted(&mut self, failed: Failed) -> Error {
        let error = failed.error.duplicate();
        self.failed = Some(failed);
        error
    }
}

/// What the first column of the first row says; the outer `None` if there is no row.
fn place_in(rows: &[Row]) -> Result<Option<Option<String>>> {
    rows.first().map(|row| Ok(optional_text(row, 0)?.map(str::to_owned))).transpose()
}

#[async_trait::async_trait]
impl Rows<Parameter> for Snapshot<'_> {
    async fn records(&mut self, statement: Statement<Parameter>) -> Result<Vec<Stored>> {
        let found = self.rows(&statement).await.map_err(|failed| self.noted(failed))?;
        found.rows.iter().map(|row| self.table.stored(row, found.from)).collect()
    }

    async fn parts(
        &mut self,
        statement: Statement<Parameter>,
        fields: &[usize],
        each: &mut Each<'_>,
    ) -> Result<()> {
        self.must_be_several().map_err(|failed| self.noted(failed))?;
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
        let Found { rows, from } =
            self.rows(&statement).await.map_err(|failed| self.noted(failed))?;
        let row = rows.first().ok_or_else(|| Error::internal("a count gave no row"))?;
        Ok(integer(row, from)?.unsigned_abs())
    }

    async fn numbers(
        &mut self,
        statement: Statement<Parameter>,
        field: usize,
    ) -> Result<Vec<(Value, u64)>> {
        let Found { rows, from } =
            self.rows(&statement).await.map_err(|failed| self.noted(failed))?;
        let pair = |row: &Row| {
            Ok((self.table.value(field, row, from)?, integer(row, from + 1)?.unsigned_abs()))
        };
        rows.iter().map(pair).collect()
    }
}
