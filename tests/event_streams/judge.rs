//! What must hold at the end of a world.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use unisono_core::stream::{ARCHIVED, Event, TOMBSTONE};
use unisono_core::{Consistency, Context, Position};
use unisono_engine::Engine;
use unisono_engine::stream::Sought;
use unisono_engine::verify::report::{Depth, VerifyOptions};

use crate::client::{ACCOUNT, Told, amount};
use crate::world::{TYPE, World};

/// Every event of the truth, in order.
pub(crate) async fn everything(engine: &Engine) -> Result<Vec<Event>, String> {
    let context = Context { consistency: Consistency::Strong, ..Context::default() };
    let mut all = Vec::new();
    let mut after = Position::ZERO;
    loop {
        let sought = Sought { after: Some(after), limit: 50, ..Sought::default() };
        let page = engine.read_events(&context, TYPE, &sought).await.map_err(|e| e.to_string())?;
        all.extend(page.value.events);
        match page.value.next {
            Some(next) => after = next,
            None => return Ok(all),
        }
    }
}

/// Checks everything.
pub(crate) async fn judge(world: &World, engine: &Engine, all: &[Event]) -> Result<(), String> {
    in_order(all)?;
    as_told(world, all)?;
    rules_hold(all)?;
    as_followed(world, all)?;
    agrees(engine).await
}

/// Whoever follows was given every event once, in order; of streams that were deleted meanwhile, what they had had.
fn as_followed(world: &World, all: &[Event]) -> Result<(), String> {
    let followed = &world.followed.lock().unwrap().events;
    let deleted = deleted(all);
    let lasting = |events: &[Event]| -> Vec<Event> {
        events.iter().filter(|event| !deleted.contains(&*event.stream)).cloned().collect()
    };
    let (given, there) = (lasting(followed), lasting(all));
    if given != there {
        let lost = there.iter().find(|event| !given.contains(event));
        let other = given.iter().find(|event| !there.contains(event));
        return Err(format!("whoever follows was not given {lost:?}, and instead {other:?}"));
    }
    match followed.windows(2).find(|two| two[0].position >= two[1].position) {
        Some(two) => Err(format!("whoever follows was given {:?} before {:?}", two[0], two[1])),
        None => Ok(()),
    }
}

/// The streams of which nothing is to be left but that they were.
fn deleted(all: &[Event]) -> BTreeSet<&str> {
    let ends = all.iter().filter(|event| event.kind == TOMBSTONE);
    ends.map(|event| &*event.stream).collect()
}

/// Positions ascend, revisions are dense in their order, ids are unique, and nothing comes behind what closes a stream.
fn in_order(all: &[Event]) -> Result<(), String> {
    let (mut last, mut ids) = (Position::ZERO, BTreeSet::new());
    let mut ends: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for event in all {
        let end = ends.entry(&event.stream).or_insert(Some(0));
        let Some(revision) = *end else {
            return Err(format!("behind the end of {}: {event:?}", event.stream));
        };
        *end = match event.kind == ARCHIVED || event.kind == TOMBSTONE {
            true => None,
            false if event.revision == revision + 1 => Some(event.revision),
            false => return Err(format!("{} goes on from {revision} as {event:?}", event.stream)),
        };
        if event.position <= last || !ids.insert(&event.id) {
            return Err(format!("behind {last}, or with an id that was there: {event:?}"));
        }
        last = event.position;
    }
    Ok(())
}

/// What was told as appended is there as told, whole and once; what was told as refused is not there.
fn as_told(world: &World, all: &[Event]) -> Result<(), String> {
    let gone = deleted(all);
    let told_gone = world.clients.iter().flat_map(|client| &client.deleted);
    for stream in told_gone {
        let left = all.iter().find(|event| event.stream == *stream && event.kind != TOMBSTONE);
        if !gone.contains(&**stream) || left.is_some() {
            return Err(format!("{stream} was told to be deleted, and has {left:?}"));
        }
    }
    let mut by_request: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in all.iter().filter(|event| !event.kind.starts_with('$')) {
        by_request.entry(event.data["request"].as_str().unwrap_or("")).or_default().push(event);
    }
    for (id, count, told) in world.clients.iter().flat_map(|client| &client.told) {
        let there = by_request.remove(&**id).unwrap_or_default();
        match told {
            Told::Refused if there.is_empty() => {}
            Told::Appended(events) if events.iter().all(|e| gone.contains(&*e.stream)) => {}
            Told::Appended(events)
                if events.len() == *count && there == events.iter().collect::<Vec<_>>() => {}
            Told::Refused => return Err(format!("{id} was refused, and is there: {there:?}")),
            Told::Appended(events) => {
                return Err(format!("{id} was told to be {events:?}, and is {there:?}"));
            }
        }
    }
    match by_request.is_empty() {
        true => Ok(()),
        false => Err(format!("nobody appended {by_request:?}")),
    }
}

/// What the clients decided over holds: the balance is never negative, and nobody has a name that somebody else has.
fn rules_hold(all: &[Event]) -> Result<(), String> {
    let (mut balance, mut names) = (0, BTreeSet::new());
    for event in all {
        if event.stream == ACCOUNT {
            balance += amount(event);
        }
        if balance < 0 {
            return Err(format!("the balance is {balance} after {event:?}"));
        }
        if let Some(taken) = event.tags.iter().find(|tag| !names.insert(tag.as_str())) {
            return Err(format!("{taken} was taken twice, by {event:?} the second time"));
        }
    }
    Ok(())
}

/// The follower has what the truth has.
async fn agrees(engine: &Engine) -> Result<(), String> {
    let deep = VerifyOptions { depth: Depth::Deep, ..VerifyOptions::default() };
    for _ in 0..100 {
        let report = engine.verify(&deep, &|_| {}).await.map_err(|e| e.to_string())?;
        if report.agrees() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Err("the follower does not come to agree".to_owned())
}
