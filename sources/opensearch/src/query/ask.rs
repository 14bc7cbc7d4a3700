//! Asking the engine: one page of documents with aggregations, all documents one after the other, or their number.

use std::ops::ControlFlow;

use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};
use unisono_core::{Result, Stored};

use crate::codec::decode;
use crate::error;
use crate::handle::View;
use crate::product::VIEW_KEPT;
use crate::query::rank::Ranking;

/// Documents of one request where all are wanted.
pub(crate) const PAGE: usize = 1_000;

/// Above so many bytes of an answer the next one of a walk is made smaller.
const ANSWER_BYTES: usize = 8 << 20;

/// A record that the engine found.
pub(crate) struct Found {
    /// The record.
    pub(crate) stored: Stored,
    /// How relevant it is; 0 unless sorted by that.
    pub(crate) score: f32,
}

/// An answer of the engine.
pub(crate) struct Answer {
    /// The records, in order.
    pub(crate) found: Vec<Found>,
    /// The sort values of the last one.
    last: Option<Vec<Json>>,
    /// The results of aggregations, by name.
    pub(crate) aggregations: Map<String, Json>,
    /// The point in time to use from now on.
    view: Option<String>,
    /// Bytes of the answer.
    bytes: usize,
}

impl Answer {
    /// How many documents the next request of a walk should ask for: fewer where they are large.
    fn next_size(&self, size: usize) -> usize {
        if self.bytes > ANSWER_BYTES { (size / 2).max(1) } else { size }
    }

    /// Gives the records to `take`; answers where to go on, unless that is over.
    fn give(
        self,
        size: usize,
        take: &mut impl FnMut(Found) -> Result<ControlFlow<()>>,
    ) -> Result<Option<Vec<Json>>> {
        let full = self.found.len() >= size;
        for found in self.found {
            if take(found)?.is_break() {
                return Ok(None);
            }
        }
        Ok(self.last.filter(|_| full))
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    hits: Hits<'a>,
    #[serde(default)]
    aggregations: Map<String, Json>,
    #[serde(default)]
    pit_id: Option<String>,
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(Deserialize)]
struct Hit<'a> {
    #[serde(rename = "_score")]
    score: Option<f32>,
    #[serde(rename = "_source", borrow)]
    source: &'a RawValue,
    #[serde(default)]
    sort: Vec<Json>,
}

/// What to ask for.
pub(crate) struct Request<'a> {
    /// The engine query.
    pub(crate) query: &'a Json,
    /// The order.
    pub(crate) ranking: &'a Ranking<'a>,
    /// Documents at most.
    pub(crate) size: usize,
    /// Aggregations over everything that the query finds.
    pub(crate) aggregations: Map<String, Json>,
}

impl View<'_> {
    /// One page of documents.
    pub(crate) async fn search(&self, request: &Request<'_>) -> Result<Answer> {
        self.search_from(request, request.ranking.after.as_deref(), None).await
    }

    async fn search_from(
        &self,
        request: &Request<'_>,
        after: Option<&[Json]>,
        view: Option<&str>,
    ) -> Result<Answer> {
        let mut body = json!({
            "query": request.query,
            "sort": request.ranking.sort,
            "size": request.size,
            "track_total_hits": false,
        });
        if let Some(after) = after {
            body["search_after"] = after.into();
        }
        if !request.aggregations.is_empty() {
            body["aggs"] = request.aggregations.clone().into();
        }
        let path = match view {
            Some(id) => {
                body["pit"] = json!({"id": id, "keep_alive": VIEW_KEPT});
                "/_search?allow_partial_search_results=false".to_owned()
            }
            // Copies of a shard differ a little in their scores: all pages come from the same one.
            None => format!(
                "/{}/_search?allow_partial_search_results=false&preference=unisono",
                self.index
            ),
        };
        let answer =
            self.handle.cluster.client.read(Method::POST, &path, Some(&body)).await?.ok()?;
        let body: Body<'_> = serde_json::from_slice(&answer.body).map_err(error::unreadable)?;
        let last = body.hits.hits.last().map(|hit| hit.sort.clone());
        let mut found = Vec::with_capacity(body.hits.hits.len());
        for hit in body.hits.hits {
            // A deletion that is only remembered is no record, and no query asks for it.
            if let Some(stored) = decode(&self.handle.layout.entity, hit.source)? {
                found.push(Found { stored, score: hit.score.unwrap_or(0.0) });
            }
        }
        let bytes = answer.body.len();
        Ok(Answer { found, last, aggregations: body.aggregations, view: body.pit_id, bytes })
    }

    /// Calls `take` with every document in order, until it breaks; `size` of them come with each request.
    ///
    /// What the first request cannot answer is read from a point in time, if the engine has them; else changes in
    /// between may or may not be seen.
    pub(crate) async fn walk(
        &self,
        query: &Json,
        ranking: &Ranking<'_>,
        size: usize,
        mut take: impl FnMut(Found) -> Result<ControlFlow<()>> + Send,
    ) -> Result<()> {
        let mut request = Request { query, ranking, size, aggregations: Map::new() };
        let first = self.search(&request).await?;
        request.size = first.next_size(size);
        let mut next = first.give(size, &mut take)?;
        if next.is_none() {
            return Ok(());
        }
        let (client, product) = (&self.handle.cluster.client, &self.handle.cluster.product);
        let mut view = product.open_view(client, &self.index).await?;
        let rest = async {
            while let Some(after) = next {
                let mut answer = self.search_from(&request, Some(&after), view.as_deref()).await?;
                view = answer.view.take().or(view.take());
                let size = request.size;
                request.size = answer.next_size(size);
                next = answer.give(size, &mut take)?;
            }
            Ok(())
        };
        let walked = rest.await;
        if let Some(id) = view {
            product.close_view(client, &id).await;
        }
        walked
    }

    /// How many documents a query finds.
    pub(crate) async fn count(&self, query: &Json) -> Result<u64> {
        #[derive(Deserialize)]
        struct Count {
            count: u64,
            #[serde(rename = "_shards")]
            shards: Shards,
        }
        #[derive(Deserialize)]
        struct Shards {
            failed: u64,
        }
        let path = format!("/{}/_count", self.index);
        let body = json!({"query": query});
        let answer = self.handle.cluster.client.read(Method::POST, &path, Some(&body)).await?;
        let count: Count = answer.ok()?.parse()?;
        if count.shards.failed > 0 { Err(error::incomplete()) } else { Ok(count.count) }
    }
}
