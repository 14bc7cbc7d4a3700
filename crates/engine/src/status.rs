//! How everything is doing, as plain data for the API, the CLI and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::topology::pause::Pause;
use serde::Serialize;
use unisono_core::{Position, Timestamp};
use unisono_policy::declaration::{EntityDeclaration, FollowerDeclaration};

use crate::archive::ArchiveStatus;
use crate::sync::SyncStatus;
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
    /// Every entity whose truth follows another one.
    pub syncs: Vec<SyncStatus>,
    /// The archive of each log, if there is one.
    pub archives: Vec<ArchiveStatus>,
    /// What the sampler found, if there is one.
    pub sampler: Option<SamplerStatus>,
}

/// What the sampler has found since the start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SamplerStatus {
    /// Samples that wait for a look.
    pub pending: u64,
    /// Changes that would have been samples and found no room.
    pub dropped: u64,
    /// How consistent each source was, so long after a change.
    pub consistency: Vec<ConsistencyStatus>,
    /// The looks from which that is worked out.
    pub samples: Vec<SampleStatus>,
}

/// How consistent a source was, some time after changes, over all entities.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConsistencyStatus {
    /// The source.
    pub source: Arc<str>,
    /// How long after, at least.
    pub delay_seconds: u64,
    /// The nines of the share of looks that found the change or what came after it: 3 for 99.9 %. Without one that did
    /// not, as many as so few looks can show; at most 9.
    pub nines: f64,
}

/// How often a source had a change of an entity, some time after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SampleStatus {
    /// The source.
    pub source: Arc<str>,
    /// The entity.
    pub entity: Arc<str>,
    /// How long after, at least.
    pub delay_seconds: u64,
    /// Looks that found it, or what came after it.
    pub consistent: u64,
    /// Looks that found an older state.
    pub inconsistent: u64,
    /// Looks that were not answered, which says nothing about consistency.
    pub unavailable: u64,
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
            let map = follower.map.as_ref().map(|map| map.text().to_owned());
            let told = Some(follower.delivery.to_string()).filter(|told| !told.is_empty());
            let told: Vec<String> = told.into_iter().chain(map).collect();
            let told = told.join(", ");
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
    /// What it is for.
    pub uses: Vec<SourceUse>,
    /// Set while it is left alone on purpose: then its state is `paused`.
    pub paused: Option<Pause>,
}

/// What a source does for one entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceUse {
    /// The entity.
    pub entity: Arc<str>,
    /// `truth`, `follower`, `cache` or `journal`.
    pub role: &'static str,
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
    /// A follower that lags by more changes than this no longer keeps them.
    pub changes_max: u64,
    /// The follower for which trimming keeps most of them, if it does for any.
    pub held_by: Option<HeldBy>,
    /// When the log was last found to be another one, or to end before what was known of it.
    pub split: Option<Timestamp>,
}

/// For whom a log keeps changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldBy {
    /// The entity.
    pub entity: Arc<str>,
    /// The follower's source.
    pub source: Arc<str>,
    /// How many changes it has not durably taken in.
    pub changes: u64,
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
    /// Its follower is left alone on purpose.
    Paused,
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
    /// Seconds since the oldest change that is not applied was committed. While it is not known how far the follower is,
    /// at least as many as have passed since it was.
    pub lag_seconds: f64,
    /// Changes that trimming keeps for it.
    pub held_changes: u64,
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
    /// Batches taken in since the start.
    pub batches: u64,
    /// The most changes that the next batch has; 0 before the first one.
    pub batch_changes_max: u64,
    /// Batches that the follower takes at the same time.
    pub lanes: u64,
    /// When the follower last took something in or confirmed its checkpoint.
    pub last_success: Option<Timestamp>,
    /// The copy under way, if there is one.
    pub copy: Option<CopyStatus>,
    /// When the follower was last found to be ahead of its truth, or one of another log; it is copied again then.
    pub split: Option<Timestamp>,
    /// What the last comparisons with the truth found, by how thorough they were.
    pub verification: Vec<VerificationStatus>,
    /// Dead letters that wait: each holds up its own key.
    pub dead_letters: u64,
    /// Seconds since the oldest of them was refused first; 0 if there is none.
    pub dead_letter_seconds: f64,
    /// Records that had to be repaired three times or more since the start: somebody else writes there.
    pub repaired_often: u64,
    /// The last failure, in one line.
    pub last_error: Option<String>,
}

