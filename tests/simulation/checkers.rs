//! The judges of the history: each states one promise and looks for its breach in what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use unisono_core::write::Condition;
use unisono_core::{Change, ErrorKind, Key, Operation, Position, Stored, Value};

use crate::history::{AcceptedWrite, Answered, Claim, Question, Read, Refusal, Seen};

/// Checks everything that needs only the history.
pub(crate) fn check(seen: &Seen) -> Result<(), String> {
    if let Some(breach) = seen.breaches.first() {
        return Err(breach.clone());
    }
    log_is_dense_and_linked(seen)?;
    acknowledged_is_committed(seen)?;
    repeated_has_one_effect(seen)?;
    let by_key = by_key(seen);
    for refusal in &seen.refusals {
        refusal_was_right(refusal, &by_key).map_err(|e| {
            format!("P1: the refusal of {} of {} {e}", refusal.idempotency, refusal.key)
        })?;
    }
    for read in &seen.reads {
        let claim = &read.claim;
        read_is_fresh(seen, read, &by_key).map_err(|e| {
            let (key, shown) = (&read.key, &claim.shown);
            format!("P3: read of {key} from {shown} with token {}: {e}", claim.demanded)
        })?;
    }
    for question in &seen.questions {
        question_is_fresh(seen, question, &by_key).map_err(|e| {
            let Question { claim, stock_min, .. } = question;
            let least = claim.demanded;
            format!("P3: stock of {stock_min} asked of {} with token {least}: {e}", claim.shown)
        })?;
    }
    cache_is_never_behind(seen, &by_key)
}

type ByKey<'a> = BTreeMap<&'a Key, Vec<&'a Arc<Change>>>;

fn by_key(seen: &Seen) -> ByKey<'_> {
    let mut by_key = ByKey::new();
    for change in seen.log.values() {
        by_key.entry(&change.key).or_default().push(change);
    }
    by_key
}

/// The last change of a key up to a position; `None` if it had not been written yet.
fn state_at<'a>(
    changes: Option<&Vec<&'a Arc<Change>>>,
    position: Position,
) -> Option<&'a Arc<Change>> {
    changes.and_then(|c| c.iter().rev().find(|c| c.position <= position)).copied()
}

/// The states of a key from one position to another, both included.
fn states_between<'a>(
    changes: Option<&Vec<&'a Arc<Change>>>,
    from: Position,
    to: Position,
) -> Vec<Option<&'a Arc<Change>>> {
    let later = changes.into_iter().flatten().filter(|c| c.position > from && c.position <= to);
    std::iter::once(state_at(changes, from)).chain(later.map(|c| Some(*c))).collect()
}

fn is_present(state: Option<&Arc<Change>>) -> bool {
    state.is_some_and(|c| c.operation == Operation::Put)
}

/// Positions are dense, and each change names the version that it replaced.
fn log_is_dense_and_linked(seen: &Seen) -> Result<(), String> {
    let mut versions: BTreeMap<&Key, Position> = BTreeMap::new();
    let mut expected = Position::ZERO.next();
    for (position, change) in &seen.log {
        if *position != expected || change.position != *position {
            return Err(format!("the log has {position} where {expected} belongs"));
        }
        if change.replaced != versions.get(&change.key).copied() {
            return Err(format!(
                "change {position} of {} does not name what it replaced",
                change.key
            ));
        }
        match change.operation {
            Operation::Put => versions.insert(&change.key, *position),
            Operation::Delete => versions.remove(&change.key),
        };
        expected = expected.next();
    }
    Ok(())
}

/// P1: what a caller was told took place did, as told.
fn acknowledged_is_committed(seen: &Seen) -> Result<(), String> {
    for change in &seen.acknowledged {
        if seen.log.get(&change.position) != Some(change) {
            return Err(format!(
                "P1: acknowledged change {} of {} is not in the log",
                change.position, change.key
            ));
        }
    }
    Ok(())
}

