//! How large a world is, what its sources can do and what may go wrong in it: drawn from the seed, and very different
//! from one seed to the next, so that rare things meet.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use unisono_core::Ack;
use unisono_policy::ack::AckPolicy;
use unisono_policy::adaptive::AdaptivePolicy;
use unisono_policy::delivery::{BatchPolicy, DeliveryPolicy};
use unisono_policy::read::{Place, ReadPolicy, ReadRule, ReadStrategy};
use unisono_policy::write::{BehindPolicy, WritePolicy, WriteStrategy};

use crate::disks::{FOLLOWERS, JOURNAL};
use crate::faults::{FATES, Weights};

/// What a world is like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) clients: usize,
    pub(crate) keys: u32,
    pub(crate) lives: u32,
    /// Requests of one client in one life.
    pub(crate) requests: u32,
    /// The longest pause of a client between two requests, in microseconds.
    pub(crate) pause: u64,
    /// Records that the truth holds before the first life.
    pub(crate) preloaded: u32,
    /// How many batches the followers `lanes` and `picky` take at once.
    pub(crate) lanes: [usize; 2],
    /// How many changes followers take in one batch at most, and records in one chunk of a copy.
    pub(crate) batch: usize,
    /// How long cached records live. Those that outlive an outage meet a log that was trimmed meanwhile.
    pub(crate) cache_ttl: Duration,
    /// How long beyond their time they are served.
    pub(crate) cache_stale: Duration,
    /// Whether the cache holds only some records.
    pub(crate) cache_filtered: bool,
    /// How many misses of the cache may ask the sources at once.
    pub(crate) misses_max: usize,
    /// How long pages are kept.
    pub(crate) results: Duration,
    /// How many records an empty cache takes in that changed last.
    pub(crate) warm: usize,
    /// How many it takes in that were read most.
    pub(crate) warm_hot: usize,
    pub(crate) read: ReadPolicy,
    pub(crate) write: WritePolicy,
    /// How followers are fed, for those of which something is declared.
    pub(crate) deliveries: BTreeMap<&'static str, DeliveryPolicy>,
    /// When a write is answered.
    pub(crate) ack: AckPolicy,
    /// Whether that is what followers can afford, and by which limits.
    pub(crate) adaptive: Option<AdaptivePolicy>,
    /// Whether the follower `stocked` keeps ten times the stock.
    pub(crate) mapped: bool,
    /// Whether the truth answers reads by key; otherwise followers have to.
    pub(crate) truth_gets: bool,
    /// Whether only one source answers reads by key: a follower that is slow.
    pub(crate) one_follower_gets: bool,
    /// Whether followers answer questions without reading every record, and so are preferred for them.
    pub(crate) followers_index: bool,
    /// Whether followers are wiped or set back under the running engine.
    pub(crate) tampered: bool,
    /// Whether an operator verifies, repairs, copies and replays while clients work.
    pub(crate) operated: bool,
    /// Share of calls that something happens to.
    pub(crate) level: f64,
    /// What happens to them, how often.
    pub(crate) weights: Weights,
}

impl Shape {
    /// Whether writes are acknowledged by the journal.
    pub(crate) fn is_behind(&self) -> bool {
        self.write.behind.is_some()
    }

    /// The follower that must have a change before this one.
    pub(crate) fn before(&self, name: &str) -> Option<&'static str> {
        let before = self.deliveries.get(name)?.after.as_ref()?;
        FOLLOWERS.into_iter().find(|one| *one == &**before)
    }

    /// Whether a follower refuses poison, or comes after one that does.
    pub(crate) fn refuses(&self, name: &str) -> bool {
        name == "picky" || self.before(name).is_some_and(|before| self.refuses(before))
    }

    pub(crate) fn draw(random: &mut StdRng) -> Self {
        let pause = [5_000, 20_000, 20_000, 100_000, 5_000_000][random.random_range(0..5)];
        let long = pause > 1_000_000;
        let level = [0.02, 0.05, 0.1, 0.2][random.random_range(0..4)];
        // More records than one step of a copy or one page of a comparison takes.
        let preloaded = match random.random_range(0..40) {
            0 => random.random_range(1001..2600),
            1..10 => random.random_range(1..12),
            _ => 0,
        };
        let all = [40, 18, 16, 5, 5, 6, 6, 4, 3, 2, 3, 3];
        let mut weights: Weights = all.map(|weight| u32::from(random.random_bool(0.7)) * weight);
        weights[0] += 1;
        // Batches of several changes that are on their way when the process ends.
        let hectic = !long && random.random_bool(0.2);
        if hectic {
            (weights[0], weights[FATES.crash_before]) = (60, 15);
        }
        if long {
            // What takes minutes needs a process that lives for minutes.
            weights[FATES.crash_before] /= 4;
            weights[FATES.crash_after] /= 4;
        }
        let one_follower_gets = random.random_bool(0.25);
        let write = write_policy(random);
        let mut ack = match write.behind {
            Some(_) => AckPolicy::default(),
            None => ack_policy(random),
        };
        // Of numbers of its own, so that worlds without it stay as they were.
        let adaptive = adaptive(&mut random.clone()).filter(|_| write.behind.is_none());
        if adaptive.is_some() {
            // The most that it demands.
            ack.ack = Ack::All;
        }
        Shape {
            clients: if hectic { 5 } else { random.random_range(1..6) },
            keys: [1, 3, 8, 8, 20][random.random_range(0..5)],
            lives: random.random_range(1..5),
            requests: if long { 30 } else { random.random_range(4..24) },
            pause: if hectic { 2_000 } else { pause },
            preloaded,
            lanes: [[4, 3], [2, 1], [1, 1]][if hectic { 0 } else { random.random_range(0..3) }],
            batch: [2, 5, 1000][random.random_range(0..3)],
            cache_ttl: Duration::from_secs([20, 300][random.random_range(0..2)]),
            cache_stale: Duration::from_secs([0, 10][random.random_range(0..2)]),
            cache_filtered: random.random_bool(0.25),
            misses_max: [1, 128][random.random_range(0..2)],
            results: Duration::from_secs([0, 0, 60][random.random_range(0..3)]),
            warm: [0, 0, 3][random.random_range(0..3)],
            warm_hot: [0, 2, 20][random.random_range(0..3)],
            read: read_policy(random),
            write,
            deliveries: deliveries(random),
            ack,
            adaptive,
            truth_gets: !one_follower_gets && random.random_bool(0.7),
            one_follower_gets,
            followers_index: random.random_bool(0.5),
            tampered: random.random_bool(0.25),
            operated: random.random_bool(0.6),
            level: if long {
                level / 4.0
            } else if hectic {
                0.2
            } else {
                level
            },
            weights,
            // Of a number of its own, so that worlds without it stay as they were.
            mapped: random.clone().random_bool(0.3),
        }
    }
}

