//! Several processes of Unisono over one truth, of which one dies, or stands still, between two steps of sequencing.

use std::sync::Arc;

use serde_json::json;
use unisono_core::Operation::Put;
use unisono_core::source::Source;

use crate::common::{background, column, until};
use crate::site::{Site, truth};
use crate::stepper::{Fate, Stepper};

/// As if the lease of whoever has it were over.
const LEASE_ENDS: &str = "UPDATE unisono_sequencer SET until = '-infinity'";

/// A process that dies when its stepper says so.
async fn mortal(site: &Site) -> (Stepper, Arc<dyn Source>) {
    let stepper = Stepper::start(5541).await;
    let url = site.db.url.replace(":5541/", &format!(":{}/", stepper.port));
    let source = site.second_at(&url).await;
    truth(&source).bounds().await.unwrap();
    (stepper, source)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequencer_that_dies_between_any_two_steps_leaves_a_whole_log() {
    let site = Site::new("").await;
    let mut written = 0;
    for fate in [Fate::DiesBefore, Fate::DiesAfter] {
        for step in 0.. {
            let (stepper, source) = mortal(&site).await;
            written += 1;
            site.run(&format!(
                "{LEASE_ENDS}; INSERT INTO thing VALUES ('n{written}', NULL, {written}); \
                 UPDATE thing SET v = v + 1 WHERE id IN ('n{written}', 'n1'); DELETE FROM thing WHERE id = 'n{}'",
                written - 2
            ))
            .await;
            stepper.set(fate(step));
            let _ = truth(&source).bounds().await;
            let (died, steps) = (stepper.is_dead(), stepper.steps());
            site.run(LEASE_ENDS).await;
            site.assert_log_tells_all().await;
            if !died {
                assert!(steps > 6, "the sequencer had something to do: {steps} steps");
                break;
            }
        }
    }
    assert!(written > 12, "it died {written} times");
    assert_eq!(site.db.see("SELECT count(*) FROM unisono_intake").await, ["0"]);
    site.db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequencer_that_stood_still_is_replaced_and_does_no_harm_when_it_goes_on() {
    let site = Site::new("").await;
    // With the head row held, and nothing of what it has worked out written.
    for step in [4, 8] {
        let (stepper, source) = mortal(&site).await;
        site.run(&format!("{LEASE_ENDS}; INSERT INTO thing VALUES ('s{step}', NULL, 1)")).await;
        stepper.set(Fate::StandsStill(step));
        let paused = truth(&source);
        let paused = background(async move { paused.bounds().await });
        until("it stands still", async || (stepper.steps() > step).then_some(())).await;
        let epoch = site.db.see("SELECT epoch FROM unisono_sequencer").await;
        site.run(&format!("UPDATE thing SET v = 2 WHERE id = 's{step}'")).await;
        // The server ends its transaction; the second process takes over.
        until("the other sequencer takes over", async || {
            (site.told_of(&format!("s{step}")).await == [(Put, Some(2))]).then_some(())
        })
        .await;
        let own = site.commit(vec![site.put(json!({"id": "own", "v": step}))]).await.unwrap();
        assert_ne!(site.db.see("SELECT epoch FROM unisono_sequencer").await, epoch);
        stepper.set(Fate::None);
        let seen = paused.await.unwrap();
        assert!(seen.is_err() || seen.is_ok_and(|b| b.head >= own.changes[0].position));
        site.assert_log_tells_all().await;
        // It is of use again.
        site.run(&format!("{LEASE_ENDS}; UPDATE thing SET v = 3 WHERE id = 's{step}'")).await;
        until("it has connected anew", async || truth(&source).bounds().await.ok()).await;
        site.assert_log_tells_all().await;
    }
    site.db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_holder_of_the_lease_follows_the_intake() {
    let site = Site::new("").await;
    let second = site.second().await;
    site.run("INSERT INTO thing VALUES ('a', NULL, 1)").await;
    let head = site.bounds().await.head;
    let holder = site.db.see("SELECT holder FROM unisono_sequencer").await;
    site.run("UPDATE unisono_sequencer SET until = 'infinity'; UPDATE thing SET v = 2").await;
    assert_eq!(truth(&second).bounds().await.unwrap().head, head, "the other has the lease");
    let other = site.other().await;
    assert_eq!(column(&other, "SELECT count(*) FROM unisono_intake").await, ["1"]);
    site.run(LEASE_ENDS).await;
    assert_eq!(truth(&second).bounds().await.unwrap().head, head.next());
    assert_ne!(site.db.see("SELECT holder FROM unisono_sequencer").await, holder);
    site.assert_log_tells_all().await;
    site.db.drop().await;
}
