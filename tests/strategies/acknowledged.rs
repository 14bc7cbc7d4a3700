//! When a writer is answered: `best_effort`, `async_queue`, `parallel`, `star`, `quorum`.

use unisono::core::{Ack, Effect, ErrorKind};
use unisono::engine::status::DeliveryState;

use crate::site::{SERVERS, Site, until};
use crate::{FOLLOWERS, ids, order};

/// The followers.
const ALL: [&str; 4] = ["fast", "find", "docs", "copy"];

async fn site(entity: &str) -> Site {
    let site = Site::open(&SERVERS, &format!("{entity}\n{FOLLOWERS}")).await;
    // First copies are under way at the start.
    site.settled().await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn best_effort_answers_whatever_the_followers_do() {
    let site = site("strategy = \"best_effort\"").await;
    site.cut("find", true);
    for (n, id) in ids(40).iter().enumerate() {
        let written = site.put(&order(id, n as u64)).await;
        assert!(written.acknowledged.get("order").is_none_or(Ack::is_truth), "{written:?}");
    }
    until("the others have all of it", async || {
        let mut all = true;
        for source in ["fast", "docs", "copy"] {
            all &= site.holds(source, &ids(40)).await == 40;
        }
        all
    })
    .await;
    assert!(site.holds("find", &ids(40)).await < 40, "its line is cut");
    until("it is told that it waits", async || {
        site.delivery("find").await.state == DeliveryState::Waiting
    })
    .await;
    site.cut("find", false);
    site.settled().await;
    assert_eq!(site.holds("find", &ids(40)).await, 40, "without anybody's doing");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_queue_is_worked_through_in_batches_of_a_bound() {
    let site = site("strategy = \"async_queue\"").await;
    for source in ALL {
        site.engine.pause_source(source).await.unwrap();
    }
    for (n, id) in ids(1200).iter().enumerate() {
        site.put(&order(id, n as u64)).await;
    }
    for source in ALL {
        assert_eq!(site.holds(source, &ids(1200)).await, 0, "{source}: all of it waits in the log");
    }
    let mut before = Vec::new();
    for source in ALL {
        before.push(site.delivery(source).await.batches);
        site.engine.resume_source(source).await.unwrap();
    }
    site.settled().await;
    for (source, before) in ALL.into_iter().zip(before) {
        let batches = site.delivery(source).await.batches - before;
        assert!(batches >= 3, "{source}: {batches} batches of at most 500 for 1200 changes");
        assert_eq!(site.holds(source, &ids(1200)).await, 1200, "{source}");
    }
    site.end().await;
}

/// Whoever is answered can ask any source.
async fn has_all_at_once(site: &Site) {
    for (n, id) in ids(20).iter().enumerate() {
        let written = site.put(&order(id, n as u64)).await;
        assert_eq!(written.acknowledged.get("order"), Some(&Ack::All));
        for source in ALL {
            assert_eq!(site.held(source, id).await, Some(order(id, n as u64)), "{source} {id}");
        }
    }
    for source in ALL {
        assert_eq!(site.delivery(source).await.state, DeliveryState::Live);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_replication_answers_when_every_follower_has_it() {
    let site = site("strategy = \"parallel\"\nack_timeout = \"4s\"").await;
    has_all_at_once(&site).await;
    site.cut("docs", true);
    let error = site.put_with(None, &order("late", 7)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect_on_data()),
        (ErrorKind::QuorumNotReached, Effect::Committed)
    );
    assert_eq!(error.detail("pending"), Some("docs"), "{error}");
    let has = error.detail("acknowledged").unwrap();
    assert!(["main", "fast", "find", "copy"].iter().all(|s| has.contains(s)), "{error}");
    assert_eq!(site.held("docs", "late").await, None);
    site.cut("docs", false);
    site.settled().await;
    assert_eq!(site.held("docs", "late").await, Some(order("late", 7)), "completed by the log");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_has_the_truth_in_its_middle_and_no_follower_waits_for_another() {
    let site = site("strategy = \"star\"").await;
    has_all_at_once(&site).await;
    let status = site.engine.status().await.entities.remove(0);
    assert_eq!((status.strategy, status.followers), (Some("star"), Vec::new()));
    for cut in ALL {
        site.cut(cut, true);
        let (id, others) = (format!("without-{cut}"), ALL.into_iter().filter(|s| *s != cut));
        let others: Vec<_> = others.map(Into::into).collect();
        let written = site.put_with(Some(Ack::Named(others)), &order(&id, 1)).await;
        written.unwrap_or_else(|e| panic!("the others do not need {cut}: {e}"));
        site.cut(cut, false);
        site.settled().await;
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_is_reached_without_a_minority_and_said_not_to_be_without_a_majority() {
    let site = site("strategy = \"quorum\"\nack_timeout = \"2s\"").await;
    assert_eq!(site.engine.status().await.entities[0].ack, "3");
    for source in ["fast", "find"] {
        site.cut(source, true);
    }
    for (n, id) in ids(20).iter().enumerate() {
        site.put(&order(id, n as u64)).await;
        for source in ["docs", "copy"] {
            assert!(site.held(source, id).await.is_some(), "{source}: three of five have it");
        }
    }
    site.cut("docs", true);
    let error = site.put_with(None, &order("few", 1)).await.unwrap_err();
    // What a caller over HTTP is answered with 503.
    assert_eq!(
        (error.kind(), error.effect_on_data()),
        (ErrorKind::QuorumNotReached, Effect::Committed),
        "{error}"
    );
    assert_eq!(error.detail("acknowledged"), Some("main, copy"), "{error}");
    assert_eq!(error.detail("pending"), Some("docs, fast, find"), "{error}");
    assert!(site.held("main", "few").await.is_some(), "the truth has it");

    // When it is certain that too few could have it, nothing is written.
    let mut written = 0;
    until("a refusal beforehand", async || {
        let id = format!("refused{written}");
        written += 1;
        let error = site.put_with(None, &order(&id, 1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QuorumNotReached, "{error}");
        let is_before = error.effect_on_data() == Effect::None;
        assert_eq!(site.held("main", &id).await.is_none(), is_before, "{error}");
        is_before
    })
    .await;
    for source in ["fast", "find", "docs"] {
        site.cut(source, false);
    }
    site.settled().await;
    for source in ALL {
        assert!(site.held(source, "few").await.is_some(), "{source}: completed by the log");
    }
    site.put(&order("again", 1)).await;
    site.end().await;
}
