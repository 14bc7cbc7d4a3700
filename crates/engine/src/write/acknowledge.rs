//! Acknowledging: the answer to a write waits until enough sources have it. They get it from the log like any other
//! change; here is only who is waited for, and for how long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use unisono_core::write::{Action, Write};
use unisono_core::{
    Ack, Change, Context, Effect, Error, ErrorKind, Key, Record, Result, Retry, Timestamp, Token,
};
use unisono_policy::ack::{Follower, Standing, Verdict, is_demanded, verdict};
use unisono_policy::adaptive::Level;

use crate::adaptive;
use crate::delivery::Delivery;
use crate::policies::Policies;
use crate::read::serving::{Answering, Serving};
use crate::runtime::Runtime;

/// When a write is worth another attempt that was refused because followers could not have it.
const AGAIN: Duration = Duration::from_secs(1);

/// What the writes of one entity demand of its followers.
#[derive(Clone)]
pub(crate) struct Demand<'a> {
    serving: &'a Serving,
    answering: &'a BTreeMap<Arc<str>, Answering>,
    ack: Ack,
    /// Set if `adaptive` demands it: then it demands less as soon as the level is lower.
    level: Option<Level>,
    timeout: Duration,
}

/// A committed write that too few sources have.
pub(crate) struct Shortfall {
    entity: Arc<str>,
    ack: Ack,
    acknowledged: Vec<Arc<str>>,
    pending: Vec<Arc<str>>,
}

/// What the writes of a unit demand of followers; nothing of an entity whose writes the truth alone answers.
///
/// Fails with `quorum_not_reached` and no effect if it is certain that the demand cannot be met.
pub(crate) fn demands<'a>(
    policies: &'a Policies,
    context: &Context,
    writes: &[Write],
    now: Timestamp,
) -> Result<Vec<Demand<'a>>> {
    let mut demands: Vec<Demand<'a>> = Vec::new();
    for serving in writes.iter().filter_map(|write| policies.servings.get(write.entity.name())) {
        let declared = policies.of(&serving.policies);
        let (ack, level) = adaptive::demanded(serving, declared, context.ack.as_ref());
        let known = demands.iter().any(|d| d.serving.entity.name() == serving.entity.name());
        if ack.is_truth() || known {
            continue;
        }
        let (answering, timeout) = (&declared.answering, declared.ack.timeout);
        check(serving, answering, &ack)?;
        let demand = Demand { serving, answering, ack, level, timeout };
        // Of what adapts, it is known that it will demand what is possible.
        if level.is_none() {
            demand.refuse_if_impossible(writes, now)?;
        }
        demands.push(demand);
    }
    Ok(demands)
}

/// Whether the entity can be acknowledged so.
fn check(serving: &Serving, answering: &BTreeMap<Arc<str>, Answering>, ack: &Ack) -> Result<()> {
    let entity = serving.entity.name();
    if serving.behind.is_some() {
        return Err(Error::unsupported("a write that its journal answers waits for no followers")
            .of(entity)
            .hint("leave `ack` out, or declare another strategy than write_behind"));
    }
    let Ack::Named(names) = ack else { return Ok(()) };
    match names.iter().find(|name| !answering.contains_key(*name)) {
        None => Ok(()),
        Some(unknown) => {
            let known: Vec<&str> = answering.keys().map(|name| name.as_ref()).collect();
            Err(Error::invalid("`ack` names what does not keep the entity")
                .of(entity)
                .with("ack", unknown)
                .hint(format!("it is kept in {}", known.join(", "))))
        }
    }
}

impl<'a> Demand<'a> {
    fn followers(&self) -> impl Iterator<Item = (&'a Arc<str>, &'a Answering, &'a Arc<Delivery>)> {
        let followers = self.answering.iter();
        followers.filter_map(|(name, a)| Some((name, a, a.delivery.as_ref()?)))
    }

