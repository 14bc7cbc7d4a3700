//! Streams of events: numbered by the truth's transaction, densely, in the order of the log, whoever appends.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use unisono_core::stream::{
    Append, Event, Expected, NewEvent, entity, key, revision_of, tags_entity,
};
use unisono_core::write::{Action, Committed, Condition, Idempotency, Unit, Write};
use unisono_core::{Entity, ErrorKind, Position, Record, Result, Role, Timestamp, Value};

use crate::cases::cases;
use crate::fixture::{Fixture, Opened, Stop, Verdict, check, check_eq, must_fail, unit};

cases! {
    "stream-1" revisions_are_expected "an append takes place at the expected revision or not at all, with the actual one in the error";
    "stream-2" streams_are_dense "of many appends to few streams at once each has its revision, in the order of positions";
    "stream-3" appends_are_repeatable "a repeated append has the effect of one, and the id of an event is given once";
    "stream-4" units_are_whole "several events, also of several streams and beside records, are appended together or not at all";
    "stream-5" tags_conflict "of appends that looked at the same tags one takes place";
    "stream-6" closed_streams_take_nothing "a closed stream takes no event, and others go on";
    "stream-7" streams_survive "a stream goes on where it ended, after reopening";
}

/// A truth with one type of streams.
struct Streams {
    opened: Opened,
    events: Arc<Entity>,
    tags: Arc<Entity>,
}

impl Streams {
    async fn open(fixture: &Fixture) -> Result<Self, Stop> {
        fixture.needs(Role::Truth)?;
        let (events, tags) = (Arc::new(entity("order")?), Arc::new(tags_entity("order")?));
        let refused = |f| (fixture.capability().refuses)(Role::Truth, f);
        if let Some(reason) = events.fields().iter().find_map(refused) {
            return Err(Stop::NotApplicable(reason));
        }
        let opened = fixture.open(Role::Truth, &[&events, &tags]).await?;
        Ok(Streams { opened, events, tags })
    }

    fn append(&self, stream: &str, expected: Expected, id: &str) -> Result<Write> {
        let event = NewEvent::new("placed", json!({"of": id}));
        let event = event.record(&self.events, id.to_owned(), Timestamp::EPOCH);
        Append { stream: stream.into(), expected, event, closes: false }.write(&self.events)
    }

    fn one(&self, stream: &str, expected: Expected, id: &str) -> Result<Unit> {
        Ok(unit(vec![self.append(stream, expected, id)?]))
    }

    fn tag(&self, tag: &str, until: u64) -> Result<Write> {
        let record = Record::new(vec![Value::String(tag.to_owned())]);
        let condition = Condition::Until(Position::new(until)?);
        let key = self.tags.key_of(&record)?;
        Ok(Write { entity: Arc::clone(&self.tags), key, action: Action::Put(record), condition })
    }

    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        self.opened.truth()?.commit(units).await
    }

    /// Every event, by stream.
    async fn all(&self) -> Result<BTreeMap<String, Vec<Event>>, Stop> {
        let mut streams: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for stored in self.opened.everything(&self.events).await? {
            let event = Event::of(&stored.record)?;
            check_eq!(stored.version, event.position, "an event's position is its version");
            check_eq!(
                revision_of(&stored.key),
                Some(event.revision),
                "the revision of {}",
                stored.key
            );
            streams.entry(event.stream.clone()).or_default().push(event);
        }
        Ok(streams)
    }
}

fn revisions(result: &Result<Committed>) -> Result<Vec<u64>, ErrorKind> {
    let changes = result.as_ref().map_err(|e| e.kind())?;
    Ok(changes.changes.iter().filter_map(|c| revision_of(&c.key)).collect())
}

async fn revisions_are_expected(fixture: &Fixture) -> Verdict {
    use Expected::*;
    let s = Streams::open(fixture).await?;
    let conflict = Err(ErrorKind::VersionConflict);
    let steps = [
        (Exists, conflict.clone()),
        (Revision(1), conflict.clone()),
        (None, Ok(vec![1])),
        (None, conflict.clone()),
        (Exists, Ok(vec![2])),
        (Revision(1), conflict.clone()),
        (Revision(3), conflict.clone()),
        (Revision(2), Ok(vec![3])),
        (Any, Ok(vec![4])),
    ];
    // One by one, and then all in one call: a later append sees the earlier ones.
    for (n, (expected, outcome)) in steps.iter().enumerate() {
        let results = s.commit(vec![s.one("a", *expected, &format!("a{n}"))?]).await?;
        check_eq!(revisions(&results[0]), *outcome, "{expected} at step {n}");
        if let Err(error) = &results[0] {
            let before = steps[..n].iter().filter(|s| s.1.is_ok()).count();
            check_eq!(error.detail("actual"), Some(before.to_string().as_str()), "of {error}");
            check_eq!(error.detail("stream"), Some("a"), "of {error}");
        }
    }
    let units = steps.iter().enumerate().map(|(n, (e, _))| s.one("b", *e, &format!("b{n}")));
    let results = s.commit(units.collect::<Result<_>>()?).await?;
    let found: Vec<_> = results.iter().map(revisions).collect();
    check_eq!(found, steps.iter().map(|s| s.1.clone()).collect::<Vec<_>>(), "in one call");
    // Names of which one is the beginning of the other, and such that sort around the separator.
    for stream in ["a0", "a-1", "A", "a.", "ä", "a%", "a_"] {
        let results = s.commit(vec![s.one(stream, None, &format!("of {stream}"))?]).await?;
        check_eq!(revisions(&results[0]), Ok(vec![1]), "the first event of {stream}");
    }
    let result = s.commit(vec![s.one("a", Revision(4), "last")?]).await?;
    check_eq!(revisions(&result[0]), Ok(vec![5]), "behind streams with similar names");
    Ok(())
}

