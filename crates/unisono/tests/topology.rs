//! Sources and followers that come, change, rest and go while everything goes on.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join;
use serde_json::{Value as Json, json};
use unisono::config::{self, Configuration};
use unisono::core::query::Filter;
use unisono::core::{Context, ErrorKind};
use unisono::engine::status::{DeliveryState, DeliveryStatus};
use unisono::engine::verify::report::{Depth, VerifyOptions};
use unisono::{Handle, Registry, Unisono};

const FILES: &str = "[[entities.item.followers]]\nsource = \"copy\"\n";
const WORDS: &str = "[[entities.item.followers]]\nsource = \"words\"\n";

/// Items in SQLite, cached in memory; `sources` and `followers` are what a test has beside them.
fn configuration(folder: &Path, sources: &str, followers: &str) -> Configuration {
    let text = format!(
        r#"
        [sources]
        main = {{ kind = "sqlite", path = "main.db" }}
        near = {{ kind = "memory" }}
        {sources}
        [entities.item]
        truth = "main"
        fields = {{ id = "integer", name = "text", price = "integer" }}
        [entities.item.cache]
        source = "near"
        {followers}
        "#
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
    configuration.data = folder.to_owned();
    configuration
}

const COPY: &str = "copy = { kind = \"files\", path = \"copy\" }\n";
const INDEX: &str = "words = { kind = \"tantivy\", path = \"words\" }\n";

fn both() -> String {
    format!("{COPY}{INDEX}")
}

fn kept(follower: &str, rule: &str) -> String {
    format!("{follower}where = \"{rule}\"\n")
}

async fn open(folder: &Path, sources: &str, followers: &str) -> Unisono {
    Unisono::open(configuration(folder, sources, followers)).await.unwrap()
}

async fn reload(unisono: &Unisono, folder: &Path, sources: &str, followers: &str) -> Vec<String> {
    unisono.reload(configuration(folder, sources, followers)).await.unwrap()
}

fn item(id: u64) -> Json {
    json!({ "id": id, "name": format!("word number{id}"), "price": id % 100 })
}

async fn put(unisono: &Unisono, ids: std::ops::Range<u64>) {
    let items: Handle<Json> = unisono.entity("item").unwrap();
    items.put_all(ids.map(item)).await.unwrap();
}

async fn delivery(unisono: &Unisono, source: &str) -> Option<DeliveryStatus> {
    let status = unisono.engine().status().await;
    status.deliveries.into_iter().find(|d| *d.source == *source)
}

/// Waits for what is to come to be.
async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), looking).await;
    waited.unwrap_or_else(|_| panic!("{what} did not come to be"));
}

/// Waits until a follower has everything, and compares it with the truth, record by record; answers how many it has.
async fn agrees(unisono: &Unisono, source: &str) -> u64 {
    let token = unisono.engine().head_token().await.unwrap();
    let position = token.to_string().rsplit(':').next().unwrap().parse().unwrap();
    until("a live follower", async || {
        delivery(unisono, source)
            .await
            .is_some_and(|d| d.state == DeliveryState::Live && d.position >= position)
    })
    .await;
    let options =
        VerifyOptions { source: Some(source.into()), depth: Depth::Deep, ..Default::default() };
    let report = unisono.engine().verify(&options, &|_| {}).await.unwrap();
    assert!(report.agrees(), "{report:?}");
    report.comparisons[0].records
}

