//! Commits: alone or not at all, dense, ordered, repeatable, unique.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use unisono_core::write::{Action, Condition, Idempotency, Unit, resolve};
use unisono_core::{Change, Effect, Entity, ErrorKind, Key, Position, Role, Stored, Timestamp};
use unisono_testkit::{Generator, Sample};

use crate::cases::cases;
use crate::fixture::{
    Fixture, Opened, Verdict, check, check_eq, must_fail, put, unit, write, write_if,
};

cases! {
    "commit-1" failing_units_fail_alone "a unit that fails fails alone, entirely, and takes no position";
    "commit-2" positions_are_dense "positions are dense and in the order of the writes, over all entities";
    "commit-3" later_units_see_earlier_ones "a later write sees the earlier ones of the same call";
    "commit-4" repeated_units_take_place_once "a repeated unit gets the earlier outcome, also after reopening";
    "commit-5" unique_fields_are_unique "a taken value is refused by field, and free once given up";
    "commit-6" failure_says_its_effect "a call that fails says whether anything was written";
    "conditions" conditions_decide "absent, present and version decide, with the actual version in the error";
    "changes" changes_say_all "a change carries image, version replaced, time, actor and trace";
    "model" random_writes_agree "random writes do what the rules of the contract say";
}

fn product(id: &str, stock: i64) -> unisono_core::Record {
    Sample::record(&Sample::product(), &json!({"id": id, "name": "x", "stock": stock}))
}

async fn failing_units_fail_alone(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    let e = Sample::product();
    let opened = fixture.open(Role::Truth, &[&e]).await?;
    let nameless = Sample::record(&e, &json!({"id": "c"}));
    let units = vec![
        put(&e, &product("a", 1))?,
        unit(vec![
            write(&e, &Sample::key("b"), Action::Put(product("b", 1))),
            write(&e, &Sample::key("a"), Action::Delete),
            write(&e, &Sample::key("gone"), Action::Delete),
        ]),
        put(&e, &nameless)?,
        put(&e, &product("d", 1))?,
    ];
    let results = opened.truth()?.commit(units).await?;
    let kinds: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().map(|c| c.changes[0].position.as_u64()).map_err(|e| e.kind()))
        .collect();
    check_eq!(
        kinds,
        [Ok(1), Err(ErrorKind::NotFound), Err(ErrorKind::InvalidInput), Ok(2)],
        "outcomes"
    );
    for result in results.iter().filter_map(|r| r.as_ref().err()) {
        check_eq!(result.effect_on_data(), Effect::None, "a failed unit wrote nothing: {result:?}");
    }
    for (id, there) in [("a", true), ("b", false), ("c", false), ("d", true)] {
        check_eq!(opened.get(&e, &Sample::key(id)).await?.is_some(), there, "presence of {id}");
    }
    check_eq!(opened.truth()?.bounds().await?.head.as_u64(), 2, "head");
    check_eq!(opened.truth()?.commit(vec![]).await?.len(), 0, "an empty call");
    Ok(())
}

async fn positions_are_dense(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    let (product, order) = (Sample::product(), Sample::order());
    let opened = fixture.open(Role::Truth, &[&product, &order]).await?;
    let mut expected = Vec::new();
    for call in 0..4_u32 {
        let mut units = Vec::new();
        for n in 0..3 {
            let id = format!("{call}{n}");
            let order_record = Sample::record(&order, &json!({"id": id}));
            let product_record = Sample::record(&product, &json!({"id": id, "name": "x"}));
            units.push(unit(vec![
                write(&order, &Sample::key(&id), Action::Put(order_record)),
                write(&product, &Sample::key(&id), Action::Put(product_record)),
            ]));
            expected.extend([format!("order {id}"), format!("product {id}")]);
        }
        opened.commit(units).await?;
    }
    let log = opened.truth()?.read_log(Position::ZERO, 1000, usize::MAX).await?;
    let found: Vec<_> = log.iter().map(|c| format!("{} {}", c.entity, c.key)).collect();
    check_eq!(found, expected, "order of the log");
    let positions: Vec<_> = log.iter().map(|c| c.position.as_u64()).collect();
    check_eq!(positions, (1..=expected.len() as u64).collect::<Vec<_>>(), "positions");
    for change in log {
        let entity = if change.entity == *order.name() { &order } else { &product };
        let version = opened.get(entity, &change.key).await?.map(|s| s.version);
        check_eq!(version, Some(change.position), "version of {} {}", change.entity, change.key);
    }
    Ok(())
}

