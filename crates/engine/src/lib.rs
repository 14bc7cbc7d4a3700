//! What Unisono does: writes, the log, delivery, reads and verification. Knows roles, never kinds.
//!
//! Modules in the order in which a write travels: it is committed ([`engine::Engine::write`]), its change is published
//! to the tail of the log, carried to followers and caches, read back, and verified.

mod adaptive;
pub mod answer;
pub mod archive;
mod audit;
mod cache;
pub mod delivery;
pub mod engine;
mod kept;
pub mod late;
mod limit;
mod log;
pub mod notice;
mod observe;
mod open;
mod outlet;
mod personal;
mod policies;
pub mod projection;
mod read;
pub mod runtime;
mod sample;
pub mod status;
pub mod stream;
pub mod sync;
mod topology;
pub mod verify;
mod watched;
mod write;

pub use answer::{Accepted, Answer, CacheStatus, Written};
pub use engine::{
    DueTimer, Engine, KeptProcess, KeptSnapshot, OpenSource, ProcessStep, ProjectedTarget,
    ProjectionStatus, RowsFollowed, is_overtaken,
};
pub use personal::{Erased, Pending};
pub use projection::RowsChanged;
pub use read::explain::Operation;
pub use runtime::Runtime;
pub use topology::pause::Pause;
