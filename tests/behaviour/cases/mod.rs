//! The cases, each named after the promise of `unisono_core::source` or `journal` that it tries to break.

mod auditor;
mod cache;
mod follower;
mod journal;
mod lifecycle;
mod log;
mod moving;
mod projection;
mod reader;
mod stream;
mod truth;
mod values;

#[cfg(feature = "sqlite")]
mod adoption;

use futures::future::LocalBoxFuture;

use crate::fixture::{Fixture, Verdict};

/// One case: the promise, what is tried, and how.
pub(crate) struct Case {
    /// The number of the promise.
    pub(crate) id: &'static str,
    /// What a user relies on.
    pub(crate) what: &'static str,
    /// Tries it on a fresh source.
    pub(crate) run: for<'a> fn(&'a Fixture) -> LocalBoxFuture<'a, Verdict>,
}

/// A list of cases from the async functions that try them.
macro_rules! cases {
    ($($id:literal $function:ident $what:literal;)*) => {
        /// The cases of this file.
        pub(super) fn cases() -> Vec<crate::cases::Case> {
            vec![$(crate::cases::Case {
                id: $id,
                what: $what,
                run: |fixture| Box::pin($function(fixture)),
            },)*]
        }
    };
}

use cases;

/// Every case, in the order of the report.
pub(crate) fn all() -> Vec<Case> {
    let mut all = lifecycle::cases();
    all.extend(values::cases());
    all.extend(reader::cases());
    all.extend(truth::cases());
    all.extend(log::cases());
    all.extend(moving::cases());
    all.extend(stream::cases());
    all.extend(follower::cases());
    all.extend(projection::cases());
    all.extend(cache::cases());
    all.extend(auditor::cases());
    all.extend(journal::cases());
    #[cfg(feature = "sqlite")]
    all.extend(adoption::cases());
    all
}
