//! The journal that several processes share, on the real server.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::journal::{Journal, Mark, NewEntry, SharedJournal};
use unisono_core::{Effect, ErrorKind, Role, Timestamp};
use unisono_testkit::Sample;

use crate::common::{Server, ask, at, binding, engine, impatient, open, until};

const SPACE: &str = "product";
/// A server that keeps what it has acknowledged.
const SYNCED: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn entry(body: &str) -> NewEntry {
    NewEntry { body: body.into(), idempotency: None, time: Timestamp::EPOCH }
}

/// Two processes over one journal.
async fn two() -> [(Arc<dyn Journal>, Arc<dyn SharedJournal>); 2] {
    let options = engine("source.toml");
    let mut all = Vec::new();
    for _ in 0..2 {
        let source = open(&options).await.unwrap();
        source.prepare(&[binding(&Sample::product(), Role::Journal, &[])]).await.unwrap();
        let journal = source.journal().unwrap();
        journal.begin(SPACE).await.unwrap();
        let shared = Arc::clone(&journal).shared().unwrap();
        all.push((journal, shared));
    }
    all.try_into().unwrap_or_else(|_| unreachable!("two were opened"))
}

async fn keep(journal: &Arc<dyn Journal>, bodies: &[&str]) -> Vec<u64> {
    let entries = bodies.iter().map(|body| entry(body)).collect();
    let kept = journal.append(SPACE, entries).await.unwrap();
    kept.into_iter().map(|kept| kept.unwrap().sequence).collect()
}