async fn later_units_see_earlier_ones(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    let e = Sample::product();
    let key = Sample::key("a");
    let opened = fixture.open(Role::Truth, &[&e]).await?;
    let version = |n| Condition::Version(Position::new(n).ok());
    let units = vec![
        unit(vec![
            write_if(&e, &key, Action::Put(product("a", 1)), Condition::Absent),
            write_if(&e, &key, Action::Patch(json!({"stock": 2})), version(1)),
        ]),
        unit(vec![write_if(&e, &key, Action::Put(product("a", 9)), Condition::Absent)]),
        unit(vec![write_if(&e, &key, Action::Patch(json!({"name": "y"})), version(2))]),
        unit(vec![write(&e, &key, Action::Delete)]),
        unit(vec![write_if(&e, &key, Action::Put(product("a", 5)), Condition::Absent)]),
    ];
    let results = opened.truth()?.commit(units).await?;
    let positions: Vec<Vec<u64>> = results
        .iter()
        .map(|r| r.iter().flat_map(|c| c.changes.iter().map(|c| c.position.as_u64())).collect())
        .collect();
    check_eq!(positions, [vec![1, 2], vec![], vec![3], vec![4], vec![5]], "positions");
    let replaced: Vec<_> = results
        .iter()
        .flatten()
        .flat_map(|c| c.changes.iter().map(|c| c.replaced.map(|v| v.as_u64())))
        .collect();
    check_eq!(replaced, [None, Some(1), Some(2), Some(3), None], "versions replaced");
    let patched = &results[2].as_ref().map(|c| c.changes[0].image.clone()).ok().flatten();
    let expected = Sample::record(&e, &json!({"id": "a", "name": "y", "stock": 2}));
    check_eq!(patched.as_deref(), Some(&expected), "the patch of a patch");
    Ok(())
}

fn repeatable(
    entity: &Arc<Entity>,
    stock: i64,
    key: &str,
    fingerprint: u128,
    seconds: u64,
) -> Unit {
    let idempotency = Some(Idempotency { key: key.into(), fingerprint });
    let time = Timestamp::EPOCH.plus(std::time::Duration::from_secs(seconds));
    let id = format!("i{stock}");
    let write =
        write_if(entity, &Sample::key(&id), Action::Put(product(&id, stock)), Condition::Absent);
    Unit { idempotency, time, ..unit(vec![write]) }
}

