//! The journal: what it acknowledged is there when the file is opened again, and no sequence is given twice.

use unisono_core::journal::{Appended, Journal, NewEntry};
use unisono_core::{Effect, ErrorKind};

use super::*;

fn entry(body: &str, idempotency: Option<(&str, u128)>) -> NewEntry {
    entry_at(body, idempotency, Timestamp::EPOCH)
}

fn entry_at(body: &str, key: Option<(&str, u128)>, time: Timestamp) -> NewEntry {
    let idempotency = key.map(|(key, fingerprint)| Idempotency { key: key.into(), fingerprint });
    NewEntry { body: body.into(), idempotency, time }
}

async fn append(source: &SqliteSource, entries: Vec<NewEntry>) -> Vec<Result<Appended>> {
    source.append("thing", entries).await.unwrap()
}

async fn bodies(source: &SqliteSource, after: u64, max: usize) -> Vec<(u64, String)> {
    let entries = source.read("thing", after, max).await.unwrap();
    entries.into_iter().map(|e| (e.sequence, e.body)).collect()
}

async fn begun(folder: &Path) -> Arc<SqliteSource> {
    let source = open(folder).await;
    source.begin("thing").await.unwrap();
    source
}

#[tokio::test]
async fn entries_survive_and_sequences_are_given_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = begun(folder.path()).await;
    let entries = vec![entry("a", None), entry("b", None), entry("c", None)];
    let sequences: Vec<_> =
        append(&source, entries).await.into_iter().map(|a| a.unwrap().sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
    // Dropped, not closed: nothing is written at the end that was not before.
    drop(source);
    let source = begun(folder.path()).await;
    assert_eq!(source.spaces().await.unwrap(), [("thing".to_owned(), 3)]);
    assert_eq!(bodies(&source, 1, 1).await, [(2, "b".to_owned())]);
    source.remove("thing", &[1, 2, 3, 77], Timestamp::EPOCH).await.unwrap();
    source.close().await.unwrap();

    let source = begun(folder.path()).await;
    assert_eq!(source.spaces().await.unwrap(), []);
    assert_eq!(append(&source, vec![entry("d", None)]).await[0].as_ref().unwrap().sequence, 4);
    source.begin("other").await.unwrap();
    let other = source.append("other", vec![entry("x", None)]).await.unwrap();
    assert_eq!(other[0].as_ref().unwrap().sequence, 1, "each space counts for itself");
    assert_eq!(bodies(&source, 0, 10).await, [(4, "d".to_owned())]);
}

#[tokio::test]
async fn a_repetition_is_told_by_its_key_for_as_long_as_that_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let source = begun(folder.path()).await;
    let early = Timestamp::EPOCH;
    let late = early.plus(std::time::Duration::from_secs(10));
    let both = vec![entry_at("a", Some(("k", 1)), early), entry_at("a", Some(("k", 1)), early)];
    let both: Vec<_> = append(&source, both).await.into_iter().map(Result::unwrap).collect();
    let told = |sequence, repeated| Appended { sequence, repeated };
    assert_eq!(both, [told(1, false), told(1, true)]);
    let mixed = append(&source, vec![entry("z", Some(("k", 2))), entry("b", None)]).await;
    assert_eq!(mixed[0].as_ref().unwrap_err().kind(), ErrorKind::IdempotencyKeyReused);
    assert_eq!(*mixed[1].as_ref().unwrap(), told(2, false), "the other one is kept");

    // A key is not forgotten before its entry is gone.
    source.remove("thing", &[], late).await.unwrap();
    let again = append(&source, vec![entry("a", Some(("k", 1)))]).await;
    assert_eq!(*again[0].as_ref().unwrap(), told(1, true));
    source.remove("thing", &[1], early).await.unwrap();
    let again = append(&source, vec![entry("a", Some(("k", 1)))]).await;
    assert_eq!(*again[0].as_ref().unwrap(), told(1, true), "flushed, and still known");
    source.remove("thing", &[2], late).await.unwrap();
    let anew = append(&source, vec![entry("a", Some(("k", 1)))]).await;
    assert_eq!(*anew[0].as_ref().unwrap(), told(3, false));
}

#[tokio::test]
async fn a_full_disk_keeps_nothing_of_the_call_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let source = begun(folder.path()).await;
    let limited = source.client().write("test", |connection| {
        connection
            .pragma_update_and_check(None, "max_page_count", 1, |_| Ok(()))
            .map_err(crate::error::translate)
    });
    limited.await.unwrap();
    let entries = vec![entry("small", None), entry(&"x".repeat(1 << 20), None)];
    let error = source.append("thing", entries).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Unavailable, Effect::None));
    assert_eq!(bodies(&source, 0, 10).await, []);
}

#[tokio::test]
async fn a_journal_whose_file_is_gone_acknowledges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = begun(folder.path()).await;
    append(&source, vec![entry("a", None)]).await.remove(0).unwrap();
    std::fs::rename(folder.path().join("main.db"), folder.path().join("elsewhere.db")).unwrap();
    let error = source.append("thing", vec![entry("b", None)]).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Unavailable, Effect::None));
}