#[tokio::test]
async fn each_process_hears_what_the_others_keep_and_let_go_of() {
    let [(one, _), (_, other)] = two().await;
    let first = keep(&one, &["a", "b"]).await;
    let news = other.news(SPACE, &Mark::default(), 10).await.unwrap();
    let bodies = |news: &unisono_core::journal::News| {
        news.entries.iter().map(|e| e.body.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (bodies(&news), news.removed.len(), news.is_all),
        (vec!["a".into(), "b".into()], 0, true)
    );
    assert_eq!(news.mark.sequence, first[1]);

    one.remove(SPACE, &first, Timestamp::EPOCH).await.unwrap();
    let second = keep(&one, &["c"]).await;
    // It is gone before anybody has heard of it.
    one.remove(SPACE, &second, Timestamp::EPOCH).await.unwrap();
    keep(&one, &["d"]).await;
    let later = other.news(SPACE, &news.mark, 10).await.unwrap();
    assert_eq!((bodies(&later), later.is_all), (vec!["d".into()], true));
    assert_eq!(later.removed, [first, second].concat());
    let nothing = other.news(SPACE, &later.mark, 10).await.unwrap();
    assert_eq!((nothing.entries.len(), nothing.removed.len(), &nothing.mark), (0, 0, &later.mark));
    let all = other.news(SPACE, &Mark::default(), 0).await.unwrap();
    assert_eq!((all.entries.len(), all.mark.sequence, all.is_all), (0, 0, false));
    assert_eq!(all.mark.removal, later.mark.removal, "the removals of before are left out");
}

#[tokio::test]
async fn news_come_in_pages_without_a_gap() {
    let [(one, _), (_, other)] = two().await;
    let bodies: Vec<_> = (0..25).map(|n| n.to_string()).collect();
    keep(&one, &bodies.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (mut mark, mut heard) = (Mark::default(), Vec::new());
    loop {
        let news = other.news(SPACE, &mark, 10).await.unwrap();
        heard.extend(news.entries.into_iter().map(|e| e.body));
        mark = news.mark;
        if news.is_all {
            break;
        }
    }
    assert_eq!(heard, bodies);
}

#[tokio::test]
async fn one_process_flushes_at_a_time() {
    let [(_, one), (_, other)] = two().await;
    let long = Duration::from_secs(60);
    let tenure = one.claim(SPACE, long).await.unwrap();
    assert!(tenure.is_some());
    assert_eq!(other.claim(SPACE, long).await.unwrap(), None);
    assert_eq!(one.claim(SPACE, Duration::from_millis(50)).await.unwrap(), tenure, "it keeps it");
    let taken = || async { other.claim(SPACE, long).await.unwrap().is_some() };
    until("the claim has ended by itself", taken).await;
    assert_eq!(one.claim(SPACE, long).await.unwrap(), None);
    one.release(SPACE).await.unwrap();
    assert_eq!(one.claim(SPACE, long).await.unwrap(), None, "it had nothing to let go of");
    other.release(SPACE).await.unwrap();
    let again = one.claim(SPACE, long).await.unwrap();
    assert!(again > tenure, "{again:?} is another tenure than {tenure:?}");
}

/// The journal of a server of the test's own.
async fn alone(server: &Server) -> Arc<dyn Journal> {
    let source = open(&impatient(at(&server.url()))).await.unwrap();
    source.prepare(&[binding(&Sample::product(), Role::Journal, &[])]).await.unwrap();
    let journal = source.journal().unwrap();
    journal.begin(SPACE).await.unwrap();
    journal
}

async fn kept(journal: &Arc<dyn Journal>) -> Vec<String> {
    let entries = journal.read(SPACE, 0, 1000).await.unwrap();
    entries.into_iter().map(|entry| entry.body).collect()
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_end_of_the_server() {
    let mut server = Server::start(&SYNCED).await;
    let mut last = 0;
    for round in 0..5 {
        let journal = alone(&server).await;
        for n in 0..20 {
            let [sequence] = keep(&journal, &[&format!("{round}/{n}")]).await[..] else { panic!() };
            assert!(sequence > last, "{sequence} after {last}");
            last = sequence;
        }
        server.kill();
        server.again().await;
    }
    let journal = alone(&server).await;
    assert_eq!(kept(&journal).await.len(), 100);
    journal
        .remove(SPACE, &(0..=last).rev().take(100).collect::<Vec<_>>(), Timestamp::EPOCH)
        .await
        .unwrap();
    assert!(keep(&journal, &["again"]).await[0] > last);
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_kept_now_or_never() {
    let server = Server::start(&SYNCED).await;
    let journal = alone(&server).await;
    keep(&journal, &["a"]).await;
    // The server stands still for longer than is waited; the batch lies before it.
    server.signal("STOP");
    let error = journal.append(SPACE, vec![entry("b")]).await.unwrap_err();
    assert_eq!(error.effect_on_data(), Effect::Unknown, "{error}");
    server.signal("CONT");
    let answers = || async { journal.read(SPACE, 0, 10).await.is_ok() };
    until("the server answers", answers).await;
    let seen = kept(&journal).await;
    let mut plain = server.client().await;
    let given_up: Vec<String> = ask(&mut plain, &[b"KEYS", b"*given_up*"]).await;
    let [given_up] = &given_up[..] else { panic!("{given_up:?}") };
    keep(&journal, &["c"]).await;
    assert_eq!(
        kept(&journal).await,
        [seen.clone(), vec!["c".into()]].concat(),
        "it stays as it was seen"
    );
    // A batch that arrives after it was given up.
    let () = ask(&mut plain, &[b"SET", given_up.as_bytes(), b"1000"]).await;
    journal.append(SPACE, vec![entry("late")]).await.unwrap_err();
    assert_eq!(kept(&journal).await, [seen, vec!["c".into()]].concat());
}

#[tokio::test]
async fn a_server_that_forgets_is_no_journal() {
    for forgetful in
        [&["--appendonly", "no"][..], &["--appendonly", "yes", "--appendfsync", "everysec"]]
    {
        let server = Server::start(forgetful).await;
        let source = open(&at(&server.url())).await.unwrap();
        let bound = binding(&Sample::product(), Role::Journal, &[]);
        let error = source.prepare(&[bound]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.hint_text().unwrap().contains("appendfsync always"), "{error}");
    }
}
