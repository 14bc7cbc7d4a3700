//! Bringing records together: what both sides know of them is read, joined, and committed to the own truth where that
//! says more than it held, in one unit with what is remembered of it.

use std::sync::Arc;

use serde_json::json;
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Effect, Error, ErrorKind, Key, Record, Result, Retry};
use unisono_policy::conflict::{Lost, State, codec};
use unisono_policy::retry;
use xxhash_rust::xxh3::xxh3_128;

use super::memory::{Conflict, image, remember};
use super::progress::Progress;
use super::side::{Held, Times};
use super::{Reason, Sync};

/// Who is recorded for what is taken over from the other side.
const ACTOR: &str = "unisono:sync";
/// How often a record that is written meanwhile is brought together again at once.
const ATTEMPTS_MAX: usize = 16;

/// What is to be done about one record.
enum Step {
    Nothing,
    /// It cannot be done now.
    Hold(Reason, String),
    Write(Vec<Write>, bool),
}

impl Sync {
    /// Brings some records together. `times` are those of changes of the other side that were just read.
    pub(super) async fn merge(
        &self,
        keys: Vec<Key>,
        times: &Times,
        progress: &Progress,
    ) -> Result<()> {
        let mut keys = keys;
        for attempt in 0..ATTEMPTS_MAX {
            keys = self.attempt(keys, times, progress).await?;
            if keys.is_empty() {
                return Ok(());
            }
            let pause = retry::backoff(1, self.runtime.random()).mul_f64(attempt as f64 / 10.0);
            self.runtime.sleep(pause).await;
        }
        Err(Error::new(
            ErrorKind::Overloaded,
            "records change faster than they are brought together",
        )
        .of(self.common.entity.name()))
    }

