//! What only a server shows. Needs one: `engines/up temporal`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

mod faults;
mod support;
mod worker;
mod workflows;
