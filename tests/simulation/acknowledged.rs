//! What `ack` promises, looked at on the disks at the moment when the writer is answered.

use std::sync::Arc;

use unisono_core::{Ack, Change, Effect, Error, Key, Operation, Position, Stored, Value};

use crate::disks::{Disks, FOLLOWERS};
use crate::history::History;

/// Every change of an answered write is where its `ack` says.
pub(crate) async fn check(disks: &Disks, history: &History, ack: &Ack, changes: &[Arc<Change>]) {
    if ack.is_truth() || history.seen().tampered {
        return;
    }
    for change in changes {
        let (mut wanted, mut has, mut lacking) = (0, 0, Vec::new());
        // The truth.
        let mut holders = 1;
        for name in FOLLOWERS {
            let held = match disks.held(name, &change.key).await {
                Ok(held) => held,
                Err(error) => return history.breach(format!("{name} cannot be read: {error}")),
            };
            let is_wanted = is_wanted(name, change);
            let is_there = has_it(history, name, change, held.as_ref());
            wanted += usize::from(is_wanted);
            has += usize::from(is_wanted && is_there);
            holders += usize::from(is_there);
            lacking.extend((!is_there).then_some(name));
        }
        let kept = match ack {
            Ack::Truth => true,
            Ack::Count(count) => has >= wanted.min(count - 1),
            Ack::All => lacking.is_empty(),
            Ack::Named(names) => !lacking.iter().any(|name| names.contains(&Arc::from(*name))),
        };
        if !kept {
            let (at, key) = (change.position, &change.key);
            history.breach(format!(
                "P6: the write {at} of {key} was acknowledged as {ack}, and {lacking:?} lack it"
            ));
        }
        let spread = (change.position, holders);
        history.seen().spread.entry(change.key.clone()).or_default().push(spread);
    }
    history.count("write acknowledged by followers");
}

/// What a read must see that asks `quorum` sources: all that so many have that one of them is among those asked.
pub(crate) fn seen_by_a_quorum(history: &History, key: &Key, quorum: usize) -> Position {
    let all = FOLLOWERS.len() + 1;
    let seen = history.seen();
    let spread = seen.spread.get(key).into_iter().flatten();
    let met = spread.filter(|(_, holders)| holders + quorum > all).map(|(position, _)| *position);
    met.max().unwrap_or_default()
}

/// A write that says it is committed is.
pub(crate) fn check_shortfall(history: &History, error: &Error, trace: &str) {
    if error.effect_on_data() == Effect::Committed {
        let known = history.seen().log.values().any(|c| c.trace.as_deref() == Some(trace));
        if !known {
            history.breach(format!("P6: {trace} is not in the log and is told as {error}"));
        }
        history.count("write committed and not acknowledged");
    } else {
        history.count("write refused that could not be acknowledged");
    }
}

fn is_wanted(name: &str, change: &Change) -> bool {
    name != "stocked"
        || change
            .image
            .as_ref()
            .is_none_or(|image| matches!(image.values()[1], Value::Integer(stock) if stock > 3))
}

/// Whether a follower shows a change, or a later one of its record.
fn has_it(history: &History, name: &str, change: &Change, held: Option<&Stored>) -> bool {
    match held {
        Some(stored) => stored.version >= change.position,
        None => history.seen().log.range(change.position..).any(|(_, later)| {
            let gone = later.operation == Operation::Delete || !is_wanted(name, later);
            later.key == change.key && gone
        }),
    }
}
