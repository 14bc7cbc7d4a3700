#![doc = include_str!("../README.md")]

mod auditor;
mod client;
mod codec;
mod collection;
mod config;
mod document;
mod error;
mod follower;
mod json;
mod query;
mod reader;
mod schema;
mod source;
mod transaction;
mod writes;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::capability::{ApplyCapability, QueryCapability};
use unisono_core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Capability, Result, Role};

use crate::config::Settings;
use crate::source::MongodbSource;

/// The kind `mongodb`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mongodb;

#[async_trait]
impl SourceKind for Mongodb {
    fn name(&self) -> &'static str {
        "mongodb"
    }

    fn summary(&self) -> &'static str {
        "MongoDB, or a server of its wire protocol: one document for each record."
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
                search: false,
                scans: false,
            },
            apply: ApplyCapability {
                lanes: 1,
                copy_lanes: 1,
                batch_changes_max: 2000,
                batch_bytes_max: 16 << 20,
                history: false,
            },
            refuses: |_, _| None,
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
        let settings = Settings::from_options(options, environment)?;
        Ok(Arc::new(MongodbSource::open(name, settings, self.capability()).await?))
    }
}
