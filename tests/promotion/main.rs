//! The truth of an entity moves to a follower and back: on real engines, under load, beside another process, and with
//! processes that end after every step. `engines/up postgres mysql` first.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "real servers in real time")]

mod fragile;
#[path = "../behaviour/engines/mysql.rs"]
mod mysql;
#[path = "../behaviour/engines/postgres.rs"]
mod postgres;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::config::{self, Configuration, Process};
use unisono::core::kind::{OptionValue, Options};
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{
    Consistency, Context, Entity, Error, ErrorKind, Key, Version, json as of_json,
};
use unisono::engine::status::DeliveryState;
use unisono::engine::verify::report::{Depth, VerifyOptions};
use unisono::engine::{Engine, Runtime};
use unisono::{Registry, Unisono};

use fragile::{Fate, Fragile};

/// A source: its name and its options as they stand in a configuration.
#[derive(Clone)]
struct Place {
    name: &'static str,
    options: String,
    kind: &'static str,
}

impl Place {
    fn sqlite(name: &'static str) -> Self {
        let options = format!("kind = \"sqlite\"\npath = \"{name}.db\"\n");
        Place { name, options, kind: "sqlite" }
    }

    /// On a server that runs.
    fn server(name: &'static str, kind: &'static str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
        let file = PathBuf::from(base).join(kind).join("source.toml");
        let said = std::fs::read_to_string(&file)
            .unwrap_or_else(|e| panic!("{}: {e}\n    start it: engines/up {kind}", file.display()));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("tagree{}_{number}", std::process::id());
        let lines = said.lines().filter(|line| !line.starts_with("replicas"));
        let lines: String =
            lines.map(|line| line.replace("{namespace}", &namespace) + "\n").collect();
        Place { name, options: format!("kind = \"{kind}\"\n{lines}"), kind }
    }

    async fn wipe(&self) {
        let lines = self.options.lines().filter_map(|line| line.split_once(" = "));
        let text = |value: &str| OptionValue::Text(value.trim_matches('"').to_owned());
        let options = Options(lines.map(|(name, value)| (name.to_owned(), text(value))).collect());
        match self.kind {
            "mysql" => mysql::wipe(&options).await.unwrap(),
            "postgres" => postgres::wipe(&options).await.unwrap(),
            _ => {}
        }
    }
}

/// Items in `truth`, followed by `follower` and by files, with a cache; what is worked out from them is kept in the one of the
/// two whose name comes first.
fn configuration(folder: &Path, truth: &Place, follower: &Place) -> Configuration {
    configuration_with(folder, truth, follower, &Registry::builtin())
}

fn configuration_with(
    folder: &Path,
    truth: &Place,
    follower: &Place,
    registry: &Registry,
) -> Configuration {
    let text = format!(
        r#"
        [sources.{}]
        {}
        [sources.{}]
        {}
        [sources.copy]
        kind = "files"
        path = "copy"
        [sources.near]
        kind = "memory"
        [entities.item]
        truth = {:?}
        [entities.item.fields]
        id = "string"
        note = "string"
        number = {{ type = "integer", required = true }}
        code = {{ type = "string", unique = true, max_length = 40 }}
        [entities.item.cache]
        source = "near"
        [[entities.item.followers]]
        source = {:?}
        [[entities.item.followers]]
        source = "copy"
        [projections.totals]
        from = "item"
        key = {{ note = "record.note" }}
        [projections.totals.fields]
        items = {{ count = true }}
        sum = {{ sum = "record.number" }}
        codes = {{ distinct = "record.code" }}
        [[projections.totals.targets]]
        source = {:?}
        "#,
        truth.name,
        truth.options,
        follower.name,
        follower.options,
        truth.name,
        follower.name,
        truth.name.min(follower.name)
    );
    let parsed = config::parse(&text, "test.toml", registry, &Process);
    let mut configuration = parsed.unwrap_or_else(|problems| panic!("{problems}"));
    configuration.data = folder.to_owned();
    configuration
}

fn item(id: &str, number: u64) -> Json {
    json!({ "id": id, "note": format!("of {id}"), "number": number, "code": format!("{id}/{number}") })
}

fn put(entity: &Arc<Entity>, record: &Json, condition: Condition) -> Write {
    let record = of_json::parse(entity, record).unwrap();
    let key = entity.key_of(&record).unwrap();
    Write { entity: Arc::clone(entity), key, action: Action::Put(record), condition }
}

fn truth_of(unisono: &Unisono) -> String {
    unisono.engine().declaration().entities["item"].truth.to_string()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it never came to this: {what}");
}

