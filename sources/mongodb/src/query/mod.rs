//! Questions as native queries. What those cannot answer exactly they narrow, and the reference evaluator decides.

pub(crate) mod aggregate;
pub(crate) mod filter;
pub(crate) mod order;
pub(crate) mod page;
pub(crate) mod pattern;
pub(crate) mod rows;

/// The documents to ask for at once when this many are wanted, and one more.
pub(crate) fn batch_size(limit: usize) -> u32 {
    u32::try_from(limit.saturating_add(1).clamp(2, 1001)).unwrap_or(1001)
}
