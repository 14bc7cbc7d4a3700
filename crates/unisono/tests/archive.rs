//! The archive: a truth that was lost is built again, as it was at its end or at any moment since a backup, and whoever
//! changes what was archived is found out.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{
    Change, Context, Entity, ErrorKind, Key, LogName, Position, Record, json as record_json,
};
use unisono::engine::Engine;
use unisono::engine::archive::restore::{RestoreTo, Restored};
use unisono::{Registry, Unisono, config};

const LIMIT: Duration = Duration::from_secs(60);
const KEYS: u32 = 2_500;

/// Records in a SQLite database, with a follower, and everything archived in a folder beside.
async fn open(folder: &Path, vault: &Path, backups: &str) -> Unisono {
    open_with(folder, &archive(vault, backups)).await
}

fn archive(vault: &Path, backups: &str) -> String {
    let vault = vault.display();
    format!(
        r#"
        vault = {{ kind = "files", path = "{vault}", fsync = false }}
        [archive]
        source = "vault"
        every = "20ms"
        backups = "{backups}""#
    )
}

/// The same with another archive, or none.
async fn open_with(folder: &Path, archive: &str) -> Unisono {
    open_at(folder, archive, ["main", "copy"]).await
}

/// The same with the truth of the items elsewhere.
async fn open_at(folder: &Path, archive: &str, [truth, follower]: [&str; 2]) -> Unisono {
    let text = format!(
        r#"
        [sources]
        main = {{ kind = "sqlite", path = "main.db" }}
        copy = {{ kind = "sqlite", path = "copy.db" }}
        {archive}
        [entities.item]
        truth = "{truth}"
        fields = {{ id = "string", name = "string", code = {{ type = "string", unique = true }} }}
        followers = [{{ source = "{follower}" }}]
        [entities.note]
        truth = "main"
        fields = {{ id = "string", text = "text" }}
        "#
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
    configuration.data = folder.to_owned();
    Unisono::open(configuration).await.unwrap()
}

/// The records of an entity by key, and at which versions they are.
type State = BTreeMap<Key, Record>;

async fn state(engine: &Engine, name: &str) -> State {
    let entity = engine.entity(name).unwrap().clone();
    let (mut state, mut after) = (State::new(), None);
    loop {
        let (records, end) = engine.scan(&entity, after.as_ref(), 1000).await.unwrap();
        after = records.last().map(|stored| stored.key.clone());
        state.extend(records.into_iter().map(|s| (s.key, Arc::unwrap_or_clone(s.record))));
        if end {
            return state;
        }
    }
}

async fn log(engine: &Engine) -> Vec<Arc<Change>> {
    let (mut changes, mut after) = (Vec::new(), Position::ZERO);
    loop {
        let some = engine
            .changes(&LogName::of(&"main".into()), after, 1000, Duration::ZERO)
            .await
            .unwrap();
        let Some(last) = some.last() else { return changes };
        after = last.position;
        changes.extend(some);
    }
}

/// What the log says that was there after a position.
fn fold(changes: &[Arc<Change>], entity: &str, through: Position) -> State {
    let mut state = State::new();
    for change in changes.iter().filter(|c| c.position <= through && *c.entity == *entity) {
        match &change.image {
            Some(image) => state.insert(change.key.clone(), image.as_ref().clone()),
            None => state.remove(&change.key),
        };
    }
    state
}

fn put(entity: &Arc<Entity>, json: &Json) -> Write {
    let record = record_json::parse(entity, json).unwrap();
    let (key, action) = (entity.key_of(&record).unwrap(), Action::Put(record));
    Write { entity: Arc::clone(entity), key, action, condition: Condition::None }
}

/// Random writes, among them values of a unique field that go from one record to another.
async fn write_some(engine: &Engine, random: &mut StdRng, writes: usize) {
    let item = engine.entity("item").unwrap().clone();
    let note = engine.entity("note").unwrap().clone();
    for n in 0..writes {
        // A few records often take what another one of them had.
        let keys = if random.random_bool(0.5) { 12 } else { KEYS };
        let id = format!("k{:04}", random.random_range(0..keys));
        let code = format!("c{}", random.random_range(0..4));
        let code = if keys < KEYS && random.random_bool(0.5) { json!(code) } else { Json::Null };
        let mut write = match random.random_range(0..4) {
            0 => put(&note, &json!({ "id": id, "text": format!("note {n}") })),
            _ => put(&item, &json!({ "id": id, "name": format!("item {n}"), "code": code })),
        };
        if random.random_bool(0.25) {
            write.action = Action::Delete;
        }
        let written = engine.write(&Context::default(), vec![write]).await;
        let refused = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::ConstraintViolated);
        assert!(written.as_ref().err().is_none_or(|e| refused(e.kind())), "{written:?}");
    }
}