async fn repeated_units_take_place_once(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    let e = Sample::product();
    let opened = fixture.open(Role::Truth, &[&e]).await?;
    let big = u128::MAX - 1;
    let results = opened
        .truth()?
        .commit(vec![repeatable(&e, 1, "k", big, 10), repeatable(&e, 1, "k", big, 10)])
        .await?;
    let outcomes = |results: &[unisono_core::Result<unisono_core::write::Committed>]| -> Vec<_> {
        results
            .iter()
            .map(|r| r.as_ref().map(|c| (c.replayed, c.changes.clone())).map_err(|e| e.kind()))
            .collect()
    };
    let first = outcomes(&results);
    let Ok((false, changes)) = first[0].clone() else {
        return Err(crate::fixture::Stop::Failed(format!(
            "the first did not take place: {first:?}"
        )));
    };
    check_eq!(first[1], Ok((true, changes.clone())), "repeated in the same call");
    must_fail(
        opened.commit_one(repeatable(&e, 2, "k", 7, 11)).await,
        ErrorKind::IdempotencyKeyReused,
        "another request",
    )?;
    must_fail(
        opened.commit_one(repeatable(&e, 1, "other", 3, 12)).await,
        ErrorKind::AlreadyExists,
        "another key",
    )?;
    let opened = fixture.reopen(opened, Role::Truth, &[&e]).await?;
    let again = opened.commit_one(repeatable(&e, 1, "k", big, 13)).await?;
    check!(again.replayed && again.changes == changes, "repeated after reopening: {again:?}");
    // A failed unit leaves its key free.
    let late = opened.commit_one(repeatable(&e, 3, "other", 3, 14)).await?;
    check!(!late.replayed, "the key of a failed unit was taken");
    // An outcome is known even when its changes were trimmed; outcomes from before a time are forgotten.
    let truth = opened.truth()?;
    truth.trim(changes[0].position, Timestamp::EPOCH).await?;
    check!(
        opened.commit_one(repeatable(&e, 1, "k", big, 15)).await?.replayed,
        "outcome lost by trimming the log"
    );
    truth.trim(Position::ZERO, Timestamp::EPOCH.plus(std::time::Duration::from_secs(12))).await?;
    must_fail(
        opened.commit_one(repeatable(&e, 1, "k", big, 16)).await,
        ErrorKind::AlreadyExists,
        "a forgotten outcome",
    )?;
    check!(
        opened.commit_one(repeatable(&e, 3, "other", 3, 17)).await?.replayed,
        "a younger outcome was forgotten"
    );
    keys_are_taken_without_a_write(&opened, &e).await
}

/// A request that may still arrive comes to nothing when its key was taken by a unit without writes.
async fn keys_are_taken_without_a_write(opened: &Opened, e: &Arc<Entity>) -> Verdict {
    let bare = |key| Unit { writes: Vec::new(), ..repeatable(e, 9, key, 5, 20) };
    let head = opened.truth()?.bounds().await?.head;
    let results = opened
        .truth()?
        .commit(vec![
            bare("taken"),
            repeatable(e, 9, "taken", 5, 20),
            repeatable(e, 8, "free", 5, 20),
        ])
        .await?;
    let told: Vec<_> = results.iter().flatten().map(|c| (c.replayed, c.changes.len())).collect();
    check_eq!(told, [(false, 0), (true, 0), (false, 1)], "beside others");
    for (key, replayed) in [("alone", false), ("alone", true), ("taken", true)] {
        let told = opened.commit_one(bare(key)).await?;
        check_eq!((told.replayed, told.changes.len()), (replayed, 0), "{key}");
    }
    let late = opened.commit_one(repeatable(e, 9, "alone", 5, 21)).await?;
    check_eq!((late.replayed, late.changes.len()), (true, 0), "what arrives late");
    check!(
        opened.get(e, &Sample::key("i9")).await?.is_none(),
        "a request whose key is taken changed something"
    );
    check_eq!(opened.truth()?.bounds().await?.head, head.next(), "the head of the log");
    Ok(())
}

fn person(number: i64, email: Option<&str>) -> unisono_core::Record {
    Sample::record(&Sample::person(), &json!({"number": number, "email": email}))
}

