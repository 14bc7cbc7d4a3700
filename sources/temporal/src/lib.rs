#![doc = include_str!("../README.md")]

mod auditor;
mod capture;
mod client;
mod codec;
mod config;
mod error;
mod image;
mod intent;
mod journal;
mod layout;
mod locks;
mod look;
mod reader;
mod source;
mod truth;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::capability::{ApplyCapability, QueryCapability};
use unisono_core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Capability, Entity, Result, Role};

use crate::config::Settings;
use crate::source::TemporalSource;

/// The kind `temporal`.
#[derive(Clone, Copy)]
pub struct Temporal {
    /// The kind that keeps the journal: a truth in a file, whose option `path` names it, that keeps text, numbers,
    /// times, UUIDs, JSON and lists of text exactly.
    pub journal: &'static dyn SourceKind,
}

#[async_trait]
impl SourceKind for Temporal {
    fn name(&self) -> &'static str {
        "temporal"
    }

    fn summary(&self) -> &'static str {
        "Temporal: workflows as records, started, signalled and ended by writes."
    }

    fn options(&self) -> &'static [OptionSpec] {
        config::OPTIONS
    }

    fn entity_options(&self, role: Role) -> &'static [OptionSpec] {
        if role == Role::Truth { config::ENTITY_OPTIONS } else { &[] }
    }

    fn capability(&self) -> Capability {
        Capability {
            roles: &[Role::Truth],
            durable: true,
            naming: &[],
            query: QueryCapability {
                get: true,
                filter: true,
                aggregate: true,
                search: false,
                scans: false,
            },
            // It follows nothing; the numbers are never used.
            apply: ApplyCapability {
                lanes: 1,
                copy_lanes: 1,
                batch_changes_max: 1,
                batch_bytes_max: 1,
                history: false,
            },
            // What a field means depends on the options of its entity: see `check_entity`.
            refuses: |_, _| None,
        }
    }

    fn check(&self, options: &Options) -> Vec<(&'static str, String)> {
        config::check(options)
    }

    fn check_entity(
        &self,
        _role: Role,
        entity: &Entity,
        options: &Options,
    ) -> Vec<(&'static str, String)> {
        layout::Layout::of(entity, options).err().unwrap_or_default()
    }

    async fn open(
        &self,
        name: &str,
        options: &Options,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        let settings = Settings::from_options(name, options, environment)?;
        let capability = self.capability();
        let source =
            TemporalSource::open(name, settings, self.journal, environment, capability).await?;
        Ok(Arc::new(source))
    }
}
