//! Writes: from a request to a committed, positioned change.

pub(crate) mod acknowledge;
pub(crate) mod behind;
pub(crate) mod commit;
pub(crate) mod hold;
pub(crate) mod idempotency;
pub(crate) mod through;
