//! [`Controller`]: which `ack` the followers of an entity can afford at present, for the strategy `adaptive`.
//!
//! Each follower is judged by itself, from what is measured of it, at looks about a second apart. One that is over a
//! limit in two looks in a row is no longer *fit*; it is again when it is below half of every limit. The entity is at the
//! highest [`Level`] whose demand the fit followers can meet:
//!
//! | level | `ack` | possible while |
//! |---|---|---|
//! | `all` | all | every follower is fit |
//! | `quorum` | more than half of the sources | so many are fit that hold every record |
//! | `truth` | truth | always |
//!
//! Down it goes at once, as far as it must. Up it goes level by level, when the next one has been possible without a break for
//! `dwell`, and twice as long for each time that it had to come down soon after it went up. It begins at `truth`, because
//! nothing is measured yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::time::duration_text;
use unisono_core::{Ack, Timestamp};

/// So many looks in a row a follower is over a limit before that counts.
const LOOKS_OVER: u32 = 2;
/// One that was not fit is fit again below this part of each limit.
const RETURN: u32 = 2;
/// A level that was left before it was held for so many times what it was waited for was taken too early.
const HELD: u32 = 8;
/// The wait is doubled at most so often.
const RELAPSES_MAX: u32 = 6;

/// How long changes gather for one that is not fit, unless it has a `batch` of its own, so that it has fewer to take in.
pub const GATHER: Duration = Duration::from_millis(100);

/// What is declared of the strategy `adaptive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptivePolicy {
    /// The most that a follower may take for a batch.
    pub latency: Duration,
    /// The most that a follower may lag.
    pub lag: Duration,
    /// How long the next level must have been possible before it is taken.
    pub dwell: Duration,
}

impl Default for AdaptivePolicy {
    fn default() -> Self {
        AdaptivePolicy {
            latency: Duration::from_millis(100),
            lag: Duration::from_secs(5),
            dwell: Duration::from_secs(10),
        }
    }
}

/// Which sources have a write before it is answered; the greater, the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The truth.
    Truth,
    /// More than half of the sources that keep the entity.
    Quorum,
    /// All of them.
    All,
}

impl Level {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Truth => "truth",
            Level::Quorum => "quorum",
            Level::All => "all",
        }
    }

    /// What it demands of an entity with so many followers.
    pub fn ack(self, followers: usize) -> Ack {
        match self {
            Level::Truth => Ack::Truth,
            Level::Quorum => Ack::Count(followers.div_ceil(2) + 1),
            Level::All => Ack::All,
        }
    }

    /// The next one that demands more.
    fn above(self, followers: usize) -> Level {
        match self {
            // Of a truth and one follower, more than half are both.
            Level::Truth if followers > 1 => Level::Quorum,
            Level::Truth | Level::Quorum | Level::All => Level::All,
        }
    }
}

/// What is measured of one follower.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its source.
    pub source: Arc<str>,
    /// Whether it holds only some records.
    pub filtered: bool,
    /// What it takes for a batch of late.
    pub latency: Duration,
    /// How long the oldest change has waited that it has not applied.
    pub lag: Duration,
    /// How many changes it has not applied.
    pub lag_changes: u64,
    /// Attempts that have failed since the last look.
    pub failures: u64,
    /// Whether it is known to take in nothing: it is copied, has failed again and again, or is not asked.
    pub away: bool,
}

impl Facts {
    /// What is wrong with it, by one part in `part` of each limit; nothing if it is fit.
    fn complaint(&self, policy: &AdaptivePolicy, part: u32) -> Option<String> {
        let (latency, lag) = (policy.latency / part, policy.lag / part);
        let text = |time: Duration| duration_text(Duration::from_millis(time.as_millis() as u64));
        let of = |what: String| Some(format!("{} {what}", self.source));
        if self.away {
            of("takes in nothing".to_owned())
        } else if self.failures > 0 {
            of(format!("failed {} times within a look", self.failures))
        } else if self.latency > latency {
            let (takes, most) = (text(self.latency), text(latency));
            of(format!("takes {takes} for a batch, of at most {most}"))
        } else if self.lag > lag {
            let (lags, most, changes) = (text(self.lag), text(lag), self.lag_changes);
            of(format!("lags by {lags} and {changes} changes, of at most {most}"))
        } else {
            None
        }
    }
}

