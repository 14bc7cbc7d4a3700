#![doc = include_str!("../README.md")]

mod auditor;
mod capture;
mod client;
mod codec;
mod config;
mod connection;
mod error;
mod follower;
mod journal;
mod query;
mod reader;
mod schema;
mod source;
mod table;
mod tombstones;
mod truth;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::capability::{ApplyCapability, QueryCapability};
use unisono_core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Capability, Capture, Field, FieldType, Result, Role};

pub use crate::capture::record_in;
/// The driver, in the release whose transactions [`record_in`] takes.
pub use rusqlite;

use crate::codec::SCALED_DIGITS_MAX;
use crate::config::Settings;
use crate::source::SqliteSource;

/// The kind `sqlite`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sqlite;

#[async_trait]
impl SourceKind for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn summary(&self) -> &'static str {
        "A SQL database in one file, inside the process."
    }

    fn options(&self) -> &'static [OptionSpec] {
        config::OPTIONS
    }

    fn entity_options(&self, role: Role) -> &'static [OptionSpec] {
        if role == Role::Truth { &[Capture::OPTION] } else { &[] }
    }

    fn capability(&self) -> Capability {
        Capability {
            roles: &[Role::Truth, Role::Follower, Role::Journal],
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
        Ok(Arc::new(SqliteSource::open(name, settings, self.capability()).await?))
    }
}

fn refuses(_role: Role, field: &Field) -> Option<String> {
    match field.ty {
        FieldType::Decimal { precision, .. } if precision > SCALED_DIGITS_MAX => Some(format!(
            "keeps decimals as 64-bit integers, which hold {SCALED_DIGITS_MAX} digits; {precision} are declared"
        )),
        _ => None,
    }
}
