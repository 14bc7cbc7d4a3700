//! The database file, its write-ahead log, and the threads that own it.

use super::*;

use std::time::Duration;

use unisono_core::source::Follower;
use unisono_core::{Effect, ErrorKind, Position};

#[tokio::test]
async fn the_write_ahead_log_has_its_size_from_the_start_and_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[("filler", FieldType::String)]);
    let source = open_truth(folder.path(), &e).await;
    let size = || std::fs::metadata(folder.path().join("main.db-wal")).unwrap().len();
    let begun = size();
    assert!(begun >= 16 << 20, "{begun}");
    let filler = "x".repeat(100_000);
    for n in 0..600 {
        commit(&source, vec![put(&e, json!({"id": format!("{n}"), "filler": filler}))])
            .await
            .unwrap();
    }
    assert!(size() < 20 << 20, "60 MB went through a log that is now {}", size());
}

#[tokio::test]
async fn a_truth_whose_file_is_gone_refuses_to_begin_another_log() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[]);
    let source = open_truth(folder.path(), &e).await;
    commit(&source, vec![put(&e, json!({"id": "a"}))]).await.unwrap();
    std::fs::remove_file(folder.path().join("main.db")).unwrap();
    let error = commit(&source, vec![put(&e, json!({"id": "b"}))]).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Unavailable, Effect::None));
    assert_eq!(source.probe().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!folder.path().join("main.db").exists());
}

/// What yesterday's copy of a database has in it cannot tell that it is one: the file beside it does.
#[tokio::test]
async fn an_older_copy_of_a_truth_begins_another_log_above_all_positions() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[("v", FieldType::Integer)]);
    let (file, copy) = (folder.path().join("main.db"), folder.path().join("copy.db"));
    let source = open_truth(folder.path(), &e).await;
    commit(&source, vec![put(&e, json!({"id": "a", "v": 1}))]).await.unwrap();
    raw(folder.path()).execute("VACUUM INTO ?1", [copy.to_str()]).unwrap();
    let lost = commit(&source, vec![put(&e, json!({"id": "a", "v": 2}))]).await.unwrap();
    let before = source.bounds().await.unwrap();
    source.close().await.unwrap();

    let source = open_truth(folder.path(), &e).await;
    assert_eq!(source.bounds().await.unwrap(), before, "nothing was restored");
    source.close().await.unwrap();
    std::fs::copy(&copy, &file).unwrap();
    // Others write to it before Unisono starts: as many changes as were lost would hide the loss.
    raw(folder.path()).execute_batch("UPDATE thing SET v = 3").unwrap();
    let source = open(folder.path()).await;
    let notes = prepare(&source, Role::Truth, &e).await.unwrap();
    assert!(notes.iter().any(|note| note.contains("older copy")), "{notes:?}");
    let after = source.bounds().await.unwrap();
    assert_ne!(after.log, before.log, "no checkpoint of a follower is good any more");
    assert_eq!((after.head, after.trimmed), (after.head, after.head));
    let next = commit(&source, vec![put(&e, json!({"id": "b"}))]).await.unwrap();
    assert!(after.head > lost.changes[0].position && next.changes[0].position > after.head);
    let log = source.read_log(after.head, 10, usize::MAX).await.unwrap();
    assert_eq!(log, next.changes);
    source.close().await.unwrap();
    let source = open_truth(folder.path(), &e).await;
    assert_eq!(source.bounds().await.unwrap().log, after.log, "it is told once");
}

#[tokio::test]
async fn a_truth_that_an_older_copy_is_restored_into_while_it_is_open_goes_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[("v", FieldType::Integer)]);
    let copy = folder.path().join("copy.db");
    let source = open_truth(folder.path(), &e).await;
    commit(&source, vec![put(&e, json!({"id": "a", "v": 1}))]).await.unwrap();
    raw(folder.path()).execute("VACUUM INTO ?1", [copy.to_str()]).unwrap();
    commit(&source, vec![put(&e, json!({"id": "a", "v": 2}))]).await.unwrap();
    // As `.restore` of the command-line shell does it: into the same file.
    raw(folder.path()).restore("main", &copy, None::<fn(rusqlite::backup::Progress)>).unwrap();
    let error = commit(&source, vec![put(&e, json!({"id": "b"}))]).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Unavailable, Effect::None));
    assert!(error.message().contains("older copy"), "{error}");
    assert_eq!(source.bounds().await.unwrap_err().kind(), ErrorKind::Unavailable);
    source.close().await.unwrap();
    let source = open_truth(folder.path(), &e).await;
    commit(&source, vec![put(&e, json!({"id": "b"}))]).await.unwrap();
}

