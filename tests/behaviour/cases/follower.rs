//! Following: idempotent, guarded by versions and by the checkpoint, honest about lost data.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::json;
use unisono_core::source::{Advance, Batch, Checkpoint, Outcome};
use unisono_core::{Change, ErrorKind, Position, Role, Uuid};
use unisono_testkit::{Generator, Sample};

use crate::cases::cases;
use crate::fixture::{Feed, Fixture, Opened, Stop, Verdict, check, check_eq, must_fail, outcomes};

cases! {
    "apply-1" old_changes_are_stale "an older or equal version changes nothing";
    "apply-1-deleted" deletions_are_remembered "a deletion is remembered, of a record that was there or not";
    "apply-1-order" any_order_converges "batches in any order, repeated and cut anywhere, end in the newest state";
    "apply-2" checkpoint_moves_with_the_batch "the checkpoint moves with the batch, also an empty one";
    "apply-2-rejected" rejected_holds_the_checkpoint "a rejected change lets the others through and holds the checkpoint";
    "apply-3" moved_checkpoint_is_refused "a batch from another checkpoint changes nothing";
    "apply-5" readers_see_the_batch "readers see a batch as soon as it is applied";
    "apply-copied" copies_are_taken_in "copies of the truth never replace newer states, and repair equal ones";
    "apply-copied-beside" copies_go_beside_each_other "copies at the same time leave the newest state, and undo no deletion";
    "apply-lanes" lanes_run_in_parallel "batches of different keys are taken in at the same time";
    "checkpoint" checkpoint_is_kept "the checkpoint comes back whole, for each entity, also after reopening";
    "checkpoint-lost" lost_data_is_noticed "data deleted from outside takes the checkpoint with it, and can be filled again";
    "reset" reset_forgets_one_entity "a reset forgets records and checkpoint of one entity only";
}

fn product(id: &str, stock: i64) -> unisono_core::Record {
    Sample::record(&Sample::product(), &json!({"id": id, "name": "x", "stock": stock}))
}

/// A source that follows the product entity and is empty, and its feed.
async fn following(fixture: &Fixture) -> Result<(Opened, Feed), Stop> {
    fixture.needs(Role::Follower)?;
    let entity = Sample::product();
    let opened = fixture.open(Role::Follower, &[&entity]).await?;
    Ok((opened, Feed::new(&entity)))
}

async fn old_changes_are_stale(fixture: &Fixture) -> Verdict {
    let (opened, mut feed) = following(fixture).await?;
    let entity = Arc::clone(&feed.entity);
    let changes: Vec<_> = (0..3).map(|n| feed.changes.put(&entity, product("a", n))).collect();
    let follower = opened.follower()?;
    let apply = |change: &Arc<Change>| follower.apply(feed.batch(std::slice::from_ref(change)));
    check_eq!(outcomes(&apply(&changes[1]).await?), ["applied"], "the second");
    check_eq!(outcomes(&apply(&changes[1]).await?), ["stale"], "the second again");
    check_eq!(outcomes(&apply(&changes[0]).await?), ["stale"], "the first, late");
    let found = opened.get(&entity, &Sample::key("a")).await?;
    check_eq!(
        found.map(|s| (s.version.as_u64(), s.record.values()[4].clone())),
        Some((2, unisono_core::Value::Integer(1))),
        "the record"
    );
    let opened = fixture.reopen(opened, Role::Follower, &[&entity]).await?;
    let follower = opened.follower()?;
    check_eq!(
        outcomes(&follower.apply(feed.batch(&changes[..2][1..])).await?),
        ["stale"],
        "after reopening"
    );
    check_eq!(
        outcomes(&follower.apply(feed.batch(&changes[2..])).await?),
        ["applied"],
        "the third"
    );
    Ok(())
}

