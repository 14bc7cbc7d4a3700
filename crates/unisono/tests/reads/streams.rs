//! Streams of events as an application meets them: typed, followed, decided over, and read while the truth is away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use unisono::core::query::Query;
use unisono::core::stream::{Expected, NewEvent};
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Context, Effect, ErrorKind, Key, Position, Role};
use unisono::engine::stream::{AppendCondition, Appending, Excerpt, Limits, Sought, Tagged};
use unisono::{Aggregate, Streams, Unisono};

use crate::gated::{gate, open_text};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Moved {
    In { amount: i64 },
    Out { amount: i64 },
}

#[derive(Default)]
struct Account(i64);

impl Aggregate for Account {
    type Event = Moved;

    fn apply(&mut self, event: Moved) {
        match event {
            Moved::In { amount } => self.0 += amount,
            Moved::Out { amount } => self.0 -= amount,
        }
    }
}

async fn opened(name: &str, more: &str) -> Unisono {
    let text = format!(
        r#"
[sources.{name}]
kind = "gated"
[sources.{name}_copy]
kind = "gated"
[streams.account]
truth = "{name}"
[[streams.account.followers]]
source = "{name}_copy"
{more}
"#
    );
    open_text(name, &text).await.unwrap()
}

fn accounts(unisono: &Unisono) -> Streams<Moved> {
    unisono.streams("account").unwrap()
}

async fn settled(unisono: &Unisono) {
    let head = unisono.engine().head_token().await.unwrap();
    unisono.engine().wait_applied(&head, Duration::from_secs(60)).await.unwrap();
}

fn input(amount: i64) -> Moved {
    Moved::In { amount }
}