    /// What nobody could have in time is better not written than written and not acknowledged.
    fn refuse_if_impossible(&self, writes: &[Write], now: Timestamp) -> Result<()> {
        let followers: Vec<_> = self.followers().collect();
        let hopeless: Vec<bool> = followers
            .iter()
            .map(|(_, answering, delivery)| answering.handle.is_blocked(now) || delivery.is_stuck())
            .collect();
        if !hopeless.contains(&true) {
            return Ok(());
        }
        let mine = writes.iter().filter(|w| w.entity.name() == self.serving.entity.name());
        let patterns: BTreeSet<Vec<Option<bool>>> = mine
            .map(|write| followers.iter().map(|(_, _, d)| wants_written(d, write)).collect())
            .collect();
        let impossible = patterns.iter().any(|pattern| {
            let facts = followers.iter().zip(pattern).zip(&hopeless);
            let facts = facts.map(|((follower, wanted), hopeless)| Follower {
                source: follower.0,
                wanted: *wanted == Some(true),
                standing: match (wanted, hopeless) {
                    (Some(_), true) => Standing::Hopeless,
                    // Of a record of which it is not known before, nothing is held against it.
                    _ => Standing::Pending,
                },
            });
            verdict(&self.ack, &facts.collect::<Vec<_>>()) == Verdict::Impossible
        });
        if !impossible {
            return Ok(());
        }
        let names = followers.iter().zip(&hopeless).filter(|(_, hopeless)| **hopeless);
        let names: Vec<&str> = names.map(|((source, ..), _)| source.as_ref()).collect();
        Err(Error::new(
            ErrorKind::QuorumNotReached,
            "nothing was written, because the sources that `ack` demands could not have it",
        )
        .of(self.serving.entity.name())
        .retry(Retry::After(AGAIN))
        .with("ack", &self.ack)
        .with("pending", names.join(", "))
        .hint("these followers fail or are being copied; write with a lower `ack` meanwhile"))
    }

    /// Waits until enough followers have the changes, and answers what that was; or what is missing when that is certain
    /// or the time is up.
    async fn wait(
        &self,
        changes: &[Arc<Change>],
        limit: Duration,
        runtime: &Runtime,
    ) -> Result<Ack, Shortfall> {
        let entity = self.serving.entity.name();
        let mine: Vec<&Arc<Change>> = changes.iter().filter(|c| c.entity == *entity).collect();
        let mut ack = self.ack.clone();
        let Some(position) = mine.last().map(|change| change.position) else { return Ok(ack) };
        let keys: Vec<Key> = mine.iter().map(|change| change.key.clone()).collect();
        let followers: Vec<_> = self.followers().collect();
        let wanted = |change: &&Arc<Change>| -> Vec<bool> {
            followers.iter().map(|(_, _, d)| wants(d, change.image.as_deref())).collect()
        };
        // Each record has to be where it belongs; most of a unit belong to the same followers.
        let patterns: BTreeSet<Vec<bool>> = mine.iter().map(wanted).collect();
        // Patterns and standings have a place for each follower, and `n` is the number of one.
        let mut standings = vec![Standing::Pending; followers.len()];
        let fact =
            |n: usize, standing, wanted| Follower { source: followers[n].0, wanted, standing };
        let worst = |ack: &Ack, standings: &[Standing]| {
            let of = |pattern: &Vec<bool>| {
                let facts = standings.iter().zip(pattern).enumerate();
                let facts = facts.map(|(n, (standing, wanted))| fact(n, *standing, *wanted));
                verdict(ack, &facts.collect::<Vec<_>>())
            };
            patterns.iter().map(of).max().unwrap_or(Verdict::Reached)
        };
        let is_demanded = |n: usize| {
            patterns
                .iter()
                .any(|pattern| is_demanded(&self.ack, &fact(n, Standing::Pending, pattern[n])))
        };
        let demanded: Vec<usize> = (0..followers.len()).filter(|n| is_demanded(*n)).collect();
        let waits = demanded.iter().map(|n| {
            let (n, delivery, keys) = (*n, followers[*n].2, &keys);
            async move {
                delivery.wait_applied(position).await;
                (n, delivery.is_refused(keys).0)
            }
        });
        let mut waits: FuturesUnordered<_> = waits.collect();
        let waiting = async {
            let mut level = self.level;
            while worst(&ack, &standings) == Verdict::Wait {
                tokio::select! {
                    biased;
                    Some((n, refused)) = waits.next() => {
                        standings[n] = if refused { Standing::Hopeless } else { Standing::Has };
                    }
                    lower = self.lowered(level), if level.is_some() => {
                        (level, ack) = (Some(lower), lower.ack(followers.len()));
                    }
                    else => break,
                }
            }
            Ok(())
        };
        // What had come by the end of the time counts all the same.
        let _ = runtime.within(limit.min(self.timeout), waiting).await;
        if worst(&ack, &standings) == Verdict::Reached {
            return Ok(ack);
        }
        Err(self.shortfall(ack, &demanded, &standings))
    }