async fn streams_are_dense(fixture: &Fixture) -> Verdict {
    let s = Streams::open(fixture).await?;
    let s = &s;
    // Callers of one truth at once, as several processes are: each asks again after a conflict.
    let appender = |caller: usize| async move {
        let (mut won, mut known) = (0_u64, [0_u64; 3]);
        for n in 0..25 {
            let stream = (caller + n) % 3;
            let expected = match n % 2 {
                0 => Expected::Any,
                _ => Expected::Revision(known[stream]),
            };
            let of = s.one(&format!("s{stream}"), expected, &format!("{caller}-{n}"))?;
            match s.commit(vec![of]).await?.remove(0) {
                Ok(committed) => {
                    won += 1;
                    known[stream] = revision_of(&committed.changes[0].key).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::VersionConflict => {
                    let actual = error.detail("actual").and_then(|n| n.parse().ok());
                    known[stream] = actual.unwrap_or_default();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(won)
    };
    let won = futures::future::join_all((0..8).map(appender)).await;
    let won: u64 = won.into_iter().collect::<Result<Vec<_>>>()?.into_iter().sum();
    let streams = s.all().await?;
    let count: usize = streams.values().map(Vec::len).sum();
    check_eq!(count as u64, won, "an event for each append that took place");
    check!(won >= 104, "appends without an expectation always take place: {won}");
    for (name, events) in &streams {
        let found: Vec<u64> = events.iter().map(|e| e.revision).collect();
        check_eq!(found, (1..=events.len() as u64).collect::<Vec<_>>(), "revisions of {name}");
        check!(events.is_sorted_by_key(|e| e.position), "positions of {name} are in its order");
    }
    Ok(())
}

async fn appends_are_repeatable(fixture: &Fixture) -> Verdict {
    let s = Streams::open(fixture).await?;
    let once = |unit: Unit, fingerprint| Unit {
        idempotency: Some(Idempotency { key: "k".into(), fingerprint }),
        ..unit
    };
    let first = once(s.one("a", Expected::None, "e1")?, 7);
    let results = s.commit(vec![first.clone()]).await?;
    check_eq!(revisions(&results[0]), Ok(vec![1]), "the first time");
    // In a batch with others, and although the expectation holds no longer.
    let mut results = s.commit(vec![s.one("a", Expected::Any, "e2")?, first.clone()]).await?;
    check_eq!(revisions(&results[1]), Ok(vec![1]), "again");
    check!(results.remove(1)?.replayed, "it is told that it took place before");
    let other = once(s.one("a", Expected::Any, "e3")?, 8);
    let refused = s.commit(vec![other]).await?.remove(0);
    must_fail(refused, ErrorKind::IdempotencyKeyReused, "another append under the key")?;
    // The id of an event is given once, whatever the stream, beside others in the same call.
    let units = vec![
        s.one("b", Expected::Any, "e4")?,
        s.one("b", Expected::Any, "e1")?,
        s.one("b", Expected::Any, "e5")?,
    ];
    let results = s.commit(units).await?;
    let found: Vec<_> = results.iter().map(revisions).collect();
    let taken = Err(ErrorKind::ConstraintViolated);
    check_eq!(found, [Ok(vec![1]), taken, Ok(vec![2])], "a taken id fails alone");
    let field = results[1].as_ref().err().and_then(|e| e.detail("field"));
    check_eq!(field, Some("id"), "the field of the error");
    check_eq!(s.all().await?["a"].len(), 2, "events of a");
    Ok(())
}

async fn units_are_whole(fixture: &Fixture) -> Verdict {
    let s = Streams::open(fixture).await?;
    let units = vec![
        unit(vec![
            s.append("a", Expected::None, "1")?,
            s.append("b", Expected::None, "2")?,
            s.append("a", Expected::Any, "3")?,
        ]),
        unit(vec![s.append("b", Expected::Revision(1), "4")?, s.append("a", Expected::None, "5")?]),
        unit(vec![s.append("b", Expected::Revision(1), "6")?, s.tag("t", 0)?]),
    ];
    let results = s.commit(units).await?;
    check_eq!(revisions(&results[0]), Ok(vec![1, 1, 2]), "the first unit");
    check_eq!(revisions(&results[1]), Err(ErrorKind::VersionConflict), "the second unit");
    check_eq!(results[2].as_ref().map(|c| c.changes.len()).ok(), Some(2), "the third unit");
    let positions: Vec<u64> = results
        .iter()
        .flatten()
        .flat_map(|c| c.changes.iter().map(|c| c.position.as_u64()))
        .collect();
    check_eq!(positions, [1, 2, 3, 4, 5], "positions");
    let all = s.all().await?;
    let ids = |name: &str| all[name].iter().map(|e| e.id.clone()).collect::<Vec<_>>();
    check_eq!(
        (ids("a"), ids("b")),
        (vec!["1".into(), "3".into()], vec!["2".into(), "6".into()]),
        "what is there"
    );
    Ok(())
}

async fn tags_conflict(fixture: &Fixture) -> Verdict {
    let s = Streams::open(fixture).await?;
    let of = |stream: &str, tag: &str, until| -> Result<Unit> {
        Ok(unit(vec![
            s.append(stream, Expected::Any, &format!("{stream} {tag}"))?,
            s.tag(tag, until)?,
        ]))
    };
    // All of them have seen the log as it was at 0.
    let calls = (0..6).map(|n| of(&format!("s{n}"), if n < 4 { "x" } else { "y" }, 0));
    let calls = calls.collect::<Result<Vec<_>>>()?;
    let results = futures::future::join_all(calls.into_iter().map(|u| s.commit(vec![u]))).await;
    let mut won = [0, 0];
    for (n, result) in results.into_iter().enumerate() {
        match result?.remove(0) {
            Ok(_) => won[usize::from(n >= 4)] += 1,
            Err(error) => {
                check_eq!(error.kind(), ErrorKind::VersionConflict, "{error}");
                check_eq!(error.entity(), Some(&**s.tags.name()), "whose conflict it is");
            }
        }
    }
    check_eq!(won, [1, 1], "winners of each tag");
    let head = s.opened.truth()?.bounds().await?.head.as_u64();
    let results = s.commit(vec![of("n", "x", head)?, of("m", "x", head)?]).await?;
    check!(results[0].is_ok(), "who has seen all goes on: {results:?}");
    check!(results[1].is_err(), "who comes after in the same call does not");
    check_eq!(s.all().await?.values().map(Vec::len).sum::<usize>(), 3, "events");
    Ok(())
}

async fn closed_streams_take_nothing(fixture: &Fixture) -> Verdict {
    let s = Streams::open(fixture).await?;
    s.commit(vec![s.one("a", Expected::Any, "1")?]).await?.remove(0)?;
    let close = |kind: &str| -> Result<Unit> {
        let event = NewEvent::new(kind, json!(null));
        let event = event.record(&s.events, format!("{kind} of a"), Timestamp::EPOCH);
        let append = Append { stream: "a".into(), expected: Expected::Any, event, closes: true };
        Ok(unit(vec![append.write(&s.events)?]))
    };
    let units = vec![
        close("$archived")?,
        s.one("a", Expected::Any, "2")?,
        s.one("b", Expected::Any, "3")?,
        close("$tombstone")?,
    ];
    let results = s.commit(units).await?;
    let kinds: Vec<_> = results.iter().map(|r| r.as_ref().err().map(|e| e.kind())).collect();
    check_eq!(kinds, [None, Some(ErrorKind::StreamClosed), None, None], "outcomes");
    let again = s.commit(vec![close("$tombstone")?]).await?.remove(0)?;
    check!(again.changes[0].replaced.is_some(), "what closes it replaces what closed it");
    let refused = s.commit(vec![s.one("a", Expected::Revision(1), "4")?]).await?.remove(0);
    must_fail(refused, ErrorKind::StreamClosed, "an append to a closed stream")?;
    let marker = s.opened.get(&s.events, &key("a", unisono_core::stream::CLOSED)?).await?;
    let marker = marker.map(|m| Event::of(&m.record)).transpose()?;
    check_eq!(marker.map(|m| m.kind), Some("$tombstone".to_owned()), "what closes the stream");
    Ok(())
}

async fn streams_survive(fixture: &Fixture) -> Verdict {
    let Streams { opened, events, tags } = Streams::open(fixture).await?;
    let s = Streams { opened, events, tags };
    s.commit(vec![s.one("a", Expected::Any, "1")?, s.one("a", Expected::Any, "2")?]).await?;
    let Streams { opened, events, tags } = s;
    let opened = fixture.reopen(opened, Role::Truth, &[&events, &tags]).await?;
    let s = Streams { opened, events, tags };
    let results = s.commit(vec![s.one("a", Expected::Revision(2), "3")?]).await?;
    check_eq!(revisions(&results[0]), Ok(vec![3]), "behind the last event");
    Ok(())
}
