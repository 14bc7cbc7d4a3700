//! The words and the contract of Unisono. No driver, no socket, no task.
//!
//! Reading order: values and entities, records and their versions, writes and changes, queries, and then
//! [`source`], the contract that every source kind fulfils.

pub mod ack;
pub mod auditor;
pub mod capability;
pub mod capture;
pub mod change;
pub mod clock;
pub mod context;
pub mod digest;
pub mod entity;
pub mod error;
pub mod journal;
pub mod json;
pub mod key;
pub mod kind;
pub mod outlet;
pub mod personal;
pub mod position;
pub mod query;
pub mod record;
pub mod relay;
pub mod slice;
pub mod source;
pub mod spelling;
pub mod stream;
pub mod time;
pub mod value;
pub mod vault;
pub mod write;

pub use ack::Ack;
pub use capability::{Capability, Role};
pub use capture::{Capture, Described};
pub use change::{Change, Operation};
pub use context::{Consistency, Context};
pub use entity::{Entity, Field, FieldType};
pub use error::{Effect, Error, ErrorKind, Result, Retry};
pub use key::Key;
pub use position::{LogName, Position, Token, Version};
pub use record::{Record, Stored};
pub use time::{Date, Timestamp};
pub use value::Value;

/// Re-exported so that all crates agree on one version.
pub use rust_decimal::Decimal;
pub use uuid::Uuid;

#[cfg(test)]
mod fixtures;
