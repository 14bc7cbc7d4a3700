//! The strategy `adaptive`: what a writer waits for follows what its followers can afford.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use unisono::Unisono;
use unisono::core::query::Query;
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Ack, Context, Key, Result, json as record_json};
use unisono::engine::Operation;
use unisono::engine::status::{AdaptiveStatus, EntityStatus};

use crate::gated::{gate, open_text, parse};
use crate::{item, pass};

/// A truth `<name>` with three followers, and what else is declared of the entity.
fn text(name: &str, options: &str) -> String {
    let followers =
        ["a", "b", "c"].map(|one| format!("[sources.{name}_{one}]\nkind = \"gated\"\n"));
    let sources = ["a", "b", "c"].map(|one| format!("{{ source = \"{name}_{one}\" }}"));
    format!(
        "[sources.{name}]\nkind = \"gated\"\n{}[entities.item]\ntruth = \"{name}\"\n\
         fields = {{ id = \"integer\", name = \"string\" }}\nfollowers = [{}]\n{options}",
        followers.concat(),
        sources.join(", ")
    )
}

const ADAPTIVE: &str = "strategy = \"adaptive\"\n\
    adaptive = { latency = \"50ms\", lag = \"3s\", dwell = \"5s\" }\n";

async fn open(name: &str) -> Unisono {
    open_text(name, &text(name, ADAPTIVE)).await.unwrap()
}

/// Writes, and answers what the answer waited for and how long it took.
async fn write(unisono: &Unisono, id: i64, ack: Option<Ack>) -> (Result<Ack>, Duration) {
    let entity = item(unisono);
    let record = record_json::parse(&entity, &json!({ "id": id, "name": "n" })).unwrap();
    let (key, action) = (Key::Integer(id), Action::Put(record));
    let began = tokio::time::Instant::now();
    let context = Context { ack, ..Context::default() };
    let write = Write { entity, key, action, condition: Condition::None };
    let written = unisono.engine().write(&context, vec![write]).await;
    let of = |waited: Option<&Ack>| waited.cloned().unwrap_or_default();
    (written.map(|written| of(written.acknowledged.get("item"))), began.elapsed())
}

async fn acked(unisono: &Unisono, id: i64) -> Ack {
    write(unisono, id, None).await.0.unwrap()
}

async fn status(unisono: &Unisono) -> EntityStatus {
    unisono.engine().status().await.entities.remove(0)
}

/// Writes a little, as long as it takes, until the level is one.
async fn until(unisono: &Unisono, level: &str) -> AdaptiveStatus {
    for id in 0..4000 {
        let now = status(unisono).await.adaptive.unwrap();
        if now.level == level {
            return now;
        }
        // Sometimes one waits until the level is lower.
        write(unisono, id % 50, None).await.0.unwrap();
        pass(0.1).await;
    }
    panic!("it never comes to {level}: {:?}", status(unisono).await)
}