    /// Which of the demanded followers have a write, and which do not.
    fn shortfall(&self, ack: Ack, demanded: &[usize], standings: &[Standing]) -> Shortfall {
        let followers: Vec<_> = self.followers().map(|(name, ..)| name).collect();
        let (has, pending): (Vec<usize>, Vec<usize>) =
            demanded.iter().partition(|n| standings[**n] == Standing::Has);
        let names = |of: Vec<usize>| of.into_iter().map(|n| Arc::clone(followers[n]));
        let truth = std::iter::once(Arc::clone(&self.serving.log.name.truth));
        Shortfall {
            entity: Arc::clone(self.serving.entity.name()),
            ack,
            acknowledged: truth.chain(names(has)).collect(),
            pending: names(pending).collect(),
        }
    }

    /// Waits until the level is below one; answers which it is.
    async fn lowered(&self, level: Option<Level>) -> Level {
        let adaptive = &self.serving.policies.adaptive;
        adaptive.below(level.unwrap_or(Level::Truth)).await;
        adaptive.level()
    }
}

/// Waits, for at most `limit`, until all demands of a committed unit are met; answers them by entity, or the first that is
/// not met.
pub(crate) async fn wait(
    demands: &[Demand<'_>],
    changes: &[Arc<Change>],
    limit: Duration,
    runtime: &Runtime,
) -> Result<BTreeMap<Arc<str>, Ack>, Shortfall> {
    let waits = demands.iter().map(|demand| async {
        let met = demand.wait(changes, limit, runtime).await;
        met.map(|ack| (Arc::clone(demand.serving.entity.name()), ack))
    });
    join_all(waits).await.into_iter().collect()
}

/// Whether a follower is to hold what a write makes of a record; `None` if that depends on what is there.
fn wants_written(delivery: &Delivery, write: &Write) -> Option<bool> {
    match &write.action {
        Action::Put(record) => Some(wants(delivery, Some(record))),
        Action::Delete => Some(true),
        Action::Append(append) => Some(wants(delivery, Some(&append.event))),
        Action::Patch(_) => delivery.target().filter.is_none().then_some(true),
    }
}

/// Whether a follower is to hold a record; of one that is deleted, every follower is to know.
fn wants(delivery: &Delivery, image: Option<&Record>) -> bool {
    let target = delivery.target();
    let rule = target.filter.as_ref();
    rule.zip(image).is_none_or(|(rule, image)| rule.holds(&target.entity, image))
}

impl Shortfall {
    /// For the writer, who gets the token of the write all the same.
    pub(crate) fn error(self, token: &Token) -> Error {
        Error::new(
            ErrorKind::QuorumNotReached,
            "the write is committed, but fewer sources than `ack` demands have it in time",
        )
        .effect(Effect::Committed)
        .of(&self.entity)
        .with("ack", &self.ack)
        .with("acknowledged", self.acknowledged.join(", "))
        .with("pending", self.pending.join(", "))
        .with("token", token)
        .hint("do not repeat it: the log brings it to the others")
    }
}
