//! `max`: the greater of both.

use super::{How, Merge, is_ordered};

pub(super) const MAX: Merge = Merge {
    name: "max",
    takes: "numbers, strings, dates and timestamps",
    fits: is_ordered,
    loses: true,
    how: How::Of(|[a, b], _| if b.order(a).is_gt() { b.clone() } else { a.clone() }),
};
