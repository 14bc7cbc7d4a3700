//! Followers with a `map`, over the embedded kinds: what they hold, who is told of it, and what becomes of it when it fails.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::config::{self, Configuration};
use unisono::core::{Context, ErrorKind, Key, json as record_json};
use unisono::engine::Operation;
use unisono::engine::status::DeliveryState;
use unisono::engine::verify::report::{Depth, Divergence, Report, VerifyOptions};
use unisono::{Handle, Registry, Unisono};

/// Orders in SQLite, which come to `copy` and, behind it, to `later`; who says so reads from one of these.
fn configuration(folder: &Path, truth: &str, copy: &str, later: &str) -> Configuration {
    let text = format!(
        r#"
        [sources]
        main = {{ kind = "sqlite", path = "main.db" }}
        copy = {{ kind = "sqlite", path = "copy.db" }}
        later = {{ kind = "files", path = "later" }}
        near = {{ kind = "memory" }}
        [sweep]
        every = "0s"
        [entities.order]
        truth = "{truth}"
        cache = {{ source = "near" }}
        [entities.order.fields]
        id = "string"
        total = "decimal(12,2)"
        units = {{ type = "integer", required = true }}
        extra = "json"
        [[entities.order.followers]]
        source = "{}"
        {copy}
        [[entities.order.followers]]
        source = "later"
        after = "{}"
        {later}
        [[entities.order.read.rules]]
        name = "copy"
        when = "'copy' in request.hints"
        ask = ["copy"]
        only = true
        [[entities.order.read.rules]]
        name = "later"
        when = "'later' in request.hints"
        ask = ["later"]
        only = true
        [[entities.order.read.rules]]
        name = "other"
        ask = ["cache", "truth", "followers"]
        "#,
        if truth == "main" { "copy" } else { "main" },
        if truth == "main" { "copy" } else { "main" },
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
    configuration.data = folder.to_owned();
    configuration
}

const UNITS: &str = "map = { units = \"record.extra.units\" }";
const TENFOLD: &str = "map = { units = \"record.units * 10\", total = \"null\" }";

async fn open(folder: &Path, copy: &str, later: &str) -> Unisono {
    Unisono::open(configuration(folder, "main", copy, later)).await.unwrap()
}

fn order(id: &str, units: Json) -> Json {
    json!({ "id": id, "total": "30.00", "units": 0, "extra": { "units": units } })
}

async fn put(unisono: &Unisono, id: &str, units: Json) {
    let orders: Handle<Json> = unisono.entity("order").unwrap();
    orders.put(&order(id, units)).await.unwrap();
}

/// The record as those see it who read under a rule, and who has answered.
async fn seen(unisono: &Unisono, id: &str, hints: &[&str]) -> (Json, String) {
    let entity = unisono.engine().entity("order").unwrap();
    let hints = hints.iter().map(|hint| (*hint).into()).collect();
    let context = Context { hints, ..Context::default() };
    let key = Key::from_text(id).unwrap();
    let answer = unisono.engine().get(&context, entity, &key).await.unwrap();
    let record = answer.value.map(|stored| record_json::to_json(entity, &stored.record));
    (record.unwrap_or_default(), answer.source.to_string())
}

/// `units` as `copy` and `later` have them.
async fn units(unisono: &Unisono, id: &str) -> (Json, Json) {
    let (copy, by) = seen(unisono, id, &["copy"]).await;
    assert_eq!(by, "copy");
    let (later, by) = seen(unisono, id, &["later"]).await;
    assert_eq!(by, "later");
    (copy["units"].clone(), later["units"].clone())
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), looking).await;
    waited.unwrap_or_else(|_| panic!("{what} did not come to be"));
}

async fn settled(unisono: &Unisono) {
    let head = unisono.engine().head_token().await.unwrap();
    unisono.engine().wait_applied(&head, Duration::from_secs(60)).await.unwrap();
    until("live followers", async || {
        let status = unisono.engine().status().await;
        status.deliveries.iter().all(|d| d.state == DeliveryState::Live)
    })
    .await;
}

async fn compared(unisono: &Unisono, depth: Depth, repair: bool) -> Report {
    let options = VerifyOptions { depth, repair, ..VerifyOptions::default() };
    unisono.engine().verify(&options, &|_| {}).await.unwrap()
}

