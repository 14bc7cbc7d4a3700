//! Pure decisions of Unisono: no I/O, no clock, no randomness of its own. Same facts, same plan.
//!
//! Reading order: what is declared, conditions over records and requests, the rules of reads, where a read goes, how busy
//! a source is, what a follower keeps of a record, when to read again before the end, whether to try again, when to stop asking a source, how much to send at
//! once, when a writer is answered, what followers can afford, what becomes of writes to
//! two truths that had not seen each other, and what of a declaration can be changed while the engine runs.

pub mod ack;
pub mod adaptive;
pub mod batch;
pub mod breaker;
pub mod conflict;
pub mod declaration;
pub mod delivery;
pub mod hedge;
pub mod hook;
pub mod load;
pub mod mapping;
pub mod pace;
pub mod projection;
pub mod read;
pub mod refresh;
pub mod reload;
pub mod retry;
pub mod route;
pub mod rule;
pub mod sample;
pub mod strategy;
pub mod write;
