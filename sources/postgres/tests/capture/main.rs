//! Writes of other programs to captured tables, over the server that `engines/up postgres` has started.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by them")]

#[path = "../engine/common.rs"]
#[expect(dead_code, reason = "shared with the tests of the kind, each of which uses a part")]
mod common;
mod ended;
mod follower;
mod many;
mod own;
mod restored;
mod sequencer;
#[path = "../engine/server.rs"]
mod server;
mod site;
mod soon;
mod stepper;
mod tables;
mod transactions;
