//! The HTTP interface as callers meet it: a real server, real sockets, the memory sources behind.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod access;
mod bad_input;
mod batch;
mod changes;
mod harness;
mod limits;
mod pages;
mod projections;
mod records;
mod reload;
mod streams;
mod tls;
