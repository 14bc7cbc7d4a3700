//! Reads: the cache first, then the sources in the order of the plan, within the caller's time.

pub(crate) mod ask;
pub(crate) mod explain;
pub(crate) mod flight;
pub(crate) mod get;
pub(crate) mod handle;
pub(crate) mod pending;
pub(crate) mod question;
pub(crate) mod quorum;
pub(crate) mod replicas;
pub(crate) mod results;
pub(crate) mod serving;
pub(crate) mod words;
