//! A journal that several processes share: each of them shows what waits in it, and one of them flushes.
//!
//! ```text
//! node A ─► append ─┐                       ┌─► news ─► A: queue ─► reads
//! node B ─► append ─┼─► the shared journal ─┼─► news ─► B: queue ─► reads, and B has the claim: flush ─► truth
//! node C ─► append ─┘                       └─► news ─► C: queue ─► reads
//! ```
//!
//! * **One order.** The queue of each process is filled from the journal alone, in its order, with the process's own writes
//!   among those of others. A write is answered when it has come back.
//! * **One flusher.** Who has the claim flushes. Groups are chosen first, and then the journal is asked whether the tenure
//!   is still the same: so a group that is under way holds only writes that were in the journal before anybody else could
//!   get the claim. No clock of a process is trusted for that.
//! * **A successor** reads the whole journal anew. What its predecessor has under way may reach the truth at any time from
//!   now on, so nothing in the journal of that moment may be left out silently: before a put makes earlier ones superfluous,
//!   the truth is told to take those as done, under their identities (a unit without writes). Whatever comes late is then
//!   a repetition, and changes nothing.
//! * **Seen everywhere.** A token that names a place in the journal has a node read it up to there before it answers, and
//!   strong reads wait until what is in it now is flushed. Who asks without a token sees others' writes within
//!   a tenth of a second.
//!
//! One thing is not decided by the journal: a flusher that stands still for longer than its claim lasts, exactly between
//! the refusal of a write and its dead letter, leaves that letter although its successor may have flushed the write.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::journal::{Mark, News, SharedJournal};
use unisono_core::write::Unit;
use unisono_core::{Error, ErrorKind, Result, Token};
use unisono_policy::retry;
use unisono_policy::write::{FlushFailure, flush_failure};

use crate::runtime::Stopwatch;
use crate::write::behind::entry::AcceptedWrite;
use crate::write::behind::flushed::Flushed;
use crate::write::behind::queue::Group;
use crate::write::behind::{Behind, PAGE};

/// How often the journal is asked for what others did.
const LISTEN_EVERY: Duration = Duration::from_millis(100);
/// How long a claim outlives the last sign of life of who has it.
const TENURE: Duration = Duration::from_secs(5);
/// How often a process asks for the claim, or to keep it.
const CLAIM_EVERY: Duration = Duration::from_secs(1);
/// Who has heard nothing for so long reads the whole journal: removals are told for a longer time than that.
const SILENCE_MAX: Duration = Duration::from_secs(60 * 60);
/// The longest pause between two attempts to hear something.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long the answer to a write that is kept is held back until the write is seen at this process.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// How far a process has followed the journal.
#[derive(Default)]
pub(super) struct Heard {
    mark: Mark,
    last: Option<Stopwatch>,
    claimed: Option<Stopwatch>,
    /// Removals that are not taken in, because the truth could not say where it is.
    removed: Vec<u64>,
}

impl Behind {
    /// Reads the journal for the first time.
    pub(super) async fn join(&self, peers: &dyn SharedJournal) -> Result<Heard> {
        let mut heard = Heard::default();
        self.round(peers, &mut heard).await?;
        // Whatever left the journal before is in the log by now.
        let head = self.log.truth.bounds().await?.head;
        self.state.get().flushed = Flushed::new(head);
        Ok(heard)
    }

    /// Follows the journal until the engine ends.
    pub(super) async fn listen(self: Arc<Self>, peers: Arc<dyn SharedJournal>, mut heard: Heard) {
        let mut attempt = 0;
        loop {
            let asked = self.state.get().asked;
            if let Err(error) = self.round(peers.as_ref(), &mut heard).await {
                self.failed(&error);
                tracing::warn!(%error, entity = %self.entity.name(), "a shared journal cannot be read");
                attempt += 1;
                let pause = retry::backoff(attempt, self.runtime.random());
                self.runtime.sleep(pause.min(PAUSE_MAX)).await;
                continue;
            }
            self.state.change(|state| {
                if std::mem::take(&mut attempt) > 0 {
                    state.error = None;
                }
                std::mem::replace(&mut state.heard, asked) < asked
            });
            tokio::select! {
                biased;
                () = self.state.until(|state| state.asked > asked) => {}
                () = self.runtime.sleep(LISTEN_EVERY) => {}
            }
        }
    }