/// One record for every key.
async fn fill(engine: &Engine) {
    let item = engine.entity("item").unwrap().clone();
    let all = (0..KEYS).map(|n| put(&item, &json!({ "id": format!("k{n:04}"), "name": "item" })));
    for written in engine.write_each(&Context::default(), all.collect()).await {
        written.unwrap();
    }
}

async fn archived(engine: &Engine) {
    let waiting = async {
        while engine.status().await.archives[0].lag_changes > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap();
}

/// A truth with some history, its log, and a backup that was made while it was written.
async fn lost(folder: &Path, seed: u64) -> (Vec<Arc<Change>>, Position) {
    let unisono = open(&folder.join("lost"), &folder.join("vault"), "0s").await;
    let engine = unisono.engine();
    let mut random = StdRng::seed_from_u64(seed);
    fill(engine).await;
    write_some(engine, &mut random, 500).await;
    let ended = &AtomicBool::new(false);
    let writing = (0..8).map(|writer| async move {
        let mut random = StdRng::seed_from_u64(seed * 100 + writer);
        while !ended.load(Ordering::Relaxed) {
            write_some(engine, &mut random, 5).await;
        }
    });
    let backing_up = async {
        let made = engine.back_up(None, &|_| {}).await.unwrap();
        ended.store(true, Ordering::Relaxed);
        made
    };
    let (_, made) = tokio::join!(join_all(writing), backing_up);
    write_some(engine, &mut random, 500).await;
    archived(engine).await;
    let changes = log(engine).await;
    unisono.close().await.unwrap();
    (changes, made[0].end)
}

async fn restore(folder: &Path, name: &str, to: RestoreTo) -> (Unisono, Restored) {
    let unisono = open(&folder.join(name), &folder.join("vault"), "0s").await;
    let restored = unisono.engine().restore(None, to, &|_| {}).await.unwrap().remove(0);
    (unisono, restored)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truth_is_restored_to_its_end_and_to_every_moment_since_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (changes, whole) = lost(folder.path(), 1).await;
    let end = changes.last().unwrap().position;
    assert!(whole < end, "something is archived that the backup does not have");

    let (unisono, restored) = restore(folder.path(), "end", RestoreTo::End).await;
    let engine = unisono.engine();
    assert_eq!(restored.through, end);
    for entity in ["item", "note"] {
        assert_eq!(state(engine, entity).await, fold(&changes, entity, end), "{entity}");
    }
    let token = engine.head_token().await.unwrap();
    assert!(
        token.position(&LogName::of(&"main".into())) > end.next_generation(),
        "no version is given twice"
    );
    // The follower is filled by the log, and agrees.
    engine.wait_applied(&token, LIMIT).await.unwrap();
    let report = engine.verify(&Default::default(), &|_| {}).await.unwrap();
    assert!(report.agrees() && report.comparisons[0].records > 0, "{report:?}");
    // Who changed what when is in the new log as well.
    let last = changes.iter().rfind(|c| c.image.is_some() && *c.entity == *"item").unwrap();
    let item = engine.entity("item").unwrap().clone();
    let history = engine.history(&Context::default(), &item, &last.key, None, 1).await.unwrap();
    assert_eq!(history[0].time, last.time);
    unisono.close().await.unwrap();

    let mut random = StdRng::seed_from_u64(2);
    for n in 0..6 {
        let offset = random.random_range(0..=end.since(whole));
        let position = Position::new(whole.as_u64() + offset).unwrap();
        let (unisono, restored) =
            restore(folder.path(), &format!("at{n}"), RestoreTo::Position(position)).await;
        assert_eq!(restored.through, position);
        for entity in ["item", "note"] {
            let found = state(unisono.engine(), entity).await;
            assert_eq!(found, fold(&changes, entity, position), "{entity} at {position}");
        }
        unisono.close().await.unwrap();
    }

    // Up to the last change that was made by then.
    let time = changes[changes.len() - 200].time;
    let through = changes.iter().take_while(|c| c.time <= time).last().unwrap().position;
    let (unisono, restored) = restore(folder.path(), "then", RestoreTo::Time(time)).await;
    assert_eq!(restored.through, through);
    assert_eq!(state(unisono.engine(), "item").await, fold(&changes, "item", through));
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_interrupted_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (changes, _) = lost(folder.path(), 3).await;
    let end = changes.last().unwrap().position;
    #[expect(clippy::disallowed_methods, reason = "how long it takes says where to cut it off")]
    let began = std::time::Instant::now();
    let (unisono, _) = restore(folder.path(), "whole", RestoreTo::End).await;
    unisono.close().await.unwrap();
    let whole = began.elapsed();
    let again = folder.path().join("again");
    let mut random = StdRng::seed_from_u64(7);
    let (mut over, mut cuts) = (false, 0);
    while !over {
        let unisono = open(&again, &folder.path().join("vault"), "0s").await;
        if !state(unisono.engine(), "item").await.is_empty() {
            let other = unisono.engine().restore(None, RestoreTo::Position(end), &|_| {}).await;
            assert_eq!(
                other.unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "it was begun for the end"
            );
        }
        // Cut off anywhere: between any two steps, and in the midst of one.
        let limit = whole.mul_f64(random.random_range(0.0..0.15)) + Duration::from_millis(cuts);
        let restoring = unisono.engine().restore(None, RestoreTo::End, &|_| {});
        match tokio::time::timeout(limit, restoring).await {
            // The last cut came when everything was done but the answer.
            Ok(Err(error)) if cuts > 0 && error.kind() == ErrorKind::InvalidInput => over = true,
            Ok(restored) => over = restored.map(|_| true).unwrap(),
            Err(_) => cuts += 1,
        }
        unisono.close().await.unwrap();
    }
    assert!(cuts > 0);
    let unisono = open(&again, &folder.path().join("vault"), "0s").await;
    for entity in ["item", "note"] {
        let found = state(unisono.engine(), entity).await;
        assert_eq!(found, fold(&changes, entity, end), "{entity}");
    }
    unisono.close().await.unwrap();
}

/// A backup reads one page after the other: what a record gives up and another one takes meanwhile is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_goes_to_another_record_during_a_backup_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(&folder.path().join("lost"), &folder.path().join("vault"), "0s").await;
    let engine = unisono.engine();
    fill(engine).await;
    let item = engine.entity("item").unwrap().clone();
    let set = async |id: &str, code: Json| {
        let write = put(&item, &json!({ "id": id, "name": "item", "code": code }));
        engine.write(&Context::default(), vec![write]).await.unwrap();
    };
    let last = format!("k{:04}", KEYS - 1);
    set("k0000", json!("rare")).await;
    let (swapped, handle) = (AtomicBool::new(false), tokio::runtime::Handle::current());
    // When the page with the first record was read, and that with the last was not.
    let swap = |records: u64| {
        if records < u64::from(KEYS) && !swapped.swap(true, Ordering::Relaxed) {
            let swapping = async {
                set("k0000", Json::Null).await;
                set(&last, json!("rare")).await;
            };
            std::thread::scope(|scope| scope.spawn(|| handle.block_on(swapping)).join().unwrap());
        }
    };
    engine.back_up(None, &swap).await.unwrap();
    assert!(swapped.load(Ordering::Relaxed), "it was read in one page");
    let wanted = state(engine, "item").await;
    unisono.close().await.unwrap();
    let (unisono, _) = restore(folder.path(), "again", RestoreTo::End).await;
    assert_eq!(state(unisono.engine(), "item").await, wanted);
    unisono.close().await.unwrap();
}

