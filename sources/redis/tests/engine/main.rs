//! Tests of this kind over real servers: `engines/up redis`, and servers that the tests start themselves.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail like tests"
)]

mod beside;
mod cluster;
mod common;
mod compressed;
mod faults;
mod journal;
mod lease;
mod protocol;
mod readable;
mod schedule;
mod schedules;
mod scripts;
mod sentinel;
mod shown;
