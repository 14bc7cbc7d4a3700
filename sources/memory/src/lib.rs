//! Source kind `memory`: every role, in this process. The executable specification of the contract, the in-process
//! cache of the product, and the store of the simulator.
//!
//! Reading order: [`disk`](MemoryDisk) and `store` hold the data, `truth`, `follower`, `reader` and `auditor` are the
//! roles over it, `cache` stands apart.

mod auditor;
mod cache;
mod config;
mod disk;
mod follower;
mod journal;
mod reader;
mod recent;
mod source;
mod store;
mod truth;

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::capability::Capability;
use unisono_core::error::Result;
use unisono_core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono_core::source::Source;

pub use config::Settings;
pub use disk::MemoryDisk;

/// The kind.
#[derive(Clone, Copy, Debug)]
pub struct Memory;

impl Memory {
    /// A source over data that outlives it: dropping the source and opening another one over the same disk is a
    /// crash and a restart. What its caches held is lost with it.
    pub fn over(name: &str, disk: Arc<MemoryDisk>, settings: Settings) -> Arc<dyn Source> {
        Arc::new(source::MemorySource::new(name, disk, settings))
    }
}

#[async_trait]
impl SourceKind for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn summary(&self) -> &'static str {
        "Everything in this process, gone when it ends: a cache, or any other role for trying things out."
    }

    fn options(&self) -> &'static [OptionSpec] {
        config::OPTIONS
    }

    fn capability(&self) -> Capability {
        Settings::default().capability()
    }

    async fn open(
        &self,
        name: &str,
        options: &Options,
        _environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        Ok(Memory::over(name, Arc::new(MemoryDisk::new()), Settings::from_options(options)))
    }
}