#[tokio::test(start_paused = true)]
async fn a_follower_holds_the_same_events_and_answers_marked_while_the_truth_is_away() {
    let unisono = opened("s_away", "").await;
    let accounts = accounts(&unisono);
    for n in 1..=30 {
        accounts.append(&format!("a{}", n % 3), Expected::Any, &[input(n)]).await.unwrap();
    }
    settled(&unisono).await;
    let (engine, context) = (unisono.engine(), Context::default());
    let whole = Excerpt { limit: 1000, ..Excerpt::default() };
    let before = engine.read_stream(&context, "account", "a1", whole).await.unwrap();
    assert_eq!((before.role, before.value.events.len()), (Role::Truth, 10));
    let all = engine.read_events(&context, "account", &Sought::default()).await.unwrap();

    gate("s_away").set_down(true);
    let after = engine.read_stream(&context, "account", "a1", whole).await.unwrap();
    assert_eq!(after.value, before.value);
    assert_eq!((after.role, &*after.source), (Role::Follower, "s_away_copy"));
    assert!(after.stale, "it is told that newer events may exist");
    assert_eq!(&*after.failed[0].0, "s_away", "and who could not be asked");
    let from_copy = engine.read_events(&context, "account", &Sought::default()).await.unwrap();
    assert_eq!(from_copy.value.events, all.value.events);
    let refused = engine.append(
        &context,
        "account",
        Appending::to("a1", vec![NewEvent::new("in", json!({}))]),
    );
    assert_eq!(
        refused.await.unwrap_err().kind(),
        ErrorKind::Unavailable,
        "the truth alone decides"
    );
    gate("s_away").set_down(false);

    let missing = engine.read_stream(&context, "account", "none", whole).await.unwrap_err();
    assert_eq!((missing.kind(), missing.detail("stream")), (ErrorKind::NotFound, Some("none")));
    let missing = unisono.streams::<Moved>("nope").err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_read_in_both_directions_page_by_page() {
    let unisono = opened("s_pages", "").await;
    let accounts = accounts(&unisono);
    let events: Vec<_> = (1..=25).map(input).collect();
    accounts.append("a", Expected::None, &events).await.unwrap();
    accounts.append("b", Expected::None, &events).await.unwrap();
    for (backward, expected) in
        [(false, (1..=25).collect::<Vec<u64>>()), (true, (1..=25).rev().collect())]
    {
        let (mut from, mut found) = (None, Vec::new());
        loop {
            let excerpt = Excerpt { from, backward, limit: 10 };
            let context = Context::default();
            let page =
                unisono.engine().read_stream(&context, "account", "a", excerpt).await.unwrap();
            found.extend(page.value.events.iter().map(|e| e.revision));
            from = page.value.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "backward: {backward}");
    }
    // In order over all streams, of one type, from any position.
    let sought = Sought { limit: 1000, ..Sought::default() };
    let all = accounts.all(&sought).await.unwrap();
    assert!(all.len() == 50 && all.is_sorted_by_key(|e| e.event.position));
    let behind = Sought { after: Some(all[30].event.position), ..sought.clone() };
    assert_eq!(accounts.all(&behind).await.unwrap()[0].event, all[31].event);
    let backward = Sought { backward: true, limit: 3, ..sought.clone() };
    assert_eq!(accounts.all(&backward).await.unwrap()[0].event, all[49].event);
    let none = Sought { kind: Some("out".into()), ..sought };
    assert!(accounts.all(&none).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn decisions_are_made_anew_until_nobody_is_faster() {
    let unisono = opened("s_decide", "").await;
    let accounts = accounts(&unisono);
    accounts.append("a", Expected::None, &[input(10)]).await.unwrap();
    // Of thirty who take 1 of 10, ten succeed.
    let take = |n: usize| {
        let accounts = accounts.clone();
        async move {
            let decided = accounts.decide::<Account>("a", |account| {
                Ok(if account.0 >= 1 { vec![Moved::Out { amount: 1 }] } else { vec![] })
            });
            (n, decided.await)
        }
    };
    let mut taken = 0;
    for (_, outcome) in join_all((0..12).map(take)).await {
        taken += usize::from(outcome.unwrap().is_some());
    }
    assert_eq!(taken, 10);
    let (account, revision) = accounts.load::<Account>("a").await.unwrap();
    assert_eq!((account.0, revision), (0, 11));
}

#[tokio::test(start_paused = true)]
async fn an_append_repeated_with_its_key_or_its_ids_has_the_effect_of_one() {
    let unisono = opened("s_again", "").await;
    let (engine, context) = (unisono.engine(), Context::default());
    let keyed = Context { idempotency_key: Some("k".into()), ..Context::default() };
    let plain = |n: i64| Appending::to("a", vec![NewEvent::new("in", json!({"amount": n}))]);
    let first = engine.append(&keyed, "account", plain(1)).await.unwrap();
    let again = engine.append(&keyed, "account", plain(1)).await.unwrap();
    assert_eq!((again.events, again.replayed), (first.events, true));
    let other = engine.append(&keyed, "account", plain(2)).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::IdempotencyKeyReused);

    let with_ids = |data: i64| {
        let event = |id: &str| NewEvent {
            id: Some(id.into()),
            ..NewEvent::new("in", json!({"amount": data}))
        };
        Appending::to("a", vec![event("x"), event("y")]).expecting(Expected::Revision(1))
    };
    let first = engine.append(&context, "account", with_ids(1)).await.unwrap();
    let again = engine.append(&context, "account", with_ids(1)).await.unwrap();
    assert_eq!((again.events, again.replayed, first.replayed), (first.events, true, false));
    let other = engine.append(&context, "account", with_ids(2)).await.unwrap_err();
    assert_eq!((other.kind(), other.detail("actual")), (ErrorKind::VersionConflict, Some("3")));
    let elsewhere = Appending { stream: "b".into(), ..with_ids(1) }.expecting(Expected::Any);
    let taken = engine.append(&context, "account", elsewhere).await.unwrap_err();
    assert_eq!((taken.kind(), taken.detail("field")), (ErrorKind::ConstraintViolated, Some("id")));
}

#[tokio::test(start_paused = true)]
async fn an_append_condition_refuses_what_was_decided_without_having_seen() {
    let unisono = opened("s_tags", "").await;
    let (engine, context) = (unisono.engine(), Context::default());
    let event = |kind: &str, tags: &[&str]| {
        tags.iter().fold(NewEvent::new(kind, json!({"amount": 1})), |event, tag| event.tag(*tag))
    };
    let append = |stream: &str, event: NewEvent, condition: Option<AppendCondition>| {
        let appending = Appending { condition, ..Appending::to(stream, vec![event]) };
        engine.append(&context, "account", appending)
    };
    let item = |tags: &[&str], types: &[&str]| Tagged {
        tags: tags.iter().map(|t| (*t).to_owned()).collect(),
        types: types.iter().map(|t| (*t).to_owned()).collect(),
    };
    let unless =
        |item: Tagged, after: Position| Some(AppendCondition { any_of: vec![item], after });
    // A name is taken once, whoever asks.
    let taken = || unless(item(&["name:kim"], &[]), Position::ZERO);
    let twelve = join_all((0..12).map(|n| {
        append(
            match n {
                0 => "u0",
                1 => "u1",
                _ => "u2",
            },
            event("in", &["name:kim"]),
            taken(),
        )
    }));
    let won = twelve.await.iter().filter(|r| r.is_ok()).count();
    assert_eq!(won, 1);
    // Tags that are not the same event's, and types that are not asked for, are no reason to refuse.
    append("a", event("in", &["p"]), None).await.unwrap();
    append("b", event("in", &["q"]), None).await.unwrap();
    append("c", event("in", &["p", "q"]), unless(item(&["p", "q"], &[]), Position::ZERO))
        .await
        .unwrap();
    append("d", event("out", &["p"]), unless(item(&["p"], &["out"]), Position::ZERO))
        .await
        .unwrap();
    let both = append("e", event("in", &["r"]), unless(item(&["p", "q"], &[]), Position::ZERO));
    let error = both.await.unwrap_err();
    assert_eq!((error.kind(), error.detail("stream")), (ErrorKind::VersionConflict, Some("c")));
    let sought = Sought { tag: Some("p".into()), ..Sought::default() };
    let seen = engine.read_events(&context, "account", &sought).await.unwrap().value;
    assert_eq!(seen.events.len(), 3);
    append("e", event("in", &["p"]), unless(item(&["p"], &[]), seen.through)).await.unwrap();
    // Who has seen the first of two events that came together has not seen the second.
    let two = vec![event("in", &["two"]), event("in", &["two"])];
    let two = engine.append(&context, "account", Appending::to("f", two)).await.unwrap().events;
    let half = append("g", event("in", &["two"]), unless(item(&["two"], &[]), two[0].position));
    assert_eq!(half.await.unwrap_err().kind(), ErrorKind::VersionConflict);
    append("g", event("in", &["two"]), unless(item(&["two"], &[]), two[1].position)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subscription_gives_each_event_once_in_order_also_behind_the_end_of_the_log() {
    let unisono = opened("s_follow", "").await;
    let accounts = accounts(&unisono);
    for n in 1..=20 {
        accounts.append(&format!("a{}", n % 4), Expected::Any, &[input(n)]).await.unwrap();
    }
    // The log no longer reaches back to the first event.
    settled(&unisono).await;
    let head = unisono.engine().logs().await.unwrap()[0].1.head;
    let truth = Arc::clone(&gate("s_follow").opened()).truth().unwrap();
    truth.trim(head, unisono::core::Timestamp::EPOCH).await.unwrap();
    let mut seen = Vec::new();
    let mut subscription = accounts.subscribe(Position::ZERO);
    for round in 0..4 {
        for _ in 0..10 {
            if let Ok(next) =
                tokio::time::timeout(Duration::from_secs(60), subscription.next()).await
            {
                seen.push(next.unwrap());
            }
        }
        // It breaks off, and another one goes on; meanwhile others append.
        subscription = accounts.subscribe(subscription.position());
        if round < 2 {
            for n in 0..10 {
                accounts.append("late", Expected::Any, &[input(100 + n)]).await.unwrap();
            }
        }
    }
    assert_eq!(seen.len(), 40);
    assert!(seen.windows(2).all(|w| w[0].event.position < w[1].event.position), "once, in order");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_stream_is_gone_everywhere_and_an_archived_one_is_read() {
    let unisono = opened("s_gone", "").await;
    let accounts = accounts(&unisono);
    for stream in ["kept", "gone", "other"] {
        accounts.append(stream, Expected::None, &[input(1), input(2)]).await.unwrap();
    }
    accounts.archive("kept").await.unwrap();
    accounts.delete("gone").await.unwrap();
    settled(&unisono).await;
    let closed = |e: unisono::core::Error| e.kind() == ErrorKind::StreamClosed;
    assert!(closed(accounts.append("kept", Expected::Any, &[input(3)]).await.unwrap_err()));
    assert!(closed(accounts.append("gone", Expected::Any, &[input(3)]).await.unwrap_err()));
    assert!(closed(accounts.read("gone", Excerpt::default()).await.unwrap_err()));
    assert!(closed(accounts.delete("gone").await.unwrap_err()));
    assert_eq!(accounts.delete("never").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(accounts.read("kept", Excerpt::default()).await.unwrap().len(), 2);
    assert_eq!(accounts.all(&Sought::default()).await.unwrap().len(), 4);
    gate("s_gone").set_down(true);
    assert!(
        closed(accounts.read("gone", Excerpt::default()).await.unwrap_err()),
        "of the follower, too"
    );
    let entity = unisono.engine().entity("account_events").unwrap();
    let (context, all) = (Context::default(), Query { limit: 1000, ..Query::all() });
    let copied = unisono.engine().query(&context, entity, &all).await.unwrap();
    assert_eq!(copied.role, Role::Follower);
    let keys: Vec<String> =
        copied.value.hits.iter().map(|hit| hit.stored.key.to_string()).collect();
    let of_gone = keys.iter().filter(|key| key.starts_with("gone/")).count();
    assert_eq!((keys.len(), of_gone), (8, 2), "what is left says that it was: {keys:?}");
}

#[tokio::test(start_paused = true)]
async fn limits_hide_and_remove_the_oldest_events_and_revisions_go_on() {
    let unisono = opened("s_limits", "").await;
    let accounts = accounts(&unisono);
    let events: Vec<_> = (1..=10).map(input).collect();
    accounts.append("a", Expected::None, &events).await.unwrap();
    accounts.limit("a", &Limits { max_count: Some(4), ..Limits::default() }).await.unwrap();
    accounts.append("a", Expected::Revision(10), &[input(11)]).await.unwrap();
    let revisions = async |accounts: &Streams<Moved>| -> Vec<u64> {
        let read = accounts.read("a", Excerpt::default()).await.unwrap();
        read.iter().map(|e| e.event.revision).collect()
    };
    assert_eq!(revisions(&accounts).await, [8, 9, 10, 11], "hidden at once");
    assert_eq!(accounts.all(&Sought::default()).await.unwrap().len(), 5, "removed when set");
    tokio::time::sleep(Duration::from_secs(100)).await;
    accounts.append("a", Expected::Any, &[input(12)]).await.unwrap();
    let aged = Limits { max_age_seconds: Some(50), ..Limits::default() };
    accounts.limit("a", &aged).await.unwrap();
    assert_eq!(revisions(&accounts).await, [12]);
    assert_eq!(
        accounts.append("a", Expected::Revision(12), &[input(13)]).await.unwrap().events[0]
            .revision,
        13
    );
}

#[tokio::test(start_paused = true)]
async fn events_are_not_written_as_records() {
    let unisono = opened("s_records", "").await;
    let accounts = accounts(&unisono);
    let appended = accounts.append("a", Expected::None, &[input(1)]).await.unwrap();
    let engine = unisono.engine();
    for (entity, key) in
        [("account_events", "a/0000000000000001"), ("unisono_account_events_tags", "t")]
    {
        let entity = Arc::clone(engine.entity(entity).unwrap());
        let write = || Write {
            entity: Arc::clone(&entity),
            key: Key::from_text(key).unwrap(),
            action: Action::Delete,
            condition: Condition::None,
        };
        let one = engine.write(&Context::default(), vec![write()]).await.unwrap_err();
        let each =
            engine.write_each(&Context::default(), vec![write()]).await.remove(0).unwrap_err();
        assert_eq!((one.kind(), each.kind()), (ErrorKind::Unsupported, ErrorKind::Unsupported));
    }
    assert_eq!(accounts.read("a", Excerpt::default()).await.unwrap()[0].event, appended.events[0]);
}

#[tokio::test(start_paused = true)]
async fn events_are_parted_among_followers_by_type_and_older_shapes_are_read_as_those_of_today() {
    let more = "where = \"record.type == 'in'\"\n[sources.s_parts_rest]\nkind = \"gated\"\n[[streams.account.followers]]\nsource = \"s_parts_rest\"\ndefault = true\n";
    let unisono = opened("s_parts", more).await;
    let accounts = accounts(&unisono);
    accounts
        .append("a", Expected::None, &[input(1), Moved::Out { amount: 1 }, input(2)])
        .await
        .unwrap();
    settled(&unisono).await;
    let entity = Arc::clone(unisono.engine().entity("account_events").unwrap());
    for (source, count) in [("s_parts_copy", 2), ("s_parts_rest", 1)] {
        let reader = gate(source).opened().reader().unwrap();
        let found = reader.query(&entity, &Query::all()).await.unwrap().value.hits.len();
        assert_eq!(found, count, "{source}");
    }
    // What was once told in cents of a type that is no more.
    let old = NewEvent::new("received", json!({"cents": 500}));
    accounts.append_events(Appending::to("a", vec![old])).await.unwrap();
    assert!(accounts.load::<Account>("a").await.is_err());
    let reading = accounts.upcasting(|event| {
        if event.kind == "received" {
            event.kind = "in".into();
            event.data = json!({"amount": event.data["cents"].as_i64().unwrap_or_default() / 100});
        }
        Ok(())
    });
    assert_eq!(reading.load::<Account>("a").await.unwrap().0.0, 7);
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_was_lost_is_repeated_safely() {
    let unisono = opened("s_lost", "").await;
    let (engine, truth) = (unisono.engine(), gate("s_lost"));
    let keyed = Context { idempotency_key: Some("k".into()), ..Context::default() };
    let plain = || Appending::to("a", vec![NewEvent::new("in", json!({"amount": 1}))]);
    let with_id = || {
        let event = NewEvent { id: Some("x".into()), ..NewEvent::new("in", json!({"amount": 1})) };
        Appending::to("b", vec![event]).expecting(Expected::None)
    };
    truth.loses.store(true, Ordering::SeqCst);
    for (context, appending) in [(&keyed, plain()), (&Context::default(), with_id())] {
        let lost = engine.append(context, "account", appending).await.unwrap_err();
        assert_eq!(lost.effect_on_data(), Effect::Unknown, "{lost}");
    }
    truth.loses.store(false, Ordering::SeqCst);
    let again = engine.append(&keyed, "account", plain()).await.unwrap();
    let by_id = engine.append(&Context::default(), "account", with_id()).await.unwrap();
    assert_eq!((again.replayed, by_id.replayed), (true, true));
    assert_eq!(accounts(&unisono).all(&Sought::default()).await.unwrap().len(), 2);
}