fn moves(status: &AdaptiveStatus) -> Vec<String> {
    status.moves.iter().map(|made| format!("{}>{}", made.from, made.to)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_slow_follower_makes_it_demand_less_and_it_comes_back() {
    let unisono = open("pace").await;
    let begun = status(&unisono).await;
    assert_eq!((begun.strategy, begun.ack.as_str()), (Some("adaptive"), "truth"));
    assert_eq!(acked(&unisono, 1).await, Ack::Truth, "nothing is measured yet");
    let top = until(&unisono, "all").await;
    assert_eq!(
        (moves(&top), top.ack.as_str()),
        (vec!["truth>quorum".into(), "quorum>all".into()], "all")
    );
    assert_eq!(acked(&unisono, 1).await, Ack::All);

    gate("pace_b").drags.store(200, Ordering::SeqCst);
    let slow = until(&unisono, "quorum").await;
    assert!(slow.why.starts_with("pace_b takes "), "{}", slow.why);
    assert!(slow.why.ends_with(" for a batch, of at most 50ms"), "{}", slow.why);
    let (waited, took) = write(&unisono, 1, None).await;
    assert_eq!(waited.unwrap(), Ack::Count(3), "two followers and the truth");
    assert!(took < Duration::from_millis(200), "it does not wait for the slow one: {took:?}");
    // A caller's own word is his own.
    let (waited, took) = write(&unisono, 1, Some(Ack::All)).await;
    assert_eq!(waited.unwrap(), Ack::All);
    assert!(took >= Duration::from_millis(200), "{took:?}");

    gate("pace_c").drags.store(300, Ordering::SeqCst);
    let slower = until(&unisono, "truth").await;
    assert!(slower.why.contains("pace_b") && slower.why.contains("pace_c"), "{}", slower.why);
    assert_eq!(acked(&unisono, 1).await, Ack::Truth);

    for one in ["pace_b", "pace_c"] {
        gate(one).drags.store(0, Ordering::SeqCst);
    }
    let back = until(&unisono, "all").await;
    assert_eq!(moves(&back)[2..], ["all>quorum", "quorum>truth", "truth>quorum", "quorum>all"]);
    assert_eq!(back.moves_total, 6);
    assert_eq!(acked(&unisono, 1).await, Ack::All);
    let explained = unisono.engine().explain(
        &Context::default(),
        &item(&unisono),
        &Operation::Query(Box::new(Query::all())),
    );
    let writes = explained.last().unwrap();
    assert!(writes.starts_with("=  writes: strategy adaptive; ack all since "), "{writes}");
    assert!(writes.contains("were well for"), "{writes}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_follower_that_stands_still_is_answered_when_less_is_demanded() {
    let unisono = open("still").await;
    until(&unisono, "all").await;
    // It does not even fail.
    gate("still_a").drags.store(3_600_000, Ordering::SeqCst);
    let (waited, took) = write(&unisono, 7, None).await;
    assert_eq!(waited.unwrap(), Ack::Count(3));
    assert!(took < Duration::from_secs(4), "{took:?}, before it would have been given up");
    assert_eq!(status(&unisono).await.adaptive.unwrap().level, "quorum");
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_fails_fails_no_write() {
    let unisono = open("unfit").await;
    until(&unisono, "all").await;
    for one in ["unfit_a", "unfit_b", "unfit_c"] {
        gate(one).lags.store(true, Ordering::SeqCst);
    }
    for id in 0..100 {
        write(&unisono, id, None).await.0.unwrap();
        pass(0.2).await;
    }
    let low = status(&unisono).await.adaptive.unwrap();
    assert_eq!(low.level, "truth");
    assert!(low.why.contains("unfit_a failed") || low.why.contains("takes in nothing"));
    for one in ["unfit_a", "unfit_b", "unfit_c"] {
        gate(one).lags.store(false, Ordering::SeqCst);
    }
    until(&unisono, "all").await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_says_whether_and_by_which_limits_it_decides() {
    let unisono = open("relimited").await;
    let before = until(&unisono, "all").await;
    let reload = async |options: &str| {
        let mut changes = unisono.reload(parse(&text("relimited", options))).await.unwrap();
        changes.sort();
        changes
    };
    let other = ADAPTIVE.replace("50ms", "80ms").replace("dwell = \"5s\"", "dwell = \"1s\"");
    let expected =
        ["entities.item.adaptive.dwell: 5s -> 1s", "entities.item.adaptive.latency: 50ms -> 80ms"];
    assert_eq!(reload(&other).await, expected);
    assert_eq!(status(&unisono).await.adaptive.unwrap().since, before.since, "it goes on");
    let expected = ["entities.item.ack: all -> 2", "entities.item.strategy: adaptive -> none"];
    assert_eq!(reload("ack = 2\n").await, expected);
    let plain = status(&unisono).await;
    assert!(plain.adaptive.is_none() && plain.strategy.is_none() && plain.ack == "2");
    assert_eq!(acked(&unisono, 1).await, Ack::Count(2));
    pass(2.0).await;
    reload(ADAPTIVE).await;
    assert_eq!(acked(&unisono, 1).await, Ack::Truth, "it begins anew");
    until(&unisono, "all").await;
}