/// How far a copy has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CopyStatus {
    /// Records of the truth that are dealt with.
    pub records: u64,
    /// Records of the truth, counted when the copy began; `None` while that is not known.
    pub records_total: Option<u64>,
    /// How long the rest takes at the pace so far; `None` while that is not known.
    pub seconds_left: Option<f64>,
}

/// What comparisons of a follower with the truth have found, of those that were equally thorough.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerificationStatus {
    /// How thorough they were.
    pub depth: Depth,
    /// When the last complete one ended; `None` if none has.
    pub completed: Option<Timestamp>,
    /// Records that it compared.
    pub records: u64,
    /// How many it found to differ and were not repaired, by class. A class that was found once stays, with 0. A complete
    /// comparison that was more thorough makes all of them 0: it found what there is.
    pub different: BTreeMap<Divergence, u64>,
    /// Those of them of which the class is not known, as some were repaired and not all are listed.
    pub different_unlisted: u64,
    /// Records repaired by all since the start.
    pub repaired: u64,
    /// Comparisons that could not be finished, since the start.
    pub failed: u64,
}

impl VerificationStatus {
    fn of(depth: Depth) -> Self {
        VerificationStatus {
            depth,
            completed: None,
            records: 0,
            different: BTreeMap::new(),
            different_unlisted: 0,
            repaired: 0,
            failed: 0,
        }
    }

    /// Takes in what one more comparison found. One that could not be finished leaves what was found before.
    pub(crate) fn take_in(all: &mut Vec<Self>, found: &Comparison, now: Timestamp) {
        if !all.iter().any(|status| status.depth == found.depth) {
            all.push(VerificationStatus::of(found.depth));
        }
        if found.error.is_none() {
            let seen = all.iter_mut().filter(|status| status.depth <= found.depth);
            seen.for_each(VerificationStatus::forget);
        }
        all.iter_mut().filter(|status| status.depth == found.depth).for_each(|s| s.add(found, now));
    }

    fn forget(&mut self) {
        self.different.values_mut().for_each(|records| *records = 0);
        self.different_unlisted = 0;
    }

    fn add(&mut self, found: &Comparison, now: Timestamp) {
        self.repaired += found.repaired;
        if found.error.is_some() {
            self.failed += 1;
            return;
        }
        (self.completed, self.records) = (Some(now), found.records);
        if found.repaired == 0 {
            self.different.extend(&found.classes);
            return;
        }
        for difference in found.differences.iter().filter(|difference| !difference.repaired) {
            *self.different.entry(difference.class).or_default() += 1;
        }
        let left = found.different.saturating_sub(found.repaired);
        self.different_unlisted = left.saturating_sub(self.different.values().sum());
    }
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
    /// Records and answers that were seen to because the cache began, since the start: taken in, or there already.
    pub warmed: u64,
    /// How many there were to see to; what is missing is under way, or could not be had.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::report::Difference;

    fn found(depth: Depth, class: Divergence, records: u64, repaired: u64) -> Comparison {
        let mut found = Comparison::new(&"e".into(), &"s".into(), depth);
        for n in 0..records {
            let (key, repaired) = (n.to_string(), n < repaired);
            found.add(Difference { key, class, truth: None, follower: None, repaired });
        }
        found
    }

    fn left(all: &[VerificationStatus]) -> Vec<u64> {
        all.iter().map(|s| s.different.values().sum::<u64>() + s.different_unlisted).collect()
    }

    #[test]
    fn what_differs_stays_until_a_comparison_that_would_find_it_does_not() {
        let mut all = Vec::new();
        let mut take_in = |found| {
            VerificationStatus::take_in(&mut all, &found, Timestamp::EPOCH);
            left(&all)
        };
        assert_eq!(take_in(found(Depth::Deep, Divergence::Corrupt, 3, 0)), [3]);
        assert_eq!(take_in(found(Depth::Observed, Divergence::Stale, 2, 0)), [3, 2]);
        let broken =
            Comparison { error: Some("cut".into()), ..found(Depth::Deep, Divergence::Stale, 0, 0) };
        assert_eq!(take_in(broken), [3, 2], "what was not finished found nothing out");
        assert_eq!(
            take_in(found(Depth::Observed, Divergence::Stale, 0, 0)),
            [3, 0],
            "it does not look so far"
        );
        assert_eq!(take_in(found(Depth::Observed, Divergence::Stale, 1500, 1)), [3, 1499]);
        assert_eq!(take_in(found(Depth::Deep, Divergence::Corrupt, 3, 3)), [0, 0]);
        assert_eq!((all[0].repaired, all[0].failed, all[1].repaired), (3, 1, 1));
    }
}
