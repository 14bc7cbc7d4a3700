//! The reader: every call sees one snapshot, whose position it reads first.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Error, Key, Result, Stored};

use crate::query::TableRows;
use crate::source::MysqlSource;

#[async_trait]
impl Reader for MysqlSource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let place = |e: Error| e.on("get").at(self.client().name()).of(entity.name());
        let table = self.client().table(entity.name())?;
        let sql = match keys.is_empty() {
            true => "COMMIT".to_owned(),
            false => format!(
                "SELECT {} FROM {} WHERE {} IN ({}); COMMIT",
                table.selected,
                table.name,
                table.key_column(),
                table.keys(keys)
            ),
        };
        let snapshot =
            self.client().snapshot(&table, &sql).await.map_err(|failed| place(failed.error))?;
        snapshot.session.release();
        let rows = snapshot.sets.first().map_or(&[][..], Vec::as_slice);
        let found = table.records(rows).map_err(place)?;
        let found: HashMap<Key, Stored> = found.into_iter().map(|s| (s.key.clone(), s)).collect();
        let value = keys.iter().map(|key| found.get(key).cloned()).collect();
        Ok(At { value, position: snapshot.position })
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        refuse_search(query.search.as_deref())?;
        let mut rows = TableRows::open(self.client(), "query", entity).await?;
        let table = rows.table();
        let page = unisono_sql::page(table.as_ref(), query, &mut rows).await;
        rows.end(page).await
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        refuse_search(search)?;
        let mut rows = TableRows::open(self.client(), "count", entity).await?;
        let table = rows.table();
        let count = unisono_sql::count(table.as_ref(), filter, &mut rows).await;
        rows.end(count).await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        let mut rows = TableRows::open(self.client(), "aggregate", entity).await?;
        let table = rows.table();
        let groups = unisono_sql::aggregate(table.as_ref(), aggregate, &mut rows).await;
        rows.end(groups).await
    }
}

fn refuse_search(search: Option<&str>) -> Result<()> {
    match search {
        None => Ok(()),
        Some(_) => Err(Error::unsupported("a mysql source does not search text")
            .hint("add a follower that does, such as one of kind tantivy or opensearch")),
    }
}