/// What an entity became while its truth was elsewhere is in no change of this log: a restore ends before it came back,
/// unless there is a backup from afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_truth_that_was_elsewhere_meanwhile_is_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let (data, vault) = (folder.path().join("lost"), folder.path().join("vault"));
    let set = async |engine: &Engine, id: &str, name: &str| {
        let item = engine.entity("item").unwrap().clone();
        let write = put(&item, &json!({ "id": id, "name": name }));
        engine.write(&Context::default(), vec![write]).await.unwrap();
    };
    let unisono = open(&data, &vault, "0s").await;
    for id in ["a", "b"] {
        set(unisono.engine(), id, "before").await;
    }
    unisono.engine().back_up(None, &|_| {}).await.unwrap();
    let before = state(unisono.engine(), "item").await;
    unisono.close().await.unwrap();

    let unisono = open_with(&data, "").await;
    let engine = unisono.engine();
    for source in ["copy", "main"] {
        let token = engine.head_token().await.unwrap();
        engine.wait_applied(&token, LIMIT).await.unwrap();
        engine.promote("item", &source.into()).await.unwrap();
        set(engine, source, "since").await;
    }
    unisono.close().await.unwrap();

    let unisono = open(&data, &vault, "0s").await;
    set(unisono.engine(), "a", "afterwards").await;
    archived(unisono.engine()).await;
    unisono.close().await.unwrap();
    // A restore is archived itself: it has a copy of the archive for its own.
    copy(&vault, &folder.path().join("early/vault"));
    let early = folder.path().join("early");
    let (restored, told) = restore(&early, "first", RestoreTo::End).await;
    assert!(told.beyond.is_some(), "{told:?}");
    assert_eq!(state(restored.engine(), "item").await, before, "as it was when it went away");
    restored.close().await.unwrap();

    let unisono = open(&data, &vault, "0s").await;
    unisono.engine().back_up(None, &|_| {}).await.unwrap();
    let wanted = state(unisono.engine(), "item").await;
    assert_eq!(wanted.len(), 4);
    unisono.close().await.unwrap();
    let (restored, told) = restore(folder.path(), "second", RestoreTo::End).await;
    assert_eq!((state(restored.engine(), "item").await, told.beyond), (wanted, None));
    restored.close().await.unwrap();
}

