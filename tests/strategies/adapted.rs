//! `adaptive`: a writer waits for as much as the followers can afford, down and up again.

use std::time::Duration;

use unisono::core::Ack;
use unisono::engine::status::AdaptiveStatus;

use crate::order;
use crate::site::{SERVERS, Site, until};

/// On a machine on which others compile a healthy follower may take long, too: one that does not is far beyond that.
const ADAPTIVE: &str = "strategy = \"adaptive\"\nack_timeout = \"60s\"\n\
    adaptive = { latency = \"2s\", lag = \"30s\", dwell = \"1s\" }\n\
    followers = [{ source = \"fast\" }, { source = \"docs\" }, { source = \"copy\" }]\n";

async fn status(site: &Site) -> AdaptiveStatus {
    site.engine.status().await.entities.remove(0).adaptive.unwrap()
}

/// Writes until a level is come to.
async fn comes_to(site: &Site, level: &str) -> AdaptiveStatus {
    let mut n = 0;
    until(level, async || {
        n += 1;
        site.put(&order(&format!("o{}", n % 20), n)).await;
        status(site).await.level == level
    })
    .await;
    status(site).await
}

async fn waits_for(site: &Site) -> Ack {
    let written = site.put(&order("asked", 1)).await;
    written.acknowledged.get("order").cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_makes_it_demand_less_and_more_again_when_it_is_quick() {
    let site = Site::open(&SERVERS, ADAPTIVE).await;
    site.settled().await;
    assert_eq!(status(&site).await.level, "truth", "nothing is measured yet");
    comes_to(&site, "all").await;
    assert_eq!(waits_for(&site).await, Ack::All);
    // One slow follower is not waited for any more.
    site.delay("docs", Duration::from_secs(5));
    let told = comes_to(&site, "quorum").await;
    assert!(told.why.starts_with("docs "), "{}", told.why);
    assert_eq!(waits_for(&site).await, Ack::Count(3), "the truth and the two others");
    // Of two slow ones neither is.
    site.delay("copy", Duration::from_secs(5));
    comes_to(&site, "truth").await;
    assert!(waits_for(&site).await.is_truth());
    for source in ["docs", "copy"] {
        site.delay(source, Duration::ZERO);
    }
    let told = comes_to(&site, "all").await;
    let moves: Vec<_> = told.moves.iter().map(|made| made.to).collect();
    assert!(moves.ends_with(&["quorum", "all"]), "level by level: {moves:?}");
    let down = moves.windows(2).any(|two| two == ["all", "quorum"]);
    assert!(down && moves.contains(&"truth"), "{moves:?}");
    site.end().await;
}
