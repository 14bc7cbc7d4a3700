//! The log: a tail in memory that wakes everything derived from it, and trimming of what nobody needs any more.

pub(crate) mod tail;
pub(crate) mod trim;

use std::sync::Arc;

use unisono_core::source::{Auditor, Reader, Truth};
use unisono_core::{LogName, Uuid};

use crate::delivery::turns::Turns;
use crate::notice::Notices;
use crate::watched::Watched;
use crate::write::commit::Committer;
use tail::Tail;

/// One log with everything that serves it.
pub(crate) struct Log {
    /// Its name in tokens.
    pub(crate) name: LogName,
    /// Its identity in checkpoints.
    pub(crate) id: Uuid,
    /// The source that owns it.
    pub(crate) truth: Arc<dyn Truth>,
    /// Reads the records behind it.
    pub(crate) reader: Arc<dyn Reader>,
    /// Reads all of them in order.
    pub(crate) auditor: Arc<dyn Auditor>,
    /// Its newest changes.
    pub(crate) tail: Arc<Tail>,
    /// Who works through a backlog of it.
    pub(crate) turns: Turns,
    /// Who is told of what is found wrong with its followers.
    pub(crate) notices: Arc<Notices>,
    /// Where writes to it go.
    pub(crate) committer: Committer,
    /// How many entries of the audit trail are on their way.
    pub(crate) auditing: Watched<usize>,
}