/// A cascade, priorities and batches that gather, or nothing of it.
fn deliveries(random: &mut StdRng) -> BTreeMap<&'static str, DeliveryPolicy> {
    let afters: &[(&str, &str)] = match random.random_range(0..6) {
        0 => &[("single", "lanes")],
        1 => &[("lanes", "single"), ("stocked", "lanes"), ("picky", "lanes")],
        // Whoever comes after one that refuses a record lacks it too: somebody must be left to answer.
        2 => &[("lanes", "picky")],
        _ => &[],
    };
    let batched = random.random_bool(0.3);
    let one = |name: &'static str| {
        let after = afters.iter().find(|(one, _)| *one == name).map(|(_, before)| (*before).into());
        let priority = if random.random_bool(0.3) { random.random_range(-2..3) } else { 0 };
        let batch = match batched && random.random_bool(0.5) {
            false => BatchPolicy::default(),
            true => BatchPolicy {
                size: Some(random.random_range(1..6)),
                bytes: None,
                age: Duration::from_millis([0, 30, 1500][random.random_range(0..3)]),
            },
        };
        (name, DeliveryPolicy { after, priority, batch })
    };
    FOLLOWERS.into_iter().map(one).collect()
}

fn ack_policy(random: &mut StdRng) -> AckPolicy {
    AckPolicy {
        ack: match random.random_range(0..8) {
            0 => Ack::All,
            1 => Ack::Named(vec!["single".into(), "stocked".into()]),
            2..5 => Ack::Count(random.random_range(2..6)),
            _ => Ack::Truth,
        },
        timeout: Duration::from_millis([200, 3000][random.random_range(0..2)]),
    }
}

fn adaptive(random: &mut StdRng) -> Option<AdaptivePolicy> {
    let policy = AdaptivePolicy {
        latency: Duration::from_millis([10, 100][random.random_range(0..2)]),
        lag: Duration::from_secs([1, 5][random.random_range(0..2)]),
        dwell: Duration::from_secs([1, 3][random.random_range(0..2)]),
    };
    random.random_bool(0.2).then_some(policy)
}

fn write_policy(random: &mut StdRng) -> WritePolicy {
    let strategy = WriteStrategy::ALL[random.random_range(0..3)];
    let behind = BehindPolicy {
        journal: JOURNAL.into(),
        flush_after: Duration::from_millis([0, 20, 1000][random.random_range(0..3)]),
        pending_max: [3, 10_000][random.random_range(0..2)],
        age_alert: Duration::from_secs(30),
    };
    WritePolicy {
        strategy,
        hold: Duration::from_millis([0, 1500][random.random_range(0..2)]),
        behind: (strategy == WriteStrategy::WriteBehind).then_some(behind),
    }
}

fn read_policy(random: &mut StdRng) -> ReadPolicy {
    let rule = |name: &str, ask: &[&str]| ReadRule {
        name: name.into(),
        when: None,
        ask: ask.iter().map(|place| Place::parse(place)).collect(),
        only: false,
    };
    let millis = |random: &mut StdRng, millis| {
        random.random_bool(0.4).then(|| Duration::from_millis(millis))
    };
    ReadPolicy {
        strategy: [0, 0, 0, 1, 2].map(|n| ReadStrategy::ALL[n])[random.random_range(0..5)],
        no_fallback: random.random_bool(0.1),
        lag_max: millis(random, 2000),
        hedge: millis(random, 10),
        quorum: random.random_bool(0.1).then(|| random.random_range(2..4)),
        rules: match random.random_range(0..6) {
            0 => vec![rule("followers", &["cache", "followers"])],
            1 => vec![rule("picky", &["picky", "truth"])],
            _ => Vec::new(),
        },
    }
}
