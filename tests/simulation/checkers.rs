//! The judges: each states one promise and looks for its breach in what was seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::{Change, Key, Operation, Position, Stored};

use crate::history::Seen;

/// Checks everything that needs only the history.
pub(crate) fn check(seen: &Seen) -> Result<(), String> {
    log_is_dense_and_linked(seen)?;
    acknowledged_is_committed(seen)?;
    repeated_has_one_effect(seen)?;
    let by_key = by_key(seen);
    reads_are_fresh(seen, &by_key)?;
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

/// The state of a key after a position.
fn state_at<'a>(
    changes: Option<&Vec<&'a Arc<Change>>>,
    position: Position,
) -> Option<&'a Arc<Change>> {
    changes.and_then(|c| c.iter().rev().find(|c| c.position <= position)).copied()
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

/// P4: a request repeated under its idempotency key had one effect.
fn repeated_has_one_effect(seen: &Seen) -> Result<(), String> {
    for (key, positions) in &seen.repeated {
        if positions.iter().any(|p| *p != positions[0]) {
            return Err(format!("P4: request {key} was told of several effects: {positions:?}"));
        }
        let effects = seen.log.values().filter(|c| c.trace.as_deref() == Some(key)).count();
        if effects != 1 {
            return Err(format!("P4: request {key} has {effects} effects"));
        }
    }
    Ok(())
}

/// P3: no read shows a state older than its token, and every state shown existed.
fn reads_are_fresh(seen: &Seen, by_key: &ByKey<'_>) -> Result<(), String> {
    for read in &seen.reads {
        let changes = by_key.get(&read.key);
        let least = state_at(changes, read.token);
        let told = |what: String| {
            Err(format!(
                "P3: read of {} from {} with token {}: {what}",
                read.key, read.source, read.token
            ))
        };
        match read.version {
            Some(version) => {
                let Some(change) = seen.log.get(&version).filter(|c| c.key == read.key) else {
                    return told(format!("version {version} never was"));
                };
                if change.image != read.image {
                    return told(format!("version {version} had other data"));
                }
                if least.is_some_and(|l| l.position > version) {
                    return told(format!(
                        "version {version} is older than {:?}",
                        least.map(|l| l.position)
                    ));
                }
            }
            None => {
                let absent_then = least.is_none_or(|l| l.operation == Operation::Delete);
                let absent_later = changes.is_some_and(|c| {
                    c.iter().any(|c| c.position > read.token && c.operation == Operation::Delete)
                });
                if !absent_then && !absent_later {
                    return told("absent, but it was there".to_owned());
                }
            }
        }
    }
    Ok(())
}

/// P3: an entry of a cache is never older than what the cache has applied.
fn cache_is_never_behind(seen: &Seen, by_key: &ByKey<'_>) -> Result<(), String> {
    for view in &seen.lookups {
        let Some((version, present)) = view.entry else { continue };
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