async fn deletions_are_remembered(fixture: &Fixture) -> Verdict {
    let (opened, mut feed) = following(fixture).await?;
    let entity = Arc::clone(&feed.entity);
    let put = feed.changes.put(&entity, product("a", 1));
    let early = feed.changes.put(&entity, product("b", 1));
    let late = feed.changes.put(&entity, product("a", 2));
    let delete = feed.changes.delete(&entity, &Sample::key("a"));
    let unseen = feed.changes.delete(&entity, &Sample::key("b"));
    let follower = opened.follower()?;
    check_eq!(outcomes(&follower.apply(feed.batch(&[put])).await?), ["applied"], "put");
    check_eq!(
        outcomes(&follower.apply(feed.batch(&[Arc::clone(&delete), unseen])).await?),
        ["applied", "applied"],
        "deletes"
    );
    check!(opened.get(&entity, &Sample::key("a")).await?.is_none(), "the record is still there");
    let stale = feed.batch(&[Arc::clone(&late), Arc::clone(&early)]);
    check_eq!(
        outcomes(&follower.apply(stale.clone()).await?),
        ["stale", "stale"],
        "older than the deletions"
    );
    // The checkpoint is behind the deletions, so they are still remembered.
    let early_advance = Advance { from: None, to: feed.at(Position::new(2)?) };
    follower.apply(Batch { advance: Some(early_advance), ..feed.batch(&[]) }).await?;
    let opened = fixture.reopen(opened, Role::Follower, &[&entity]).await?;
    let follower = opened.follower()?;
    check_eq!(
        outcomes(&follower.apply(stale).await?),
        ["stale", "stale"],
        "older than the deletions, after reopening"
    );
    check_eq!(
        outcomes(&follower.apply(feed.batch(&[delete])).await?),
        ["stale"],
        "the deletion again"
    );
    check!(opened.get(&entity, &Sample::key("a")).await?.is_none(), "a deleted record came back");
    let again = feed.changes.put(&entity, product("a", 3));
    check_eq!(outcomes(&follower.apply(feed.batch(&[again])).await?), ["applied"], "created again");
    check!(
        opened.get(&entity, &Sample::key("a")).await?.is_some(),
        "the record created again is missing"
    );
    Ok(())
}

async fn any_order_converges(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Follower)?;
    let entity = Sample::product();
    for seed in 0..8 {
        let fixture = Fixture::new(&fixture.kind)?;
        let mut opened = fixture.open(Role::Follower, &[&entity]).await?;
        let (mut g, mut feed) = (Generator::new(seed), Feed::new(&entity));
        let mut newest = BTreeMap::new();
        let mut changes = Vec::new();
        for n in 0..60 {
            let id = format!("k{}", g.rng.random_range(0..8));
            let change = match g.rng.random_bool(0.3) {
                true => feed.changes.delete(&entity, &Sample::key(&id)),
                false => feed.changes.put(&entity, product(&id, n)),
            };
            newest.insert(change.key.clone(), Arc::clone(&change));
            changes.push(change);
        }
        changes.extend(changes.clone());
        changes.shuffle(&mut g.rng);
        while !changes.is_empty() {
            // Each key at most once in a batch.
            let mut batch: BTreeMap<_, Arc<Change>> = BTreeMap::new();
            for change in changes.split_off(changes.len().saturating_sub(g.rng.random_range(1..6)))
            {
                match batch.get(&change.key) {
                    Some(_) => changes.insert(0, change),
                    None => _ = batch.insert(change.key.clone(), change),
                }
            }
            let mut batch: Vec<_> = batch.into_values().collect();
            batch.sort_by_key(|c| c.position);
            let applied = opened.follower()?.apply(feed.batch(&batch)).await?;
            check!(
                applied.outcomes.iter().all(|o| matches!(o, Outcome::Applied | Outcome::Stale)),
                "{:?}",
                applied.outcomes
            );
            if changes.len() == 60 {
                opened = fixture.reopen(opened, Role::Follower, &[&entity]).await?;
            }
        }
        for (key, change) in newest {
            let found = opened.get(&entity, &key).await?;
            let expected = change.image.as_ref().map(|image| (change.position, Arc::clone(image)));
            check_eq!(found.map(|s| (s.version, s.record)), expected, "seed {seed}, key {key}");
        }
    }
    Ok(())
}