/// A move begins a chain where the truth came to, and a backup on both sides, so that everything can be restored again.
#[tokio::test(flavor = "multi_thread")]
async fn a_truth_moves_while_everything_is_archived() {
    let folder = tempfile::tempdir().unwrap();
    let (data, vault) = (folder.path().join("lost"), folder.path().join("vault"));
    let unisono = open(&data, &vault, "1d").await;
    let engine = unisono.engine();
    let write = async |name: &str, record: Json| {
        let entity = engine.entity(name).unwrap().clone();
        engine.write(&Context::default(), vec![put(&entity, &record)]).await.unwrap();
    };
    let backups = async |truth: &str| match engine.backups(Some(truth)).await {
        Ok(backups) => backups,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => panic!("{error}"),
    };
    write("item", json!({ "id": "a", "name": "before" })).await;
    write("note", json!({ "id": "a", "text": "before" })).await;
    while backups("main").await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let token = engine.head_token().await.unwrap();
    engine.wait_applied(&token, LIMIT).await.unwrap();
    engine.promote("item", &"copy".into()).await.unwrap();
    write("item", json!({ "id": "b", "name": "since" })).await;
    let waiting = async {
        loop {
            let [here, there] = [backups("main").await, backups("copy").await];
            let holds = |of: &[unisono::engine::archive::backup::Backup]| {
                of.last().map(|backup| backup.entities.contains_key("item"))
            };
            if (holds(&here), holds(&there)) == (Some(false), Some(true)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("a backup on both sides");
    write("item", json!({ "id": "a", "name": "afterwards" })).await;
    write("note", json!({ "id": "b", "text": "afterwards" })).await;
    let waiting = async {
        while engine.status().await.archives.iter().any(|archive| archive.lag_changes > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap();
    let reports = engine.check_archive(None).await.unwrap();
    assert!(reports.len() == 2 && reports.iter().all(|r| r.problems.is_empty()), "{reports:?}");
    let wanted = [state(engine, "item").await, state(engine, "note").await];
    unisono.close().await.unwrap();

    let again = folder.path().join("again");
    let unisono = open_at(&again, &archive(&vault, "0s"), ["copy", "main"]).await;
    let restored = unisono.engine().restore(None, RestoreTo::End, &|_| {}).await.unwrap();
    assert!(restored.iter().all(|of_truth| of_truth.beyond.is_none()), "{restored:?}");
    let engine = unisono.engine();
    assert_eq!([state(engine, "item").await, state(engine, "note").await], wanted);
    let token = engine.head_token().await.unwrap();
    engine.wait_applied(&token, LIMIT).await.unwrap();
    assert!(engine.verify(&Default::default(), &|_| {}).await.unwrap().agrees());
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_not_overwritten_and_another_log_not_mixed_in() {
    let folder = tempfile::tempdir().unwrap();
    lost(folder.path(), 4).await;
    let vault = folder.path().join("vault");
    let unisono = open(&folder.path().join("other"), &vault, "0s").await;
    let engine = unisono.engine();
    let before = files(&vault);
    let item = engine.entity("item").unwrap().clone();
    let write = put(&item, &json!({ "id": "mine", "name": "of another truth" }));
    engine.write(&Context::default(), vec![write]).await.unwrap();
    let error = engine.restore(None, RestoreTo::End, &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("not empty"), "{error}");
    let waiting = async {
        while engine.status().await.archives[0].error.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap();
    assert_eq!(files(&vault), before, "nothing of another log is archived here");
    let error =
        engine.restore(None, RestoreTo::Position(Position::ZERO), &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    unisono.close().await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, copied) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        match path.is_dir() {
            true => copy(&path, &copied),
            false => drop(std::fs::copy(&path, &copied).unwrap()),
        }
    }
}

/// Every file below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "zst"));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_the_archive_or_the_log_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let (changes, whole) = lost(folder.path(), 5).await;
    let vault = folder.path().join("vault");
    let (data, of_log) = (folder.path().join("lost"), vault.join("unisono_vault/main/log"));
    let check = async || {
        let unisono = open(&data, &vault, "0s").await;
        let report = unisono.engine().check_archive(None).await.unwrap().remove(0);
        unisono.close().await.unwrap();
        report
    };
    let report = check().await;
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.changes, report.compared), (changes.len() as u64, changes.len() as u64));

    let segments = files(&of_log);
    let stem = |path: &Path| path.file_name().unwrap().to_str().unwrap()[..20].to_owned();
    let first = |path: &PathBuf| stem(path).parse::<u64>().unwrap();
    let beyond = segments.iter().position(|path| first(path) > whole.as_u64() + 1).unwrap();
    let (victim, next) = (&segments[beyond], &segments[beyond + 1]);
    let content = std::fs::read(victim).unwrap();
    let text = String::from_utf8(zstd::decode_all(&content[..]).unwrap()).unwrap();
    let forged = text.replace("\"trace\":null", "\"trace\":\"x\"");
    assert_ne!(text, forged);
    std::fs::write(victim, zstd::encode_all(forged.as_bytes(), 3).unwrap()).unwrap();
    let report = check().await;
    assert!(report.problems.iter().any(|p| p.starts_with(&stem(next))), "{:?}", report.problems);
    assert!(
        report.problems.iter().any(|p| p.contains("not in the truth's log")),
        "{:?}",
        report.problems
    );
    // What was forged is not restored.
    let unisono = open(&folder.path().join("forged"), &vault, "0s").await;
    let error = unisono.engine().restore(None, RestoreTo::End, &|_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    unisono.close().await.unwrap();

    std::fs::remove_file(victim).unwrap();
    let report = check().await;
    assert!(report.problems.iter().any(|p| p.contains("missing")), "{:?}", report.problems);
    std::fs::write(victim, &content).unwrap();
    assert_eq!(check().await.problems, Vec::<String>::new());

    let database = rusqlite::Connection::open(data.join("main.db")).unwrap();
    let position =
        changes.iter().rfind(|c| c.actor.is_none() && c.image.is_some()).unwrap().position;
    let sql = "UPDATE unisono_log SET actor = 'somebody else' WHERE position = ?1";
    assert_eq!(database.execute(sql, [position.as_i64()]).unwrap(), 1);
    drop(database);
    let report = check().await;
    let told = format!("the change at \"{position}\"");
    assert!(report.problems.iter().any(|p| p.starts_with(&told)), "{:?}", report.problems);
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_made_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(&folder.path().join("data"), &folder.path().join("vault"), "1d").await;
    let engine = unisono.engine();
    write_some(engine, &mut StdRng::seed_from_u64(6), 50).await;
    let waiting = async {
        while engine.backups(None).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap();
    unisono.close().await.unwrap();
    // The next start finds it new enough.
    let unisono = open(&folder.path().join("data"), &folder.path().join("vault"), "1d").await;
    let waiting = async {
        while unisono.engine().status().await.archives[0].backup.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap();
    assert_eq!(unisono.engine().backups(Some("main")).await.unwrap().len(), 1);
    unisono.close().await.unwrap();
}
