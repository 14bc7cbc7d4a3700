//! Strategies and residency through the library, over the embedded kinds.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::config::{self, Configuration};
use unisono::core::query::Filter;
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Ack, Context, Effect, ErrorKind, Key, Result, json as record_json};
use unisono::engine::{CacheStatus, Written};
use unisono::{Handle, Registry, Unisono};
use unisono_testkit::remains::files_with;

/// An order in SQLite, in files, in a search index and in a cache.
fn configuration(folder: &Path, entity: &str, files: &str, words: &str) -> Configuration {
    let text = format!(
        r#"
        [sources]
        main = {{ kind = "sqlite", path = "main.db" }}
        copy = {{ kind = "files", path = "copy", region = "us" }}
        words = {{ kind = "tantivy", path = "words" }}
        near = {{ kind = "memory" }}
        [entities.order]
        truth = "main"
        fields = {{ id = "string", country = "string", note = "text" }}
        {entity}
        [entities.order.cache]
        source = "near"
        [[entities.order.followers]]
        source = "copy"
        {files}
        [[entities.order.followers]]
        source = "words"
        {words}
        "#
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
    configuration.data = folder.to_owned();
    configuration
}

async fn open(folder: &Path, entity: &str, files: &str, words: &str) -> Unisono {
    Unisono::open(configuration(folder, entity, files, words)).await.unwrap()
}

async fn write(unisono: &Unisono, ack: Option<Ack>, id: &str, action: Action) -> Result<Written> {
    let entity = unisono.engine().entity("order").unwrap().clone();
    let key = Key::from_text(id).unwrap();
    let context = Context { ack, ..Context::default() };
    let write = Write { entity, key, action, condition: Condition::None };
    unisono.engine().write(&context, vec![write]).await
}

fn put(unisono: &Unisono, id: &str, country: &str, note: &str) -> Action {
    let entity = unisono.engine().entity("order").unwrap();
    let record = json!({ "id": id, "country": country, "note": note });
    Action::Put(record_json::parse(entity, &record).unwrap())
}

#[tokio::test]
async fn a_write_is_answered_when_every_follower_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), "strategy = \"parallel\"", "", "").await;
    // The first copies of the followers are under way at the start.
    settled(&unisono).await;
    for n in 0..20 {
        let (id, note) = (format!("o{n}"), format!("parallel {n};"));
        write(&unisono, None, &id, put(&unisono, &id, "fr", &note)).await.unwrap();
        assert!(!files_with(&folder.path().join("copy"), &note).is_empty(), "{note} at once");
    }
    let status = unisono.engine().status().await;
    let [order] = status.entities.as_slice() else { panic!("one entity") };
    assert_eq!((order.strategy, order.ack.as_str()), (Some("parallel"), "all"));
    unisono.engine().close().await.unwrap();
}

#[tokio::test]
async fn a_cascade_has_a_write_in_the_first_follower_when_it_is_in_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), "strategy = \"cascade\"", "", "").await;
    settled(&unisono).await;
    for n in 0..10 {
        let (id, note) = (format!("o{n}"), format!("cascade {n};"));
        let ack = Some(Ack::Named(vec!["words".into()]));
        write(&unisono, ack, &id, put(&unisono, &id, "fr", &note)).await.unwrap();
        assert!(!files_with(&folder.path().join("copy"), &note).is_empty(), "{note}");
    }
    let followers = &unisono.engine().status().await.entities[0].followers;
    assert_eq!(followers, &["words: after copy"]);
    unisono.engine().close().await.unwrap();
}