/// P4: a request repeated under its idempotency key had one effect, and one that was refused had none.
fn repeated_has_one_effect(seen: &Seen) -> Result<(), String> {
    let mut effects: BTreeMap<&str, usize> = BTreeMap::new();
    for change in seen.log.values() {
        *effects.entry(change.trace.as_deref().unwrap_or_default()).or_default() += 1;
    }
    for (key, told) in &seen.repeated {
        let first = &told[0];
        if told.iter().any(|t| t != first) {
            return Err(format!("P4: request {key} was told of several effects: {told:?}"));
        }
        let changes = effects.get(key.as_str()).copied().unwrap_or(0);
        if changes != first.1 {
            return Err(format!("P4: request {key} for {} changes made {changes}", first.1));
        }
    }
    match seen.refusals.iter().find(|r| effects.contains_key(r.idempotency.as_str())) {
        Some(refusal) => {
            Err(format!("P1: request {} was refused and took place", refusal.idempotency))
        }
        None => Ok(()),
    }
}

/// A refusal tells the truth about the record at some moment between the request and its answer.
fn refusal_was_right(refusal: &Refusal, by_key: &ByKey<'_>) -> Result<(), String> {
    let (from, to) = refusal.between;
    let mut states = states_between(by_key.get(&refusal.key), from, to).into_iter();
    let right = match (refusal.kind, refusal.condition) {
        (ErrorKind::NotFound, _) | (ErrorKind::VersionConflict, Condition::Present) => {
            states.any(|s| !is_present(s))
        }
        (ErrorKind::AlreadyExists, _) => states.any(is_present),
        (ErrorKind::VersionConflict, Condition::Version(expected)) => states
            .any(|s| s.filter(|c| c.operation == Operation::Put).map(|c| c.position) != expected),
        _ => false,
    };
    match right {
        true => Ok(()),
        false => Err(format!("as {:?} was wrong at all times", refusal.kind)),
    }
}

/// The change that an acknowledged write became.
fn change_of<'a>(seen: &'a Seen, write: &AcceptedWrite) -> Option<&'a Arc<Change>> {
    let is_it =
        |c: &&Arc<Change>| c.key == write.key && c.trace.as_deref() == Some(write.trace.as_str());
    seen.log.values().find(is_it)
}

/// Where the writes are in the log that were acknowledged by the journal and seen by a reader: an answer that does not
/// say that it is pending has them.
fn flushed(seen: &Seen, claim: &Claim, key: Option<&Key>) -> Position {
    let mine = seen.accepted.range(..=claim.seen).map(|(_, write)| write);
    let mine = mine.filter(|w| key.is_none_or(|key| w.key == *key));
    let mine = mine.filter(|w| !seen.replayed.contains(&w.trace));
    mine.filter_map(|w| change_of(seen, w)).map(|c| c.position).max().unwrap_or_default()
}

/// P1, P4: every write that the journal acknowledged is in the log once, or was made superfluous by the next of its
/// record, or is a dead letter; and those of a record are in the log in their order.
pub(crate) fn accepted_is_settled(
    seen: &Seen,
    refused: &[(String, String)],
) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut met = BTreeMap::new();
    let mut by_key: BTreeMap<&Key, Vec<(u64, &AcceptedWrite)>> = BTreeMap::new();
    for (sequence, write) in &seen.accepted {
        by_key.entry(&write.key).or_default().push((*sequence, write));
    }
    for (key, writes) in by_key {
        let mut before = Position::ZERO;
        for (n, (sequence, write)) in writes.iter().enumerate() {
            let fail = |what: &str| Err(format!("P1: accepted write {sequence} of {key} {what}"));
            let trace = Some(write.trace.as_str());
            let of_it = |c: &&Arc<Change>| c.key == *key && c.trace.as_deref() == trace;
            let changes: Vec<_> = seen.log.values().filter(of_it).collect();
            let letters =
                refused.iter().filter(|(k, t)| *k == key.to_string() && *t == write.trace);
            let letters = letters.count();
            let replayed = seen.replayed.contains(&write.trace);
            let next = writes.get(n + 1);
            // One that nobody was told of may come between.
            let unknown = || {
                let known = |c: &Arc<Change>| {
                    writes.iter().any(|(_, w)| c.trace.as_deref() == Some(w.trace.as_str()))
                };
                seen.log.values().any(|c| c.key == *key && !known(c))
            };
            let superseded = write.plain && (next.is_some_and(|(_, w)| w.plain) || unknown());
            match (changes.as_slice(), letters) {
                ([], 0) if superseded => *met.entry("write superseded").or_default() += 1,
                ([], 0) => return fail("is lost"),
                ([], _) if write.plain => return fail("cannot be refused, and was"),
                ([], 1..) => *met.entry("write refused when flushed").or_default() += 1,
                ([_], 1..) if !replayed => return fail("took place and was refused"),
                ([change], _) => {
                    *met.entry("write flushed").or_default() += 1;
                    if change.position < before && !replayed {
                        return fail("was overtaken by a later one");
                    }
                    before = if replayed { before } else { change.position };
                }
                _ => return fail("took place more than once"),
            }
        }
    }
    Ok(met)
}

