//! The outlet `webhook`, declared in a configuration, to a receiver that fails in every way.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::core::Context;
use unisono::core::stream::NewEvent;
use unisono::engine::stream::Appending;
use unisono::{Handle, Registry, Unisono, config};

use crate::receiver::{Receiver, SECRET};
use crate::until;

async fn open(folder: &Path, url: &str, options: &str) -> Unisono {
    let text = format!(
        r#"
[sources.main]
kind = "sqlite"
path = "main.db"
[streams.order]
truth = "main"
[entities.product]
truth = "main"
fields = {{ id = "string", stock = "integer" }}
[outlets.shop]
kind = "webhook"
url = "{url}"
secret = "{SECRET}"
begin = "first"
{options}
"#
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
    configuration.data = folder.to_owned();
    Unisono::open(configuration).await.unwrap()
}

async fn append(unisono: &Unisono, stream: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let mut event = NewEvent::new("placed", json!({ "number": number }));
        event.id = Some(format!("{stream}-{number}"));
        let appending = Appending::to(stream, vec![event]);
        unisono.engine().append(&Context::default(), "order", appending).await.unwrap();
    }
}

/// The numbers of the events of a stream, as they came first.
fn order(receiver: &Receiver, stream: &str) -> Vec<u64> {
    let mut numbers: Vec<u64> = Vec::new();
    for message in &receiver.took.lock().unwrap().messages {
        let number = message["data"]["number"].as_u64();
        if let Some(number) = number.filter(|_| message["subject"] == stream)
            && !numbers.contains(&number)
        {
            numbers.push(number);
        }
    }
    numbers
}

