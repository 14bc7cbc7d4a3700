//! What must hold at the end of a world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::source::Auditor;
use unisono_core::{Change, Key, Position, Record, Value};
use unisono_engine::Engine;
use unisono_source_memory::{Memory, Settings};

use crate::world::{LASTING, NAMES, Tally, World};

/// Checks everything.
pub(crate) async fn judge(world: &World, tally: &mut Tally) -> Result<(), String> {
    let settled = settle(world).await?;
    let records = [records(world, 0).await, records(world, 1).await];
    if records[0] != records[1] {
        let differs = records[0].iter().find(|(key, record)| records[1].get(key) != Some(record));
        let other = records[1].iter().find(|(key, record)| records[0].get(key) != Some(record));
        let memory = [memory(world, 0).await, memory(world, 1).await];
        let key = differs.or(other).map(|(key, _)| key.to_string()).unwrap_or_default();
        let of = |n: usize| memory[n].get(&key).cloned().unwrap_or_default();
        let remembered = format!("{}\n{}\n{:?}", of(0), of(1), world.sync[0]);
        return Err(format!("the sides differ: {differs:?} and {other:?}\n{remembered}"));
    }
    rest(world, settled).await?;
    for side in 0..2 {
        let told = engine(world, side).conflicts(None, None, 1000).await;
        tally.conflicts += told.map_err(|e| e.to_string())?.len() as u64;
    }
    if world.trimmed() {
        // Without the whole logs nobody can tell what was written.
        return Ok(());
    }
    let logs = [log(world, 0).await, log(world, 1).await];
    losers(world, &logs).await?;
    match world.counts() {
        true => counters(world, &logs, &records[0], tally),
        false => Ok(()),
    }
}

fn engine(world: &World, side: usize) -> &Engine {
    world.engines[side].as_ref().unwrap()
}

/// Waits until the logs have not grown for a while, and nothing waits.
async fn settle(world: &World) -> Result<[Position; 2], String> {
    let mut known = heads(world).await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_secs(100)).await;
        let now = heads(world).await;
        if now == known {
            return Ok(now);
        }
        known = now;
    }
    let last = log(world, 0).await.into_iter().rev().take(6).collect::<Vec<_>>();
    Err(format!("the logs grow for ever: {last:#?}"))
}

/// Nothing goes to and fro any more, nothing waits, and no deletion is remembered.
async fn rest(world: &World, settled: [Position; 2]) -> Result<(), String> {
    tokio::time::sleep(Duration::from_secs(300)).await;
    let now = heads(world).await;
    if now != settled {
        return Err(format!("the logs grow although nobody writes: {settled:?} {now:?}"));
    }
    for (side, name) in NAMES.into_iter().enumerate() {
        let status = engine(world, side).status().await;
        let sync = &status.syncs[0];
        if sync.held > 0 || sync.behind > 0 || sync.last_error.is_some() {
            return Err(format!("{name} is not at rest: {sync:?}"));
        }
    }
    Ok(())
}

async fn heads(world: &World) -> [Position; 2] {
    let mut heads = [Position::ZERO; 2];
    for (side, head) in heads.iter_mut().enumerate() {
        let disk = Memory::over("disk", Arc::clone(&world.disks[side]), Settings::default());
        *head = disk.truth().unwrap().bounds().await.unwrap().head;
    }
    heads
}

async fn records(world: &World, side: usize) -> BTreeMap<Key, Record> {
    let disk = Memory::over("disk", Arc::clone(&world.disks[side]), Settings::default());
    let binding = unisono_core::source::Binding {
        entity: Arc::clone(&world.entity),
        role: unisono_core::Role::Truth,
        place: "thing".into(),
        options: Default::default(),
    };
    disk.prepare(&[binding]).await.unwrap();
    let auditor: Arc<dyn Auditor> = disk.auditor().unwrap();
    let page = auditor.scan(&world.entity, None, 1000).await.unwrap().value;
    page.records.into_iter().map(|s| (s.key, (*s.record).clone())).collect()
}

/// What a side last remembered of each record, as its log has it.
async fn memory(world: &World, side: usize) -> BTreeMap<String, String> {
    let disk = Memory::over("disk", Arc::clone(&world.disks[side]), Settings::default());
    let truth = disk.truth().unwrap();
    let trimmed = truth.bounds().await.unwrap().trimmed;
    let all = truth.read_log(trimmed, usize::MAX, usize::MAX).await.unwrap();
    let known = all.into_iter().filter(|change| *change.entity == *"unisono_sync_thing");
    known
        .map(|change| (change.key.to_string(), format!("{} {:?}", change.position, change.image)))
        .collect()
}

/// The changes of records.
async fn log(world: &World, side: usize) -> Vec<Arc<Change>> {
    let disk = Memory::over("disk", Arc::clone(&world.disks[side]), Settings::default());
    let truth = disk.truth().unwrap();
    let trimmed = truth.bounds().await.unwrap().trimmed;
    let all = truth.read_log(trimmed, usize::MAX, usize::MAX).await.unwrap();
    all.into_iter().filter(|change| *change.entity == *"thing").collect()
}

fn is_local(change: &Change) -> bool {
    change.actor.is_none()
}

fn note(world: &World, record: &Record) -> String {
    record.get(&world.entity, "note").as_str().unwrap_or_default().to_owned()
}

/// What a client wrote and a merge replaced is known to the other side, or recorded.
async fn losers(world: &World, logs: &[Vec<Arc<Change>>; 2]) -> Result<(), String> {
    let mut recorded = String::new();
    for side in 0..2 {
        for conflict in engine(world, side).conflicts(None, None, 1000).await.unwrap() {
            recorded += &serde_json::to_string(&conflict).unwrap();
        }
    }
    for side in 0..2 {
        let mut last: BTreeMap<&Key, &Change> = BTreeMap::new();
        for change in &logs[side] {
            let before = last.insert(&change.key, change);
            let Some(lost) = before.filter(|before| is_local(before) && !is_local(change)) else {
                continue;
            };
            let Some(image) = &lost.image else { continue };
            let note = note(world, image);
            let kept = change.image.as_ref().is_some_and(|image| self::note(world, image) == note);
            let seen = logs[1 - side].iter().any(|there| {
                there.image.as_ref().is_some_and(|image| self::note(world, image) == note)
            });
            if !kept && !seen && !recorded.contains(&format!("\"{note}\"")) {
                return Err(format!("{note} of {} was replaced and not recorded", NAMES[side]));
            }
        }
    }
    Ok(())
}

/// What was counted on both sides is the sum of what clients counted, once.
fn counters(
    world: &World,
    logs: &[Vec<Arc<Change>>; 2],
    records: &BTreeMap<Key, Record>,
    tally: &mut Tally,
) -> Result<(), String> {
    let count = |record: &Record| match record.get(&world.entity, "count") {
        Value::Integer(n) => *n,
        _ => 0,
    };
    for number in 0..LASTING {
        let key = Key::Integer(number);
        if world.preloaded.contains(&key) {
            continue;
        }
        let mut counted = [0; 2];
        for (side, log) in logs.iter().enumerate() {
            let mut before = 0;
            for change in log.iter().filter(|change| change.key == key) {
                let now = change.image.as_deref().map_or(0, count);
                if is_local(change) {
                    counted[side] += now - before;
                }
                before = now;
            }
        }
        let held = records.get(&key).map_or(0, count);
        if held != counted[0] + counted[1] {
            return Err(format!("{counted:?} were counted of {key}, and {held} are held"));
        }
        tally.counted_on_both += u64::from(counted.iter().all(|n| *n > 0));
    }
    Ok(())
}