    /// Waits until this process has heard of everything that is in the journal now; at once if nobody shares it.
    pub(super) async fn hear(&self, limit: Duration) -> Result<()> {
        if self.peers.is_none() {
            return Ok(());
        }
        let mut asked = 0;
        self.state.change(|state| {
            state.asked += 1;
            asked = state.asked;
            true
        });
        let heard = async {
            self.state.until(|state| state.heard >= asked).await;
            Ok(())
        };
        self.runtime.within(limit, heard).await.map_err(|_| {
            let error = self.state.get().error.clone().unwrap_or_default();
            Error::new(
                ErrorKind::TooStale,
                "the journal of acknowledged writes did not answer in time",
            )
            .of(self.entity.name())
            .at(&self.source)
            .with("last_failure", error)
            .hint("ask again when it is up, or with consistency=eventual")
        })
    }

    /// Waits until this process has heard of what the bearer of a token has seen.
    pub(crate) async fn heard_of(&self, token: &Token, limit: Duration) -> Result<()> {
        let last = self.state.get().last;
        match token.position(&self.name).as_u64() > last {
            true => self.hear(limit).await,
            false => Ok(()),
        }
    }

    /// Waits a moment for what this process has kept to come back, so that its next reader sees it.
    pub(super) async fn hear_own(&self) {
        if let Err(error) = self.hear(SEEN_WITHIN).await {
            tracing::debug!(%error, "a write was kept, and is not seen here yet");
        }
    }

    /// Whether this process may flush what it has chosen: nobody else has had the claim since.
    pub(super) async fn still_flushes(&self) -> Result<bool> {
        let Some(peers) = &self.peers else { return Ok(true) };
        let tenure = self.state.get().tenure;
        let claimed = peers.claim(self.entity.name(), TENURE).await?;
        let same = tenure.is_some() && claimed == tenure;
        if !same {
            // With another number it is a successor, even of itself, which begins with reading the journal.
            self.state.get().tenure = None;
        }
        Ok(same)
    }

    /// Lets others flush.
    pub(super) async fn resign(&self) {
        let Some(peers) = &self.peers else { return };
        if self.state.get().tenure.take().is_none() {
            return;
        }
        if let Err(error) = peers.release(self.entity.name()).await {
            tracing::debug!(%error, "the claim to a journal ends by itself");
        }
    }

    /// Has the truth take as done what groups make superfluous of the writes that a predecessor may have under way.
    /// Answers the groups that may go, and those that have to wait.
    pub(super) async fn close_off(&self, groups: Vec<Group>) -> (Vec<Group>, Vec<(Group, bool)>) {
        let (mut go, mut wait) = (Vec::with_capacity(groups.len()), Vec::new());
        for group in groups {
            let results = self.log.committer.commit_each(self.superfluous(&group)).await;
            let failed = results.into_iter().find_map(|result| match result {
                // One that is refused is refused when it comes late, too.
                Err(error) if flush_failure(&error) != FlushFailure::Refused => Some(error),
                _ => None,
            });
            match failed {
                None => go.push(group),
                Some(error) => {
                    self.trouble(&error, &group);
                    wait.push((group, false));
                }
            }
        }
        (go, wait)
    }

    fn superfluous(&self, group: &Group) -> Vec<Unit> {
        let state = self.state.get();
        let earlier = group.sequences.iter().take(group.sequences.len().saturating_sub(1));
        let inherited = earlier.filter(|sequence| **sequence <= state.inherited);
        let unit = |accepted: &AcceptedWrite| Unit {
            writes: Vec::new(),
            idempotency: Some(accepted.idempotency()),
            time: self.runtime.now(),
            actor: accepted.actor.clone(),
            trace: accepted.trace.clone(),
        };
        inherited.filter_map(|sequence| Some(unit(&state.queue.get(*sequence)?.accepted))).collect()
    }

