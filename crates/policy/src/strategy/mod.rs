//! Strategies: a name for how the changes of an entity reach its followers. Each is one pure function from what is
//! declared to the fields that it stands for, which can also be set directly. Deliveries do what the fields say, and know
//! no strategy.
//!
//! | strategy | stands for | refuses |
//! |---|---|---|
//! | `best_effort` | `ack = "truth"`; deliveries follow | another `ack` |
//! | `async_queue` | the same, at most 500 changes in a batch | another `ack` |
//! | `parallel` | `ack = "all"`, all at the same time | another `ack`, `after` |
//! | `star` | the same, around the truth | another `ack`, `after` |
//! | `quorum` | `ack` = more than half of the sources that keep the entity | another `ack`, `after` |
//! | `priority` | followers are as urgent as they stand first | |
//! | `cascade` | each follower `after` the one before it | another `after`, fewer than two followers |
//! | `conditional` | followers with a `where`, one with `default = true` | followers with neither |
//! | `partition` | every follower with a `where` of its own | `default`, followers without `where` |
//! | `batch` | `batch = { size = 500, age = "1s" }` | |
//! | `geographic` | followers of the own region are more urgent | no `region` of the process, or of no follower |
//! | `adaptive` | `ack` = all, more than half, or the truth, [as followers can afford](crate::adaptive) | another `ack`, `after`, no follower |

mod adaptive;
mod async_queue;
mod batch;
mod best_effort;
mod cascade;
mod conditional;
mod geographic;
mod parallel;
mod partition;
mod priority;
mod quorum;
mod star;

use std::sync::Arc;

use unisono_core::Ack;

use crate::delivery::{BatchPolicy, DeliveryPolicy};

/// What is declared of an entity, as far as strategies look at it. What is absent was not given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Which sources must have a write before it is answered.
    pub ack: Option<Ack>,
    /// Where this process runs.
    pub region: Option<Arc<str>>,
    /// In the order of the declaration.
    pub followers: Vec<GivenFollower>,
}

/// What is declared of one follower.
#[derive(Clone, Debug, Default)]
pub struct GivenFollower {
    /// Its source.
    pub source: Arc<str>,
    /// Where that is.
    pub region: Option<Arc<str>>,
    /// Whether it has a `where`.
    pub filtered: bool,
    /// Whether it holds what no follower with a `where` holds.
    pub default: bool,
    /// The follower that it comes after.
    pub after: Option<Arc<str>>,
    /// How urgent it is.
    pub priority: Option<i64>,
    /// How much goes in one batch.
    pub batch: Option<BatchPolicy>,
}

/// The fields that a strategy stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Which sources must have a write before it is answered.
    pub ack: Ack,
    /// One for each follower, in the order of the declaration.
    pub deliveries: Vec<DeliveryPolicy>,
}

/// Why a strategy cannot be had with what else is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The number of the follower in question; the entity if absent.
    pub follower: Option<usize>,
    /// The field that contradicts, or that is missing.
    pub field: &'static str,
    /// What is wrong, after the name of the strategy.
    pub message: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// A name for some fields.
#[derive(Debug)]
pub struct Strategy {
    /// The word used in the configuration.
    pub name: &'static str,
    /// The fields that it stands for.
    pub resolve: fn(&Given) -> Result<Resolved, Contradiction>,
}

impl PartialEq for Strategy {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The strategy of which more is declared than its name: [`AdaptivePolicy`](crate::adaptive::AdaptivePolicy).
pub const ADAPTIVE: &str = "adaptive";

/// Every strategy.
pub const ALL: &[Strategy] = &[
    Strategy { name: ADAPTIVE, resolve: adaptive::resolve },
    Strategy { name: "async_queue", resolve: async_queue::resolve },
    Strategy { name: "batch", resolve: batch::resolve },
    Strategy { name: "best_effort", resolve: best_effort::resolve },
    Strategy { name: "cascade", resolve: cascade::resolve },
    Strategy { name: "conditional", resolve: conditional::resolve },
    Strategy { name: "geographic", resolve: geographic::resolve },
    Strategy { name: "parallel", resolve: parallel::resolve },
    Strategy { name: "partition", resolve: partition::resolve },
    Strategy { name: "priority", resolve: priority::resolve },
    Strategy { name: "quorum", resolve: quorum::resolve },
    Strategy { name: "star", resolve: star::resolve },
];

/// The names of all strategies.
pub const NAMES: &[&str] = &{
    let mut names = [""; ALL.len()];
    let mut n = 0;
    while n < ALL.len() {
        names[n] = ALL[n].name;
        n += 1;
    }
    names
};

/// The strategy of a name.
pub fn find(name: &str) -> Option<&'static Strategy> {
    ALL.iter().find(|strategy| strategy.name == name)
}

impl Given {
    /// What is declared, without any strategy.
    pub fn resolve(&self) -> Resolved {
        let delivery = |follower: &GivenFollower| DeliveryPolicy {
            after: follower.after.clone(),
            priority: follower.priority.unwrap_or_default(),
            batch: follower.batch.unwrap_or_default(),
        };
        Resolved {
            ack: self.ack.clone().unwrap_or_default(),
            deliveries: self.followers.iter().map(delivery).collect(),
        }
    }

    /// What is declared, answered by `ack`, of which no other may be declared.
    fn acknowledged_by(&self, ack: Ack) -> Result<Resolved, Contradiction> {
        match &self.ack {
            Some(given) if *given != ack => Err(Contradiction {
                follower: None,
                field: "ack",
                message: "says itself when a write is answered",
                hint: "remove `ack`, or the strategy",
            }),
            _ => Ok(Resolved { ack, ..self.resolve() }),
        }
    }

    /// Refuses followers that wait for another one.
    fn at_the_same_time(&self) -> Result<(), Contradiction> {
        self.no_follower(
            |follower| follower.after.is_some(),
            Contradiction {
                follower: None,
                field: "after",
                message: "delivers to all followers at the same time",
                hint: "remove `after`, or choose the strategy cascade",
            },
        )
    }

    /// Fails for the first follower of which `is_wrong` holds.
    fn no_follower(
        &self,
        is_wrong: impl Fn(&GivenFollower) -> bool,
        contradiction: Contradiction,
    ) -> Result<(), Contradiction> {
        match self.followers.iter().position(is_wrong) {
            None => Ok(()),
            number => Err(Contradiction { follower: number, ..contradiction }),
        }
    }
}

#[cfg(test)]
mod tests;