/// P3: no read shows a state older than its token or than the answer says; every state shown existed.
fn read_is_fresh(seen: &Seen, read: &Read, by_key: &ByKey<'_>) -> Result<(), String> {
    let changes = by_key.get(&read.key);
    let claim = &read.claim;
    let demanded = claim.demanded.max(flushed(seen, claim, Some(&read.key)));
    let least = state_at(changes, demanded.max(claim.position));
    let Some(version) = read.version else {
        let absent_later = changes.is_some_and(|c| {
            let after = demanded.max(claim.position);
            c.iter().any(|c| c.position > after && c.operation == Operation::Delete)
        });
        if is_present(least) && !absent_later {
            return Err("absent, but it was there".to_owned());
        }
        let always = changes.is_some_and(|c| {
            c[0].position <= seen.preloaded && c.iter().all(|c| c.operation == Operation::Put)
        });
        return match always && !claim.tampered {
            true => Err("absent, but it has always been there".to_owned()),
            false => Ok(()),
        };
    };
    let Some(change) = seen.log.get(&version).filter(|c| c.key == read.key) else {
        return Err(format!("version {version} never was"));
    };
    if change.image != read.image {
        return Err(format!("version {version} had other data"));
    }
    if let Some(least) = least.filter(|l| l.position > version) {
        return Err(format!("version {version} is older than {}", least.position));
    }
    if claim.token < version {
        return Err(format!("version {version} was shown with the token {}", claim.token));
    }
    Ok(())
}

/// P3: an answer about many records is right for every one of them, at its token or at a later state.
fn question_is_fresh(seen: &Seen, asked: &Question, by_key: &ByKey<'_>) -> Result<(), String> {
    let claim = &asked.claim;
    if claim.stale && seen.refusing.contains(&*claim.source) {
        // A position says nothing about a refused record, and the answer says that it may be old.
        return Ok(());
    }
    let stock = |state: Option<&Arc<Change>>| match state?.image.as_ref()?.values()[1] {
        Value::Integer(stock) if stock >= asked.stock_min => Some(stock),
        _ => None,
    };
    let from = claim.demanded.max(flushed(seen, claim, None)).max(claim.position);
    // By stock (and in total under `None`): records that certainly have it, and that may.
    let mut bounds: BTreeMap<Option<i64>, (u64, u64)> = BTreeMap::from([(None, (0, 0))]);
    for (key, changes) in by_key {
        let states = states_between(Some(changes), from, asked.end);
        let stocks: BTreeSet<Option<i64>> = states.iter().map(|s| stock(*s)).collect();
        if let Answered::Page(found) = &asked.answer {
            page_has(seen, key, found.get(*key).map(|f| f.0), &states, stocks.contains(&None))?;
        }
        for stock in stocks.iter().flatten() {
            let bound = bounds.entry(Some(*stock)).or_default();
            bound.0 += u64::from(stocks.len() == 1);
            bound.1 += 1;
        }
        let total = bounds.entry(None).or_default();
        total.0 += u64::from(!stocks.contains(&None));
        total.1 += u64::from(stocks.iter().any(Option::is_some));
    }
    let within = |stock: Option<i64>, count: u64| {
        let (least, most) = bounds.get(&stock).copied().unwrap_or_default();
        match (least..=most).contains(&count) {
            true => Ok(()),
            false => Err(format!("{count} records of stock {stock:?}, not {least} to {most}")),
        }
    };
    match &asked.answer {
        Answered::Page(found) => page_is_real(seen, asked, found),
        Answered::AtLeast(count) => within(None, (*count).max(bounds[&None].0)),
        Answered::Count(count) => within(None, *count),
        Answered::Groups(groups) => {
            let stocks: BTreeSet<i64> =
                groups.keys().copied().chain(bounds.keys().flatten().copied()).collect();
            stocks
                .into_iter()
                .try_for_each(|stock| within(Some(stock), groups.get(&stock).copied().unwrap_or(0)))
        }
    }
}

