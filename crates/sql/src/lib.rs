//! What the SQL sources share: questions compiled to SQL of a [`Dialect`], and answered exactly.
//!
//! A server cannot call the reference evaluator. So a filter becomes a condition that every matching record satisfies;
//! where SQL cannot tell more, others satisfy it too. Rows of such a condition are read in the right order and decided
//! by [`eval::matches`](unisono_core::query::eval::matches), until the page is full.

mod aggregate;
mod dialect;
mod filter;
pub mod objects;
mod page;
pub mod text;
pub mod types;

#[cfg(test)]
mod tests;

pub use aggregate::{aggregate, count};
pub use dialect::{Condition, Dialect, Each, Rows, Statement};
pub use filter::compile;
pub use page::page;