async fn checkpoint_moves_with_the_batch(fixture: &Fixture) -> Verdict {
    let (opened, mut feed) = following(fixture).await?;
    let entity = Arc::clone(&feed.entity);
    let follower = opened.follower()?;
    check_eq!(follower.checkpoint(&entity).await?, None, "at first");
    let change = feed.changes.put(&entity, product("a", 1));
    let applied = follower.apply(feed.batch(std::slice::from_ref(&change))).await?;
    check!(!applied.advanced, "a batch without an advance moved the checkpoint");
    check_eq!(follower.checkpoint(&entity).await?, None, "without an advance");
    // What is stale has been taken in, so the checkpoint moves.
    let applied = follower.apply(feed.advancing(&[change], Position::new(1)?)).await?;
    check_eq!((outcomes(&applied), applied.advanced), (vec!["stale"], true), "a stale change");
    feed.checkpoint = Some(feed.at(Position::new(1)?));
    check_eq!(follower.checkpoint(&entity).await?, feed.checkpoint, "after one");
    let applied = follower.apply(feed.advancing(&[], Position::new(500)?)).await?;
    check!(applied.advanced, "an empty batch moves the checkpoint too");
    feed.checkpoint = Some(feed.at(Position::new(500)?));
    let opened = fixture.reopen(opened, Role::Follower, &[&entity]).await?;
    check_eq!(opened.follower()?.checkpoint(&entity).await?, feed.checkpoint, "after reopening");
    // A checkpoint can be set back: a truth that was restored is followed again from before.
    opened.follower()?.apply(feed.advancing(&[], Position::new(7)?)).await?;
    check_eq!(
        opened.follower()?.checkpoint(&entity).await?,
        Some(feed.at(Position::new(7)?)),
        "set back"
    );
    Ok(())
}

async fn rejected_holds_the_checkpoint(fixture: &Fixture) -> Verdict {
    let (opened, mut feed) = following(fixture).await?;
    let entity = Arc::clone(&feed.entity);
    let follower = opened.follower()?;
    let good = feed.changes.put(&entity, product("a", 1));
    let mut broken = feed.changes.put(&entity, product("b", 1)).as_ref().clone();
    broken.image = None;
    let last = feed.changes.put(&entity, product("c", 1));
    let batch = feed.advancing(&[good, Arc::new(broken), last], feed.changes.head());
    let Ok(applied) = follower.apply(batch).await else {
        return Err(Stop::NotApplicable(
            "refuses a batch with a change that lacks its image".into(),
        ));
    };
    check_eq!(
        outcomes(&applied),
        ["applied", "rejected", "applied"],
        "a change that lacks its image"
    );
    check!(!applied.advanced, "the checkpoint moved past a rejected change");
    check_eq!(follower.checkpoint(&entity).await?, None, "the checkpoint");
    for (id, there) in [("a", true), ("b", false), ("c", true)] {
        check_eq!(
            opened.get(&entity, &Sample::key(id)).await?.is_some(),
            there,
            "presence of {id}"
        );
    }
    Ok(())
}

async fn moved_checkpoint_is_refused(fixture: &Fixture) -> Verdict {
    let (opened, mut feed) = following(fixture).await?;
    let entity = Arc::clone(&feed.entity);
    let follower = opened.follower()?;
    let first = feed.changes.put(&entity, product("a", 1));
    feed.apply(&opened, &[first]).await?;
    let here = feed.checkpoint.clone();
    let next = feed.changes.put(&entity, product("b", 1));
    let other_log = Checkpoint { log: Uuid::from_u128(99), ..feed.at(Position::new(1)?) };
    let backfilling = Checkpoint { backfill: Some(String::new()), ..feed.at(Position::new(1)?) };
    for wrong in [
        None,
        Some(feed.at(Position::ZERO)),
        Some(feed.at(Position::new(2)?)),
        Some(other_log),
        Some(backfilling),
    ] {
        feed.checkpoint = wrong.clone();
        let batch = feed.advancing(std::slice::from_ref(&next), Position::new(2)?);
        must_fail(
            follower.apply(batch).await,
            ErrorKind::CheckpointMoved,
            &format!("from {wrong:?}"),
        )?;
    }
    check_eq!(follower.checkpoint(&entity).await?, here, "the checkpoint stays");
    check!(opened.get(&entity, &Sample::key("b")).await?.is_none(), "a refused batch was taken in");
    feed.checkpoint = here;
    feed.apply(&opened, &[next]).await
}