    /// Takes in what happened since the last time, and sees who flushes.
    async fn round(&self, peers: &dyn SharedJournal, heard: &mut Heard) -> Result<()> {
        let successor = self.claim(peers, heard).await?;
        let is_behind = heard.last.is_none_or(|last| last.elapsed() > SILENCE_MAX);
        if successor.is_some() || is_behind {
            // Removals that happen while the journal is read are told afterwards.
            let mark = peers.news(self.entity.name(), &Mark::default(), 0).await?.mark;
            let sequence = self.read_back(successor.is_some()).await?;
            heard.mark = Mark { sequence, ..mark };
        }
        if successor.is_some() {
            self.state.change(|state| {
                (state.tenure, state.inherited) = (successor, state.last);
                true
            });
        }
        loop {
            let news = peers.news(self.entity.name(), &heard.mark, PAGE).await?;
            let is_all = news.is_all;
            self.take_in(news, heard)?;
            if is_all {
                break;
            }
        }
        heard.last = Some(self.runtime.stopwatch());
        self.forget_removed(heard).await;
        Ok(())
    }

    /// Asks for the claim if that is due; answers the number of a tenure that begins.
    async fn claim(&self, peers: &dyn SharedJournal, heard: &mut Heard) -> Result<Option<u64>> {
        let (tenure, closing) = {
            let state = self.state.get();
            (state.tenure, state.closing)
        };
        let is_due = heard.claimed.is_none_or(|last| last.elapsed() >= CLAIM_EVERY);
        if !is_due || (closing && tenure.is_none()) {
            return Ok(None);
        }
        let claimed = peers.claim(self.entity.name(), TENURE).await?;
        heard.claimed = Some(self.runtime.stopwatch());
        if claimed == tenure {
            return Ok(None);
        }
        self.state.get().tenure = None;
        Ok(claimed)
    }

    fn take_in(&self, news: News, heard: &mut Heard) -> Result<()> {
        let mut taken = Vec::with_capacity(news.entries.len());
        for entry in news.entries {
            let (sequence, body) = (entry.sequence, entry.body.len());
            let accepted = AcceptedWrite::decode(&entry.body)
                .map_err(|e| e.of(self.entity.name()).with("sequence", sequence))?;
            match accepted.write(&self.entity) {
                Ok(write) => taken.push(Arc::new(self.pending(sequence, accepted, write, body))),
                // Who flushes sets it aside when it reads the journal.
                Err(error) => {
                    tracing::warn!(%error, sequence, "another process has kept a write that is not one here");
                }
            }
        }
        heard.mark = news.mark;
        self.state.change(|state| {
            // What this process has flushed it knows.
            let unknown = |s: &u64| *s > state.last || state.queue.get(*s).is_some();
            heard.removed.extend(news.removed.into_iter().filter(unknown));
            let is_news = !taken.is_empty();
            for pending in taken {
                if pending.sequence > state.last {
                    state.queue.push(pending);
                }
            }
            state.last = state.last.max(heard.mark.sequence);
            let last = state.last;
            state.rooms.retain(|sequence, _| *sequence > last);
            is_news
        });
        Ok(())
    }

    /// What others have flushed waits no more; whoever saw it waiting must see it in the log from now on.
    async fn forget_removed(&self, heard: &mut Heard) {
        let Some(first) = heard.removed.iter().min().copied() else { return };
        let head = match self.log.truth.bounds().await {
            Ok(bounds) => bounds.head,
            // Until then they are shown as waiting.
            Err(error) => return self.failed(&error),
        };
        self.state.change(|state| {
            state.flushed.add(first, head);
            for sequence in heard.removed.drain(..) {
                state.queue.forget(sequence);
            }
            true
        });
    }
}
