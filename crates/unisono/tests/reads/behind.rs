//! Writing behind: what was acknowledged is seen, flushed once and in order, and survives everything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value as Json, json};
use unisono::core::query::{Filter, Query};
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Consistency, Context, Effect, ErrorKind, Key, Result, Role, Version};
use unisono::engine::status::JournalStatus;
use unisono::engine::{CacheStatus, Operation, Written};
use unisono::{Handle, Unisono};

use crate::gated::{Gate, gate, open, try_open};
use crate::{CACHED, get, item, pass, put, read, settled};

/// An entity whose truth is `name` and whose journal is `name_queue`.
async fn behind(name: &str, options: &str) -> Unisono {
    open(name, &declared(name, options)).await
}

fn declared(name: &str, options: &str) -> String {
    format!(
        "[sources.{name}_queue]\nkind = \"gated\"\n{CACHED}[entities.item.write]\nstrategy = \"write_behind\"\n\
         journal = \"{name}_queue\"\nflush_after = \"50ms\"\n{options}"
    )
}

fn queue(name: &str) -> Arc<Gate> {
    gate(&format!("{name}_queue"))
}

pub(crate) fn to_put(unisono: &Unisono, id: i64, name: &str, condition: Condition) -> Write {
    let entity = item(unisono);
    let json = json!({"id": id, "name": name, "stock": 1});
    let record = unisono::core::json::parse(&entity, &json).unwrap();
    Write { key: Key::Integer(id), action: Action::Put(record), condition, entity }
}

pub(crate) fn to_patch(unisono: &Unisono, id: i64, patch: Json) -> Write {
    let (key, action) = (Key::Integer(id), Action::Patch(patch));
    Write { entity: item(unisono), key, action, condition: Condition::None }
}

fn to_delete(unisono: &Unisono, id: i64) -> Write {
    let (key, action) = (Key::Integer(id), Action::Delete);
    Write { entity: item(unisono), key, action, condition: Condition::None }
}

pub(crate) async fn write(unisono: &Unisono, write: Write) -> Result<Written> {
    unisono.engine().write(&Context::default(), vec![write]).await
}

pub(crate) fn strong() -> Context {
    Context { consistency: Consistency::Strong, ..Context::default() }
}

pub(crate) async fn status(unisono: &Unisono) -> JournalStatus {
    unisono.engine().status().await.journals.remove(0)
}

/// Waits until nothing waits.
async fn drained(unisono: &Unisono) {
    let drained = async {
        while status(unisono).await.pending > 0 {
            pass(0.01).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), drained).await.unwrap();
}

/// The names that a record had, oldest first, `-` where it was deleted.
pub(crate) async fn past(unisono: &Unisono, id: i64) -> Vec<String> {
    let items: Handle<Json> = unisono.entity("item").unwrap();
    let mut changes = items.history(id, 100).await.unwrap();
    changes.reverse();
    let name = |change: &Arc<unisono::core::Change>| {
        change.image.as_ref().map_or("-".into(), |i| i.values()[1].as_str().unwrap().to_owned())
    };
    changes.iter().map(name).collect()
}