async fn readers_see_the_batch(fixture: &Fixture) -> Verdict {
    let (opened, mut feed) = following(fixture).await?;
    let entity = Arc::clone(&feed.entity);
    for n in 0..20 {
        let change = match n % 5 {
            4 => feed.changes.delete(&entity, &Sample::key("a")),
            _ => feed.changes.put(&entity, product("a", n)),
        };
        feed.apply(&opened, std::slice::from_ref(&change)).await?;
        let found = opened.reader()?.get(&entity, &[Sample::key("a")]).await?;
        check_eq!(found.position, change.position, "position after batch {n}");
        let version = found.value[0].as_ref().map(|s| s.version);
        check_eq!(
            version,
            change.image.as_ref().map(|_| change.position),
            "version after batch {n}"
        );
    }
    Ok(())
}

async fn copies_are_taken_in(fixture: &Fixture) -> Verdict {
    let (opened, mut feed) = following(fixture).await?;
    let entity = Arc::clone(&feed.entity);
    let follower = opened.follower()?;
    let old = feed.changes.put(&entity, product("a", 1));
    let new = feed.changes.put(&entity, product("a", 2));
    let other = feed.changes.put(&entity, product("b", 1));
    let news = feed.batch(&[Arc::clone(&new), Arc::clone(&other)]);
    check_eq!(outcomes(&follower.apply(news).await?), ["applied", "applied"], "news");
    // The record was changed by hand, here by a lie of the same version; a copy of the truth repairs it.
    let mut truth = other.as_ref().clone();
    truth.image = Some(Arc::new(product("b", 7)));
    let copied = Batch { copied: true, ..feed.batch(&[old, Arc::new(truth)]) };
    check_eq!(outcomes(&follower.apply(copied).await?), ["stale", "applied"], "copies");
    let stock = |s: unisono_core::Stored| (s.version.as_u64(), s.record.values()[4].clone());
    let found = opened.get(&entity, &Sample::key("a")).await?.map(stock);
    check_eq!(found, Some((2, unisono_core::Value::Integer(2))), "a copy replaced something newer");
    let found = opened.get(&entity, &Sample::key("b")).await?.map(stock);
    check_eq!(
        found,
        Some((3, unisono_core::Value::Integer(7))),
        "an equal version is written again"
    );
    check_eq!(
        outcomes(&follower.apply(feed.batch(&[other])).await?),
        ["stale"],
        "news of the same version"
    );
    first_copies_are_taken_in(&opened, &mut feed).await
}

/// The same where the follower was emptied to be filled anew, and may have a quicker way for what it lacks.
async fn first_copies_are_taken_in(opened: &Opened, feed: &mut Feed) -> Verdict {
    let (entity, follower) = (Arc::clone(&feed.entity), opened.follower()?);
    let put = |feed: &mut Feed, key| feed.changes.put(&entity, product(key, 3));
    let copies = |feed: &Feed, changes: &[&Arc<Change>]| {
        let changes: Vec<_> = changes.iter().map(|change| Arc::clone(change)).collect();
        follower.apply(Batch { copied: true, ..feed.batch(&changes) })
    };
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|key| put(feed, key));
    follower.reset(&entity).await?;
    check_eq!(outcomes(&copies(feed, &[&a, &b]).await?), ["applied", "applied"], "a first copy");
    // Its answer was lost. What is the same in every way may be written again, or not.
    let again = copies(feed, &[&a, &b]).await?;
    let settled = |o: &Outcome| matches!(o, Outcome::Applied | Outcome::Stale);
    check!(again.outcomes.iter().all(settled), "{:?}", again.outcomes);
    follower.reset(&entity).await?;
    let newer = put(feed, "a");
    check_eq!(outcomes(&copies(feed, &[&newer]).await?), ["applied"], "a newer state");
    let applied = copies(feed, &[&a, &b]).await?;
    check_eq!(outcomes(&applied), ["stale", "applied"], "a copy that meets a newer state");
    follower.reset(&entity).await?;
    let gone = feed.changes.delete(&entity, &Sample::key("c"));
    follower.apply(feed.batch(&[gone])).await?;
    let applied = copies(feed, &[&c, &d]).await?;
    check_eq!(outcomes(&applied), ["stale", "applied"], "a copy that meets a deletion");
    let found = opened.everything(&entity).await?;
    let found: Vec<_> = found.iter().map(|s| (s.key.to_string(), s.version)).collect();
    check_eq!(found, [("d".to_owned(), d.position)], "in the end");
    Ok(())
}

