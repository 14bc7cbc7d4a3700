//! `last_writer`: the value of the one that wins, by the clock unless something else is declared.

use super::{How, Merge};

pub(super) const LAST_WRITER: Merge = Merge {
    name: "last_writer",
    takes: "any field",
    fits: |_| true,
    loses: true,
    how: How::Of(|values, winner| values[winner].clone()),
};
