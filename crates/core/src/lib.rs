//! The words and the contract of Unisono. No driver, no socket, no task.
//!
//! Reading order: values and entities, records and their versions, writes and changes, queries, and then
//! [`source`], the contract that every source kind fulfils.

pub mod error;
pub mod time;
pub mod value;
pub mod entity;
pub mod key;
pub mod position;
pub mod record;
pub mod json;
pub mod write;
pub mod change;
pub mod query;
pub mod digest;
pub mod capability;
pub mod source;
pub mod kind;
pub mod clock;
pub mod context;

pub use capability::{Capability, Role};
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
