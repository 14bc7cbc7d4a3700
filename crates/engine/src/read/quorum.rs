//! A quorum read: several sources are asked for one record at the same time, and the newest answer counts. A follower that
//! answered with an older state gets the current one by an ordinary delivery.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use unisono_core::source::Reader;
use unisono_core::{Error, ErrorKind, Key, Position, Result, Retry, Stored, Version};
use unisono_policy::retry::PAUSE_MIN;
use unisono_policy::route::{self, Candidate, Operation};

use crate::answer::Answer;
use crate::read::ask::{Found, Reading, passes_on};
use crate::read::serving::Answering;

/// One answer of the quorum.
struct Vote<'c, 'a> {
    candidate: &'c Candidate,
    found: Found<'a, Vec<Option<Stored>>>,
}

impl Vote<'_, '_> {
    fn stored(&self) -> Option<&Stored> {
        self.found.at.value.first().and_then(Option::as_ref)
    }

    fn version(&self) -> Option<Version> {
        self.stored().map(|stored| stored.version)
    }

    /// How new it is: a follower may hold a record that is newer than the position up to which it has everything.
    fn newest(&self) -> Position {
        self.found.at.position.max(self.version().unwrap_or_default())
    }
}

impl<'a> Reading<'a> {
    /// The newest of what `count` sources have, the truth among those that may be asked.
    ///
    /// Fails with `quorum_not_reached` if fewer answer.
    pub(crate) async fn newest(
        &self,
        key: &'a Key,
        count: usize,
    ) -> Result<Answer<Option<Arc<Stored>>>> {
        let keys = std::slice::from_ref(key);
        let entity = &self.serving.entity;
        let question = &|reader: Arc<dyn Reader>| {
            let work = async move { reader.get(entity, keys).await };
            Box::pin(work) as BoxFuture<'_, _>
        };
        let reading = Reading { keys, ..*self };
        let request = reading.request(Operation::Get);
        let facts = self.facts(request.operation);
        let mut plan = route::plan(&request, &self.policies.read, &facts, self.runtime.random());
        // What a `map` makes of a record is no state of it.
        let is_mapped = |source: &Arc<str>| {
            self.policies.answering.get(source).is_some_and(Answering::is_mapped)
        };
        plan.candidates.retain(|candidate| !is_mapped(&candidate.source));
        let ask = |candidate| {
            let (reading, request) = (&reading, &request);
            async move { (candidate, reading.try_one(request, candidate, true, question).await) }
        };
        let mut rest = plan.candidates.iter();
        let mut asked: FuturesUnordered<_> = rest.by_ref().take(count).map(ask).collect();
        let (mut votes, mut failed) = (Vec::new(), Vec::new());
        while let Some((candidate, result)) = asked.next().await {
            match result {
                Ok(found) => votes.push(Vote { candidate, found }),
                Err(error) if passes_on(error.kind()) => {
                    failed.push((Arc::clone(&candidate.source), error));
                    asked.extend(rest.next().map(ask));
                }
                Err(error) => return Err(error.at(&candidate.source).of(entity.name())),
            }
        }
        if votes.len() < count {
            return Err(self.too_few(count, &votes, &failed));
        }
        let Some(newest) = votes.iter().enumerate().max_by_key(|(_, vote)| vote.newest()) else {
            return Err(Error::internal("a quorum of nobody"));
        };
        let newest = votes.swap_remove(newest.0);
        wake_those_behind(key, newest.version(), &votes);
        let Vote { candidate, found } = newest;
        let answer = reading.answer(&plan.rule, &candidate.source, candidate.stale, found, failed);
        Ok(self.with_token(answer))
    }

    fn too_few(&self, count: usize, votes: &[Vote<'_, '_>], failed: &[(Arc<str>, Error)]) -> Error {
        let names: Vec<&str> = votes.iter().map(|vote| vote.candidate.source.as_ref()).collect();
        let failed: Vec<&str> = failed.iter().map(|(source, _)| source.as_ref()).collect();
        Error::new(ErrorKind::QuorumNotReached, "fewer sources answered than the read demands")
            .of(self.serving.entity.name())
            .retry(Retry::After(PAUSE_MIN))
            .with("quorum", count)
            .with("acknowledged", names.join(", "))
            .with("pending", failed.join(", "))
            .hint("read with a smaller quorum, or from one source")
    }
}

/// Has the current state delivered to the followers that answered with another one than the newest.
fn wake_those_behind(key: &Key, newest: Option<Version>, others: &[Vote<'_, '_>]) {
    for vote in others.iter().filter(|vote| vote.version() != newest) {
        if let Some(delivery) = &vote.found.answering.delivery {
            delivery.wake(key);
        }
    }
}
