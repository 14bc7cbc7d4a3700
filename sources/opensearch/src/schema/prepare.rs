//! Making a place ready, beginning it anew, and showing a finished copy to other programs.

use std::sync::atomic::Ordering;

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use unisono_core::{Effect, Error, ErrorKind, Position, Result};

use crate::handle::Handle;
use crate::place::{Kept, Place};
use crate::schema::fingerprint::{self, Change};

/// Deletions that are read at once.
const DELETIONS_PAGE: usize = 10_000;

impl Handle {
    /// Makes the index exist and match; tells what was done.
    pub(crate) async fn prepare(&self) -> Result<Vec<String>> {
        self.places.ensure().await?;
        let mut report = Vec::new();
        let kept = match self.read_place().await? {
            None => {
                report.push(format!("index {} is made", self.alias));
                self.begin(None).await?
            }
            Some(kept) => self.match_layout(kept, &mut report).await?,
        };
        self.settle(kept.place.position());
        let behind = self.admin().behind_alias().await?;
        let published = behind == [kept.place.index.as_str()];
        self.published.store(published, Ordering::SeqCst);
        if !published && kept.place.position() > Position::ZERO {
            self.publish(&kept.place.index).await?;
        }
        self.recall_deletions(&kept.place.index).await?;
        Ok(report)
    }

    async fn match_layout(&self, kept: Kept, report: &mut Vec<String>) -> Result<Kept> {
        let (admin, alias) = (self.admin(), &self.alias);
        let Some(old) = admin.layout_of(&kept.place.index).await? else {
            report.push(format!("index {alias} is made anew, because it was deleted"));
            return self.begin(Some(kept)).await;
        };
        match fingerprint::compare(&old, &fingerprint::of(&self.layout.entity)) {
            Change::None => Ok(kept),
            Change::Additions(fields) => {
                admin.extend(&kept.place.index, &self.layout).await?;
                report.push(format!("index {alias} gets fields: {fields}"));
                Ok(kept)
            }
            Change::Rebuild(changes) => {
                report.push(format!(
                    "index {alias} is made anew, because the fields changed: {changes}"
                ));
                self.begin(Some(kept)).await
            }
            Change::Conflict { was, is } => {
                Err(Error::new(ErrorKind::SchemaMismatch, "a field has another type")
                    .with("indexed", was)
                    .with("declared", is)
                    .hint(format!(
                        "delete the index {}: it is built anew from the truth",
                        kept.place.index
                    )))
            }
        }
    }

    /// Forgets all records and the checkpoint.
    pub(crate) async fn reset(&self) -> Result<()> {
        self.places.ensure().await?;
        let kept = self.read_place().await?;
        self.begin(kept).await.map(drop)
    }

    /// Goes on in an empty index, without a checkpoint. Other programs see the one before until the new one is filled.
    pub(crate) async fn begin(&self, before: Option<Kept>) -> Result<Kept> {
        let admin = self.admin();
        let index = admin.make(&self.layout).await?;
        let (old, written) = before.map(|kept| (kept.place.index, kept.written)).unzip();
        let place = Place { index: index.clone(), checkpoint: None };
        let Some(kept) = self.places.write(&self.place, place, written).await? else {
            // Another process was quicker.
            admin.retire(&index).await?;
            return Err(Error::new(ErrorKind::Unavailable, "another process made the index anew")
                .effect(Effect::None)
                .hint("nothing has to be done: the next attempt goes on with that index"));
        };
        self.use_index(&index);
        if let Some(old) = old {
            admin.retire(&old).await?;
        }
        Ok(kept)
    }

    /// Shows an index that is complete to other programs.
    pub(crate) async fn publish(&self, index: &str) -> Result<()> {
        self.admin().publish(index).await?;
        self.published.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Reads which deletions an index remembers from earlier.
    async fn recall_deletions(&self, index: &str) -> Result<()> {
        #[derive(Deserialize)]
        struct Answer {
            hits: Hits,
        }
        #[derive(Deserialize)]
        struct Hits {
            hits: Vec<Hit>,
        }
        #[derive(Deserialize)]
        struct Hit {
            #[serde(rename = "_id")]
            id: String,
            sort: (i64,),
        }
        self.refresh(index).await?;
        let body = json!({
            "size": DELETIONS_PAGE,
            "_source": false,
            "query": {"exists": {"field": "deleted"}},
            "sort": [{"version": "asc"}],
        });
        let path = format!("/{index}/_search?allow_partial_search_results=false");
        let answer = self.cluster.client.read(Method::POST, &path, Some(&body)).await?;
        let found: Answer = answer.ok()?.parse()?;
        let deleted =
            found.hits.hits.into_iter().map(|hit| Ok((Position::from_i64(hit.sort.0)?, hit.id)));
        self.remember(deleted.collect::<Result<Vec<_>>>()?);
        Ok(())
    }
}
