//! Unisono, embedded: declare an entity once and keep it in many sources that agree.
//!
//! [`Unisono::open`] takes a configuration, and [`Unisono::reload`] another one while it runs; [`Unisono::entity`] gives a typed [`Handle`] on the records of an entity.
//! Everything else is reached through [`Unisono::engine`]. A [`Registry`] takes source kinds of the application's own.

pub use unisono_config as config;
pub use unisono_core as core;
pub use unisono_engine as engine;
pub use unisono_policy as policy;

pub mod find;
pub mod groups;
pub mod handle;
pub mod handlers;
pub mod open;
pub mod processes;
pub mod projections;
pub mod registry;
mod reload;
pub mod rows;
pub mod snapshots;
pub mod streams;

pub use find::{Find, Page};
pub use handle::Handle;
pub use open::{Unisono, open_sources};
pub use processes::{Process, Then, Timer};
pub use projections::project;
pub use registry::Registry;
pub use registry::native::*;
pub use rows::{RowsOf, Step};
pub use snapshots::{Snapshot, Snapshots};
pub use streams::{Aggregate, Recorded, Streams, Subscription};