async fn agrees(unisono: &Unisono) {
    settled(unisono).await;
    for depth in [Depth::Ledger, Depth::Observed, Depth::Deep] {
        let report = compared(unisono, depth, false).await;
        assert!(report.agrees() && report.comparisons.len() == 2, "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_keeps_what_its_map_makes_and_nobody_takes_that_for_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), UNITS, TENFOLD).await;
    put(&unisono, "1", json!(3)).await;
    put(&unisono, "2", json!(5)).await;
    put(&unisono, "2", json!(6)).await;
    agrees(&unisono).await;
    assert_eq!(units(&unisono, "1").await, (json!(3), json!(30)));
    assert_eq!(units(&unisono, "2").await, (json!(6), json!(60)));
    assert_eq!(seen(&unisono, "1", &["later"]).await.0["total"], Json::Null);

    // Who names nobody gets the record, also behind those who do: no cache was filled with anything else.
    for _ in 0..3 {
        assert_eq!(seen(&unisono, "1", &[]).await.0, order("1", json!(3)));
    }
    let entity = unisono.engine().entity("order").unwrap();
    let operation = Operation::Get(Key::from_text("1").unwrap());
    let told = unisono.engine().explain(&Context::default(), entity, &operation).join("\n");
    assert!(told.contains("copy: its map makes other records, and no rule names it"), "{told}");
    assert!(told.contains("later: after copy, map units: record.units * 10;"), "{told}");

    // A quorum is one of sources that have the record as it is.
    let context = Context { quorum: Some(2), ..Context::default() };
    let asked = unisono.engine().get(&context, entity, &Key::from_text("1").unwrap()).await;
    assert_eq!(asked.unwrap_err().kind(), ErrorKind::QuorumNotReached);

    // Nor can one of them become the truth.
    let moved = unisono.reload(configuration(folder.path(), "copy", UNITS, TENFOLD)).await;
    let refused = moved.unwrap_err().to_string();
    assert!(refused.contains("with all records as they are"), "{refused}");
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_fails_stops_its_step_and_those_behind_it_for_that_record() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), UNITS, TENFOLD).await;
    put(&unisono, "good", json!(1)).await;
    put(&unisono, "bad", json!(2)).await;
    agrees(&unisono).await;
    put(&unisono, "bad", json!("many")).await;
    put(&unisono, "good", json!(7)).await;
    let letters = async || {
        let letters = unisono.engine().dead_letters().await.unwrap();
        letters.into_iter().map(|l| (l.source.to_string(), l.key, l.reason)).collect::<Vec<_>>()
    };
    until("two dead letters", async || letters().await.len() == 2).await;
    settled(&unisono).await;
    let told = letters().await;
    let of = |source: &str| told.iter().find(|(s, key, _)| s == source && key == "bad").unwrap();
    assert!(of("copy").2.contains("`map` gives no value that the field takes"), "{told:?}");
    assert!(of("copy").2.contains("field=units") && !of("copy").2.contains("many"), "{told:?}");
    assert!(of("later").2.contains("the follower before this one refuses it"), "{told:?}");
    assert_eq!(units(&unisono, "good").await, (json!(7), json!(70)), "others go on");
    for depth in [Depth::Ledger, Depth::Observed, Depth::Deep] {
        let report = compared(&unisono, depth, true).await;
        let differs = |c: &unisono::engine::verify::report::Comparison| {
            (c.different, c.repaired, c.classes.get(&Divergence::Stale).copied())
        };
        let found: Vec<_> = report.comparisons.iter().map(differs).collect();
        assert_eq!(found, [(1, 0, Some(1)), (1, 0, Some(1))], "{depth:?} {report:?}");
    }
    // With a state that can be worked out both go on by themselves.
    put(&unisono, "bad", json!(4)).await;
    until("no dead letters", async || letters().await.is_empty()).await;
    agrees(&unisono).await;
    assert_eq!(units(&unisono, "bad").await, (json!(4), json!(40)));

    // So they do by a replay, once the map is mended.
    put(&unisono, "bad", json!("many")).await;
    until("two dead letters", async || letters().await.len() == 2).await;
    let mended = "map = { units = \"size(record.id)\" }";
    unisono.reload(configuration(folder.path(), "main", mended, TENFOLD)).await.unwrap();
    until("no dead letters", async || letters().await.is_empty()).await;
    agrees(&unisono).await;
    assert_eq!(units(&unisono, "bad").await, (json!(3), json!(30)));
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_map_is_brought_into_line_also_while_nothing_ran() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), "", "").await;
    for n in 0..700 {
        put(&unisono, &format!("o{n:03}"), json!(n)).await;
    }
    agrees(&unisono).await;
    assert_eq!(units(&unisono, "o042").await, (json!(0), json!(0)));
    let wanted = configuration(folder.path(), "main", UNITS, TENFOLD);
    let changes = unisono.reload(wanted).await.unwrap();
    assert!(changes[0].starts_with("~ follower copy of order: none -> map units: "), "{changes:?}");
    assert!(
        changes[1].starts_with("~ follower later of order: none -> map units: "),
        "{changes:?}"
    );
    agrees(&unisono).await;
    assert_eq!(units(&unisono, "o042").await, (json!(42), json!(420)));
    unisono.close().await.unwrap();

    let unisono = open(folder.path(), UNITS, "").await;
    agrees(&unisono).await;
    assert_eq!(units(&unisono, "o042").await, (json!(42), json!(42)), "as the one before has it");
    unisono.close().await.unwrap();
    let unisono = open(folder.path(), "", "").await;
    agrees(&unisono).await;
    assert_eq!(units(&unisono, "o042").await, (json!(0), json!(0)));
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_by_hand_is_found_and_mapped_again() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), UNITS, TENFOLD).await;
    for n in 0..20 {
        put(&unisono, &format!("o{n}"), json!(n)).await;
    }
    agrees(&unisono).await;
    let by_hand = rusqlite::Connection::open(folder.path().join("copy.db")).unwrap();
    // What the truth has: wrong here.
    let done = by_hand.execute("UPDATE \"order\" SET units = 0 WHERE id = 'o7'", []).unwrap();
    assert_eq!(done, 1);
    drop(by_hand);
    assert!(compared(&unisono, Depth::Observed, false).await.agrees(), "no version is another");
    let found = compared(&unisono, Depth::Deep, false).await;
    assert!(!found.agrees(), "{found:?}");
    let mended = compared(&unisono, Depth::Deep, true).await;
    let [copy, _] = mended.comparisons.as_slice() else { panic!("{mended:?}") };
    assert_eq!((copy.different, copy.repaired), (1, 1), "{mended:?}");
    assert_eq!(copy.classes.get(&Divergence::Corrupt), Some(&1));
    agrees(&unisono).await;
    assert_eq!(units(&unisono, "o7").await, (json!(7), json!(70)));
    unisono.close().await.unwrap();
}