async fn unique_fields_are_unique(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    let e = Sample::person();
    let opened = fixture.open(Role::Truth, &[&e]).await?;
    let puts = |numbers: &[(i64, Option<&str>)]| {
        numbers.iter().map(|(n, m)| put(&e, &person(*n, *m))).collect::<Result<Vec<_>, _>>()
    };
    opened
        .commit(puts(&[(1, Some("a")), (2, Some("A")), (3, None), (4, None), (5, Some(""))])?)
        .await?;
    let results = opened
        .truth()?
        .commit(puts(&[(6, Some("a")), (7, Some("b")), (8, Some("b")), (9, Some(""))])?)
        .await?;
    let kinds: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().err().map(|e| (e.kind(), e.detail("field").map(str::to_owned))))
        .collect();
    let taken = Some((ErrorKind::ConstraintViolated, Some("email".to_owned())));
    check_eq!(kinds, [taken.clone(), None, taken.clone(), taken], "taken values");
    let key = Key::Integer;
    for n in [6, 8, 9] {
        check!(
            opened.get(&e, &key(n)).await?.is_none(),
            "record {n} was written in spite of its taken value"
        );
    }
    check_eq!(
        opened.get(&e, &key(1)).await?.map(|s| s.version.as_u64()),
        Some(1),
        "the owner is untouched"
    );
    // A record keeps its own value; values move within a unit once they are given up.
    opened.commit(puts(&[(1, Some("a"))])?).await?;
    let take = |n, action| write(&e, &key(n), action);
    opened
        .commit(vec![unit(vec![
            take(1, Action::Delete),
            take(6, Action::Put(person(6, Some("a")))),
        ])])
        .await?;
    let patch = take(2, Action::Patch(json!({"email": "b"})));
    must_fail(
        opened.write(patch).await,
        ErrorKind::ConstraintViolated,
        "a patch to a taken value",
    )?;
    opened.commit(vec![unit(vec![take(7, Action::Patch(json!({"email": null})))])]).await?;
    opened.write(take(2, Action::Patch(json!({"email": "b"})))).await?;
    let opened = fixture.reopen(opened, Role::Truth, &[&e]).await?;
    must_fail(
        opened.commit_one(put(&e, &person(10, Some("b")))?).await,
        ErrorKind::ConstraintViolated,
        "taken, after reopening",
    )?;
    Ok(())
}

async fn failure_says_its_effect(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    let e = Sample::product();
    let opened = fixture.open(Role::Truth, &[&e]).await?;
    let truth = opened.truth()?;
    opened.source.close().await?;
    let error = must_fail(
        truth.commit(vec![put(&e, &product("a", 1))?]).await,
        ErrorKind::Unavailable,
        "a closed truth",
    )?;
    check_eq!(error.effect_on_data(), Effect::None, "nothing can have been written: {error:?}");
    Ok(())
}

async fn conditions_decide(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    let e = Sample::product();
    let key = Sample::key("a");
    let opened = fixture.open(Role::Truth, &[&e]).await?;
    let put_if = |condition| write_if(&e, &key, Action::Put(product("a", 1)), condition);
    let version = |n| Condition::Version(Position::new(n).ok());
    must_fail(
        opened.write(put_if(Condition::Present)).await,
        ErrorKind::VersionConflict,
        "present",
    )?;
    must_fail(
        opened.write(put_if(version(1))).await,
        ErrorKind::VersionConflict,
        "a version of nothing",
    )?;
    opened.write(put_if(Condition::Version(None))).await?;
    must_fail(
        opened.write(put_if(Condition::Version(None))).await,
        ErrorKind::VersionConflict,
        "no version",
    )?;
    must_fail(opened.write(put_if(Condition::Absent)).await, ErrorKind::AlreadyExists, "absent")?;
    opened.write(put_if(version(1))).await?;
    let error = must_fail(
        opened.write(put_if(version(1))).await,
        ErrorKind::VersionConflict,
        "an old version",
    )?;
    check_eq!(error.detail("actual"), Some("2"), "the actual version: {error:?}");
    opened.write(put_if(Condition::Present)).await?;
    let opened = fixture.reopen(opened, Role::Truth, &[&e]).await?;
    opened.write(write_if(&e, &key, Action::Delete, version(3))).await?;
    opened.write(put_if(Condition::Absent)).await?;
    check_eq!(
        opened.get(&e, &key).await?.map(|s| s.version.as_u64()),
        Some(5),
        "version in the end"
    );
    Ok(())
}

