//! The reader: every call sees one snapshot, whose position it reads first.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::Connection;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Error, Key, Position, Result, Role, Stored};

use crate::client::Session;
use crate::query::{aggregate, page};
use crate::source::SqliteSource;
use crate::table::Table;
use crate::{capture, follower, truth};

/// The position up to which a table holds everything, as the current transaction sees it.
pub(crate) fn position(connection: &Connection, table: &Table) -> Result<Position> {
    if table.role == Role::Truth {
        return Ok(truth::bounds(connection)?.head);
    }
    // While the first copy is being made, records are missing that are older than the checkpoint.
    let checkpoint = follower::checkpoint(connection, table.entity.name())?;
    Ok(checkpoint.filter(|c| c.backfill.is_none()).map_or(Position::ZERO, |c| c.position))
}

impl SqliteSource {
    /// Reads from the table of an entity. What others have written to a captured table gets its version first.
    pub(crate) async fn read_at<T: Send + 'static>(
        &self,
        operation: &'static str,
        entity: &Entity,
        work: impl Fn(&Session, &Table) -> Result<T> + Send + Sync + 'static,
    ) -> Result<At<T>> {
        let table = self.client().table(entity.name())?;
        let work = Arc::new(work);
        let mut is_last = false;
        loop {
            let (table, work) = (Arc::clone(&table), Arc::clone(&work));
            let answer = self.client().read(operation, move |session| {
                if !is_last && capture::lags(&session.connection, &table)? {
                    return Ok(None);
                }
                let position = position(&session.connection, &table)?;
                Ok(Some(At { value: work(session, &table)?, position }))
            });
            if let Some(at) = answer.await.map_err(|e| e.of(entity.name()))? {
                return Ok(at);
            }
            // What cannot be given its version now, as others go on writing, is answered as it is.
            self.sequence().await?;
            is_last = true;
        }
    }
}

#[async_trait]
impl Reader for SqliteSource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let keys = keys.to_vec();
        self.read_at("get", entity, move |session, table| {
            keys.iter().map(|key| table.read(&session.connection, key)).collect()
        })
        .await
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        refuse_search(query.search.as_deref())?;
        let query = query.clone();
        self.read_at("query", entity, move |session, table| page::page(session, table, &query))
            .await
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        refuse_search(search)?;
        let filter = filter.clone();
        self.read_at("count", entity, move |session, table| page::count(session, table, &filter))
            .await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        let aggregate = aggregate.clone();
        self.read_at("aggregate", entity, move |session, table| {
            aggregate::aggregate(session, table, &aggregate)
        })
        .await
    }
}

fn refuse_search(search: Option<&str>) -> Result<()> {
    match search {
        None => Ok(()),
        Some(_) => Err(Error::unsupported("a sqlite source does not search text")
            .hint("add a follower that does, such as one of kind tantivy")),
    }
}
