//! [`Declaration`]: what the configuration asks for, resolved and checked; the engine is built from it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::Entity;
use unisono_core::kind::Options;
use unisono_core::query::{Aggregate, Filter, Query};

use crate::ack::AckPolicy;
use crate::adaptive::AdaptivePolicy;
use crate::conflict::SyncDeclaration;
use crate::delivery::DeliveryPolicy;
use crate::hook::{HookDeclaration, Secret};
use crate::mapping::Mapping;
use crate::projection::Projection;
use crate::read::ReadPolicy;
use crate::rule::Rule;
use crate::strategy::Strategy;
use crate::write::WritePolicy;

/// Everything that the engine needs to know.
#[derive(Clone, Debug, Default)]
pub struct Declaration {
    /// The stores, by name.
    pub sources: BTreeMap<Arc<str>, SourceDeclaration>,
    /// The entities, by name.
    pub entities: BTreeMap<Arc<str>, EntityDeclaration>,
    /// How long changes are kept.
    pub log: LogDeclaration,
    /// Where the logs and backups are kept for good; nowhere if absent.
    pub archive: Option<ArchiveDeclaration>,
    /// How often followers are compared with their truth.
    pub sweep: SweepDeclaration,
    /// Where this process runs, in the words that its sources are declared with.
    pub region: Option<Arc<str>>,
    /// Which changes are looked for again in the sources; none if absent.
    pub sampler: Option<SamplerDeclaration>,
    /// Who is told of divergences and dead letters, by name.
    pub hooks: BTreeMap<Arc<str>, HookDeclaration>,
    /// How personal values are kept; absent if no entity has any.
    pub personal: Option<PersonalDeclaration>,
}

impl Declaration {
    /// Whether a source is known to be in another region than this process; one that names none counts as near.
    pub fn is_far(&self, source: &str) -> bool {
        let there = self.sources.get(source).and_then(|declared| declared.region.as_ref());
        self.region.as_ref().zip(there).is_some_and(|(here, there)| here != there)
    }

    /// The same with another truth for an entity, as [`EntityDeclaration::with_truth`], and for what is worked out from it.
    #[must_use]
    pub fn with_truth(&self, entity: &str, truth: &Arc<str>) -> Option<Self> {
        let mut moved = self.clone();
        let declared = moved.entities.get_mut(entity)?;
        *declared = declared.with_truth(truth)?;
        for derived in moved.entities.values_mut().filter(|declared| declared.is_from(entity)) {
            derived.truth = Arc::clone(truth);
        }
        Some(moved)
    }
}

/// One store.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceDeclaration {
    /// Its kind, one of the registry's.
    pub kind: Arc<str>,
    /// Its options, checked against the kind, defaults filled in.
    pub options: Options,
    /// Whether nothing is to start without it; otherwise the rest runs while it cannot be reached.
    pub required: bool,
    /// Where it is.
    pub region: Option<Arc<str>>,
}

/// One entity and where it is kept.
#[derive(Clone, Debug)]
pub struct EntityDeclaration {
    /// Its fields and rules.
    pub entity: Arc<Entity>,
    /// The source whose transaction decides.
    pub truth: Arc<str>,
    /// Name of its table in the truth, if it is not the entity's name.
    pub table: Option<Arc<str>>,
    /// What else is declared of it in the truth, by the kind's options for entities.
    pub truth_options: Options,
    /// Where some records are held for fast reads.
    pub cache: Option<CacheDeclaration>,
    /// The sources that are fed from the log.
    pub followers: Vec<FollowerDeclaration>,
    /// How it is read.
    pub read: ReadPolicy,
    /// How it is written.
    pub write: WritePolicy,
    /// Which sources must have a write before it is answered.
    pub ack: AckPolicy,
    /// The name for how its changes reach its followers, if one was given; what it stands for is in their fields.
    pub strategy: Option<&'static Strategy>,
    /// For the strategy `adaptive`: from when on followers cannot afford what it demands.
    pub adaptive: Option<AdaptivePolicy>,
    /// Set if its records are worked out from those of another entity: then the followers keep those, and the truth is that
    /// of the other entity.
    pub projection: Option<Arc<Projection>>,
    /// The other truth that its truth follows, and that follows it, if there is one.
    pub sync: Option<SyncDeclaration>,
}

impl EntityDeclaration {
    /// Whether its records are worked out from those of an entity, whose truth is its own then.
    pub fn is_from(&self, entity: &str) -> bool {
        self.projection.as_ref().is_some_and(|projection| **projection.from.name() == *entity)
    }

    /// The same with a follower that holds all records, as they are, in place of the truth, which becomes the follower; `None`
    /// if there is no such follower, or if the records are worked out.
    #[must_use]
    pub fn with_truth(&self, truth: &Arc<str>) -> Option<Self> {
        if self.projection.is_some() || Mapping::of(truth, &self.followers).is_some() {
            return None;
        }
        let mut moved = self.clone();
        let is_whole = |f: &&mut FollowerDeclaration| f.source == *truth && f.filter.is_none();
        let follower = moved.followers.iter_mut().find(is_whole)?;
        follower.source = Arc::clone(&self.truth);
        std::mem::swap(&mut follower.place, &mut moved.table);
        std::mem::swap(&mut follower.options, &mut moved.truth_options);
        moved.truth = Arc::clone(truth);
        for after in moved.followers.iter_mut().filter_map(|f| f.delivery.after.as_mut()) {
            if after == truth {
                *after = Arc::clone(&self.truth);
            }
        }
        Some(moved)
    }
}

