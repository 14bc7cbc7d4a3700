//! Checking: samples whose time has come are looked for in every source of their entity, many keys in one question.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use unisono_core::source::At;
use unisono_core::{Key, Position, Result, Stored, Version};
use unisono_policy::sample::{DELAYS, Seen, is_absent_rightly, judge};

use super::{Found, Sample, Sampler};
use crate::cache::Feed;
use crate::read::serving::Answering;
use crate::runtime::Runtime;

/// How often it is looked whose time has come.
const EVERY: Duration = Duration::from_millis(250);
/// The most keys of one question.
const KEYS_MAX: usize = 500;
/// How long a source may take to answer.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// Looks for samples until the engine ends.
pub(super) async fn run(sampler: Arc<Sampler>, runtime: Runtime) {
    loop {
        runtime.sleep(EVERY).await;
        for delay in 0..DELAYS.len() {
            loop {
                let due = sampler.due(delay, runtime.now(), KEYS_MAX);
                if due.is_empty() {
                    break;
                }
                look_for(&sampler, delay, &due, &runtime).await;
                sampler.wait_on(delay, due);
            }
        }
    }
}

async fn look_for(sampler: &Sampler, delay: usize, due: &[Sample], runtime: &Runtime) {
    let mut entities: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in due {
        entities.entry(sample.serving.entity.name()).or_default().push(sample);
    }
    for samples in entities.values() {
        // All are of one entity, and there is at least one.
        let Some(serving) = samples.first().map(|sample| &sample.serving) else { continue };
        let policies = sampler.present.load_full();
        let answering = &policies.of(&serving.policies).answering;
        let looks = answering.iter().map(|(source, answering)| async move {
            (source, in_source(answering, samples, runtime).await)
        });
        for (source, found) in join_all(looks).await {
            let entity = serving.entity.name();
            found.into_iter().for_each(|found| sampler.count(source, entity, delay, found));
        }
        if let Some(feed) = &serving.cache {
            for sample in samples {
                if let Some(found) = in_cache(feed, sample, runtime).await {
                    sampler.count(feed.source(), serving.entity.name(), delay, found);
                }
            }
        }
    }
}

/// What a source has of each sample.
async fn in_source(answering: &Answering, samples: &[&Sample], runtime: &Runtime) -> Vec<Found> {
    let Some(first) = samples.first() else { return Vec::new() };
    let (serving, count) = (&first.serving, samples.len());
    if answering.handle.is_blocked(runtime.now()) {
        return vec![Found::Unavailable; count];
    }
    let mut keys: Vec<Key> = samples.iter().map(|sample| sample.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    let ask = answering.reader.get(&serving.entity, &keys);
    let Ok(At { value, position }) = runtime.within(LOOK_MAX, ask).await else {
        return vec![Found::Unavailable; count];
    };
    let has: HashMap<&Key, Option<Version>> =
        keys.iter().zip(value).map(|(key, stored)| (key, stored.map(|s| s.version))).collect();
    let seen = |sample: &&Sample| {
        judge(sample.version, sample.deleted, has.get(&sample.key).copied().flatten())
    };
    let seen: Vec<(&Sample, Seen)> = samples.iter().map(|s| (*s, seen(s))).collect();
    absent_are_judged(answering, &seen, position, runtime).await
}

/// Of records that a source lacks the truth tells whether it may.
async fn absent_are_judged(
    answering: &Answering,
    seen: &[(&Sample, Seen)],
    answered_at: Position,
    runtime: &Runtime,
) -> Vec<Found> {
    let mut keys: Vec<Key> =
        seen.iter().filter(|(_, s)| *s == Seen::Absent).map(|(s, _)| s.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    let truth = match (&answering.delivery, seen.first()) {
        (Some(delivery), Some((sample, _))) if !keys.is_empty() => {
            let ask = sample.serving.log.reader.get(&sample.serving.entity, &keys);
            let wanted = |stored: Option<Stored>| {
                stored.filter(|s| delivery.wants(s)).map(|stored| stored.version)
            };
            let told: Result<At<_>> = runtime.within(LOOK_MAX, ask).await;
            told.map(|told| keys.iter().zip(told.value.into_iter().map(wanted)).collect())
        }
        // What the truth lacks was deleted.
        _ => Ok(HashMap::new()),
    };
    let judged = |(sample, seen): &(&Sample, Seen)| match (seen, &truth) {
        (Seen::Consistent, _) => Found::Consistent,
        (Seen::Inconsistent, _) => Found::Inconsistent,
        // Without the truth nobody can tell.
        (Seen::Absent, Err(_)) => Found::Unavailable,
        (Seen::Absent, Ok(truth)) => {
            let wanted = truth.get(&sample.key).copied().flatten();
            match is_absent_rightly(sample.version, wanted, answered_at) {
                true => Found::Consistent,
                false => Found::Inconsistent,
            }
        }
    };
    seen.iter().map(judged).collect()
}

/// What a cache has of a sample; nothing if it does not hold the record.
async fn in_cache(feed: &Feed, sample: &Sample, runtime: &Runtime) -> Option<Found> {
    match runtime.within(LOOK_MAX, feed.lookup(&sample.key, runtime.now())).await {
        Err(_) => Some(Found::Unavailable),
        Ok(lookup) => match lookup.entry?.version >= sample.version {
            true => Some(Found::Consistent),
            false => Some(Found::Inconsistent),
        },
    }
}