/// How many records a search finds, and who was asked.
async fn found(unisono: &Unisono, words: &str) -> Result<(u64, String), ErrorKind> {
    let entity = unisono.engine().entity("item").unwrap();
    let context = Context { fallback: false, ..Context::default() };
    let counting = unisono.engine().count(&context, entity, &Filter::All, Some(words));
    let answer = counting.await.map_err(|error| error.kind())?;
    Ok((answer.value, answer.source.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_added_beside_writes_and_has_every_acknowledged_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let unisono = open(folder, "", "").await;
    put(&unisono, 0..1_500).await;
    let (ended, written) = (AtomicBool::new(false), AtomicU64::new(1_500));
    let writing = async {
        let items: Handle<Json> = unisono.entity("item").unwrap();
        while !ended.load(Ordering::SeqCst) {
            let n = written.load(Ordering::SeqCst);
            let id = n * 7 % 1_500;
            items
                .put(&json!({ "id": id, "name": format!("number{n}"), "price": 1 }))
                .await
                .unwrap();
            written.store(n + 1, Ordering::SeqCst);
            // Removed ones must be gone from the copies, too.
            if n.is_multiple_of(3) {
                items.delete(n * 7 % 1_500).await.unwrap();
            }
            // As many as followers that write files can take.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let adding = async {
        let followers = format!("{FILES}{WORDS}");
        let changes = reload(&unisono, folder, &both(), &followers).await;
        assert_eq!(changes[..2], ["+ source copy (files)", "+ source words (tantivy)"]);
        assert!(
            changes[2].starts_with("+ follower copy of item (copies about 1,")
                && changes[3].starts_with("+ follower words of item (copies about 1,"),
            "{changes:?}"
        );
        until("two complete copies", async || {
            let states = [delivery(&unisono, "copy").await, delivery(&unisono, "words").await];
            let streams = [DeliveryState::Live, DeliveryState::CatchingUp];
            states.iter().flatten().all(|d| streams.contains(&d.state))
        })
        .await;
        let so_far = written.load(Ordering::SeqCst);
        until("further writes", async || written.load(Ordering::SeqCst) > so_far + 50).await;
        ended.store(true, Ordering::SeqCst);
    };
    join(writing, adding).await;
    let records = agrees(&unisono, "copy").await;
    assert_eq!(agrees(&unisono, "words").await, records);
    let n = written.load(Ordering::SeqCst) - 1;
    let n = if n.is_multiple_of(3) { n - 1 } else { n };
    let answer = found(&unisono, &format!("number{n}")).await.unwrap();
    assert_eq!(answer, (1, "words".to_owned()), "the last acknowledged write is found in it");
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_follower_is_left_as_it_is_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let followers = format!("{FILES}{WORDS}");
    let unisono = open(folder, &both(), &followers).await;
    put(&unisono, 0..50).await;
    agrees(&unisono, "copy").await;
    agrees(&unisono, "words").await;
    let changes = reload(&unisono, folder, COPY, FILES).await;
    assert_eq!(
        changes,
        ["- source words (is closed)", "- follower words of item (what it holds stays as it is)"]
    );
    assert!(delivery(&unisono, "words").await.is_none());
    assert!(!found(&unisono, "number7").await.is_ok_and(|(_, source)| source == "words"));
    put(&unisono, 50..60).await;
    agrees(&unisono, "copy").await;
    // Its index can be opened again, for which it must have been closed.
    until("the source is closed", async || {
        let wanted = configuration(folder, &both(), &followers);
        unisono.reload(wanted).await.is_ok()
    })
    .await;
    assert_eq!(agrees(&unisono, "words").await, 60);
    let copied = delivery(&unisono, "words").await.unwrap().copied;
    assert_eq!(copied, 0, "it went on from its checkpoint");
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_where_brings_a_follower_into_line() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let unisono = open(folder, COPY, FILES).await;
    put(&unisono, 0..400).await;
    assert_eq!(held(&unisono, folder, "copy").await, 400);
    let cheap = kept(FILES, "record.price < 25");
    let changes = reload(&unisono, folder, COPY, &cheap).await;
    assert_eq!(
        changes,
        ["~ follower copy of item: where none -> record.price < 25 (compares about 400 records)"]
    );
    assert_eq!(held(&unisono, folder, "copy").await, 100, "the others were taken away");
    reload(&unisono, folder, COPY, &kept(FILES, "record.price >= 25")).await;
    assert_eq!(held(&unisono, folder, "copy").await, 300);
    reload(&unisono, folder, COPY, FILES).await;
    assert_eq!(held(&unisono, folder, "copy").await, 400);
    unisono.close().await.unwrap();

    // While nothing runs, nobody is told.
    let unisono = open(folder, COPY, &cheap).await;
    assert_eq!(held(&unisono, folder, "copy").await, 100);
    unisono.close().await.unwrap();
    let unisono = open(folder, COPY, &cheap).await;
    assert_eq!(held(&unisono, folder, "copy").await, 100);
    assert_eq!(delivery(&unisono, "copy").await.unwrap().copied, 0, "it was in line already");
    unisono.close().await.unwrap();
}

/// How many records the files hold, once they agree.
async fn held(unisono: &Unisono, folder: &Path, source: &str) -> u64 {
    agrees(unisono, source).await;
    let mut files = 0;
    let mut folders = vec![folder.join(source).join("item")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let of_its_own = ["checkpoint.json", "schema.json"];
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".json") && !of_its_own.contains(&name.as_str()) {
                // What remembers a deletion for a while is no record.
                files += u64::from(std::fs::read_to_string(path).unwrap().contains("price"));
            }
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_beside_reloads_see_one_set_of_sources_or_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let unisono = open(folder, &both(), WORDS).await;
    put(&unisono, 0..300).await;
    agrees(&unisono, "words").await;
    let cheap = kept(WORDS, "record.price < 50");
    let (ended, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    let reading = async {
        while !ended.load(Ordering::SeqCst) {
            match found(&unisono, "word").await {
                // Of a follower that is brought into line nothing is to be seen before it is.
                Ok((count, source)) => assert!([300, 150].contains(&count), "{count} of {source}"),
                Err(kind) => assert!(
                    matches!(kind, ErrorKind::Unavailable | ErrorKind::TooStale),
                    "{kind:?}"
                ),
            }
            seen.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    };
    let reloading = async {
        for turn in 0..8 {
            let followers = match turn % 2 {
                0 => format!("{cheap}{FILES}"),
                _ => WORDS.to_owned(),
            };
            reload(&unisono, folder, &both(), &followers).await;
            let before = seen.load(Ordering::SeqCst);
            until("reads", async || seen.load(Ordering::SeqCst) > before + 20).await;
            agrees(&unisono, "words").await;
        }
        ended.store(true, Ordering::SeqCst);
    };
    join(reading, reloading).await;
    assert_eq!(found(&unisono, "word").await.unwrap(), (300, "words".to_owned()));
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_source_that_cannot_be_opened_nothing_changes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let unisono = open(folder, COPY, FILES).await;
    put(&unisono, 0..20).await;
    std::fs::write(folder.join("taken"), "a file where a folder is to be").unwrap();
    let sources = format!("{COPY}{INDEX}bad = {{ kind = \"files\", path = \"taken\" }}\n");
    let followers = format!(
        "{}{WORDS}[[entities.item.followers]]\nsource = \"bad\"\n",
        kept(FILES, "record.price < 5")
    );
    let wanted = configuration(folder, &sources, &followers);
    let plan = unisono.plan_reload(&wanted).await;
    assert_eq!(plan.steps.len(), 5, "{plan:?}");
    assert_eq!(unisono.engine().status().await.sources.len(), 3, "a plan changes nothing");
    let error = unisono.reload(wanted).await.unwrap_err();
    assert_eq!(error.source_name(), Some("bad"), "{error}");
    let status = unisono.engine().status().await;
    let names: Vec<_> = status.sources.iter().map(|s| s.name.to_string()).collect();
    assert_eq!(names, ["copy", "main", "near"]);
    assert_eq!(status.deliveries.len(), 1);
    put(&unisono, 20..30).await;
    assert_eq!(held(&unisono, folder, "copy").await, 30, "its rule is what it was");
    // What was opened on the way is closed again.
    let followers = format!("{FILES}{WORDS}");
    reload(&unisono, folder, &both(), &followers).await;
    assert_eq!(agrees(&unisono, "words").await, 30);
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_is_turned_around_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let unisono = open(folder, &both(), &format!("{FILES}{WORDS}after = \"copy\"\n")).await;
    put(&unisono, 0..100).await;
    agrees(&unisono, "words").await;
    let other = format!("{FILES}after = \"words\"\n{WORDS}");
    let mut changes = reload(&unisono, folder, &both(), &other).await;
    changes.sort();
    assert_eq!(
        changes,
        [
            "entities.item.followers.copy.after: none -> words",
            "entities.item.followers.words.after: copy -> none"
        ]
    );
    put(&unisono, 100..200).await;
    assert_eq!((agrees(&unisono, "copy").await, agrees(&unisono, "words").await), (200, 200));
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_source_gets_nothing_until_it_is_resumed_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let unisono = open(folder, INDEX, WORDS).await;
    put(&unisono, 0..10).await;
    agrees(&unisono, "words").await;
    let engine = unisono.engine();
    let pause = engine.acting_for(Some("ann".into())).pause_source("words").await.unwrap();
    put(&unisono, 10..20).await;
    until("a delivery that rests", async || {
        delivery(&unisono, "words").await.unwrap().state == DeliveryState::Paused
    })
    .await;
    let before = delivery(&unisono, "words").await.unwrap().position;
    assert!(found(&unisono, "number3").await.is_err_and(|kind| kind == ErrorKind::Unavailable));
    assert_eq!(engine.backfill("item", "words").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let again = engine.pause_source("words").await.unwrap();
    assert_eq!(again, pause, "it says who did it first");
    unisono.close().await.unwrap();

    let unisono = open(folder, INDEX, WORDS).await;
    let status = unisono.engine().status().await;
    let words = status.sources.iter().find(|s| &*s.name == "words").unwrap();
    assert_eq!((words.state.as_str(), words.paused.as_ref()), ("paused", Some(&pause)));
    put(&unisono, 20..30).await;
    assert_eq!(delivery(&unisono, "words").await.unwrap().state, DeliveryState::Paused);
    assert!(unisono.engine().resume_source("words").await.unwrap());
    assert_eq!(agrees(&unisono, "words").await, 30);
    assert!(delivery(&unisono, "words").await.unwrap().position > before);
    assert_eq!(delivery(&unisono, "words").await.unwrap().copied, 0, "its checkpoint stayed");
    unisono.close().await.unwrap();
    let unisono = open(folder, INDEX, WORDS).await;
    let status = unisono.engine().status().await;
    assert!(status.sources.iter().all(|s| s.paused.is_none()));
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_cache_is_passed_by_and_a_truth_cannot_be_paused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let unisono = open(folder, INDEX, WORDS).await;
    let engine = unisono.engine();
    let items: Handle<Json> = unisono.entity("item").unwrap();
    let asked = async || {
        let entity = engine.entity("item").unwrap();
        let key = unisono::core::Key::Integer(1);
        let answer = engine.get(&Context::default(), entity, &key).await.unwrap();
        let name = answer.value.unwrap().record.clone();
        (answer.source.to_string(), unisono::core::json::to_json(entity, &name)["price"].clone())
    };
    put(&unisono, 0..3).await;
    until("a hit", async || asked().await.0 == "near").await;
    engine.pause_source("near").await.unwrap();
    assert_eq!(asked().await, ("main".to_owned(), json!(1)));
    items.put(&json!({ "id": 1, "name": "a", "price": 77 })).await.unwrap();
    assert_eq!(asked().await, ("main".to_owned(), json!(77)));
    engine.resume_source("near").await.unwrap();
    until("a hit again", async || {
        let (source, price) = asked().await;
        assert_eq!(price, json!(77), "nothing old comes out of it");
        source == "near"
    })
    .await;
    let refused = engine.pause_source("main").await.unwrap_err();
    assert_eq!((refused.kind(), refused.detail("role")), (ErrorKind::Unsupported, Some("truth")));
    let unknown = engine.pause_source("word").await.unwrap_err();
    assert_eq!(unknown.hint_text(), Some("did you mean words?"));
    unisono.close().await.unwrap();
}
