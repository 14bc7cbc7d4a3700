//! The comparison of a projection: its rows with a fold of the truth, which is made for it.

use std::collections::BTreeMap;
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

/// Compares the rows that a delivery keeps; has them made anew if they differ and that is wanted.
pub(crate) async fn compare(
    (delivery, projection): (&Delivery, &Arc<Projection>),
    (log, rows): (&Log, &dyn Auditor),
    runtime: &Runtime,
    repair: bool,
    found: &mut Comparison,
) -> Result<()> {
    for _ in 0..ROUNDS_MAX {
        let before = log.truth.bounds().await?.head;
        reached(delivery, before, runtime).await?;
        if found.depth == Depth::Ledger {
            found.position = before;
            return Ok(());
        }
        let wanted = folded(delivery, projection, log.auditor.as_ref()).await?;
        let mut held = BTreeMap::new();
        walk(rows, &projection.rows, |row: Stored| drop(held.insert(row.key.clone(), row))).await?;
        if changed_since(log, before, projection.from.name()).await? {
            continue;
        }
        (found.position, found.records) = (before, wanted.len() as u64);
        for difference in differences(wanted, held) {
            found.add(difference);
        }
        if repair && found.different > 0 {
            delivery.copy_again().await?;
        }
        return Ok(());
    }
    Err(Error::new(ErrorKind::TooStale, "records change too often to be folded meanwhile")
        .of(projection.name())
        .hint("try again when less is written"))
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

/// The rows by the records of the truth. Those that the projection refuses are dead letters, and not in it.
async fn folded(
    delivery: &Delivery,
    projection: &Projection,
    truth: &dyn Auditor,
) -> Result<BTreeMap<Key, Record>> {
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    let mut failed = None;
    walk(truth, &projection.from, |stored| {
        if !delivery.wants(&stored) {
            return;
        }
        let Ok(part) = projection.contributions(&stored.record) else { return };
        for (n, (key, c)) in part.into_iter().enumerate() {
            let group = groups.entry(key).or_insert_with(|| Group::empty(&projection.shape));
            if let Err(error) = group.add(&projection.shape, &c, stored.version, n) {
                failed.get_or_insert(error);
            }
        }
    })
    .await?;
    match failed {
        Some(error) => Err(error.of(projection.name())),
        None => groups
            .into_iter()
            .map(|(key, group)| projection.row(&key, &group).map(|row| (key, row)))
            .collect(),
    }
}

/// Whether a record of an entity has changed since a position.
async fn changed_since(log: &Log, position: Position, entity: &str) -> Result<bool> {
    let mut after = position;
    loop {
        let changes = log.truth.read_log(after, CHANGES, 8 << 20).await?;
        if changes.iter().any(|change| *change.entity == *entity) {
            return Ok(true);
        }
        let Some(last) = changes.last() else { return Ok(false) };
        after = last.position;
    }
}

fn differences(wanted: BTreeMap<Key, Record>, mut held: BTreeMap<Key, Stored>) -> Vec<Difference> {
    let difference = |key: &Key, class, held: Option<&Stored>| Difference {
        key: key.to_string(),
        class,
        truth: None,
        follower: held.map(|row| row.version),
        repaired: false,
    };
    let mut found = Vec::new();
    for (key, row) in wanted {
        match held.remove(&key) {
            None => found.push(difference(&key, Divergence::Missing, None)),
            Some(held) if *held.record != row => {
                found.push(difference(&key, Divergence::Corrupt, Some(&held)));
            }
            Some(_) => {}
        }
    }
    found.extend(held.iter().map(|(key, row)| difference(key, Divergence::Orphan, Some(row))));
    found
}
