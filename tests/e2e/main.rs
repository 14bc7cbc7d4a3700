//! The real program, as its users run it: started, killed, started again, fed with nonsense.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and runs in real time"
)]

mod audit;
mod command_line;
mod kill;
mod kill_behind;
mod lost_follower;
mod program;
mod promote;
mod topology;