/// Every follower is live and holds what the truth holds.
async fn agrees(unisono: &Unisono) {
    let engine = unisono.engine();
    let token = engine.head_token().await.unwrap();
    engine.wait_applied(&token, Duration::from_secs(30)).await.unwrap();
    until("live followers", async || {
        engine.status().await.deliveries.iter().all(|d| d.state == DeliveryState::Live)
    })
    .await;
    let options = VerifyOptions { depth: Depth::Deep, ..Default::default() };
    let report = engine.verify(&options, &|_| {}).await.unwrap();
    assert_eq!(report.comparisons.len(), 3);
    assert!(report.agrees(), "{report:?}");
}

async fn records(engine: &Engine) -> BTreeMap<String, Json> {
    let entity = Arc::clone(engine.entity("item").unwrap());
    let (all, end) = engine.scan(&entity, None, 10_000).await.unwrap();
    assert!(end);
    let pair = |s: unisono::core::Stored| (s.key.to_string(), of_json::to_json(&entity, &s.record));
    all.into_iter().map(pair).collect()
}

/// Moves the truth, which is tried again while the follower does not keep up.
async fn promote(unisono: &Unisono, wanted: impl Fn() -> Configuration) -> Vec<String> {
    for _ in 0..60 {
        match unisono.reload(wanted()).await {
            Ok(changes) => return changes,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("the follower never kept up");
}

/// What one writer was told.
#[derive(Debug, Default)]
struct Told {
    /// The last number of each of its records that was acknowledged, with its version.
    acknowledged: BTreeMap<String, (u64, Version)>,
    /// Writes that may have taken place: the number then may be one later.
    unknown: BTreeMap<String, u64>,
    refused: u64,
}

/// Writes its own records again and again until it is told to stop, and reads each of them behind its write.
async fn writer(engine: Engine, name: String, stop: Arc<AtomicBool>) -> Told {
    let entity = Arc::clone(engine.entity("item").unwrap());
    let (mut told, mut number) = (Told::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let id = format!("{name}-{}", number % 7);
        let context = Context { timeout: Duration::from_secs(20), ..Context::default() };
        let written =
            engine.write(&context, vec![put(&entity, &item(&id, number), Condition::None)]).await;
        match written {
            Ok(written) => {
                let version = written.changes[0].position;
                let before = told.acknowledged.insert(id.clone(), (number, version));
                assert!(
                    before.is_none_or(|(_, v)| v < version),
                    "{id}: {before:?}, then {version}"
                );
                told.unknown.remove(&id);
                reads_back(&engine, &entity, &id, number, written.token).await;
            }
            Err(error) if error.kind() == ErrorKind::Fenced => {
                told.refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{id}: {error:?}"),
        }
    }
    told
}

/// With the token of its write nobody is shown an earlier state, by whichever source.
async fn reads_back(
    engine: &Engine,
    entity: &Arc<Entity>,
    id: &str,
    number: u64,
    token: unisono::core::Token,
) {
    let context = Context { token, timeout: Duration::from_secs(20), ..Context::default() };
    let key = Key::from_text(id).unwrap();
    let answer = engine.get(&context, entity, &key).await.unwrap();
    let found = answer.value.unwrap_or_else(|| panic!("{id} is gone"));
    let found = of_json::to_json(entity, &found.record)["number"].as_u64().unwrap();
    assert_eq!(found, number, "{id}, by {:?}", answer.source);
}

/// The whole story, whatever the engines are.
async fn story(first: Place, second: Place) {
    let folder = tempfile::tempdir().unwrap();
    let forth = || configuration(folder.path(), &second, &first);
    let back = || configuration(folder.path(), &first, &second);
    let unisono = Unisono::open(back()).await.unwrap();
    let engine = unisono.engine().clone();
    let entity = Arc::clone(engine.entity("item").unwrap());
    let old = write_once(&engine, &entity, "old").await;
    let early = ["a", "b", "c"].map(|id| put(&entity, &item(id, 1), Condition::Absent));
    let mut versions = Vec::new();
    for write in early {
        versions.push(engine.write(&Context::default(), vec![write]).await.unwrap());
    }
    let plan = unisono.plan_reload(&forth()).await.outcome().unwrap();
    assert_eq!(plan.len(), 1, "{plan:?}");

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(writer(engine.clone(), format!("w{n}"), Arc::clone(&stop))))
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(promote(&unisono, forth).await, plan);
    assert_eq!(truth_of(&unisono), second.name);
    // A version from before is still that of its record, and its token still means something.
    let of_a = Condition::Version(Some(versions[0].changes[0].position));
    let context = Context { token: versions[0].token.clone(), ..Context::default() };
    let next = engine.write(&context, vec![put(&entity, &item("a", 2), of_a)]).await.unwrap();
    assert!(next.changes[0].position > versions[0].changes[0].position);
    assert_eq!(next.changes[0].replaced, Some(versions[0].changes[0].position));
    // A repeated request has the effect of one, wherever that was.
    let again = write_once(&engine, &entity, "old").await;
    assert!(again.replayed && again.changes[0].position == old.changes[0].position, "{again:?}");
    let new = write_once(&engine, &entity, "new").await;
    assert!(!new.replayed && write_once(&engine, &entity, "new").await.replayed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    promote(&unisono, back).await;
    assert_eq!(truth_of(&unisono), first.name);
    let again = write_once(&engine, &entity, "new").await;
    assert!(again.replayed && again.changes[0].position == new.changes[0].position, "{again:?}");
    assert!(write_once(&engine, &entity, "old").await.replayed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let told = writer.await.unwrap();
        check(&engine, &told).await;
        assert!(told.acknowledged.len() == 7 && told.refused == 0, "{told:?}");
    }
    agrees(&unisono).await;
    let trail = engine.status().await.logs;
    assert_eq!(trail.len(), 2, "{trail:?}");
    unisono.close().await.unwrap();
    // What was true stays true in the next process.
    let unisono = Unisono::open(back()).await.unwrap();
    agrees(&unisono).await;
    assert!(write_once(unisono.engine(), &entity, "new").await.replayed);
    unisono.close().await.unwrap();
    first.wipe().await;
    second.wipe().await;
}

async fn write_once(engine: &Engine, entity: &Arc<Entity>, key: &str) -> unisono::engine::Written {
    let context = Context { idempotency_key: Some(key.into()), ..Context::default() };
    let id = format!("once-{key}");
    engine.write(&context, vec![put(entity, &item(&id, 1), Condition::Absent)]).await.unwrap()
}

/// Everything that was acknowledged is there.
async fn check(engine: &Engine, told: &Told) {
    let entity = Arc::clone(engine.entity("item").unwrap());
    let context = Context { consistency: Consistency::Strong, ..Context::default() };
    for (id, (number, version)) in &told.acknowledged {
        let key = Key::from_text(id).unwrap();
        let found = engine.get(&context, &entity, &key).await.unwrap().value.unwrap();
        assert_eq!(
            (&found.version, &of_json::to_json(&entity, &found.record)),
            (version, &item(id, *number))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_and_postgres() {
    story(Place::sqlite("small"), Place::server("large", "postgres")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_mariadb() {
    story(Place::server("left", "postgres"), Place::server("right", "mysql")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files() {
    story(Place::sqlite("one"), Place::sqlite("other")).await;
}

/// A process that does not know of the move yet is refused by the old truth, until it has noticed.
#[tokio::test(flavor = "multi_thread")]
async fn another_process_is_refused_and_follows() {
    let (first, second) = (Place::server("left", "postgres"), Place::server("right", "mysql"));
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let here = Unisono::open(configuration(folders[0].path(), &first, &second)).await.unwrap();
    let there = Unisono::open(configuration(folders[1].path(), &first, &second)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [(&here, "here"), (&there, "there")].map(|(unisono, name)| {
        tokio::spawn(writer(unisono.engine().clone(), name.to_owned(), Arc::clone(&stop)))
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    promote(&here, || configuration(folders[0].path(), &second, &first)).await;
    until("the other process follows", async || truth_of(&there) == "right").await;
    promote(&there, || configuration(folders[1].path(), &first, &second)).await;
    until("the first process follows", async || truth_of(&here) == "left").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let mut refused = 0;
    for writer in writers {
        let told = writer.await.unwrap();
        refused += told.refused;
        check(here.engine(), &told).await;
        check(there.engine(), &told).await;
    }
    assert!(refused > 0, "nobody met the fence");
    agrees(&here).await;
    here.close().await.unwrap();
    there.close().await.unwrap();
    first.wipe().await;
    second.wipe().await;
}

/// Opens with sources that end after so many steps.
async fn open_fragile(folder: &Path, truth: &Place, follower: &Place, fate: &Fate) -> Unisono {
    let inner = Registry::builtin().find("sqlite").unwrap();
    let kind: &'static Fragile = Box::leak(Box::new(Fragile { inner, fate: fate.clone() }));
    let registry = Registry::builtin().with(kind);
    let configuration = configuration_with(folder, truth, follower, &registry);
    Unisono::open_with(configuration, &registry, Runtime::system()).await.unwrap()
}

/// A process that ends after every step of a move leaves nothing half done: whatever the file says then is carried out.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_may_end_at_every_step() {
    let (first, second) = (Place::sqlite("one"), Place::sqlite("other"));
    let mut carried_out = 0;
    for steps in 0.. {
        for goes_on in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let fate = Fate::default();
            let unisono = open_fragile(folder.path(), &first, &second, &fate).await;
            let entity = Arc::clone(unisono.engine().entity("item").unwrap());
            let writes = (0..20).map(|n| put(&entity, &item(&format!("i{n}"), n), Condition::None));
            let written =
                unisono.engine().write(&Context::default(), writes.collect()).await.unwrap();
            agrees(&unisono).await;
            fate.fuse.store(steps, Ordering::SeqCst);
            let inner = Registry::builtin();
            let wanted = configuration_with(folder.path(), &second, &first, &inner);
            let moved = unisono.reload(wanted).await;
            fate.fuse.store(0, Ordering::SeqCst);
            unisono.engine().runtime().abort();
            unisono.engine().runtime().join().await;
            drop(unisono);

            let (truth, follower) = if goes_on { (&second, &first) } else { (&first, &second) };
            let unisono =
                Unisono::open(configuration(folder.path(), truth, follower)).await.unwrap();
            until("the truth is where it is declared", async || truth_of(&unisono) == truth.name)
                .await;
            let write = || vec![put(&entity, &item("i3", 33), Condition::Present)];
            let next = unisono.engine().write(&Context::default(), write()).await.unwrap();
            let last = written.changes.last().unwrap().position;
            assert!(next.changes[0].position > last, "{steps}: {next:?}");
            agrees(&unisono).await;
            assert_eq!(records(unisono.engine()).await.len(), 20, "{steps}");
            unisono.close().await.unwrap();
            carried_out += u64::from(moved.is_ok());
        }
        if carried_out >= 4 {
            println!("a move has {} steps after each of which a process can end", steps - 1);
            assert!(steps > 5, "{steps}");
            return;
        }
    }
}

/// What is worked out goes with the truth, also where it is kept beside it and has not come so far: nothing is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_worked_out_goes_with_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Place::sqlite("one"), Place::sqlite("other"));
    let fate = Fate::default();
    let unisono = open_fragile(folder.path(), &first, &second, &fate).await;
    let engine = unisono.engine();
    let entity = Arc::clone(engine.entity("item").unwrap());
    let write = async |numbers: std::ops::Range<u64>| {
        let writes =
            numbers.map(|n| put(&entity, &item(&format!("i{}", n % 20), n), Condition::None));
        for write in writes {
            engine.write(&Context::default(), vec![write]).await.unwrap();
        }
    };
    write(0..20).await;
    agrees(&unisono).await;
    let inner = Registry::builtin();
    let (forth, back) = ((&second, &first), (&first, &second));
    for (lags, (truth, follower)) in [(true, forth), (false, back), (true, forth)] {
        fate.stuck.store(lags && truth.name == "other", Ordering::SeqCst);
        write(20..50).await;
        let wanted = || configuration_with(folder.path(), truth, follower, &inner);
        promote(&unisono, wanted).await;
        let totals = Arc::clone(&engine.declaration().entities["totals"].truth);
        assert_eq!((truth_of(&unisono).as_str(), &*totals), (truth.name, truth.name));
        write(50..60).await;
        fate.stuck.store(false, Ordering::SeqCst);
        agrees(&unisono).await;
    }
    let error = engine.promote("totals", &"one".into()).await.unwrap_err();
    assert!(error.hint_text().is_some_and(|hint| hint.contains("for item")), "{error:?}");
    unisono.close().await.unwrap();
    // What was worked out before goes on in the next process.
    let unisono = Unisono::open(configuration(folder.path(), &second, &first)).await.unwrap();
    agrees(&unisono).await;
    unisono.close().await.unwrap();
}

/// What cannot be the truth does not become it, and nothing happens.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_not_ready_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Place::sqlite("one"), Place::sqlite("other"));
    let unisono = Unisono::open(configuration(folder.path(), &first, &second)).await.unwrap();
    let engine = unisono.engine();
    let entity = Arc::clone(engine.entity("item").unwrap());
    engine
        .write(&Context::default(), vec![put(&entity, &item("a", 1), Condition::None)])
        .await
        .unwrap();
    agrees(&unisono).await;
    let promote = async || -> Error {
        let refused =
            unisono.reload(configuration(folder.path(), &second, &first)).await.unwrap_err();
        assert_eq!(truth_of(&unisono), "one");
        refused
    };
    engine.pause_source("other").await.unwrap();
    let error = promote().await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    engine.resume_source("other").await.unwrap();
    agrees(&unisono).await;
    // A record that was taken out of it behind our back.
    let database = rusqlite::Connection::open(folder.path().join("other.db")).unwrap();
    database.execute("DELETE FROM item", []).unwrap();
    let error = promote().await;
    assert_eq!(error.kind(), ErrorKind::Diverged, "{error:?}");
    engine
        .write(&Context::default(), vec![put(&entity, &item("a", 2), Condition::Present)])
        .await
        .unwrap();
    unisono.close().await.unwrap();
}