async fn copies_go_beside_each_other(fixture: &Fixture) -> Verdict {
    fixture.needs_that(fixture.capability().apply.copy_lanes > 1, "lanes for copies")?;
    let (opened, mut feed) = following(fixture).await?;
    let entity = Arc::clone(&feed.entity);
    let follower = opened.follower()?;
    let keys: Vec<String> = (0..40).map(|n| format!("k{n:02}")).collect();
    for round in 0..12 {
        if round % 2 == 0 {
            // Then it may have a quicker way for what it lacks.
            follower.reset(&entity).await?;
        }
        let mut put = |stock| {
            let put = |key: &String| feed.changes.put(&entity, product(key, stock));
            keys.iter().map(put).collect::<Vec<_>>()
        };
        let (older, newer) = (put(2 * round), put(2 * round + 1));
        let odd = keys.iter().skip(1).step_by(2);
        let deleted: Vec<_> =
            odd.map(|key| feed.changes.delete(&entity, &Sample::key(key))).collect();
        let mut batches = [older, newer, deleted];
        batches.rotate_left(round as usize % 3);
        let applied = batches.iter().map(|changes| async {
            let batch = Batch { copied: true, ..feed.batch(changes) };
            follower.apply(batch).await
        });
        for applied in futures::future::join_all(applied).await {
            let applied = applied?;
            let settled = |o: &Outcome| matches!(o, Outcome::Applied | Outcome::Stale);
            check!(applied.outcomes.iter().all(settled), "{:?}", applied.outcomes);
        }
        let found = opened.everything(&entity).await?;
        let found: Vec<_> =
            found.iter().map(|s| (s.key.to_string(), s.record.values()[4].clone())).collect();
        let newest = unisono_core::Value::Integer(2 * round + 1);
        let expected: Vec<_> =
            keys.iter().step_by(2).map(|key| (key.clone(), newest.clone())).collect();
        check_eq!(found, expected, "after round {round}");
    }
    Ok(())
}

async fn lanes_run_in_parallel(fixture: &Fixture) -> Verdict {
    let lanes = fixture.capability().apply.lanes;
    fixture.needs_that(lanes > 1, "lanes")?;
    let (opened, mut feed) = following(fixture).await?;
    let entity = Arc::clone(&feed.entity);
    for round in 0..10 {
        let batches: Vec<_> = (0..lanes)
            .map(|lane| {
                (0..5)
                    .map(|n| feed.changes.put(&entity, product(&format!("k{lane}-{n}"), round)))
                    .collect::<Vec<_>>()
            })
            .collect();
        let follower = opened.follower()?;
        let applied =
            futures::future::join_all(batches.iter().map(|b| follower.apply(feed.batch(b)))).await;
        for applied in applied {
            check_eq!(outcomes(&applied?), ["applied"; 5], "round {round}");
        }
        feed.apply(&opened, &[]).await?;
    }
    let found = opened.everything(&entity).await?;
    check_eq!(found.len(), lanes * 5, "records in the end");
    check!(
        found.iter().all(|s| s.record.values()[4] == unisono_core::Value::Integer(9)),
        "an old state won"
    );
    Ok(())
}

