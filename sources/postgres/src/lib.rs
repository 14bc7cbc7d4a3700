#![doc = include_str!("../README.md")]

mod auditor;
mod capture;
mod client;
mod cluster;
mod codec;
mod config;
mod dialect;
mod error;
mod follower;
mod lanes;
mod life;
mod parameter;
mod pool;
mod query;
mod reader;
mod replicas;
mod schema;
mod session;
mod source;
mod table;
mod tls;
mod truth;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::capability::{ApplyCapability, QueryCapability};
use unisono_core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Capability, Capture, Field, Result, Role};

pub use crate::capture::record_in;

use crate::codec::Form;
use crate::config::Settings;
use crate::source::PostgresSource;

/// The kind `postgres`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postgres;

#[async_trait]
impl SourceKind for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn summary(&self) -> &'static str {
        "A PostgreSQL database, with its streaming replicas."
    }

    fn options(&self) -> &'static [OptionSpec] {
        config::OPTIONS
    }

    fn entity_options(&self, role: Role) -> &'static [OptionSpec] {
        if role == Role::Truth { &[Capture::OPTION] } else { &[] }
    }

    fn capability(&self) -> Capability {
        Capability {
            roles: &[Role::Truth, Role::Follower],
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
                copy_lanes: 2,
                batch_changes_max: 1000,
                batch_bytes_max: 8 << 20,
                history: false,
            },
            refuses,
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
        let clock = Arc::clone(&environment.clock);
        Ok(Arc::new(PostgresSource::open(name, settings, clock, self.capability()).await?))
    }
}

fn refuses(role: Role, field: &Field) -> Option<String> {
    (role == Role::Truth && field.unique && Form::of(&field.ty) == Form::Json).then(|| {
        format!("keeps no index over JSON, so that a field of type {} cannot be unique", field.ty)
    })
}