/// A change of level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The level before.
    pub from: Level,
    /// The level from now on.
    pub to: Level,
    /// For people.
    pub why: String,
}

/// What is thought of one follower.
#[derive(Clone, Debug, Default)]
struct Judged {
    fit: bool,
    /// Looks in a row at which it was over a limit.
    over: u32,
    complaint: Option<String>,
}

impl Judged {
    fn look(&mut self, facts: &Facts, policy: &AdaptivePolicy) {
        self.complaint = facts.complaint(policy, if self.fit { 1 } else { RETURN });
        self.over = if self.complaint.is_some() { self.over + 1 } else { 0 };
        self.fit = self.over == 0 || (self.fit && self.over < LOOKS_OVER);
    }
}

/// Decides at which level an entity is. Facts and time are given by the caller.
#[derive(Clone, Debug)]
pub struct Controller {
    level: Level,
    judged: BTreeMap<Arc<str>, Judged>,
    /// Since when a higher level has been possible.
    better_since: Option<Timestamp>,
    /// When it went up, while that may still prove to have been too early.
    rose: Option<Timestamp>,
    relapses: u32,
}

impl Default for Controller {
    fn default() -> Self {
        let judged = BTreeMap::new();
        Controller { level: Level::Truth, judged, better_since: None, rose: None, relapses: 0 }
    }
}

impl Controller {
    /// The level at present.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether a follower is fit, as far as is known; one of which nothing is known is not.
    pub fn is_fit(&self, source: &str) -> bool {
        self.judged.get(source).is_some_and(|judged| judged.fit)
    }

    /// How long a higher level must be possible at present before it is taken.
    pub fn wait(&self, policy: &AdaptivePolicy) -> Duration {
        policy.dwell * (1 << self.relapses)
    }

    /// Takes a look at all followers of the entity; answers the change of level, if there is one.
    pub fn look(
        &mut self,
        policy: &AdaptivePolicy,
        followers: &[Facts],
        now: Timestamp,
    ) -> Option<Move> {
        self.judged.retain(|source, _| followers.iter().any(|facts| facts.source == *source));
        for facts in followers {
            self.judged.entry(Arc::clone(&facts.source)).or_default().look(facts, policy);
        }
        let wait = self.wait(policy);
        let since = |then: Timestamp| Duration::from_secs_f64(now.seconds_since(then).max(0.0));
        if self.rose.is_some_and(|rose| since(rose) >= wait * HELD) {
            (self.rose, self.relapses) = (None, 0);
        }
        let possible = self.possible(followers);
        if possible < self.level {
            let relapsed = u32::from(self.rose.take().is_some());
            self.relapses = (self.relapses + relapsed).min(RELAPSES_MAX);
            return Some(self.moves(possible, self.complaints()));
        }
        if possible == self.level {
            self.better_since = None;
            return None;
        }
        let better = *self.better_since.get_or_insert(now);
        if since(better) < wait {
            return None;
        }
        self.rose = Some(now);
        let held = format!("enough followers were well for {}", duration_text(wait));
        let why = match self.complaints() {
            complaints if complaints.is_empty() => held,
            complaints => format!("{held}; {complaints}"),
        };
        Some(self.moves(self.level.above(followers.len()), why))
    }

    fn moves(&mut self, to: Level, why: String) -> Move {
        self.better_since = None;
        Move { from: std::mem::replace(&mut self.level, to), to, why }
    }

    /// The highest level whose demand the fit followers can meet, whichever records are written.
    fn possible(&self, followers: &[Facts]) -> Level {
        let fit = || followers.iter().filter(|facts| self.is_fit(&facts.source));
        if fit().count() == followers.len() {
            Level::All
        } else if fit().filter(|facts| !facts.filtered).count() >= followers.len().div_ceil(2) {
            Level::Quorum
        } else {
            Level::Truth
        }
    }

    /// What is wrong with the followers that are not fit.
    fn complaints(&self) -> String {
        let unfit = self.judged.values().filter(|judged| !judged.fit);
        let complaints: Vec<&str> = unfit.filter_map(|j| j.complaint.as_deref()).collect();
        complaints.join("; ")
    }
}

#[cfg(test)]
mod tests;