async fn changes_say_all(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    let e = Sample::product();
    let opened = fixture.open(Role::Truth, &[&e]).await?;
    let time = Timestamp::from_micros(1_700_000_000_123_456)?;
    let units = [Action::Put(product("a", 1)), Action::Delete].map(|action| Unit {
        time,
        actor: Some("ann ☂".into()),
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        ..unit(vec![write(&e, &Sample::key("a"), action)])
    });
    let committed = opened.commit(units.into()).await?;
    let changes: Vec<Arc<Change>> = committed.into_iter().flat_map(|c| c.changes).collect();
    check_eq!(changes[0].image.as_deref(), Some(&product("a", 1)), "image of a put");
    check_eq!(changes[1].image, None, "image of a delete");
    check_eq!(changes[1].replaced, Some(changes[0].position), "version replaced");
    check!(
        changes.iter().all(|c| c.time == time && c.actor.as_deref() == Some("ann ☂")),
        "{changes:?}"
    );
    let opened = fixture.reopen(opened, Role::Truth, &[&e]).await?;
    let log = opened.truth()?.read_log(Position::ZERO, 10, usize::MAX).await?;
    check_eq!(log, changes, "the log says what commit said");
    Ok(())
}

/// What the contract says, in its simplest form.
#[derive(Default)]
struct Model {
    records: BTreeMap<Key, Stored>,
    head: Position,
}

impl Model {
    fn commit(&mut self, unit: &Unit) -> Result<Vec<u64>, ErrorKind> {
        let (mut records, mut head, mut positions) = (self.records.clone(), self.head, Vec::new());
        for write in &unit.writes {
            let resolved = resolve(write, records.get(&write.key)).map_err(|e| e.kind())?;
            head = head.next();
            positions.push(head.as_u64());
            match resolved.image {
                Some(image) => {
                    records.insert(write.key.clone(), Stored::new(write.key.clone(), head, image))
                }
                None => records.remove(&write.key),
            };
        }
        (self.records, self.head) = (records, head);
        Ok(positions)
    }
}

async fn random_writes_agree(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    for seed in 0..12 {
        let fixture = Fixture::new(&fixture.kind)?;
        let mut g = Generator::new(seed);
        let refuses = fixture.capability().refuses;
        let entity = g.entity("thing", &|f| refuses(Role::Truth, f).is_none());
        let keys: Vec<_> = (0..6).map(|_| g.key(&entity)).collect();
        let mut opened = fixture.open(Role::Truth, &[&entity]).await?;
        let mut model = Model::default();
        for (n, units) in g.units(&entity, &keys, 30, fixture.now()).into_iter().enumerate() {
            let expected: Vec<_> = units.iter().map(|u| model.commit(u)).collect();
            let results = opened.truth()?.commit(units).await?;
            let found: Vec<Result<Vec<_>, _>> = results
                .into_iter()
                .map(|r| {
                    r.map(|c| c.changes.iter().map(|c| c.position.as_u64()).collect())
                        .map_err(|e| e.kind())
                })
                .collect();
            check_eq!(found, expected, "seed {seed}, call {n}");
            if n == 15 {
                opened = fixture.reopen(opened, Role::Truth, &[&entity]).await?;
            }
        }
        let expected: Vec<_> = model.records.into_values().map(Some).collect();
        let keys: Vec<_> = expected.iter().flatten().map(|s| s.key.clone()).collect();
        check_eq!(
            opened.reader()?.get(&entity, &keys).await?.value,
            expected,
            "seed {seed}: records in the end"
        );
    }
    Ok(())
}

impl Opened {
    async fn commit_one(&self, unit: Unit) -> unisono_core::Result<unisono_core::write::Committed> {
        let mut results = self.truth()?.commit(vec![unit]).await?;
        results.pop().unwrap_or_else(|| Err(unisono_core::Error::internal("commit gave no answer")))
    }
}
