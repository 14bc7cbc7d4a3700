//! [`Adaptive`]: the strategy `adaptive` at work. Once a second it looks at the followers of every entity that has it; what
//! that leads to is decided by [`Controller`], and is seen by the writes that begin afterwards and by those that wait.
//!
//! It is beside the declared policies and not among them, so that it never meets a reload: that one says whether and by
//! which limits it decides, and this one what it has decided.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use unisono_core::{Ack, Timestamp};
use unisono_policy::adaptive::{AdaptivePolicy, Controller, Facts, Level};

use crate::audit::Entry;
use crate::policies::{EntityPolicies, Present};
use crate::read::serving::{Answering, Serving};
use crate::runtime::Runtime;
use crate::status::{AdaptiveMove, AdaptiveStatus};
use crate::watched::Watched;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// The sources of an entity.
type Answerings = BTreeMap<Arc<str>, Answering>;

/// How many of its moves it tells.
const MOVES_TOLD: usize = 8;

/// Where the strategy `adaptive` is with one entity; nothing where that has another strategy.
#[derive(Default)]
pub(crate) struct Adaptive(Watched<Option<State>>);

struct State {
    controller: Controller,
    followers: usize,
    since: Timestamp,
    why: String,
    /// The last ones, the newest at the end.
    moves: VecDeque<AdaptiveMove>,
    moves_total: u64,
    /// How many sessions of each delivery had failed at the last look.
    failed: BTreeMap<Arc<str>, u64>,
}

impl Adaptive {
    /// The level at present.
    pub(crate) fn level(&self) -> Level {
        self.0.get().as_ref().map_or(Level::Truth, |state| state.controller.level())
    }

    /// Waits until the level is below another one.
    pub(crate) async fn below(&self, level: Level) {
        let is_below = |state: &State| state.controller.level() < level;
        self.0.until(|state| state.as_ref().is_some_and(is_below)).await;
    }

    /// Whether a follower is known not to be fit.
    pub(crate) fn is_unfit(&self, source: &str) -> bool {
        self.0.get().as_ref().is_some_and(|state| !state.controller.is_fit(source))
    }

    /// How it is doing; nothing where it is not the strategy.
    pub(crate) fn status(&self) -> Option<AdaptiveStatus> {
        let state = self.0.get();
        let state = state.as_ref()?;
        let level = state.controller.level();
        Some(AdaptiveStatus {
            level: level.as_str(),
            rank: level as u8,
            ack: level.ack(state.followers).to_string(),
            since: state.since,
            why: state.why.clone(),
            moves_total: state.moves_total,
            moves: state.moves.iter().cloned().collect(),
        })
    }

    /// Answers the move that was made, if one was.
    fn look(
        &self,
        serving: &Serving,
        answering: &Answerings,
        policy: &AdaptivePolicy,
        now: Timestamp,
    ) -> Option<AdaptiveMove> {
        let mut made = None;
        self.0.change(|state| {
            made = state.as_mut().and_then(|state| state.look(serving, answering, policy, now));
            made.is_some()
        });
        made
    }

    /// Takes note of whether it is the strategy. What it knew is old when it comes back.
    pub(crate) fn declared(&self, is_declared: bool, now: Timestamp) {
        self.0.change(|state| {
            if !is_declared {
                *state = None;
            } else if state.is_none() {
                *state = Some(State::new(now));
            }
            false
        });
    }
}

impl State {
    fn new(now: Timestamp) -> Self {
        State {
            controller: Controller::default(),
            followers: 0,
            since: now,
            why: "it begins here, with nothing measured yet".to_owned(),
            moves: VecDeque::new(),
            moves_total: 0,
            failed: BTreeMap::new(),
        }
    }

    /// Answers the move if the level is another one.
    fn look(
        &mut self,
        serving: &Serving,
        answering: &Answerings,
        policy: &AdaptivePolicy,
        now: Timestamp,
    ) -> Option<AdaptiveMove> {
        let facts: Vec<Facts> = answering
            .values()
            .filter_map(|answering| {
                let delivery = answering.delivery.as_ref()?;
                let failed = self.failed.entry(Arc::clone(&delivery.target().source)).or_default();
                let (facts, now_failed) = delivery.facts(answering.handle.is_blocked(now), *failed);
                *failed = now_failed;
                Some(facts)
            })
            .collect();
        self.followers = facts.len();
        let made = self.controller.look(policy, &facts, now)?;
        let (from, to) = (made.from.as_str(), made.to.as_str());
        tracing::info!(entity = %serving.entity.name(), from, to, why = %made.why, "adaptive: the ack of writes moves");
        (self.since, self.why) = (now, made.why.clone());
        self.moves_total += 1;
        if self.moves.len() == MOVES_TOLD {
            self.moves.pop_front();
        }
        let made = AdaptiveMove { time: now, from, to, why: made.why };
        self.moves.push_back(made.clone());
        Some(made)
    }
}

/// What the writes of an entity demand: of the caller, of `adaptive` with its level, or as it is declared.
pub(crate) fn demanded(
    serving: &Serving,
    policies: &EntityPolicies,
    asked: Option<&Ack>,
) -> (Ack, Option<Level>) {
    match (asked, &policies.adaptive) {
        (Some(asked), _) => (asked.clone(), None),
        (None, None) => (policies.ack.ack.clone(), None),
        (None, Some(_)) => {
            let level = serving.policies.adaptive.level();
            let followers = policies.answering.values().filter(|a| a.delivery.is_some());
            (level.ack(followers.count()), Some(level))
        }
    }
}

/// Looks at the followers of every entity whose strategy it is, for as long as the engine runs.
pub(crate) async fn run(present: Present, runtime: Runtime) {
    loop {
        runtime.sleep(LOOK).await;
        let present = present.load_full();
        // In the order of the declaration.
        let servings = present.declaration.entities.keys().filter_map(|n| present.servings.get(n));
        for serving in servings {
            let policies = present.of(&serving.policies);
            let Some(policy) = &policies.adaptive else { continue };
            let (adaptive, answering) = (&serving.policies.adaptive, &policies.answering);
            if let Some(made) = adaptive.look(serving, answering, policy, runtime.now()) {
                let details = json!({ "from": made.from, "to": made.to, "why": made.why });
                let entity = Some(Arc::clone(serving.entity.name()));
                let entry =
                    Entry { actor: None, action: "adaptive", entity, source: None, details };
                serving.log.audit(entry, &runtime);
            }
        }
    }
}
