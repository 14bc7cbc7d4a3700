//! Questions as SQL. What SQL cannot answer exactly is tested row by row with the reference evaluator.

pub(crate) mod aggregate;
pub(crate) mod filter;
pub(crate) mod functions;
pub(crate) mod page;
