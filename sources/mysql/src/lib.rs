#![doc = include_str!("../README.md")]

mod auditor;
mod capture;
mod client;
mod codec;
mod config;
mod connection;
mod error;
mod follower;
mod images;
mod literal;
mod mutation;
mod pool;
mod query;
mod reader;
mod schema;
mod source;
mod table;
mod tombstones;
mod truth;

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::capability::{ApplyCapability, QueryCapability};
use unisono_core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Capability, Capture, Field, FieldType, Result, Role};

pub use crate::capture::record_in;

use crate::config::Settings;
use crate::source::MysqlSource;

/// The kind `mysql`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mysql;

#[async_trait]
impl SourceKind for Mysql {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn summary(&self) -> &'static str {
        "A database of MariaDB or MySQL."
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
                batch_bytes_max: 4 << 20,
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
        let settings = Settings::from_options(options, environment).map_err(|e| e.at(name))?;
        Ok(Arc::new(MysqlSource::open(name, settings, self.capability()).await?))
    }
}

fn refuses(role: Role, field: &Field) -> Option<String> {
    match field.ty {
        FieldType::Json | FieldType::List(_) | FieldType::Objects(_)
            if field.unique && role == Role::Truth =>
        {
            Some("keeps lists and JSON as text, of which equal values can have several forms: they cannot be unique".into())
        }
        _ => None,
    }
}
