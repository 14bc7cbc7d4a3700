//! [`ReplicaReader`]: answers of streaming replicas, each of one snapshot, whose position it names.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Error, ErrorKind, Key, Position, Result, Stored};
use unisono_sql::Statement;

use crate::error::Failed;
use crate::query::snapshot::{Found, Snapshot};
use crate::reader::{Question, by_key, of_one_moment, refuse_search, said};
use crate::session::Session;
use crate::source::PostgresSource;
use crate::table::Table;

/// How often a replica that is behind is asked for its position, and how long each time is waited before.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(1);

/// The replicas of a database as a reader.
pub(crate) struct ReplicaReader {
    pub(crate) source: Arc<PostgresSource>,
    /// What an answer must hold at least.
    pub(crate) at_least: Position,
}

impl ReplicaReader {
    async fn ask<Q: Question>(
        &self,
        operation: &'static str,
        entity: &Entity,
        question: &Q,
    ) -> Result<At<Q::Answer>> {
        let client = self.source.client();
        let table = &*client.table(entity.name())?;
        let at_least = self.at_least;
        let answered = client.replica(move |session: Arc<Session>| {
            Box::pin(async move { answer(&session, table, question, at_least).await })
        });
        answered.await.flatten().ok_or_else(|| {
            Error::new(ErrorKind::TooStale, "no replica has what is demanded")
                .on(operation)
                .at(client.name())
                .of(entity.name())
        })
    }
}

/// The answer of a replica; none if it stays behind what is demanded.
async fn answer<Q: Question>(
    session: &Session,
    table: &Table,
    question: &Q,
    at_least: Position,
) -> Result<Option<At<Q::Answer>>, Failed> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
            if of_one_moment(session, table, &Place, true).await?.position < at_least {
                continue;
            }
        }
        let at = of_one_moment(session, table, question, true).await?;
        if at.position >= at_least {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Asks for the position alone.
struct Place;

#[async_trait]
impl Question for Place {
    type Answer = ();

    async fn ask(&self, _: &Table, _: &mut Snapshot<'_>) -> Result<()> {
        Ok(())
    }
}

/// Asks for records by key.
struct Keys<'a>(&'a [Key]);

#[async_trait]
impl Question for Keys<'_> {
    type Answer = Vec<Option<Stored>>;

    async fn ask(&self, table: &Table, snapshot: &mut Snapshot<'_>) -> Result<Vec<Option<Stored>>> {
        // The statement is of a form of its own.
        snapshot.must_be_several().map_err(|failed| snapshot.noted(failed))?;
        let (sql, parameter) = table.get(self.0);
        let statement = Statement { sql: sql.to_owned(), parameters: vec![parameter] };
        let found = snapshot.rows(&statement).await;
        let Found { rows, .. } = found.map_err(|failed| snapshot.noted(failed))?;
        if table.lags(said(&rows)?) {
            // Only the primary can give a position to what another program has written.
            return Err(Error::new(
                ErrorKind::TooStale,
                "a write to the record has no position yet",
            ));
        }
        by_key(table, &rows, self.0)
    }
}

#[async_trait]
impl Reader for ReplicaReader {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        self.ask("get", entity, &Keys(keys)).await
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        refuse_search(query.search.as_deref())?;
        self.ask("query", entity, query).await
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        refuse_search(search)?;
        self.ask("count", entity, filter).await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        self.ask("aggregate", entity, aggregate).await
    }
}
