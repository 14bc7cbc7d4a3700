#![doc = include_str!("../README.md")]

mod auditor;
mod cache;
mod client;
mod cluster;
mod codec;
mod company;
mod compression;
mod config;
mod error;
mod follower;
mod health;
mod journal;
mod keys;
mod mark;
mod node;
mod reader;
mod reply;
mod scan;
mod schema;
mod script;
mod sentinel;
mod shelf;
mod shown;
mod source;
mod tls;
mod url;

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::capability::{ApplyCapability, QueryCapability};
use unisono_core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Capability, Entity, Result, Role};

use crate::config::Settings;
use crate::source::RedisSource;

const NAME: &str = "redis";

/// The kind `redis`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Redis;

#[async_trait]
impl SourceKind for Redis {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "Redis or Valkey: a cache and a journal that several processes share, and records that other programs read by key."
    }

    fn options(&self) -> &'static [OptionSpec] {
        config::OPTIONS
    }

    fn entity_options(&self, role: Role) -> &'static [OptionSpec] {
        match role {
            Role::Follower => config::FOLLOWER_OPTIONS,
            Role::Cache => config::CACHE_OPTIONS,
            Role::Truth | Role::Journal | Role::Vault | Role::Outlet => &[],
        }
    }

    fn live_options(&self) -> &'static [&'static str] {
        &["compress_above"]
    }

    fn capability(&self) -> Capability {
        Capability {
            roles: &[Role::Follower, Role::Cache, Role::Journal],
            durable: true,
            naming: &["key_template", "values", "sorted_sets"],
            query: QueryCapability {
                get: true,
                filter: true,
                aggregate: true,
                search: false,
                scans: true,
            },
            apply: ApplyCapability {
                lanes: 1,
                copy_lanes: 2,
                batch_changes_max: follower::CHANGES_MAX,
                batch_bytes_max: follower::BYTES_MAX,
                history: false,
            },
            refuses: |role, _| {
                (role == Role::Truth).then(|| "a redis source cannot be a truth".to_owned())
            },
        }
    }

    fn check(&self, options: &Options) -> Vec<(&'static str, String)> {
        config::check(options)
    }

    fn check_entity(
        &self,
        role: Role,
        entity: &Entity,
        options: &Options,
    ) -> Vec<(&'static str, String)> {
        config::check_entity(role, entity, options)
    }

    async fn open(
        &self,
        name: &str,
        options: &Options,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        let clock = Arc::clone(&environment.clock);
        let opened = async {
            let settings = Settings::from_options(options, environment)?;
            RedisSource::open(name, &settings, clock, self.capability()).await
        };
        Ok(Arc::new(opened.await.map_err(|e| e.on("open").at(name))?))
    }
}
