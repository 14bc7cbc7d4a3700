//! The comparison of a projection: its rows with a fold of the truth, which is made for it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use unisono_core::auditor::walk;
use unisono_core::source::Auditor;
use unisono_core::{Error, ErrorKind, Key, Position, Record, Result, Stored};
use unisono_policy::projection::{Group, Projection};

use crate::delivery::Delivery;
use crate::log::Log;
use crate::runtime::Runtime;
use crate::verify::report::{Comparison, Depth, Difference, Divergence};

/// How often it is begun again if records change meanwhile.
const ROUNDS_MAX: usize = 5;
/// How long the projection may take to catch up with the truth.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Changes that are looked through at once for some of the records that were folded.
const CHANGES: usize = 1000;

/// Rows and records by their keys: two that are taken for one are at worst looked at again.
type Hashes = HashSet<u64>;

/// Compares the rows that a delivery keeps; has them made anew if they differ and that is wanted. Answers how many rows
/// changed each time that they were looked at, so that nothing is known of them.
///
/// The fold is made of records as they are read, one after the other, and the rows are read when they have everything that
/// was folded. So a row to which no record that changed since the beginning contributes, now or by what was read of it,
/// must be the same on both sides. The others are looked at again.
pub(crate) async fn compare(
    (delivery, projection): (&Delivery, &Arc<Projection>),
    (log, rows): (&Log, &dyn Auditor),
    runtime: &Runtime,
    repair: bool,
    found: &mut Comparison,
) -> Result<u64> {
    let mut open: Option<Hashes> = None;
    for _ in 0..ROUNDS_MAX {
        let before = log.truth.bounds().await?.head;
        reached(delivery, before, runtime).await?;
        found.position = before;
        if found.depth == Depth::Ledger {
            return Ok(0);
        }
        let (wanted, seen) = folded(delivery, projection, log.auditor.as_ref()).await?;
        reached(delivery, log.truth.bounds().await?.head, runtime).await?;
        let mut held = BTreeMap::new();
        walk(rows, &projection.rows, |row: Stored| drop(held.insert(row.key.clone(), row))).await?;
        found.records = wanted.len() as u64;
        let touched = touched(log, before, projection, &seen).await?;
        let is_left_out = |key: &Key| {
            let row = hash(key);
            touched.contains(&row) || open.as_ref().is_some_and(|open| !open.contains(&row))
        };
        for (_, difference) in differences(wanted, held).filter(|(key, _)| !is_left_out(key)) {
            found.add(difference);
        }
        let still = match open {
            None => touched,
            Some(open) => open.intersection(&touched).copied().collect(),
        };
        if still.is_empty() {
            open = None;
            break;
        }
        open = Some(still);
    }
    if repair && found.different > 0 {
        delivery.copy_again().await?;
    }
    Ok(open.map_or(0, |open| open.len() as u64))
}

/// What is said if rows changed each time that they were looked at.
pub(crate) fn unsettled(projection: &Projection, rows: u64) -> Error {
    Error::new(ErrorKind::TooStale, "rows change too often to be compared; the others were")
        .of(projection.name())
        .with("rows", rows)
        .hint("try again when less is written")
}

fn hash(key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

async fn reached(delivery: &Delivery, position: Position, runtime: &Runtime) -> Result<()> {
    let reached = async {
        delivery.wait_applied(position).await;
        Ok(())
    };
    runtime.within(CATCH_UP, reached).await.map_err(|_| {
        Error::new(ErrorKind::TooStale, "the projection does not catch up with the truth")
            .hint("see `unisono status` for what holds its delivery up")
    })
}

/// The rows by the records of the truth, and to which of them each record contributes by what was read of it. Records
/// that the projection refuses are dead letters, and not in it.
async fn folded(
    delivery: &Delivery,
    projection: &Projection,
    truth: &dyn Auditor,
) -> Result<(BTreeMap<Key, Record>, HashMap<u64, Vec<u64>>)> {
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    let mut seen: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut failed = None;
    walk(truth, &projection.from, |stored| {
        if !delivery.wants(&stored) {
            return;
        }
        let Ok(part) = projection.contributions(&stored.record) else { return };
        seen.entry(hash(&stored.key)).or_default().extend(part.iter().map(|(row, _)| hash(row)));
        for (n, (key, c)) in part.into_iter().enumerate() {
            let group = groups.entry(key).or_insert_with(|| Group::empty(&projection.shape));
            if let Err(error) = group.add(&projection.shape, &c, stored.version, n) {
                failed.get_or_insert(error);
            }
        }
    })
    .await?;
    if let Some(error) = failed {
        return Err(error.of(projection.name()));
    }
    let rows = groups.into_iter().map(|(key, group)| {
        let row = projection.row(&key, &group)?;
        Ok((key, row))
    });
    Ok((rows.collect::<Result<_>>()?, seen))
}

/// The rows to which records contribute that changed since a position: by what was read of them, and since.
async fn touched(
    log: &Log,
    position: Position,
    projection: &Projection,
    seen: &HashMap<u64, Vec<u64>>,
) -> Result<Hashes> {
    let mut touched = Hashes::new();
    let mut after = position;
    loop {
        let changes = log.truth.read_log(after, CHANGES, 8 << 20).await?;
        let Some(last) = changes.last() else { return Ok(touched) };
        after = last.position;
        for change in changes.iter().filter(|c| c.entity == *projection.from.name()) {
            touched.extend(seen.get(&hash(&change.key)).into_iter().flatten());
            let part = change.image.as_ref().map(|image| projection.contributions(image));
            let part = part.into_iter().flatten().flatten();
            touched.extend(part.map(|(row, _)| hash(&row)));
        }
    }
}

fn differences(
    wanted: BTreeMap<Key, Record>,
    mut held: BTreeMap<Key, Stored>,
) -> impl Iterator<Item = (Key, Difference)> {
    let difference = |key: &Key, class, held: Option<&Stored>| Difference {
        key: key.to_string(),
        class,
        truth: None,
        follower: held.map(|row| row.version),
        repaired: false,
    };
    let mut found = Vec::new();
    for (key, row) in wanted {
        let class = match held.remove(&key) {
            None => difference(&key, Divergence::Missing, None),
            Some(held) if *held.record != row => difference(&key, Divergence::Corrupt, Some(&held)),
            Some(_) => continue,
        };
        found.push((key, class));
    }
    let orphans = held.into_iter().map(move |(key, row)| {
        let orphan = difference(&key, Divergence::Orphan, Some(&row));
        (key, orphan)
    });
    found.into_iter().chain(orphans)
}