    /// The same once; answers the keys of records that changed meanwhile.
    async fn attempt(
        &self,
        keys: Vec<Key>,
        times: &Times,
        progress: &Progress,
    ) -> Result<Vec<Key>> {
        let common = &self.common;
        // The other side first: what is then written here has seen what was read there.
        let theirs = self.peer.held(common, &keys, true).await?;
        let there = self.peer_progress().await?;
        let keys: Vec<Key> = theirs.iter().map(|held| held.key.clone()).collect();
        let mine = self.own.held(common, &keys, false).await?;
        let (mut again, mut units, mut of_units) = (Vec::new(), Vec::new(), Vec::new());
        for (mine, theirs) in mine.iter().zip(&theirs) {
            match self.step(mine, theirs, progress, &there, times).await {
                Ok(Step::Nothing) => self.release(&mine.key).await?,
                Ok(Step::Hold(reason, text)) => self.hold(&mine.key, reason, text).await?,
                Ok(Step::Write(writes, conflicts)) => {
                    let time = self.runtime.now();
                    let actor = Some(ACTOR.into());
                    units.push(Unit { writes, idempotency: None, time, actor, trace: None });
                    of_units.push((mine.key.clone(), conflicts));
                }
                Err(error) if is_race(&error) => again.push(mine.key.clone()),
                Err(error) if is_refusal(&error) => {
                    self.hold(&mine.key, Reason::Refused, error.to_string()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let results = self.log.committer.commit_each(units).await;
        for ((key, conflicts), result) in of_units.into_iter().zip(results) {
            match result {
                Ok(_) => {
                    self.took_over(conflicts);
                    self.release(&key).await?;
                }
                Err(error) if is_race(&error) => again.push(key),
                Err(error) if is_refusal(&error) => {
                    self.hold(&key, Reason::Refused, error.to_string()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(again)
    }

    /// What is to be done about a record.
    async fn step(
        &self,
        mine: &Held,
        theirs: &Held,
        here: &Progress,
        there: &Progress,
        times: &Times,
    ) -> Result<Step> {
        let (common, plan) = (&self.common, &self.common.plan);
        let of_theirs = |times| self.peer.state(common, theirs, mine.known.as_ref(), there, times);
        let of_mine = |times| self.own.state(common, mine, theirs.known.as_ref(), here, times);
        let (their_state, _) = of_theirs(None).await?;
        if their_state.is_empty() {
            return Ok(Step::Nothing);
        }
        let (my_state, written_here) = of_mine(None).await?;
        let number = self.own.number;
        let undated = written_here.then(|| (number, my_state.dot(number)));
        // Mostly an echo of what was written here: that is seen without knowing when.
        if their_state.is_within(&my_state, undated) {
            return Ok(Step::Nothing);
        }
        let (their_state, _) = of_theirs(Some(times)).await?;
        let (my_state, written_here) = of_mine(Some(&Times::new())).await?;
        let merged = plan.merged(&my_state, &their_state);
        let resolution = plan.resolve(&merged, self.common.preferred)?;
        let there_is = resolution.record.is_some();
        if !there_is && mine.known.is_none() && mine.record.is_none() {
            // A deletion that this side has passed, and forgotten.
            if their_state.dot(self.peer.number) <= here.floor.as_u64() {
                return Ok(Step::Nothing);
            }
        }
        let newest = merged.news_to(&my_state, there_is).map(|entry| entry.stamp).max();
        // The other side knows the last write of this one, and less about it: it has to look again.
        let is_misjudged = written_here
            && my_state.dot(number) == their_state.dot(number)
            && my_state
                .news_to(&their_state, there_is)
                .any(|entry| entry.dot == my_state.dot(number));
        if newest.is_none() && !is_misjudged {
            return Ok(Step::Nothing);
        }
        if let Some(ahead) = newest.and_then(|stamp| self.ahead(stamp)) {
            let text =
                format!("the clock of {} was {ahead} ms ahead when it was written", self.peer.name);
            return Ok(Step::Hold(Reason::Clock, text));
        }
        let mut writes = self.writes(mine, &merged, resolution.record.as_ref());
        let lost = self.news_of(mine, resolution.lost);
        if !lost.is_empty() {
            let conflict = self.conflict(mine, theirs, &merged, &lost, resolution.record.as_ref());
            writes.push(conflict.write(&common.memories)?);
        }
        Ok(Step::Write(writes, !lost.is_empty()))
    }

    /// How many milliseconds a stamp is further ahead than the clocks may differ, if it is.
    fn ahead(&self, stamp: unisono_policy::conflict::Stamp) -> Option<i64> {
        let now = self.runtime.now().micros().div_euclid(1_000);
        let drift = i64::try_from(self.max_drift.as_millis()).unwrap_or(i64::MAX);
        (stamp.millis > now.saturating_add(drift)).then(|| stamp.millis.saturating_sub(now))
    }

    /// What is remembered, and the record where it changes, under the condition that nobody writes either meanwhile.
    fn writes(&self, mine: &Held, merged: &State, result: Option<&Record>) -> Vec<Write> {
        let current = mine.record.as_ref();
        let action = match (result, current) {
            (Some(result), Some(current)) if *result == *current.record => None,
            (None, None) => None,
            (Some(result), _) => Some(Action::Put(result.clone())),
            (None, Some(_)) => Some(Action::Delete),
        };
        let version = current.map(|stored| stored.version);
        let about = action.is_none().then_some(version);
        let mut slim = merged.clone();
        self.common.plan.slim(&mut slim);
        let state = (codec::to_text(&self.common.plan, &slim), result.is_none());
        let memories = &self.common.memories;
        let remembered =
            remember(memories, &self.common.pair, &mine.key, state, about, mine.version);
        let write = action.map(|action| Write {
            entity: Arc::clone(&self.common.entity),
            key: mine.key.clone(),
            action,
            condition: Condition::Version(version),
        });
        std::iter::once(remembered).chain(write).collect()
    }

    /// What was given up and is not known yet.
    fn news_of(&self, mine: &Held, lost: Vec<Lost>) -> Vec<Lost> {
        let before = mine.known.as_ref().and_then(|known| {
            self.common
                .plan
                .resolve(&known.state, self.common.preferred)
                .ok()
                .map(|before| before.lost)
        });
        let before = before.unwrap_or_default();
        let is_known = |lost: &Lost| {
            before.iter().any(|known| known.dots == lost.dots && known.fields == lost.fields)
        };
        lost.into_iter().filter(|lost| !is_known(lost)).collect()
    }

    fn conflict(
        &self,
        mine: &Held,
        theirs: &Held,
        merged: &State,
        lost: &[Lost],
        result: Option<&Record>,
    ) -> Conflict {
        let entity = &self.common.entity;
        let names = self.names();
        let decisions = lost.iter().map(
            |lost| json!({ "way": lost.way, "fields": lost.fields, "winner": names[lost.winner] }),
        );
        let mut winners: Vec<&str> = lost.iter().map(|lost| names[lost.winner]).collect();
        winners.sort_unstable();
        winners.dedup();
        let stamp = |n: usize| {
            let entry = merged.exist[n].as_ref()?;
            let (millis, count) = (entry.stamp.millis, entry.stamp.count);
            let position = entry.dot.to_string();
            Some(
                json!({ "source": names[n], "position": position, "millis": millis, "count": count }),
            )
        };
        let dots: Vec<_> = lost.iter().map(|lost| (lost.dots, &lost.fields)).collect();
        let what = format!("{} {} {:?}", self.common.pair, mine.key, dots);
        let of = |held: &Held| image(entity, held.record.as_ref().map(|s| s.record.as_ref()));
        Conflict {
            entity: Arc::clone(entity.name()),
            key: mine.key.to_string(),
            id: format!("{:032x}", xxh3_128(what.as_bytes())),
            found_at: self.runtime.now(),
            winner: winners.join(","),
            decisions: decisions.collect(),
            stamps: [stamp(0), stamp(1)].into_iter().flatten().collect(),
            local: of(mine),
            remote: of(theirs),
            result: image(entity, result),
        }
    }
}

/// Whether somebody wrote the record meanwhile.
fn is_race(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::VersionConflict | ErrorKind::AlreadyExists)
        || error.kind() == ErrorKind::Overloaded && error.detail("key").is_some()
}

/// Whether the record is refused, and not the truth out of order.
fn is_refusal(error: &Error) -> bool {
    use ErrorKind::*;
    let of_record = matches!(
        error.kind(),
        ConstraintViolated | InvalidInput | LimitExceeded | SchemaMismatch | Corrupt | Unsupported
    );
    of_record && error.effect_on_data() == Effect::None && retry::retry(error) == Retry::Never
}
