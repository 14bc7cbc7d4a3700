//! How everything is doing, as plain data for the API, the CLI and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use unisono_core::{Position, Timestamp};
use unisono_policy::declaration::{EntityDeclaration, FollowerDeclaration};

use crate::verify::report::{Comparison, Depth, Divergence};

/// How everything is doing.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// When this was looked at.
    pub time: Timestamp,
    /// Every source.
    pub sources: Vec<SourceStatus>,
    /// Every log.
    pub logs: Vec<LogStatus>,
    /// Every delivery: one for each follower and entity.
    pub deliveries: Vec<DeliveryStatus>,
    /// Every cache and entity.
    pub caches: Vec<CacheStatistics>,
    /// Every entity, and how its changes reach its followers.
    pub entities: Vec<EntityStatus>,
    /// Every entity that is written behind.
    pub journals: Vec<JournalStatus>,
}

/// How the changes of one entity reach its followers.
#[derive(Clone, Debug, Serialize)]
pub struct EntityStatus {
    /// The entity.
    pub entity: Arc<str>,
    /// The strategy that was given, if any.
    pub strategy: Option<&'static str>,
    /// Which sources must have a write before it is answered.
    pub ack: String,
    /// What the strategy stands for, or was declared: the followers that are fed in a way of their own, and how.
    pub followers: Vec<String>,
    /// Where the strategy `adaptive` is, if that is the one.
    pub adaptive: Option<AdaptiveStatus>,
}

/// Where the strategy `adaptive` is with an entity.
#[derive(Clone, Debug, Serialize)]
pub struct AdaptiveStatus {
    /// `all`, `quorum` or `truth`.
    pub level: &'static str,
    /// The level as a number: 2, 1 or 0.
    pub rank: u8,
    /// Which sources must have a write before it is answered at this level.
    pub ack: String,
    /// Since when.
    pub since: Timestamp,
    /// Why, in one line.
    pub why: String,
    /// Changes of level since the start.
    pub moves_total: u64,
    /// The last of them, the newest at the end.
    pub moves: Vec<AdaptiveMove>,
}

/// A change of the level of `adaptive`.
#[derive(Clone, Debug, Serialize)]
pub struct AdaptiveMove {
    /// When.
    pub time: Timestamp,
    /// The level before.
    pub from: &'static str,
    /// The level afterwards.
    pub to: &'static str,
    /// Why, in one line.
    pub why: String,
}

impl EntityStatus {
    pub(crate) fn of(declared: &EntityDeclaration, adaptive: Option<AdaptiveStatus>) -> Self {
        let follower = |follower: &FollowerDeclaration| {
            let told = follower.delivery.to_string();
            (!told.is_empty()).then(|| format!("{}: {told}", follower.source))
        };
        EntityStatus {
            entity: Arc::clone(declared.entity.name()),
            strategy: declared.strategy.map(|strategy| strategy.name),
            ack: match &adaptive {
                Some(adaptive) => adaptive.ack.clone(),
                None => declared.ack.ack.to_string(),
            },
            followers: declared.followers.iter().filter_map(follower).collect(),
            adaptive,
        }
    }

    /// The same in one line; nothing if changes are delivered as they are without any declaration.
    pub(crate) fn line(&self) -> Option<String> {
        if self.strategy.is_none() && self.ack == "truth" && self.followers.is_empty() {
            return None;
        }
        let strategy = self.strategy.map(|name| format!("strategy {name}"));
        let why = self.adaptive.as_ref().map(|a| format!(" since {}: {}", a.since, a.why));
        let ack = format!("ack {}{}", self.ack, why.unwrap_or_default());
        let parts = strategy.into_iter().chain([ack]);
        let parts = parts.chain(self.followers.iter().cloned());
        Some(format!("=  writes: {}", parts.collect::<Vec<_>>().join("; ")))
    }
}

/// What a comparison of a follower with its truth found.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// When.
    pub time: Timestamp,
    /// How thoroughly.
    pub depth: Depth,
    /// Records compared.
    pub records: u64,
    /// How many differed in which way.
    pub classes: BTreeMap<Divergence, u64>,
    /// How many still do.
    pub different: u64,
    /// Why it could not be finished.
    pub error: Option<String>,
}

impl Compared {
    pub(crate) fn of(found: &Comparison, time: Timestamp) -> Self {
        Compared {
            time,
            depth: found.depth,
            records: found.records,
            classes: found.classes.clone(),
            different: found.different - found.repaired,
            error: found.error.clone(),
        }
    }
}