const FROM: &str = "from = [\"order\"]";
const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn events_arrive_in_the_order_of_their_stream_and_a_slow_one_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|message, _| match message["subject"] == "slow" {
        true => (Some(200), Duration::from_millis(1500)),
        false => (Some(204), NOW),
    })
    .await;
    let unisono = open(folder.path(), &receiver.url(), FROM).await;
    append(&unisono, "slow", 0..1).await;
    let streams = ["a", "b", "c"];
    for stream in streams {
        append(&unisono, stream, 0..20).await;
    }
    until("the slow one has come", async || order(&receiver, "slow").len() == 1).await;
    until("all have come", async || receiver.ids().len() == 61).await;
    for stream in streams {
        assert_eq!(order(&receiver, stream), (0..20).collect::<Vec<_>>());
    }
    let took = receiver.took();
    assert!(took.times.values().all(|times| *times == 1), "nothing failed, so nothing came twice");
    let first = took.messages.iter().find(|message| message["id"] == "a-0").unwrap();
    assert_eq!((&first["specversion"], &first["type"]), (&json!("1.0"), &json!("placed")));
    assert_eq!((&first["source"], &first["sequence"]), (&json!("/v1/streams/order"), &json!("1")));
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_lost_while_the_receiver_is_away_busy_or_silent_and_it_is_left_alone_when_it_says_so()
 {
    let folder = tempfile::tempdir().unwrap();
    // The first time it is busy, the second time it takes the message and the connection breaks.
    let mut receiver =
        Receiver::start(|message, before| match (message["data"]["number"].as_u64(), before) {
            (Some(3), 0) => (Some(503), NOW),
            (Some(5), 0) => (None, NOW),
            _ => (Some(200), NOW),
        })
        .await;
    let unisono = open(folder.path(), &receiver.url(), FROM).await;
    append(&unisono, "a", 0..10).await;
    until("all have come", async || order(&receiver, "a").len() == 10).await;
    receiver.kill().await;
    append(&unisono, "a", 10..20).await;
    let status = unisono.engine().status().await;
    assert_eq!(status.deliveries.len(), 1);
    receiver.revive().await;
    until("the rest has come", async || order(&receiver, "a").len() == 20).await;
    assert_eq!(order(&receiver, "a"), (0..20).collect::<Vec<_>>(), "none overtakes another");
    let took = receiver.took();
    assert_eq!((took.times["a-3"], took.times["a-5"]), (2, 2), "{:?}", took.times);
    let others = took.times.iter().filter(|(id, _)| !["a-3", "a-5"].contains(&id.as_str()));
    assert!(others.clone().all(|(_, times)| *times == 1), "only what failed: {:?}", took.times);
    assert!(unisono.engine().dead_letters().await.unwrap().is_empty());
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn what_the_receiver_refuses_is_a_dead_letter_after_as_many_attempts_and_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|message, before| match message["data"]["number"].as_u64() {
        Some(2) if before < 4 => (Some(422), NOW),
        _ => (Some(200), NOW),
    })
    .await;
    let options = format!("{FROM}\nattempts = 3");
    let unisono = open(folder.path(), &receiver.url(), &options).await;
    append(&unisono, "a", 0..5).await;
    until("the others have come", async || order(&receiver, "a") == [0, 1, 3, 4]).await;
    until("it is set aside", async || unisono.engine().dead_letters().await.unwrap().len() == 1)
        .await;
    assert_eq!(receiver.took.lock().unwrap().refused, 3);
    let letter = unisono.engine().dead_letters().await.unwrap().remove(0);
    assert!(letter.reason.contains("422"), "{}", letter.reason);
    assert!(!unisono.engine().replay(&letter).await.unwrap());
    assert!(unisono.engine().replay(&letter).await.unwrap(), "the receiver was mended");
    assert_eq!(order(&receiver, "a"), [0, 1, 3, 4, 2]);
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn it_goes_on_where_it_was_when_the_process_ends_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_, _| (Some(200), Duration::from_millis(5))).await;
    for life in 0..3 {
        let unisono = open(folder.path(), &receiver.url(), FROM).await;
        append(&unisono, "a", life * 30..life * 30 + 30).await;
        if life < 2 {
            unisono.engine().runtime().abort();
            unisono.engine().runtime().join().await;
            continue;
        }
        until("all have come", async || order(&receiver, "a").len() == 90).await;
        unisono.close().await.unwrap();
    }
    assert_eq!(order(&receiver, "a"), (0..90).collect::<Vec<_>>());
    let before = receiver.ids().len();
    // One that was ended in order has nothing to send again.
    let unisono = open(folder.path(), &receiver.url(), FROM).await;
    append(&unisono, "a", 90..91).await;
    until("the last has come", async || order(&receiver, "a").len() == 91).await;
    assert_eq!(receiver.ids().len(), before + 1);
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn records_are_told_as_well_as_they_satisfy_the_condition_and_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_, _| (Some(200), NOW)).await;
    let options = "from = [\"product\"]\nwhere = \"record.stock > 0\"";
    let unisono = open(folder.path(), &receiver.url(), options).await;
    let products: Handle<Json> = unisono.entity("product").unwrap();
    for (id, stock) in [("a", 1), ("b", 0), ("a", 2), ("a", 0)] {
        products.put(&json!({ "id": id, "stock": stock })).await.unwrap();
    }
    products.delete("a").await.unwrap();
    until("all have come", async || receiver.ids().len() == 3).await;
    let told: Vec<_> = {
        let took = receiver.took();
        took.messages.iter().map(|m| (m["type"].clone(), m["data"]["stock"].clone())).collect()
    };
    let put = json!("product.put");
    assert_eq!(
        told,
        [(put.clone(), json!(1)), (put, json!(2)), (json!("product.delete"), json!(null))]
    );
    let report = unisono.engine().verify(&Default::default(), &|_| {}).await.unwrap();
    assert!(report.comparisons.is_empty(), "nothing can be compared with an outlet");
    let none = format!("{}", config::parse(
        "[sources.m]\nkind = \"memory\"\n[streams.order]\ntruth = \"m\"\n[outlets.x]\nkind = \"webhook\"\nurl = \"http://example.org\"\nsecret = \"no\"\nfrom = [\"nope\"]\n[sources.hook]\nkind = \"webhook\"\n",
        "test.toml", &Registry::builtin(), &config::Process,
    ).unwrap_err());
    for problem in [
        "no entity and no type of streams `nope`",
        "begins with https://",
        "whsec_",
        "[outlets.NAME]",
    ] {
        assert!(none.contains(problem), "{problem} is missing in {none}");
    }
    unisono.close().await.unwrap();
}
