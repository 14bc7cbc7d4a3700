//! What only a running cluster can show: `engines/up opensearch` starts it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod connection;
mod following;
mod rebuilding;
mod searching;
mod server;
