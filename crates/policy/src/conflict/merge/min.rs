//! `min`: the lesser of both; null is none.

use super::{How, Merge, is_ordered};

pub(super) const MIN: Merge = Merge {
    name: "min",
    takes: "numbers, strings, dates and timestamps",
    fits: is_ordered,
    loses: true,
    how: How::Of(|[a, b], _| match (a.is_null(), b.is_null()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ if b.order(a).is_lt() => b.clone(),
        _ => a.clone(),
    }),
};