/// A record is on a page in a state of the time in question, or is not and did not have to be.
fn page_has(
    seen: &Seen,
    key: &Key,
    version: Option<Position>,
    states: &[Option<&Arc<Change>>],
    may_lack: bool,
) -> Result<(), String> {
    match version {
        None if may_lack => Ok(()),
        None => Err(format!("{key} is missing")),
        Some(version) => match states.iter().flatten().any(|c| c.position == version) {
            true => Ok(()),
            false => Err(format!("{key} at {version} of {:?}", seen.log.get(&version))),
        },
    }
}

fn page_is_real(
    seen: &Seen,
    asked: &Question,
    found: &BTreeMap<Key, (Position, Arc<unisono_core::Record>)>,
) -> Result<(), String> {
    for (key, (version, record)) in found {
        let change = seen.log.get(version).filter(|c| c.key == *key);
        if change.and_then(|c| c.image.as_ref()) != Some(record) {
            return Err(format!("{key} at {version} had other data"));
        }
        if asked.claim.token < *version {
            return Err(format!("{key} at {version} with the token {}", asked.claim.token));
        }
    }
    Ok(())
}

/// P3: an entry of a cache is never older than what the cache has applied, and never goes back.
fn cache_is_never_behind(seen: &Seen, by_key: &ByKey<'_>) -> Result<(), String> {
    let mut before: BTreeMap<(&Key, (u64, u64)), Position> = BTreeMap::new();
    for view in &seen.lookups {
        let Some((version, present)) = view.entry else { continue };
        if before.insert((&view.key, view.life), version).is_some_and(|b| b > version) {
            return Err(format!("P3: the cache went back to {version} of {}", view.key));
        }
        let Some(last) = state_at(by_key.get(&view.key), view.applied) else { continue };
        let behind = last.position > version;
        let wrong = last.position == version && present != (last.operation == Operation::Put);
        if behind || wrong {
            return Err(format!(
                "P3: the cache had {} at {version} although it had applied {} with {:?} at {}",
                view.key, view.applied, last.operation, last.position
            ));
        }
    }
    Ok(())
}

/// P2: a follower equals the truth, but for records that it refuses, which are dead letters.
pub(crate) fn follower_agrees(
    name: &str,
    expected: &BTreeMap<Key, Stored>,
    held: &BTreeMap<Key, Stored>,
    letters: &[String],
) -> Result<(), String> {
    for (key, stored) in expected {
        let lettered = letters.iter().any(|l| *l == key.to_string());
        if held.get(key) != Some(stored) && !lettered {
            let version = held.get(key).map(|h| h.version);
            return Err(format!(
                "P2: {name} has {key} at {version:?} and not at {}",
                stored.version
            ));
        }
    }
    match held.keys().find(|key| !expected.contains_key(key)) {
        Some(orphan) if !letters.iter().any(|l| *l == orphan.to_string()) => {
            Err(format!("P2: {name} has {orphan}, which should not be there"))
        }
        _ => Ok(()),
    }
}
