//! The reader: every answer is of one snapshot, whose position it names.
//!
//! Records by key come from the primary, at the cost of reading a position there. Everything else may come from a
//! replica: one that has replayed at least what the primary had when the question came, so that nobody can tell.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Error, Key, Position, Result, Stored};

use crate::error::Failed;
use crate::parameter::{cell, optional_text};
use crate::query::snapshot::Snapshot;
use crate::session::{Session, Use};
use crate::source::PostgresSource;
use crate::table::Table;

/// How often a replica that is behind is asked for its position, and how long each time is waited before.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(1);

/// A question to a snapshot.
#[async_trait]
trait Question: Sync {
    type Answer: Send;

    async fn ask(&self, table: &Table, rows: &mut Snapshot<'_>) -> Result<Self::Answer>;
}

#[async_trait]
impl Question for Query {
    type Answer = Page;

    async fn ask(&self, table: &Table, rows: &mut Snapshot<'_>) -> Result<Page> {
        unisono_sql::page(table, self, rows).await
    }
}

/// Asks for the number of records that match.
#[async_trait]
impl Question for Filter {
    type Answer = u64;

    async fn ask(&self, table: &Table, rows: &mut Snapshot<'_>) -> Result<u64> {
        unisono_sql::count(table, self, rows).await
    }
}

#[async_trait]
impl Question for Aggregate {
    type Answer = Groups;

    async fn ask(&self, table: &Table, rows: &mut Snapshot<'_>) -> Result<Groups> {
        unisono_sql::aggregate(table, self, rows).await
    }
}

impl PostgresSource {
    /// The answer of a replica that is up to date, or of the primary.
    async fn ask<Q: Question>(
        &self,
        operation: &'static str,
        entity: &Entity,
        question: &Q,
    ) -> Result<At<Q::Answer>> {
        let client = self.client();
        let named = |e: Failed| e.error.on(operation).at(client.name()).of(entity.name());
        let table = &*client.table(entity.name())?;
        if client.replica_count() > 0 {
            let demanded = self.head(table).await.map_err(named)?;
            let answered = client.replica(move |session| {
                Box::pin(async move { answer(&session, table, question, Some(demanded)).await })
            });
            if let Some(Some(at)) = answered.await {
                return Ok(at);
            }
        }
        let answered = client.primary(move |session| {
            Box::pin(async move { answer(&session, table, question, None).await })
        });
        match answered.await.map_err(named)? {
            Some(at) => Ok(at),
            None => Err(Error::internal("the primary is behind itself").on(operation)),
        }
    }

    /// The position that the primary has now.
    async fn head(&self, table: &Table) -> Result<Position, Failed> {
        let sql = format!("SELECT {}", table.position);
        let sql = sql.as_str();
        let asked = self.client().primary(move |session| {
            Box::pin(async move { session.rows(Use::Often, sql, &[]).await })
        });
        let rows = asked.await?;
        let said = rows.first().map(|row| optional_text(row, 0)).transpose()?.flatten();
        Ok(table.position_of(said)?)
    }
}

/// The answer of the primary, or of a replica, of which a position is demanded: none if it stays behind that.
async fn answer<Q: Question>(
    session: &Session,
    table: &Table,
    question: &Q,
    demanded: Option<Position>,
) -> Result<Option<At<Q::Answer>>, Failed> {
    let mut attempts = 0;
    let begun = || match demanded {
        Some(_) => Snapshot::on_replica(session, table),
        None => Snapshot::new(session, table),
    };
    let mut snapshot = begun();
    while let Some(demanded) = demanded
        && snapshot.position().await? < demanded
    {
        snapshot.end(Ok(())).await?;
        attempts += 1;
        if attempts == ATTEMPTS {
            return Ok(None);
        }
        tokio::time::sleep(PAUSE).await;
        snapshot = begun();
    }
    let answered = question.ask(table, &mut snapshot).await;
    let (value, position) = snapshot.end(answered).await?;
    Ok(Some(At { value, position }))
}

#[async_trait]
impl Reader for PostgresSource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let client = self.client();
        let table = client.table(entity.name())?;
        let (sql, parameter) = &table.get(keys);
        let ask = || {
            client.primary(move |session: Arc<Session>| {
                let parameters = std::slice::from_ref(parameter);
                Box::pin(async move { session.rows(Use::Often, sql, parameters).await })
            })
        };
        let named = |e: Failed| e.error.on("get").at(client.name()).of(entity.name());
        let said = |rows: &[Row]| -> Result<Option<String>> {
            let said = rows.first().map(|row| optional_text(row, 0)).transpose()?.flatten();
            Ok(said.map(str::to_owned))
        };
        let mut rows = ask().await.map_err(named)?;
        if table.lags(said(&rows)?.as_deref()) {
            self.settle(&table, keys).await.map_err(named)?;
            rows = ask().await.map_err(named)?;
        }
        let position = table.position_of(said(&rows)?.as_deref())?;
        let mut found = std::collections::HashMap::with_capacity(rows.len());
        for row in &rows {
            if cell(row, table.columns.len() + 2)?.is_some() {
                let stored = table.stored(row, 1)?;
                found.insert(stored.key.clone(), stored);
            }
        }
        Ok(At { value: keys.iter().map(|key| found.get(key).cloned()).collect(), position })
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

fn refuse_search(search: Option<&str>) -> Result<()> {
    match search {
        None => Ok(()),
        Some(_) => Err(Error::unsupported("a postgres source does not search text")
            .hint("add a follower that does, such as one of kind tantivy or opensearch")),
    }
}