#[tokio::test]
async fn a_follower_whose_file_is_replaced_reads_the_new_one_without_its_old_log() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let e = entity("thing", &[("name", FieldType::String)]);
    // A database of the same shape with one record of another content.
    let elsewhere = open_truth(other.path(), &e).await;
    commit(&elsewhere, vec![put(&e, json!({"id": "there", "name": "restored"}))]).await.unwrap();
    elsewhere.close().await.unwrap();

    let source = open(folder.path()).await;
    prepare(&source, Role::Follower, &e).await.unwrap();
    follower::apply(&source, &e, follower::put_at(&e, 5, json!({"id": "here", "name": "lost"})))
        .await;
    std::fs::rename(other.path().join("main.db"), folder.path().join("main.db")).unwrap();
    assert_eq!(source.checkpoint(&e).await.unwrap(), None);
    assert_eq!(all(&source, &e).await, [json!({"id": "there", "name": "restored"})]);
    let state: String =
        raw(folder.path()).query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(state, "ok");
}

#[tokio::test]
async fn a_writer_of_another_process_makes_the_source_unavailable_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[]);
    let source = open_truth(folder.path(), &e).await;
    let other = raw(folder.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = commit(&source, vec![put(&e, json!({"id": "a"}))]).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Unavailable, Effect::None));
    other.execute_batch("ROLLBACK").unwrap();
    commit(&source, vec![put(&e, json!({"id": "a"}))]).await.unwrap();
}

#[tokio::test]
async fn two_writers_of_one_file_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[]);
    let patient = || async {
        let patient = Settings { busy_timeout: Duration::from_secs(60), ..settings(folder.path()) };
        let source = SqliteSource::open("main", patient, Sqlite.capability()).await.unwrap();
        prepare(&source, Role::Truth, &e).await.unwrap();
        source
    };
    let (one, other) = (patient().await, patient().await);
    let writes = |source: SqliteSource, name: &'static str| {
        let e = Arc::clone(&e);
        async move {
            for n in 0..100 {
                commit(&source, vec![put(&e, json!({"id": format!("{name}{n}")}))]).await.unwrap();
            }
            source
        }
    };
    let (one, _other) = tokio::join!(writes(one, "a"), writes(other, "b"));
    let log = one.read_log(Position::ZERO, 1000, usize::MAX).await.unwrap();
    assert_eq!(log.len(), 200);
    assert_eq!(all(&one, &e).await.len(), 200);
}

#[tokio::test]
async fn a_full_disk_undoes_the_whole_call_and_later_commits_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[("filler", FieldType::String)]);
    let source = open_truth(folder.path(), &e).await;
    let limit = |pages: u32| {
        source.client().write("test", move |connection| {
            connection
                .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
                .map_err(crate::error::translate)
        })
    };
    limit(1).await.unwrap();
    let units = vec![
        unit(vec![put(&e, json!({"id": "small"}))]),
        unit(vec![put(&e, json!({"id": "big", "filler": "x".repeat(1 << 20)}))]),
    ];
    let error = source.commit(units).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect_on_data()),
        (ErrorKind::Unavailable, Effect::None),
        "{error}"
    );
    assert_eq!(all(&source, &e).await, [] as [Json; 0]);
    limit(1_000_000).await.unwrap();
    let committed = commit(&source, vec![put(&e, json!({"id": "small"}))]).await.unwrap();
    assert_eq!(committed.changes[0].position.as_u64(), 1);
}

#[tokio::test]
async fn work_that_panics_ends_alone() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[]);
    let source = open_truth(folder.path(), &e).await;
    let client: &Client = source.client();
    let error = client.write("test", |_| -> Result<()> { panic!("on purpose") }).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Internal, Effect::Unknown));
    let error: Error =
        client.read("test", |_| -> Result<()> { panic!("on purpose") }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    commit(&source, vec![put(&e, json!({"id": "a"}))]).await.unwrap();
    assert_eq!(all(&source, &e).await.len(), 1);
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_leaves_no_write_ahead_log() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[]);
    let source = open_truth(folder.path(), &e).await;
    let commits = (0..50).map(|n| {
        let (source, e) = (Arc::clone(&source), Arc::clone(&e));
        let write =
            async move { commit(&source, vec![put(&e, json!({"id": format!("{n}")}))]).await };
        #[expect(
            clippy::disallowed_methods,
            reason = "the test needs callers that do not wait for each other"
        )]
        tokio::spawn(write)
    });
    let commits: Vec<_> = commits.collect();
    tokio::task::yield_now().await;
    source.close().await.unwrap();
    let mut done = 0;
    for commit in commits {
        match commit.await.unwrap() {
            Ok(_) => done += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
    }
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["main.db", "main.db-head"], "the database, and how far its log has come");
    let stored: i64 =
        raw(folder.path()).query_row("SELECT count(*) FROM thing", [], |r| r.get(0)).unwrap();
    assert_eq!(stored, done);
}