/// How records of an entity are cached.
#[derive(Clone, Debug)]
pub struct CacheDeclaration {
    /// The source that holds them.
    pub source: Arc<str>,
    /// How long an entry is served; it follows the log meanwhile.
    pub ttl: Duration,
    /// How long the absence of a record is remembered.
    pub negative_ttl: Duration,
    /// How long beyond its time an entry is still served, while it is read again.
    pub stale: Duration,
    /// Whether an entry is read again shortly before its time is over, as [`crate::refresh`] has it.
    pub refresh: bool,
    /// The most reads at once that misses of this cache send to the sources; further ones wait.
    pub misses_max: usize,
    /// Which records it holds, by a rule [of a cache](Rule::of_cache); all of them if absent.
    pub filter: Option<Arc<Rule>>,
    /// How long one process at most reads a missing record while the others that share the cache wait for its entry; zero
    /// if each of them reads for itself.
    pub lease: Duration,
    /// How long the answer to a question is kept in this process, unless the entity changes before; zero for not at all.
    pub results: Duration,
    /// How many of the records that changed last are taken in when the cache begins empty.
    pub warm: usize,
    /// How many of the records that were read most lately are taken in when the cache begins empty.
    pub warm_hot: usize,
    /// What is asked when the cache begins empty, so that the answers are kept.
    pub warm_questions: Vec<WarmQuestion>,
    /// What else is declared of it there, by the kind's options for entities.
    pub options: Options,
    /// Those of them that can change while it runs.
    pub live: Options,
}

/// A question whose answer is kept ready.
#[derive(Clone, Debug, PartialEq)]
pub enum WarmQuestion {
    /// For a page of records.
    Query(Box<Query>),
    /// For how many records match.
    Count {
        /// Which records.
        filter: Filter,
        /// The words that they match, if any.
        search: Option<String>,
    },
    /// For groups and totals.
    Aggregate(Box<Aggregate>),
}

/// One source fed from the log of an entity.
#[derive(Clone, Debug)]
pub struct FollowerDeclaration {
    /// The source.
    pub source: Arc<str>,
    /// Name of its table, index or folder, if it is not the entity's name.
    pub place: Option<Arc<str>>,
    /// What else is declared of it there, by the kind's options for entities.
    pub options: Options,
    /// Which records it holds; all of them if absent. The records are meant as the truth has them.
    pub filter: Option<Arc<Rule>>,
    /// What it keeps of a record, by itself: see [`Mapping::of`]; all as it is if absent.
    pub map: Option<Arc<Mapping>>,
    /// How changes are delivered to it.
    pub delivery: DeliveryPolicy,
    /// Whether it gets personal values as they are, and not encrypted.
    pub clear: bool,
}

impl FollowerDeclaration {
    /// The text of the rule by which it holds records; `None` if it holds all of them.
    pub fn rule(&self) -> Option<&str> {
        self.filter.as_ref().map(|rule| rule.text())
    }
}

/// How personal values are kept: encrypted, with a key for each person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonalDeclaration {
    /// The source that keeps the keys. It is the truth of nothing that is personal.
    pub keys: Arc<str>,
    /// What the keys are encrypted with.
    pub secret: Secret,
    /// How long a process remembers a key, and so for how long at most another one goes on reading what was erased.
    pub remembered: Duration,
}

/// Which changes are looked for again in the sources, to measure how consistent they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamplerDeclaration {
    /// One change in so many is a sample; at least 1.
    pub one_in: u64,
    /// The most samples that wait for a look; further changes are no samples.
    pub pending_max: usize,
}

/// How long changes are kept, in every log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogDeclaration {
    /// Changes younger than this stay, for the audit trail and `/v1/changes`.
    pub retention: Duration,
    /// A follower that lags by more changes than this no longer holds up trimming and is copied anew when it returns.
    pub changes_max: u64,
    /// How long the outcome of an idempotent write is remembered.
    pub outcomes: Duration,
}

/// Where every log is archived, and how often backups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveDeclaration {
    /// The source that keeps the files.
    pub source: Arc<str>,
    /// How long changes gather before they are archived: what can be lost with the truth.
    pub every: Duration,
    /// How old the newest backup may become; zero for none without being asked.
    pub backups: Duration,
}

/// How often followers are compared with their truth without anybody's asking, and what is done about differences.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepDeclaration {
    /// How often each follower is compared; zero for never.
    pub every: Duration,
    /// How often also the data of every record is; zero for never.
    pub deep: Duration,
    /// The most records a second that are read back for that from one follower, or repaired.
    pub rate: u32,
    /// Whether what differs is repaired, unless it is more than [`SweepDeclaration::REPAIRED_MAX`] of the records.
    pub repair: bool,
}

impl SweepDeclaration {
    /// The share of the records that is repaired without anybody's asking: more is rather a wrong configuration than damage.
    pub const REPAIRED_MAX: f64 = 0.01;

    /// Never.
    pub const NEVER: Self = SweepDeclaration {
        every: Duration::ZERO,
        deep: Duration::ZERO,
        rate: 1_000,
        repair: false,
    };
}

impl Default for SweepDeclaration {
    fn default() -> Self {
        SweepDeclaration { every: Duration::from_secs(600), repair: true, ..Self::NEVER }
    }
}

impl Default for LogDeclaration {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        LogDeclaration { retention: 7 * DAY, changes_max: 10_000_000, outcomes: DAY }
    }
}
