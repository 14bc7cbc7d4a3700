//! The role of a reader: records by key as they were last written, everything else as far as it can be searched.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Key, Result, Stored};

use crate::codec::decode;
use crate::error::{self, Cause};
use crate::handle::View;
use crate::query;
use crate::source::OpensearchSource;

#[async_trait]
impl Reader for OpensearchSource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let handle = self.handle(entity)?;
        let found = async {
            // The position comes first, so that everything up to it is in what is read then.
            let view = handle.view().await?;
            Ok(At { value: get(&view, keys).await?, position: view.position })
        };
        found.await.map_err(|e| handle.locate(e, "get"))
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        let handle = self.handle(entity)?;
        let found = async {
            let view = handle.search_view().await?;
            Ok(At { value: query::page(&view, query).await?, position: view.position })
        };
        found.await.map_err(|e| handle.locate(e, "query"))
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        let handle = self.handle(entity)?;
        let found = async {
            let view = handle.search_view().await?;
            Ok(At { value: query::count(&view, filter, search).await?, position: view.position })
        };
        found.await.map_err(|e| handle.locate(e, "count"))
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        let handle = self.handle(entity)?;
        let found = async {
            let view = handle.search_view().await?;
            Ok(At { value: query::aggregate(&view, aggregate).await?, position: view.position })
        };
        found.await.map_err(|e| handle.locate(e, "aggregate"))
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    docs: Vec<Doc<'a>>,
}

#[derive(Deserialize)]
struct Doc<'a> {
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source", borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Cause>,
}

async fn get(view: &View<'_>, keys: &[Key]) -> Result<Vec<Option<Stored>>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = keys.iter().map(Key::to_string).collect();
    let path = format!("/{}/_mget", view.index);
    let body = json!({"ids": ids});
    let answer = view.handle.cluster.client.read(Method::POST, &path, Some(&body)).await?.ok()?;
    let answer: Answer<'_> = serde_json::from_slice(&answer.body).map_err(error::unreadable)?;
    let mut found: HashMap<String, Stored> = HashMap::with_capacity(answer.docs.len());
    for doc in answer.docs {
        if let Some(cause) = doc.error {
            let missing = cause.name == "index_not_found_exception";
            return Err(if missing { error::missing() } else { error::of_cause(503, &cause) });
        }
        let Some(source) = doc.source else { continue };
        if let Some(stored) = decode(&view.handle.layout.entity, source)? {
            found.insert(doc.id, stored);
        }
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}
