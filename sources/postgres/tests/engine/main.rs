//! The kind over real servers: `engines/up postgres`, and clusters that the tests start themselves.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by them")]

mod adopted;
mod bouncer;
mod common;
mod errors;
mod failover;
mod lost;
mod proxy;
mod replicas;
mod server;
mod shared;
mod truth;
mod values;
