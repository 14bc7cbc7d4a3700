//! Where an entity is kept: which index holds it now, and its checkpoint. One document for each, in an index of their
//! own, changed only by compare-and-set.

use std::sync::Arc;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use unisono_core::source::Checkpoint;
use unisono_core::{Position, Result};

use crate::cluster::Cluster;
use crate::error::Cause;

/// What is known of an entity in a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The index that holds its records. No index ever gets the name of an earlier one, so that a checkpoint never
    /// speaks of an index that was deleted and made again.
    pub(crate) index: String,
    /// Up to where the index has taken in everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl Place {
    /// Everything up to here is in the index; zero while the first copy is being made.
    pub(crate) fn position(&self) -> Position {
        match &self.checkpoint {
            Some(Checkpoint { position, backfill: None, .. }) => *position,
            _ => Position::ZERO,
        }
    }
}

/// When a document was written, to be named when it is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Written {
    /// Number of the write.
    #[serde(rename = "_seq_no")]
    pub(crate) sequence: u64,
    /// Which primary shard numbered it.
    #[serde(rename = "_primary_term")]
    pub(crate) term: u64,
}

/// A place as it is stored.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Kept {
    /// The place.
    #[serde(rename = "_source")]
    pub(crate) place: Place,
    /// When it was written.
    #[serde(flatten)]
    pub(crate) written: Written,
}

/// The index of places.
pub(crate) struct Places {
    cluster: Arc<Cluster>,
    name: String,
}

impl Places {
    /// The places of a source. No entity can have the name, for it begins like those that are reserved.
    pub(crate) fn new(cluster: &Arc<Cluster>) -> Self {
        let name = format!("{}unisono_places", cluster.settings.prefix);
        Places { cluster: Arc::clone(cluster), name }
    }

    /// Makes the index, if it is not there.
    pub(crate) async fn ensure(&self) -> Result<()> {
        let client = &self.cluster.client;
        if client.get(&format!("/_alias/{}", self.name)).await?.found()?.is_some() {
            return Ok(());
        }
        let body = json!({
            "settings": {
                "number_of_shards": 1,
                "number_of_replicas": self.cluster.settings.replicas,
            },
            "mappings": {"dynamic": false},
            "aliases": {&self.name: {}},
        });
        let made = client.write(Method::PUT, &format!("/{}-1", self.name), Some(&body)).await?;
        // Another process may have been quicker.
        if Cause::of_body(&made.body).name == "resource_already_exists_exception" {
            return Ok(());
        }
        made.ok().map(drop)
    }

    /// The place of this name, as the last write left it.
    pub(crate) async fn read(&self, place: &str) -> Result<Option<Kept>> {
        let found = self.cluster.client.get(&format!("/{}/_doc/{place}", self.name)).await?;
        match found.found()? {
            Some(answer) => answer.parse().map(Some),
            None => Ok(None),
        }
    }

    /// Stores a place that was not there (`kept` is `None`), or one that is as it was read. `None`: it is not.
    pub(crate) async fn write(
        &self,
        name: &str,
        place: Place,
        kept: Option<Written>,
    ) -> Result<Option<Kept>> {
        let condition = match kept {
            None => "op_type=create".to_owned(),
            Some(Written { sequence, term }) => {
                format!("if_seq_no={sequence}&if_primary_term={term}")
            }
        };
        // The alias keeps an engine that is willing from making an index that was deleted.
        let path = format!("/{}/_doc/{name}?require_alias=true&{condition}", self.name);
        let answer = self.cluster.client.write(Method::PUT, &path, Some(&place)).await?;
        if matches!(answer.status, 404 | 409) {
            return Ok(None);
        }
        let written = answer.ok()?.parse()?;
        Ok(Some(Kept { place, written }))
    }
}
