//! Questions: how statements of the shared SQL are run in a snapshot, and what PostgreSQL can say about JSON.

pub(crate) mod nested;
pub(crate) mod snapshot;
