//! The reader: every answer is of one snapshot of the primary, whose position it names.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio_postgres::Row;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Error, Key, Result, Stored};

use crate::error::Failed;
use crate::parameter::{cell, optional_text};
use crate::query::snapshot::{Extent, Snapshot};
use crate::session::{Session, Use};
use crate::source::PostgresSource;
use crate::table::Table;

/// As many records are asked for over a connection that others share: the answer does not hold them up for long.
const SHARED_KEYS_MAX: usize = 16;

/// A question to a snapshot.
#[async_trait]
pub(crate) trait Question: Sync {
    /// What it gives.
    type Answer: Send;

    /// Asks it.
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

/// The answer to a question, which mostly is one statement: if it is more, it is asked again, in a transaction.
pub(crate) async fn of_one_moment<Q: Question>(
    session: &Session,
    table: &Table,
    question: &Q,
    on_replica: bool,
) -> Result<At<Q::Answer>, Failed> {
    let mut one = Snapshot::new(session, table, Extent::One, on_replica);
    let answered = question.ask(table, &mut one).await;
    if one.extent() == Extent::One {
        return one.end(answered).await;
    }
    let mut several = Snapshot::new(session, table, Extent::Several, on_replica);
    let answered = question.ask(table, &mut several).await;
    several.end(answered).await
}

impl PostgresSource {
    /// The answer of the primary.
    async fn ask<Q: Question>(
        &self,
        operation: &'static str,
        entity: &Entity,
        question: &Q,
    ) -> Result<At<Q::Answer>> {
        let client = self.client();
        let table = &*client.table(entity.name())?;
        let answered = client.primary(move |session: Arc<Session>| {
            Box::pin(async move { of_one_moment(&session, table, question, false).await })
        });
        answered
            .await
            .map_err(|e: Failed| e.error.on(operation).at(client.name()).of(entity.name()))
    }
}

#[async_trait]
impl Reader for PostgresSource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let client = self.client();
        let table = client.table(entity.name())?;
        let (sql, parameter) = table.get(keys);
        let parameter = &parameter;
        let work = move |session: Arc<Session>| {
            let parameters = std::slice::from_ref(parameter);
            let rows = async move { session.rows(Use::Often, sql, parameters).await };
            Box::pin(rows) as BoxFuture<'_, Result<Vec<Row>, Failed>>
        };
        let ask = || async {
            match keys.len() <= SHARED_KEYS_MAX {
                true => client.primary_shared(work).await,
                false => client.primary(work).await,
            }
        };
        let named = |e: Failed| e.error.on("get").at(client.name()).of(entity.name());
        let mut rows = ask().await.map_err(named)?;
        if table.lags(said(&rows)?) {
            self.settle(&table, keys).await.map_err(named)?;
            rows = ask().await.map_err(named)?;
        }
        let position = table.position_of(said(&rows)?)?;
        Ok(At { value: by_key(&table, &rows, keys)?, position })
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

/// What the first column says of the position.
pub(crate) fn said(rows: &[Row]) -> Result<Option<&str>> {
    Ok(rows.first().map(|row| optional_text(row, 0)).transpose()?.flatten())
}

/// The records of rows that [`Table::get`] asked for, in the order of the keys.
pub(crate) fn by_key(table: &Table, rows: &[Row], keys: &[Key]) -> Result<Vec<Option<Stored>>> {
    let is_found = |row: &Row| Ok::<_, Error>(cell(row, table.columns.len() + 2)?.is_some());
    if let ([_], Some(row)) = (keys, rows.first()) {
        return Ok(vec![is_found(row)?.then(|| table.stored(row, 1)).transpose()?]);
    }
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        if is_found(row)? {
            let stored = table.stored(row, 1)?;
            found.insert(stored.key.clone(), stored);
        }
    }
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

/// Refuses a question that looks for words.
pub(crate) fn refuse_search(search: Option<&str>) -> Result<()> {
    match search {
        None => Ok(()),
        Some(_) => Err(Error::unsupported("a postgres source does not search text")
            .hint("add a follower that does, such as one of kind tantivy or opensearch")),
    }
}
