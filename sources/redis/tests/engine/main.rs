//! Tests of this kind over real servers: `engines/up redis`, and servers that the tests start themselves.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail like tests")]

mod cluster;
mod common;
mod faults;
mod protocol;
mod readable;
mod sentinel;
