//! Indexes and their aliases: made, found, swapped and deleted.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use unisono_core::{Error, ErrorKind, Result, Uuid};

use crate::cluster::Cluster;
use crate::schema::Layout;

/// How long the engine itself remembers deletions that we have let go of.
const DELETES_REMEMBERED: &str = "1h";
/// Fields of a mapping; an entity may have more than the engine's 1000.
const FIELDS_MAX: u32 = 20_000;

/// The administration of the indexes of one place.
pub(crate) struct Index<'a> {
    /// The cluster.
    pub(crate) cluster: &'a Cluster,
    /// The alias under which other programs find the records.
    pub(crate) alias: &'a str,
}

/// The alias through which an index is written. It goes with the index, so that writing never makes one by itself.
pub(crate) fn entrance(index: &str) -> String {
    format!("{index}-in")
}

impl Index<'_> {
    /// Makes an empty index under a name that none had before.
    pub(crate) async fn make(&self, layout: &Layout) -> Result<String> {
        let random = Uuid::now_v7().simple().to_string();
        let name = format!("{}-{}", self.alias, random.get(20..).unwrap_or(&random));
        let mut aliases = json!({entrance(&name): {}});
        if self.behind_alias().await?.is_empty() {
            aliases[self.alias] = json!({});
        }
        let body = json!({
            "settings": {
                "number_of_shards": self.cluster.settings.shards,
                "number_of_replicas": self.cluster.settings.replicas,
                "gc_deletes": DELETES_REMEMBERED,
                "mapping.total_fields.limit": FIELDS_MAX,
            },
            "mappings": layout.mapping(),
            "aliases": aliases,
        });
        self.write(Method::PUT, &format!("/{name}"), &body).await?;
        Ok(name)
    }

    /// By which declaration an index was made; `None` if it is not there.
    pub(crate) async fn layout_of(&self, index: &str) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Of {
            mappings: Json,
        }
        let answer = self.cluster.client.get(&format!("/{index}/_mapping")).await?.found()?;
        let Some(answer) = answer else { return Ok(None) };
        let found: BTreeMap<String, Of> = answer.parse()?;
        let layout = found
            .get(index)
            .and_then(|of| of.mappings.pointer("/_meta/unisono/layout"))
            .and_then(Json::as_str);
        Ok(Some(layout.unwrap_or_default().to_owned()))
    }

    /// Whether an index is there.
    pub(crate) async fn exists(&self, index: &str) -> Result<bool> {
        let path = format!("/{index}");
        let head = self.cluster.client.read(Method::HEAD, &path, None::<&Json>).await?;
        Ok(head.found()?.is_some())
    }

    /// Adds the fields of a layout to an index.
    pub(crate) async fn extend(&self, index: &str, layout: &Layout) -> Result<()> {
        self.write(Method::PUT, &format!("/{index}/_mapping"), &layout.mapping()).await
    }

    /// The indexes behind the alias.
    ///
    /// Fails with `schema_mismatch` if an index has the name of the alias.
    pub(crate) async fn behind_alias(&self) -> Result<Vec<String>> {
        let answer = self.cluster.client.get(&format!("/_alias/{}", self.alias)).await?.found()?;
        if let Some(answer) = answer {
            let found: BTreeMap<String, Json> = answer.parse()?;
            return Ok(found.into_keys().collect());
        }
        if self.exists(self.alias).await? {
            return Err(Error::new(ErrorKind::SchemaMismatch, "an index already has the name")
                .with("index", self.alias)
                .hint(
                    "set the option prefix, or give the entity another index, or delete this one",
                ));
        }
        Ok(Vec::new())
    }

    /// Lets other programs find an index under the alias, and nothing else; what was there is deleted in the same
    /// moment, if it is ours.
    pub(crate) async fn publish(&self, index: &str) -> Result<()> {
        let ours = format!("{}-", self.alias);
        let mut actions = vec![json!({"add": {"index": index, "alias": self.alias}})];
        for other in self.behind_alias().await?.iter().filter(|other| *other != index) {
            actions.push(match other.starts_with(&ours) {
                true => json!({"remove_index": {"index": other}}),
                false => json!({"remove": {"index": other, "alias": self.alias}}),
            });
        }
        self.write(Method::POST, "/_aliases", &json!({"actions": actions})).await
    }

    /// Gives up an index for another one: deletes it, unless other programs still find it under the alias; then it only
    /// takes no more writes.
    pub(crate) async fn retire(&self, index: &str) -> Result<()> {
        let (method, path) = match self.behind_alias().await?.iter().any(|name| name == index) {
            true => (Method::DELETE, format!("/{index}/_alias/{}", entrance(index))),
            false => (Method::DELETE, format!("/{index}")),
        };
        self.cluster.client.write(method, &path, None::<&Json>).await?.found().map(drop)
    }

    async fn write(&self, method: Method, path: &str, body: &Json) -> Result<()> {
        self.cluster.client.write(method, path, Some(body)).await?.ok().map(drop)
    }
}
