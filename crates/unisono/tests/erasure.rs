//! Erasing persons: what is personal is in no file of any source as it is, readers get it until its key is destroyed,
//! and then nobody does, whatever is restored.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::core::query::parse;
use unisono::core::stream::NewEvent;
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{
    Consistency, Context, ErrorKind, Key, LogName, Result, Stored, Token, json as records,
};
use unisono::engine::archive::restore::RestoreTo;
use unisono::engine::stream::{Appending, Excerpt};
use unisono::engine::verify::report::{Depth, VerifyOptions};
use unisono::{Registry, Unisono, config};
use unisono_testkit::remains::files_with;

const LIMIT: Duration = Duration::from_secs(60);
/// In what is personal, and nowhere else.
const SECRET: &str = "QUAGGA";
/// In what is not, so that a search that finds nothing is known to look.
const PLAIN: &str = "OKAPI";
const ROOT: &str = "a2V5IG9mIGtleXMgZm9yIHRlc3RzLCAzMiBieXRlcyE=";

struct Site {
    folder: tempfile::TempDir,
    /// More of the entity, such as `clear` followers.
    more: &'static str,
    root: &'static str,
}

impl Site {
    fn new(more: &'static str) -> Self {
        Site { folder: tempfile::tempdir().unwrap(), more, root: ROOT }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn open(&self) -> Result<Unisono> {
        self.open_truth("main").await
    }

    /// With another database as the truth, beside the same keys and archive.
    async fn open_truth(&self, truth: &str) -> Result<Unisono> {
        let (more, root, searched) = (self.more, self.root, self.more == FIND_CLEAR);
        let text = format!(
            r#"
            [sources]
            main = {{ kind = "sqlite", path = "{truth}.db" }}
            keys = {{ kind = "sqlite", path = "keys.db" }}
            copy = {{ kind = "sqlite", path = "{truth}-copy.db" }}
            out = {{ kind = "files", path = "{truth}-out", fsync = false }}
            find = {{ kind = "tantivy", path = "{truth}-find" }}
            ram = {{ kind = "memory" }}
            vault = {{ kind = "files", path = "vault", fsync = false }}
            [archive]
            source = "vault"
            every = "20ms"
            backups = "0s"
            [personal]
            keys = "keys"
            secret = "{root}"
            [entities.person]
            truth = "main"
            cache = {{ source = "ram" }}
            personal = {{ fields = ["name", "profile.mail"], subject = "id" }}
            fields = {{ id = "string", name = {{ type = "string", search = {searched}, max_length = 40 }}, profile = "json", city = {{ type = "string", search = true }} }}
            followers = [{{ source = "copy" }}, {{ source = "out" }}, {more}]
            [streams.order]
            truth = "main"
            personal = {{ fields = ["data.address"], subject = "data.user" }}
            followers = [{{ source = "copy" }}, {{ source = "out" }}]
            "#
        );
        let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
        let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
        configuration.data = self.path().to_owned();
        Unisono::open(configuration).await
    }

    /// The files that hold some text, however it is packed.
    fn files_with(&self, text: &str) -> Vec<String> {
        let found = files_with(self.path(), text).into_iter();
        found.map(|file| file.display().to_string()).collect()
    }
}

const FIND: &str = r#"{ source = "find", where = "record.city != 'x'" }"#;
const FIND_CLEAR: &str = r#"{ source = "find", clear = true }"#;

fn person(id: &str, name: &str) -> Json {
    let mail = format!("{name}@example.org");
    json!({ "id": id, "name": name, "profile": { "mail": mail, "tier": PLAIN }, "city": PLAIN })
}

async fn put(unisono: &Unisono, context: &Context, json: &Json) -> Result<Token> {
    let entity = unisono.engine().entity("person").unwrap();
    let record = records::parse(entity, json)?;
    let (key, action) = (entity.key_of(&record)?, Action::Put(record));
    let write = Write { entity: Arc::clone(entity), key, action, condition: Condition::None };
    Ok(unisono.engine().write(context, vec![write]).await?.token)
}

async fn patch(unisono: &Unisono, id: &str, json: Json) -> Result<Token> {
    let entity = unisono.engine().entity("person").unwrap();
    let (key, action) = (Key::from_text(id).unwrap(), Action::Patch(json));
    let write = Write { entity: Arc::clone(entity), key, action, condition: Condition::None };
    Ok(unisono.engine().write(&Context::default(), vec![write]).await?.token)
}

async fn found(unisono: &Unisono, id: &str) -> Result<Json> {
    let entity = unisono.engine().entity("person").unwrap();
    let stored = unisono.engine().get(&Context::default(), entity, &Key::from_text(id)?).await?;
    Ok(shown(unisono, stored.value.as_deref().unwrap()))
}

fn shown(unisono: &Unisono, stored: &Stored) -> Json {
    serde_json::from_slice(&stored.json(unisono.engine().entity("person").unwrap())).unwrap()
}

async fn order(unisono: &Unisono, stream: &str, user: &Json, address: Json) {
    let data = json!({ "user": user, "address": address, "total": PLAIN });
    let appending = Appending::to(stream, vec![NewEvent::new("placed", data)]);
    let orders = unisono.streams::<Json>("order").unwrap();
    let appended = orders.append_events(appending).await.unwrap();
    assert_eq!(appended.events[0].data["address"], address, "its writer gets what was appended");
}

async fn address(unisono: &Unisono, stream: &str) -> Json {
    let context = Context::default();
    let page = unisono.engine().read_stream(&context, "order", stream, Excerpt::default());
    page.await.unwrap().value.events[0].data["address"].clone()
}

/// Two persons with records and events, written in every way, in every follower, archived and backed up.
async fn filled(unisono: &Unisono) {
    let context = Context::default();
    put(unisono, &context, &person("7", &format!("Kim {SECRET}"))).await.unwrap();
    put(unisono, &context, &person("8", &format!("Ann {SECRET}"))).await.unwrap();
    let changed =
        json!({ "name": format!("Kim the {SECRET}"), "profile": { "mail": "k@example.org" } });
    patch(unisono, "7", changed).await.unwrap();
    put(unisono, &context, &person("9", SECRET)).await.unwrap();
    order(unisono, "o1", &json!("7"), json!({ "street": SECRET })).await;
    order(unisono, "o2", &json!(7), json!(SECRET)).await;
    order(unisono, "o3", &json!("8"), json!([SECRET])).await;
    let entity = unisono.engine().entity("person").unwrap();
    let (key, action) = (Key::from_text("9").unwrap(), Action::Delete);
    let delete = Write { entity: Arc::clone(entity), key, action, condition: Condition::None };
    unisono.engine().write(&context, vec![delete]).await.unwrap();
    settled(unisono).await;
    unisono.engine().back_up(None, &|_| {}).await.unwrap();
}

async fn settled(unisono: &Unisono) {
    let engine = unisono.engine();
    engine.wait_applied(&engine.head_token().await.unwrap(), LIMIT).await.unwrap();
    let archived = async {
        while engine.status().await.archives[0].lag_changes > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, archived).await.unwrap();
}

/// Everything that can be read, in one text.
async fn everything(unisono: &Unisono) -> String {
    let engine = unisono.engine();
    let entity = engine.entity("person").unwrap();
    let context = Context { consistency: Consistency::Strong, ..Context::default() };
    let all = parse::url(entity, &[]).unwrap();
    let page = engine.query(&context, entity, &all).await.unwrap().value;
    let (scanned, _) = engine.scan(entity, None, 100).await.unwrap();
    let (key, log) = (Key::from_text("7").unwrap(), LogName::of(&"main".into()));
    let begin = engine.logs().await.unwrap()[0].1.trimmed;
    let history = engine.history(&context, entity, &key, None, 100);
    let log = engine.changes(&log, begin, 100, Duration::ZERO);
    let events = unisono.streams::<Json>("order").unwrap().all(&Default::default()).await;
    format!("{page:?}{scanned:?}{:?}{:?}{events:?}", history.await.unwrap(), log.await.unwrap())
}

/// What is personal moves as it is, encrypted: it is read in the new place, erased there, and plain nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_personal_moves_with_its_truth() {
    let site = Site::new(FIND_CLEAR);
    let unisono = site.open().await.unwrap();
    let context = Context::default();
    put(&unisono, &context, &person("7", &format!("Kim {SECRET}"))).await.unwrap();
    put(&unisono, &context, &person("8", &format!("Ann {SECRET}"))).await.unwrap();
    settled(&unisono).await;
    let engine = unisono.engine();
    engine.promote("person", &"copy".into()).await.unwrap();
    patch(&unisono, "8", json!({ "city": "Lund" })).await.unwrap();
    assert_eq!(found(&unisono, "7").await.unwrap()["name"], format!("Kim {SECRET}"));
    assert_eq!(found(&unisono, "8").await.unwrap()["name"], format!("Ann {SECRET}"));
    settled(&unisono).await;
    let erased = engine.erase_subject(&context, "7").await.unwrap();
    assert!(erased.keys > 0 && erased.pending.is_empty(), "{erased:?}");
    assert_eq!(found(&unisono, "7").await.unwrap()["name"], Json::Null);
    settled(&unisono).await;
    let options = VerifyOptions { depth: Depth::Deep, ..VerifyOptions::default() };
    let report = engine.verify(&options, &|_| {}).await.unwrap();
    assert!(report.agrees(), "{report:?}");
    unisono.close().await.unwrap();
    let mut plain = site.files_with(SECRET);
    plain.retain(|file| !file.contains("main-find/"));
    assert_eq!(plain, Vec::<String>::new(), "personal, at rest, but in the follower that shows it");
    // In the next process, whose file says otherwise, it moves back.
    let unisono = site.open().await.unwrap();
    let back = async {
        while *unisono.engine().declaration().entities["person"].truth != *"main" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, back).await.unwrap();
    assert_eq!(found(&unisono, "8").await.unwrap()["name"], format!("Ann {SECRET}"));
    assert_eq!(found(&unisono, "7").await.unwrap()["name"], Json::Null);
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_personal_is_nowhere_at_rest_and_gone_when_its_key_is() {
    let site = Site::new(FIND);
    let unisono = site.open().await.unwrap();
    filled(&unisono).await;
    let seven = found(&unisono, "7").await.unwrap();
    assert_eq!(seven["name"], format!("Kim the {SECRET}"));
    assert_eq!(seven["profile"], json!({ "mail": "k@example.org", "tier": PLAIN }));
    assert_eq!(address(&unisono, "o1").await, json!({ "street": SECRET }));
    assert!(everything(&unisono).await.matches(SECRET).count() > 10);

    let plain = site.files_with(PLAIN);
    for place in ["main.db", "main-copy.db", "main-out/", "main-find/", "vault/"] {
        assert!(
            plain.iter().any(|file| file.contains(place)),
            "{place} is not looked at: {plain:?}"
        );
    }
    assert_eq!(site.files_with(SECRET), Vec::<String>::new(), "personal, at rest");
    assert_eq!(site.files_with("k@example.org"), Vec::<String>::new(), "personal, at rest");

    let erased = unisono.engine().erase_subject(&Context::default(), "7").await.unwrap();
    assert_eq!((erased.keys, erased.pending.len()), (1, 0));
    let seven = found(&unisono, "7").await.unwrap();
    assert_eq!(
        seven,
        json!({ "id": "7", "name": null, "profile": { "mail": null, "tier": PLAIN }, "city": PLAIN })
    );
    assert_eq!(address(&unisono, "o1").await, Json::Null);
    assert_eq!(address(&unisono, "o2").await, Json::Null, "a number is the same subject");
    assert_eq!(address(&unisono, "o3").await, json!([SECRET]));
    assert_eq!(found(&unisono, "8").await.unwrap()["name"], format!("Ann {SECRET}"));
    assert!(!everything(&unisono).await.contains("Kim"));
    let again = unisono.engine().erase_subject(&Context::default(), "7").await.unwrap();
    assert_eq!((again.keys, again.subject), (0, erased.subject.clone()));
    unisono.close().await.unwrap();
    assert_eq!(site.files_with(SECRET), Vec::<String>::new(), "personal, at rest");

    // Neither a restart nor a restore brings it back.
    let unisono = site.open().await.unwrap();
    assert!(!everything(&unisono).await.contains("Kim"));
    settled(&unisono).await;
    unisono.close().await.unwrap();
    let unisono = site.open_truth("anew").await.unwrap();
    unisono.engine().restore(None, RestoreTo::End, &|_| {}).await.unwrap();
    assert_eq!(found(&unisono, "8").await.unwrap()["name"], format!("Ann {SECRET}"));
    assert_eq!(address(&unisono, "o3").await, json!([SECRET]));
    let all = everything(&unisono).await;
    assert!(!all.contains("Kim") && all.contains("\"erase\""), "{all}");
    assert!(all.contains(&erased.subject), "the audit trail has it: {all}");
    unisono.close().await.unwrap();
    assert_eq!(site.files_with(SECRET), Vec::<String>::new(), "personal, at rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_key_is_not_in_the_file_that_it_was_in() {
    let site = Site::new(FIND);
    let unisono = site.open().await.unwrap();
    filled(&unisono).await;
    unisono.close().await.unwrap();
    let kept = || {
        let database = rusqlite::Connection::open(site.path().join("keys.db")).unwrap();
        let sql = "SELECT value FROM unisono_state WHERE space LIKE 'personal/%'";
        let mut statement = database.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.collect::<rusqlite::Result<Vec<_>>>().unwrap()
    };
    let before = kept();
    assert_eq!(before.len(), 3);
    let unisono = site.open().await.unwrap();
    unisono.engine().erase_subject(&Context::default(), "7").await.unwrap();
    unisono.close().await.unwrap();
    let after = kept();
    let gone: Vec<_> = before.iter().filter(|key| !after.contains(key)).collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(site.files_with(gone[0]), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clear_follower_answers_what_is_personal_and_is_told_of_its_end() {
    let site = Site::new(FIND_CLEAR);
    let unisono = site.open().await.unwrap();
    filled(&unisono).await;
    let engine = unisono.engine();
    let entity = engine.entity("person").unwrap();
    let ask = async |unisono: &Unisono, parameters: &[(&str, &str)]| {
        let parameters: Vec<_> =
            parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let query = parse::url(entity, &parameters)?;
        let answer = unisono.engine().query(&Context::default(), entity, &query).await?;
        let hits = answer.value.hits.iter().map(|hit| shown(unisono, &hit.stored));
        Ok::<_, unisono::core::Error>((answer.source, hits.collect::<Vec<_>>()))
    };
    let (source, hits) = ask(&unisono, &[("q", SECRET)]).await.unwrap();
    assert_eq!((&*source, hits.len()), ("find", 2));
    let (source, hits) = ask(&unisono, &[("name", &format!("eq.Ann {SECRET}"))]).await.unwrap();
    assert_eq!((&*source, hits.len()), ("find", 1));
    let (source, _) = ask(&unisono, &[("city", &format!("eq.{PLAIN}"))]).await.unwrap();
    assert_eq!(&*source, "main", "what needs no clear values is asked elsewhere");
    // It differs from the truth in what it holds, and rightly so.
    let deep = VerifyOptions { depth: Depth::Deep, ..VerifyOptions::default() };
    assert!(engine.verify(&deep, &|_| {}).await.unwrap().agrees());

    let erased = engine.erase_subject(&Context::default(), "7").await.unwrap();
    assert_eq!(erased.pending, Vec::new());
    let (_, hits) = ask(&unisono, &[("q", SECRET)]).await.unwrap();
    assert_eq!(hits.len(), 1, "{hits:?}");
    assert!(engine.verify(&deep, &|_| {}).await.unwrap().agrees());
    // What is copied anew is not what was erased.
    engine.backfill("person", "find").await.unwrap();
    let again = put(&unisono, &Context::default(), &person("10", SECRET)).await.unwrap();
    engine.wait_applied(&again, LIMIT).await.unwrap();
    let (_, hits) = ask(&unisono, &[("q", SECRET)]).await.unwrap();
    assert_eq!(hits.len(), 2, "{hits:?}");
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_reaches_a_clear_follower_that_was_away() {
    let site = Site::new(FIND_CLEAR);
    let unisono = site.open().await.unwrap();
    filled(&unisono).await;
    unisono.engine().pause_source("find").await.unwrap();
    let erased = unisono.engine().erase_subject(&Context::default(), "7").await.unwrap();
    assert_eq!(&*erased.pending[0].source, "find");
    unisono.close().await.unwrap();
    // Nobody repeats the erasure.
    let unisono = site.open().await.unwrap();
    unisono.engine().resume_source("find").await.unwrap();
    let entity = unisono.engine().entity("person").unwrap();
    let query = parse::url(entity, &[("q".to_owned(), SECRET.to_owned())]).unwrap();
    let gone = async {
        loop {
            let answer = unisono.engine().query(&Context::default(), entity, &query).await;
            if answer.is_ok_and(|answer| answer.value.hits.len() == 1) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap();
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_from_encrypted_values_is_refused() {
    let site = Site::new(FIND_CLEAR);
    let unisono = site.open().await.unwrap();
    let kind = |result: Result<Token>| result.unwrap_err().kind();
    // The rules of a field are those of what is meant, and not of what is kept.
    let context = Context::default();
    put(&unisono, &context, &person("7", &"x".repeat(28))).await.unwrap();
    assert_eq!(
        kind(put(&unisono, &context, &person("7", &"x".repeat(41))).await),
        ErrorKind::InvalidInput
    );
    let hidden = json!({ "id": "7", "profile": [{ "mail": SECRET }] });
    assert_eq!(kind(put(&unisono, &context, &hidden).await), ErrorKind::InvalidInput);
    assert_eq!(kind(patch(&unisono, "7", json!({ "profile": 3 })).await), ErrorKind::InvalidInput);
    let nobody = NewEvent::new("placed", json!({ "address": SECRET }));
    let orders = unisono.streams::<Json>("order").unwrap();
    let refused = orders.append_events(Appending::to("o1", vec![nobody])).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.detail("field")),
        (ErrorKind::InvalidInput, Some("data.user"))
    );
    let events = unisono.engine().stream("order").unwrap();
    let query = parse::url(events, &[("data.address".to_owned(), format!("eq.{SECRET}"))]).unwrap();
    let refused = unisono.engine().query(&context, events, &query).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    unisono.close().await.unwrap();
    assert_eq!(site.files_with(SECRET), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_known_though_it_is_encrypted() {
    let site = Site::new(FIND);
    let unisono = site.open().await.unwrap();
    let context = Context { idempotency_key: Some("k".into()), ..Context::default() };
    let first = put(&unisono, &context, &person("7", SECRET)).await.unwrap();
    assert_eq!(put(&unisono, &context, &person("7", SECRET)).await.unwrap(), first);
    let other = put(&unisono, &context, &person("7", "another")).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::IdempotencyKeyReused);
    // Also by another process that knows nothing but the keys.
    unisono.close().await.unwrap();
    let unisono = site.open().await.unwrap();
    assert_eq!(put(&unisono, &context, &person("7", SECRET)).await.unwrap(), first);
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_there_are_not_taken_for_erased_ones() {
    let mut site = Site::new(FIND);
    let unisono = site.open().await.unwrap();
    filled(&unisono).await;
    unisono.close().await.unwrap();
    site.root = "b3RoZXIga2V5IG9mIGtleXMsIG9mIDMyIGJ5dGVzISE=";
    let refused = site.open().await.err().unwrap();
    assert_eq!(
        (refused.kind(), refused.detail("field")),
        (ErrorKind::InvalidConfig, Some("personal.secret"))
    );
    site.root = ROOT;
    for file in ["keys.db", "keys.db-wal", "keys.db-shm"] {
        let _ = fs::rename(site.path().join(file), site.path().join(format!("away-{file}")));
    }
    let refused = site.open().await.err().unwrap();
    assert_eq!(
        (refused.kind(), refused.detail("field")),
        (ErrorKind::InvalidConfig, Some("personal.keys"))
    );
}
