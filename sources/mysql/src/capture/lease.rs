//! The lease of the sequencer: a row that says which process follows the intake, for how long, and in which epoch.
//!
//! The lease is renewed in the very transaction that sequences, which holds its row until the commit: whoever lost it
//! meanwhile changes nothing. That no two transactions give out the same positions is up to the head row anyway; the
//! lease keeps many processes from waking for the same entries.

use unisono_core::{Result, Uuid};

use crate::codec::number_of;
use crate::pool::Sets;
use crate::table::cell;

/// How long the intake is left to a process that is not heard of. By the server's clock.
const TERM: &str = "INTERVAL 2 SECOND";

/// Locks the lease, unless another process is at it, and asks whether it can be taken or renewed.
pub(super) fn ask(holder: Uuid) -> String {
    format!(
        "SELECT `holder` = '{holder}' OR `until` < UTC_TIMESTAMP(6) FROM unisono_sequencer WHERE `only` = 1 \
         FOR UPDATE SKIP LOCKED"
    )
}

/// The answer to [`ask`].
pub(super) fn is_free(sets: &Sets) -> Result<bool> {
    match sets.first().and_then(|rows| rows.first()) {
        Some(row) => Ok(number_of(cell(row, 0)?)? == Some(1)),
        None => Ok(false),
    }
}

/// Takes or renews it.
pub(super) fn renew(holder: Uuid) -> String {
    // Assigned from left to right.
    format!(
        "UPDATE unisono_sequencer SET `epoch` = `epoch` + (`holder` <> '{holder}'), `holder` = '{holder}', \
         `until` = UTC_TIMESTAMP(6) + {TERM} WHERE `only` = 1"
    )
}
