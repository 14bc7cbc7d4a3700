#![doc = include_str!("../README.md")]

mod auditor;
mod bulk;
mod client;
mod cluster;
mod codec;
mod config;
mod conflict;
mod error;
mod follower;
mod handle;
mod place;
mod product;
mod query;
mod reader;
mod schema;
mod searchable;
mod source;
mod tls;

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::capability::{ApplyCapability, QueryCapability};
use unisono_core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Capability, Result, Role};

use crate::cluster::Cluster;
use crate::config::Settings;
use crate::source::OpensearchSource;

const NAME: &str = "opensearch";
const FOLLOWER_ONLY: &str = "a search index can only be a follower";

/// The kind `opensearch`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opensearch;

#[async_trait]
impl SourceKind for Opensearch {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "Full-text search, filters, facets and groups on OpenSearch or Elasticsearch."
    }

    fn options(&self) -> &'static [OptionSpec] {
        config::OPTIONS
    }

    fn capability(&self) -> Capability {
        Capability {
            roles: &[Role::Follower],
            durable: true,
            naming: &[],
            query: QueryCapability {
                get: true,
                filter: true,
                aggregate: true,
                search: true,
                scans: false,
            },
            apply: ApplyCapability {
                lanes: 4,
                copy_lanes: 4,
                batch_changes_max: 4_096,
                batch_bytes_max: 4 << 20,
                history: false,
            },
            refuses: |role, _| (role != Role::Follower).then(|| FOLLOWER_ONLY.to_owned()),
        }
    }

    fn check(&self, options: &Options) -> Vec<(&'static str, String)> {
        config::check(options)
    }

    async fn open(
        &self,
        name: &str,
        options: &Options,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        let settings = Settings::from_options(options, environment).map_err(|e| e.at(name))?;
        let cluster = Cluster::open(&name.into(), settings).await;
        let cluster = cluster.map_err(|e| e.on("open").at(name))?;
        Ok(Arc::new(OpensearchSource::new(cluster, self.capability())))
    }
}