async fn checkpoint_is_kept(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Follower)?;
    let (product, order) = (Sample::product(), Sample::order());
    let opened = fixture.open(Role::Follower, &[&product, &order]).await?;
    let key = "\u{0}ö\"\\/\u{1f600}".to_owned();
    let position = Position::MAX;
    let checkpoint = Checkpoint { log: Uuid::max(), position, backfill: Some(key) };
    let advance = Some(Advance { from: None, to: checkpoint.clone() });
    let batch = Batch { entity: Arc::clone(&product), changes: vec![], copied: true, advance };
    opened.follower()?.apply(batch).await?;
    let opened = fixture.reopen(opened, Role::Follower, &[&product, &order]).await?;
    let follower = opened.follower()?;
    check_eq!(follower.checkpoint(&product).await?, Some(checkpoint.clone()), "the checkpoint");
    check_eq!(follower.checkpoint(&order).await?, None, "the checkpoint of another entity");
    let begun = Checkpoint { backfill: Some(String::new()), ..checkpoint.clone() };
    let advance = Some(Advance { from: Some(checkpoint), to: begun.clone() });
    follower
        .apply(Batch { entity: Arc::clone(&product), changes: vec![], copied: true, advance })
        .await?;
    check_eq!(follower.checkpoint(&product).await?, Some(begun), "a backfill that has just begun");
    Ok(())
}

async fn lost_data_is_noticed(fixture: &Fixture) -> Verdict {
    fixture.needs_that(fixture.capability().durable, "durable data")?;
    let (opened, mut feed) = following(fixture).await?;
    let entity = Arc::clone(&feed.entity);
    let changes: Vec<_> =
        (0..5).map(|n| feed.changes.put(&entity, Sample::product_record(n))).collect();
    feed.apply(&opened, &changes).await?;
    fixture.delete_data().await?;
    let follower = opened.follower()?;
    check_eq!(follower.checkpoint(&entity).await?, None, "data deleted while open");
    // What the engine does next: it begins again, over the same open source.
    follower.reset(&entity).await?;
    feed.checkpoint = None;
    feed.apply(&opened, &changes).await?;
    check!(opened.get(&entity, &Sample::key("p3")).await?.is_some(), "filled again, but not found");
    let opened = fixture.reopen(opened, Role::Follower, &[&entity]).await?;
    check_eq!(
        opened.follower()?.checkpoint(&entity).await?,
        feed.checkpoint,
        "filled again and reopened"
    );
    check!(
        opened.get(&entity, &Sample::key("p3")).await?.is_some(),
        "filled again and reopened, but not found"
    );
    // The same while closed.
    opened.source.close().await?;
    drop(opened);
    fixture.delete_data().await?;
    let opened = fixture.open(Role::Follower, &[&entity]).await?;
    check_eq!(opened.follower()?.checkpoint(&entity).await?, None, "data deleted while closed");
    Ok(())
}

async fn reset_forgets_one_entity(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Follower)?;
    let (entity, order) = (Sample::product(), Sample::order());
    let opened = fixture.open(Role::Follower, &[&entity, &order]).await?;
    let mut feed = Feed::new(&entity);
    let put = feed.changes.put(&entity, product("a", 1));
    let delete = feed.changes.delete(&entity, &Sample::key("b"));
    feed.apply(&opened, &[Arc::clone(&put), delete]).await?;
    let mut orders = Feed::new(&order);
    let change = orders.changes.put(&order, Sample::record(&order, &json!({"id": "a"})));
    orders.apply(&opened, &[change]).await?;
    let follower = opened.follower()?;
    follower.reset(&entity).await?;
    follower.reset(&entity).await?;
    check!(opened.get(&entity, &Sample::key("a")).await?.is_none(), "a record is left");
    check_eq!(follower.checkpoint(&entity).await?, None, "the checkpoint is left");
    check!(
        opened.get(&order, &Sample::key("a")).await?.is_some(),
        "a record of another entity is gone"
    );
    check_eq!(
        follower.checkpoint(&order).await?,
        orders.checkpoint,
        "the checkpoint of another entity"
    );
    check_eq!(
        outcomes(&follower.apply(feed.batch(&[put])).await?),
        ["applied"],
        "an old version after a reset"
    );
    Ok(())
}