/// How one source is doing.
#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: String,
    /// `up`, or why not.
    pub state: String,
    /// Engine and version.
    pub engine: String,
    /// Bytes that it occupies, where that is cheap to tell.
    pub bytes: Option<u64>,
    /// Whether it is asked: `closed` if so, `open` after repeated failures, `half_open` while it is tried.
    pub breaker: &'static str,
    /// How busy it is, for each class of questions that it was asked.
    pub load: Vec<LoadStatus>,
}

/// How busy a source is with one class of questions.
#[derive(Clone, Debug, Serialize)]
pub struct LoadStatus {
    /// `get`, `query`, `search` or `aggregate`.
    pub class: &'static str,
    /// What a question takes, in seconds: the peak of late, slowly forgotten.
    pub latency_seconds: f64,
    /// Questions under way.
    pub in_flight: u32,
    /// Questions asked since the start.
    pub asked: u64,
    /// Those that failed because of the source.
    pub failed: u64,
}

/// Where a log begins and ends.
#[derive(Clone, Debug, Serialize)]
pub struct LogStatus {
    /// Its name.
    pub log: String,
    /// The newest position.
    pub head: Position,
    /// Changes up to here have been trimmed.
    pub trimmed: Position,
    /// Records of changes kept.
    pub retained: u64,
}

/// What a delivery is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It has not reached its follower yet.
    Starting,
    /// It makes the first copy.
    Backfilling,
    /// It works through a backlog.
    CatchingUp,
    /// It is at the head of the log.
    Live,
    /// Its follower fails; it tries again.
    Waiting,
    /// It was ended.
    Stopped,
}

/// How one delivery is doing.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryStatus {
    /// The entity.
    pub entity: Arc<str>,
    /// The follower's source.
    pub source: Arc<str>,
    /// What it is doing.
    pub state: DeliveryState,
    /// Everything up to here is applied.
    pub position: Position,
    /// Changes of the log that it has not come to yet.
    pub lag_changes: u64,
    /// Seconds since the oldest change that is not applied was committed.
    pub lag_seconds: f64,
    /// Seconds for which there has been something to do and nothing was achieved.
    pub stalled_seconds: f64,
    /// Changes applied since the start.
    pub applied: u64,
    /// Changes that the follower had already.
    pub stale: u64,
    /// Superseded changes that were folded away.
    pub folded: u64,
    /// Records copied by backfill since the start.
    pub copied: u64,
    /// Batches tried again.
    pub retries: u64,
    /// Dead letters that wait.
    pub dead_letters: u64,
    /// Records that had to be repaired three times or more since the start: somebody else writes there.
    pub repaired_often: u64,
    /// What the last comparison with the truth found, whoever asked for it.
    pub compared: Option<Compared>,
    /// The last failure, in one line.
    pub last_error: Option<String>,
}

/// How a cache is doing for one entity.
#[derive(Clone, Debug, Serialize)]
pub struct CacheStatistics {
    /// The entity.
    pub entity: Arc<str>,
    /// The cache's source.
    pub source: Arc<str>,
    /// Everything up to here is taken into account.
    pub applied: Position,
    /// Reads answered.
    pub hits: u64,
    /// Reads not answered.
    pub misses: u64,
    /// Answers offered and not taken in.
    pub refused: u64,
    /// Reads answered although newer data may exist, because nobody else could answer.
    pub stale: u64,
    /// Entries read again before their end, or soon after.
    pub refreshed: u64,
    /// Records and answers taken in because the cache began empty, since the start.
    pub warmed: u64,
    /// How many there were to take in; what is missing is under way, or could not be had.
    pub wanted: u64,
}

/// How the acknowledged writes of one entity are doing that wait for their truth.
#[derive(Clone, Debug, Serialize)]
pub struct JournalStatus {
    /// The entity.
    pub entity: Arc<str>,
    /// The source that keeps them.
    pub source: Arc<str>,
    /// How many wait.
    pub pending: u64,
    /// How many may.
    pub pending_max: u64,
    /// Seconds since the oldest of them was acknowledged; 0 if none waits.
    pub oldest_seconds: f64,
    /// Whether that is longer than declared (`age_alert`).
    pub alert: bool,
    /// Writes acknowledged since the start.
    pub accepted: u64,
    /// Commits made of them.
    pub flushed: u64,
    /// Writes that a later one of the same commit made superfluous.
    pub coalesced: u64,
    /// Writes that became dead letters.
    pub refused: u64,
    /// The last failure that has not been overcome, in one line.
    pub last_error: Option<String>,
}
