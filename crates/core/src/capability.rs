//! [`Capability`]: what a source can do, as plain data that never changes after it was opened.

use crate::entity::Field;

/// What a source does for an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Its transaction decides.
    Truth,
    /// It is fed from the log and holds every record, or those that `where` keeps.
    Follower,
    /// It holds some records, each with a version and a time to live.
    Cache,
    /// It keeps acknowledged writes until they are flushed to the truth.
    Journal,
    /// It keeps backups and the archived log.
    Vault,
    /// It is sent messages about changes, which it acts on; nothing is read from it.
    Outlet,
}

impl Role {
    /// The word used in configurations and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Truth => "truth",
            Role::Follower => "follower",
            Role::Cache => "cache",
            Role::Journal => "journal",
            Role::Vault => "vault",
            Role::Outlet => "outlet",
        }
    }
}

/// What a source can do, with limits.
#[derive(Clone, Debug)]
pub struct Capability {
    /// The roles it can play.
    pub roles: &'static [Role],
    /// Whether what it took in survives the end of the process.
    pub durable: bool,
    /// The options of entities that say under which names others find what is kept. A second store of the same, beside the
    /// first, goes without them.
    pub naming: &'static [&'static str],
    /// What it answers itself.
    pub query: QueryCapability,
    /// How it wants to be fed as a follower.
    pub apply: ApplyCapability,
    /// Why a field cannot be kept exactly by the source in a role; `None` if it can.
    pub refuses: fn(Role, &Field) -> Option<String>,
}

/// What kinds of questions a source answers by its own means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryCapability {
    /// Records by key.
    pub get: bool,
    /// Filters with order and pages.
    pub filter: bool,
    /// Counts and groups.
    pub aggregate: bool,
    /// Full-text search with relevance, highlights and facets.
    pub search: bool,
    /// Whether filters read every record; the router then avoids the source while another can answer.
    pub scans: bool,
}

/// How a follower wants to be fed.
#[derive(Clone, Copy, Debug)]
pub struct ApplyCapability {
    /// How many batches it takes at the same time; above 1, checkpoints are saved apart from the data.
    pub lanes: usize,
    /// How many batches of a copy it takes at the same time; their checkpoint is saved when all of them are taken in.
    pub copy_lanes: usize,
    /// The most changes in one batch.
    pub batch_changes_max: usize,
    /// About the most bytes in one batch.
    pub batch_bytes_max: usize,
    /// Whether it wants every change; otherwise superseded changes of a key are folded away.
    pub history: bool,
}