#[tokio::test]
async fn a_write_that_too_few_have_in_time_is_committed_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let slow = "batch = { age = \"1h\" }";
    let entity = "ack_timeout = \"100ms\"\nack = [\"copy\"]";
    let unisono = open(folder.path(), entity, "", slow).await;
    settled(&unisono).await;
    let error = write(&unisono, Some(Ack::All), "a", put(&unisono, "a", "fr", "x")).await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect_on_data()),
        (ErrorKind::QuorumNotReached, Effect::Committed)
    );
    assert_eq!(error.detail("acknowledged"), Some("main, copy"));
    assert_eq!(error.detail("pending"), Some("words"));
    assert!(error.detail("token").is_some_and(|token| token.starts_with("main:")));
    write(&unisono, None, "b", put(&unisono, "b", "fr", "y")).await.unwrap();
    let handle: Handle<Json> = unisono.entity("order").unwrap();
    let record = json!({ "id": "b", "country": "fr", "note": "v" });
    let error = handle.with_ack(Ack::All).put(&record).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuorumNotReached);
    assert_eq!(handle.get("b").await.unwrap(), Some(record), "it has the token all the same");
    let unknown =
        write(&unisono, Some(Ack::Named(vec!["wrods".into()])), "c", Action::Delete).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::InvalidInput);

    // The batch that gathers goes when it no longer is to.
    let quick = configuration(folder.path(), "strategy = \"parallel\"", "", "");
    let mut changes = unisono.reload(quick).await.unwrap();
    changes.sort();
    let expected = [
        "entities.order.ack: copy -> all",
        "entities.order.ack_timeout: 100ms -> 5s",
        "entities.order.followers.words.batch.age: 1h -> 0ms",
        "entities.order.strategy: none -> parallel",
    ];
    assert_eq!(changes, expected);
    write(&unisono, None, "d", put(&unisono, "d", "fr", "z")).await.unwrap();
    unisono.engine().close().await.unwrap();
}

#[tokio::test]
async fn what_is_forbidden_somewhere_is_in_no_byte_there() {
    let folder = tempfile::tempdir().unwrap();
    let residency = "strategy = \"parallel\"\n\
        [[entities.order.residency]]\nregion = \"us\"\nforbid = \"record.country == 'de'\"\n\
        [[entities.order.residency]]\nsource = \"words\"\nforbid = \"record.country == 'de'\"\n\
        [[entities.order.residency]]\nsource = \"near\"\nforbid = \"record.country == 'de'\"";
    let unisono = open(folder.path(), residency, "where = \"record.note != 'none'\"", "").await;
    settled(&unisono).await;
    let marker = |country: &str, n: usize| format!("marker-of-{country}-{n};");
    for n in 0..30 {
        for country in ["de", "fr"] {
            let (id, note) = (format!("{country}{n}"), marker(country, n));
            write(&unisono, None, &id, put(&unisono, &id, country, &note)).await.unwrap();
            let again = Action::Patch(json!({ "note": format!("again {note}") }));
            write(&unisono, None, &id, again).await.unwrap();
            if n % 3 == 0 {
                write(&unisono, None, &id, Action::Delete).await.unwrap();
            }
            for _ in 0..2 {
                read(&unisono, &id, country == "de").await;
            }
        }
    }
    let entity = unisono.engine().entity("order").unwrap().clone();
    let fr = Filter::All;
    let all = unisono.engine().count(&Context::default(), &entity, &fr, None).await.unwrap();
    assert_eq!(all.value, 40);
    assert!(unisono.engine().dead_letters().await.unwrap().is_empty());
    unisono.engine().close().await.unwrap();

    let below = |source: &str| folder.path().join(source);
    for source in ["copy", "words"] {
        assert_eq!(files_with(&below(source), "marker-of-de"), [] as [PathBuf; 0], "{source}");
    }
    // What is looked for can be found where it may be.
    assert!(!files_with(&below("copy"), &marker("fr", 1)).is_empty());
    let in_the_truth = files_with(folder.path(), "marker-of-de");
    assert!(in_the_truth.iter().any(|path| path.to_string_lossy().contains("main.db")));
}

/// Reads a record, which a cache may only answer if it is not forbidden there.
async fn read(unisono: &Unisono, id: &str, forbidden: bool) {
    let entity = unisono.engine().entity("order").unwrap().clone();
    let key = Key::from_text(id).unwrap();
    let answer = unisono.engine().get(&Context::default(), &entity, &key).await.unwrap();
    if forbidden && answer.value.is_some() {
        assert!(matches!(answer.cache, CacheStatus::Miss { stored: false, .. }), "{answer:?}");
    }
}

/// Waits until followers have everything.
async fn settled(unisono: &Unisono) {
    let head = unisono.engine().head_token().await.unwrap();
    unisono.engine().wait_applied(&head, Duration::from_secs(60)).await.unwrap();
}