/// As `kill -9`: nothing in memory survives, and nothing that was going on.
pub(crate) async fn kill(unisono: Unisono) {
    unisono.engine().runtime().abort();
    unisono.engine().runtime().join().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_is_acknowledged_by_the_journal_and_seen_before_it_is_flushed() {
    let unisono = behind("accepted", "").await;
    gate("accepted").set_down(true);
    let written = write(&unisono, to_put(&unisono, 1, "a", Condition::None)).await.unwrap();
    let accepted = written.accepted.unwrap();
    assert_eq!((&*accepted.journal, accepted.sequence), ("accepted_queue", 1));
    assert!(written.changes.is_empty(), "it has no position yet");
    assert_eq!(written.token.to_string(), "accepted_queue/item:1");
    for consistency in [Consistency::Session, Consistency::Eventual] {
        let context = Context { consistency, ..Context::default() };
        let answer = read(&unisono, &context, 1).await;
        assert_eq!(answer.value.as_deref(), Some("a"));
        assert_eq!((answer.cache, answer.role), (CacheStatus::Pending, Role::Journal));
        assert_eq!(&*answer.source, "accepted_queue");
        assert_eq!(answer.token, written.token);
    }
    let stored = unisono.engine().get(&Context::default(), &item(&unisono), &Key::Integer(1)).await;
    assert_eq!(stored.unwrap().value.unwrap().version, Version::ZERO, "and no version");

    gate("accepted").set_down(false);
    drained(&unisono).await;
    let answer = get(&unisono, 1).await;
    assert_eq!((answer.value.as_deref(), answer.role), (Some("a"), Role::Truth));
    let status = status(&unisono).await;
    assert_eq!((status.accepted, status.flushed, status.refused), (1, 1, 0));
    assert_eq!(status.last_error, None);
}

#[tokio::test(start_paused = true)]
async fn explaining_a_read_tells_what_waits_for_the_record() {
    let unisono = behind("explained", "").await;
    write(&unisono, to_put(&unisono, 1, "a", Condition::None)).await.unwrap();
    drained(&unisono).await;
    let waiting = |context: &Context, id| {
        let operation = Operation::Get(Key::Integer(id));
        let lines = unisono.engine().explain(context, &item(&unisono), &operation);
        let journal = lines.into_iter().find(|line| line.contains("explained_queue"));
        journal.map(|line| line.replace("+  explained_queue (journal): ", ""))
    };
    let session = Context::default();
    assert_eq!(waiting(&session, 1), None, "nothing waits any more");
    gate("explained").set_down(true);
    write(&unisono, to_patch(&unisono, 1, json!({"stock": 2}))).await.unwrap();
    let said = waiting(&session, 1).unwrap();
    assert_eq!(said, "1 pending write, laid over the answer");
    write(&unisono, to_put(&unisono, 1, "b", Condition::None)).await.unwrap();
    let said = waiting(&session, 1).unwrap();
    assert_eq!(said, "2 pending writes, shown instead of what the sources have");
    assert_eq!(
        waiting(&strong(), 1).unwrap(),
        "2 pending writes, flushed before a source is asked"
    );
    assert_eq!(waiting(&session, 2), None, "they are for another record");
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_laid_over_what_is_there() {
    let unisono = behind("laid", "").await;
    put(&unisono, 1, "a").await;
    put(&unisono, 2, "b").await;
    drained(&unisono).await;
    write(&unisono, to_patch(&unisono, 1, json!({"stock": 7}))).await.unwrap();
    write(&unisono, to_delete(&unisono, 2)).await.unwrap();
    write(&unisono, to_put(&unisono, 1, "never", Condition::Absent)).await.unwrap();
    let stored = unisono.engine().get(&Context::default(), &item(&unisono), &Key::Integer(1)).await;
    let stored = stored.unwrap().value.unwrap();
    let shown = unisono::core::json::to_json(&item(&unisono), &stored.record);
    let judged = json!({"id": 1, "name": "a", "stock": 7, "made": null});
    assert_eq!(shown, judged, "as the truth will judge");
    let gone = get(&unisono, 2).await;
    assert_eq!((gone.value, gone.cache), (None, CacheStatus::Pending));
    drained(&unisono).await;
    assert_eq!(past(&unisono, 1).await, ["a", "a"]);
    assert_eq!(past(&unisono, 2).await, ["b", "-"]);
}

#[tokio::test(start_paused = true)]
async fn puts_of_a_record_are_one_commit_and_records_share_a_transaction() {
    let unisono = behind("coalesced", "").await;
    for n in 0..100 {
        put(&unisono, n % 5, &format!("name {n}")).await;
    }
    drained(&unisono).await;
    assert_eq!(*gate("coalesced").commits.lock().unwrap(), [5]);
    for id in 0..5 {
        assert_eq!(past(&unisono, id).await, [format!("name {}", 95 + id)]);
    }
    let status = status(&unisono).await;
    assert_eq!((status.accepted, status.flushed, status.coalesced), (100, 5, 95));
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_no_longer_than_declared_and_not_at_all_when_half_the_room_is_taken() {
    let unisono = behind("waits", "pending_max = 10\n").await;
    put(&unisono, 1, "a").await;
    pass(0.049).await;
    assert_eq!(status(&unisono).await.pending, 1);
    pass(0.002).await;
    assert_eq!(status(&unisono).await.pending, 0);
    for id in 0..5 {
        put(&unisono, id, "b").await;
    }
    pass(0.001).await;
    assert_eq!(status(&unisono).await.pending, 0, "half of the room");
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_is_a_dead_letter_that_names_its_writer_and_holds_up_nobody() {
    let unisono = behind("refused", "").await;
    put(&unisono, 1, "a").await;
    drained(&unisono).await;
    let context = Context {
        actor: Some("ann".into()),
        idempotency_key: Some("order-17".into()),
        ..Context::default()
    };
    let create = to_put(&unisono, 1, "refused", Condition::Absent);
    unisono.engine().write(&context, vec![create.clone()]).await.unwrap();
    put(&unisono, 2, "b").await;
    put(&unisono, 1, "later").await;
    drained(&unisono).await;
    assert_eq!(past(&unisono, 1).await, ["a", "later"], "its successor goes on");
    assert_eq!(past(&unisono, 2).await, ["b"], "and so does everybody else");

    let letters = unisono.engine().dead_letters().await.unwrap();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((&*letter.source, letter.key.as_str()), ("refused_queue", "1"));
    let write = letter.write.as_ref().unwrap();
    assert_eq!((write.accepted.actor.as_deref(), write.sequence), (Some("ann"), 2));
    assert_eq!(write.accepted.idempotency_key.as_deref(), Some("order-17"));
    for part in ["already_exists", "ann", "order-17"] {
        assert!(letter.reason.contains(part), "{}", letter.reason);
    }
    assert_eq!(status(&unisono).await.refused, 1);
    // The same request again is the same write, which was refused.
    let again = unisono.engine().write(&context, vec![create]).await.unwrap();
    assert!(again.replayed && again.accepted.unwrap().sequence == 2);
    drained(&unisono).await;
    assert_eq!(unisono.engine().dead_letters().await.unwrap(), letters);

    write_and_drain(&unisono, to_delete(&unisono, 1)).await;
    assert!(unisono.engine().replay(letter).await.unwrap());
    drained(&unisono).await;
    assert_eq!(past(&unisono, 1).await, ["a", "later", "-", "refused"]);
    assert_eq!(unisono.engine().dead_letters().await.unwrap(), []);
    assert_eq!(unisono.engine().discard(letter).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn write_and_drain(unisono: &Unisono, one: Write) {
    write(unisono, one).await.unwrap();
    drained(unisono).await;
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_judged_in_its_place() {
    let unisono = behind("judged", "").await;
    put(&unisono, 1, "a").await;
    drained(&unisono).await;
    let version = read(&unisono, &strong(), 1).await.position;
    let at = |condition| to_put(&unisono, 1, "mine", condition);
    write(&unisono, at(Condition::Version(Some(version)))).await.unwrap();
    put(&unisono, 1, "b").await;
    write(&unisono, to_put(&unisono, 1, "too late", Condition::Version(Some(version))))
        .await
        .unwrap();
    put(&unisono, 1, "c").await;
    drained(&unisono).await;
    assert_eq!(past(&unisono, 1).await, ["a", "mine", "b", "c"]);
    assert_eq!(unisono.engine().dead_letters().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_the_truth_cannot_stomach_holds_up_its_own_record_only() {
    let unisono = behind("poisoned", "age_alert = \"1s\"\n").await;
    *gate("poisoned").chokes_on.lock().unwrap() = Some(Key::Integer(1));
    for id in 0..10 {
        put(&unisono, id, "a").await;
    }
    pass(5.0).await;
    let stuck = status(&unisono).await;
    assert_eq!((stuck.pending, stuck.flushed, stuck.alert), (1, 9, true));
    put(&unisono, 2, "b").await;
    put(&unisono, 1, "b").await;
    pass(0.1).await;
    assert_eq!(past(&unisono, 2).await, ["a", "b"], "without a pause of the others");
    *gate("poisoned").chokes_on.lock().unwrap() = None;
    pass(10.0).await;
    assert_eq!(past(&unisono, 1).await, ["a", "b"]);
    assert_eq!(unisono.engine().dead_letters().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn while_the_truth_is_away_writes_are_accepted_up_to_the_bound() {
    let unisono = behind("away", "pending_max = 20\nage_alert = \"30s\"\n").await;
    gate("away").set_down(true);
    for n in 0..20 {
        put(&unisono, n % 4, &format!("name {n}")).await;
    }
    let error = write(&unisono, to_delete(&unisono, 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Overloaded, Effect::None));
    assert_eq!(error.detail("pending"), Some("20"));
    assert!(error.to_string().contains("down"), "{error}");
    pass(31.0).await;
    let waiting = status(&unisono).await;
    assert!(waiting.alert && waiting.oldest_seconds > 30.0, "{waiting:?}");
    assert_eq!(waiting.pending, 20);
    assert!(waiting.last_error.unwrap().contains("down"));

    gate("away").set_down(false);
    drained(&unisono).await;
    for id in 0..4 {
        // One commit of what was tried while the truth was away, which may have been in vain or not, one of the rest.
        let past = past(&unisono, id).await;
        assert!(past.len() <= 2 && past.ends_with(&[format!("name {}", 16 + id)]), "{past:?}");
    }
    assert!(!status(&unisono).await.alert);
    put(&unisono, 1, "more").await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_is_held_until_there_is_room() {
    let unisono = behind("roomy", "pending_max = 2\nhold = \"10s\"\n").await;
    gate("roomy").set_down(true);
    put(&unisono, 1, "a").await;
    put(&unisono, 2, "a").await;
    let back = async {
        pass(3.0).await;
        gate("roomy").set_down(false);
    };
    let begin = tokio::time::Instant::now();
    let third = write(&unisono, to_put(&unisono, 3, "a", Condition::None));
    let (third, ()) = futures::future::join(third, back).await;
    assert!(third.unwrap().accepted.is_some() && begin.elapsed() >= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn who_saw_a_write_waiting_sees_it_ever_after() {
    let rule = "[[entities.item.read.rules]]\nname = \"copy\"\nask = [\"after_copy\", \"truth\"]\n";
    let unisono = behind("after", rule).await;
    put(&unisono, 1, "old").await;
    drained(&unisono).await;
    settled(&unisono).await;
    gate("after_copy").lags.store(true, Ordering::SeqCst);
    let items: Handle<Json> = unisono.entity("item").unwrap();
    items.put(&json!({"id": 1, "name": "new", "stock": 1})).await.unwrap();
    let context = Context { token: items.token(), ..Context::default() };
    assert_eq!(read(&unisono, &context, 1).await.cache, CacheStatus::Pending);
    drained(&unisono).await;
    let answer = get(&unisono, 1).await;
    assert_eq!((answer.value.as_deref(), &*answer.source), (Some("old"), "after_copy"));
    let answer = read(&unisono, &context, 1).await;
    assert_eq!((answer.value.as_deref(), &*answer.source), (Some("new"), "after"));
    let page = unisono.engine().query(&context, &item(&unisono), &Query::all()).await.unwrap();
    assert_eq!(page.value.hits[0].stored.record.values()[1].as_str(), Some("new"));

    // The token is as good in the next life of the process.
    kill(unisono).await;
    let unisono = behind("after", rule).await;
    assert_eq!(read(&unisono, &context, 1).await.value.as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn questions_with_the_token_and_strong_reads_wait_for_the_flush() {
    let unisono = behind("asked", "").await;
    let written = write(&unisono, to_put(&unisono, 1, "a", Condition::None)).await.unwrap();
    let ask = async |context: &Context| {
        let page = unisono.engine().query(context, &item(&unisono), &Query::all()).await;
        page.map(|page| page.value.hits.len())
    };
    assert_eq!(ask(&Context::default()).await.unwrap(), 0, "what has been flushed");
    let own = Context { token: written.token.clone(), ..Context::default() };
    assert_eq!(ask(&own).await.unwrap(), 1, "who wrote it waits for the flush");
    write(&unisono, to_put(&unisono, 2, "b", Condition::None)).await.unwrap();
    assert_eq!(ask(&strong()).await.unwrap(), 2);
    write(&unisono, to_put(&unisono, 1, "c", Condition::None)).await.unwrap();
    let answer = read(&unisono, &strong(), 1).await;
    assert_eq!((answer.value.as_deref(), answer.role), (Some("c"), Role::Truth));

    gate("asked").set_down(true);
    let late = write(&unisono, to_put(&unisono, 1, "d", Condition::None)).await.unwrap();
    let timeout = Duration::from_secs(1);
    let own = Context { token: late.token, timeout, ..Context::default() };
    assert_eq!(ask(&own).await.unwrap_err().kind(), ErrorKind::TooStale);
    let hasty = Context { timeout, ..strong() };
    let refused = unisono.engine().get(&hasty, &item(&unisono), &Key::Integer(1)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooStale);
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_the_process() {
    let unisono = behind("killed", "").await;
    gate("killed").set_down(true);
    put(&unisono, 1, "a").await;
    put(&unisono, 1, "b").await;
    write(&unisono, to_patch(&unisono, 1, json!({"name": "c"}))).await.unwrap();
    kill(unisono).await;
    gate("killed").set_down(false);
    let unisono = behind("killed", "").await;
    let answer = get(&unisono, 1).await;
    assert_eq!((answer.value.as_deref(), answer.cache), (Some("c"), CacheStatus::Pending));
    drained(&unisono).await;
    assert_eq!(past(&unisono, 1).await, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_before_the_end_is_not_committed_again() {
    let unisono = behind("once", "").await;
    queue("once").keeps.store(true, Ordering::SeqCst);
    for n in 0..3 {
        put(&unisono, 1, &format!("name {n}")).await;
    }
    write(&unisono, to_put(&unisono, 2, "two", Condition::Absent)).await.unwrap();
    pass(1.0).await;
    assert_eq!(past(&unisono, 1).await, ["name 2"]);
    kill(unisono).await;
    queue("once").keeps.store(false, Ordering::SeqCst);
    let unisono = behind("once", "").await;
    // More of the same record, before the first flush of this life.
    put(&unisono, 1, "more").await;
    drained(&unisono).await;
    assert_eq!(past(&unisono, 1).await, ["name 2", "more"]);
    assert_eq!(past(&unisono, 2).await, ["two"], "a create is not refused because it took place");
    assert_eq!(unisono.engine().dead_letters().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_told_before_the_end_is_told_once_and_stands() {
    let unisono = behind("stands", "").await;
    put(&unisono, 1, "a").await;
    drained(&unisono).await;
    queue("stands").keeps.store(true, Ordering::SeqCst);
    write(&unisono, to_put(&unisono, 1, "refused", Condition::Absent)).await.unwrap();
    pass(1.0).await;
    let letters = unisono.engine().dead_letters().await.unwrap();
    assert_eq!(letters.len(), 1);
    kill(unisono).await;
    queue("stands").keeps.store(false, Ordering::SeqCst);
    let unisono = behind("stands", "").await;
    // Judged again behind this, it would take place.
    write_and_drain(&unisono, to_delete(&unisono, 1)).await;
    pass(1.0).await;
    assert_eq!(past(&unisono, 1).await, ["a", "-"]);
    assert_eq!(unisono.engine().dead_letters().await.unwrap(), letters);
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_not_repeated() {
    let unisono = behind("lost", "").await;
    gate("lost").loses.store(true, Ordering::SeqCst);
    write(&unisono, to_put(&unisono, 1, "a", Condition::Absent)).await.unwrap();
    pass(1.0).await;
    put(&unisono, 1, "b").await;
    gate("lost").loses.store(false, Ordering::SeqCst);
    drained(&unisono).await;
    assert_eq!(past(&unisono, 1).await, ["a", "b"]);
    assert_eq!(unisono.engine().dead_letters().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_is_lost_is_found_again_in_its_place() {
    let unisono = behind("found", "").await;
    queue("found").loses.store(true, Ordering::SeqCst);
    let first = write(&unisono, to_put(&unisono, 1, "a", Condition::None)).await.unwrap();
    queue("found").loses.store(false, Ordering::SeqCst);
    assert_eq!(first.accepted.unwrap().sequence, 1, "it can be told after a look");
    put(&unisono, 1, "b").await;
    drained(&unisono).await;
    kill(unisono).await;
    let unisono = behind("found", "").await;
    drained(&unisono).await;
    assert_eq!(past(&unisono, 1).await, ["b"], "nothing comes back after what was later");

    queue("found").set_down(true);
    let error = write(&unisono, to_delete(&unisono, 1)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Unavailable, Effect::None));
}

#[tokio::test(start_paused = true)]
async fn closing_flushes_what_waits_and_keeps_what_cannot_be_flushed() {
    let unisono = behind("closed", "").await;
    put(&unisono, 1, "a").await;
    unisono.close().await.unwrap();
    let unisono = behind("closed", "").await;
    assert_eq!(status(&unisono).await.pending, 0);
    assert_eq!(past(&unisono, 1).await, ["a"]);

    gate("closed").set_down(true);
    put(&unisono, 1, "b").await;
    let begin = tokio::time::Instant::now();
    unisono.close().await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    gate("closed").set_down(false);
    let unisono = behind("closed", "").await;
    assert_eq!(get(&unisono, 1).await.cache, CacheStatus::Pending);
    drained(&unisono).await;
    assert_eq!(past(&unisono, 1).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_request_is_kept_once() {
    let unisono = behind("repeated", "").await;
    let context = |key: &str| Context { idempotency_key: Some(key.into()), ..Context::default() };
    let one = |name| vec![to_put(&unisono, 1, name, Condition::None)];
    let first = unisono.engine().write(&context("k"), one("a")).await.unwrap();
    drained(&unisono).await;
    put(&unisono, 1, "b").await;
    let again = unisono.engine().write(&context("k"), one("a")).await.unwrap();
    assert!(again.replayed && !first.replayed);
    assert_eq!(again.accepted, first.accepted);
    let reused = unisono.engine().write(&context("k"), one("c")).await.unwrap_err();
    assert_eq!(reused.kind(), ErrorKind::IdempotencyKeyReused);
    drained(&unisono).await;
    assert_eq!(past(&unisono, 1).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_any_record_is_refused_at_once() {
    let unisono = behind("wrong", "").await;
    let both = vec![to_delete(&unisono, 1), to_delete(&unisono, 2)];
    let error = unisono.engine().write(&Context::default(), both).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Unsupported, Effect::None));
    let error = write(&unisono, to_patch(&unisono, 1, json!({"nope": 1}))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(status(&unisono).await.pending, 0);
}

#[tokio::test(start_paused = true)]
async fn writes_apart_stay_in_order() {
    let unisono = behind("apart", "").await;
    let writes: Vec<Write> = (0..600)
        .map(|n| match n % 2 {
            0 => to_put(&unisono, 1, &format!("{n}"), Condition::None),
            _ => to_patch(&unisono, 1, json!({"name": format!("{n}")})),
        })
        .collect();
    let results = unisono.engine().write_each(&Context::default(), writes).await;
    let sequences: Vec<_> =
        results.into_iter().map(|r| r.unwrap().accepted.unwrap().sequence).collect();
    assert_eq!(sequences, (1..=600).collect::<Vec<_>>());
    assert_eq!(get(&unisono, 1).await.value.as_deref(), Some("599"));
}

#[tokio::test(start_paused = true)]
async fn acknowledged_writes_are_not_forgotten_with_the_strategy() {
    let unisono = behind("forgotten", "").await;
    gate("forgotten").set_down(true);
    put(&unisono, 1, "a").await;
    kill(unisono).await;
    gate("forgotten").set_down(false);
    let plain = "[sources.forgotten_queue]\nkind = \"gated\"\n";
    let Err(error) = try_open("forgotten", plain).await else { panic!("nobody would flush") };
    assert_eq!((error.kind(), error.detail("pending")), (ErrorKind::InvalidConfig, Some("1")));
}

#[tokio::test(start_paused = true)]
async fn many_writers_are_kept_in_few_appends() {
    let unisono = behind("crowded", "").await;
    let all = (0..200).map(|id| put(&unisono, id, "a"));
    join_all(all).await;
    drained(&unisono).await;
    let context = strong();
    let entity = item(&unisono);
    let count = unisono.engine().count(&context, &entity, &Filter::All, None).await.unwrap();
    assert_eq!(count.value, 200);
    assert_eq!(gate("crowded").commits.lock().unwrap().iter().sum::<usize>(), 200);
    assert!(queue("crowded").appends.load(Ordering::SeqCst) < 20, "one durable step for many");
}
