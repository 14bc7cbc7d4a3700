//! In which order, and in how large batches: `priority`, `batch`.

use crate::site::{SERVERS, Site, until};
use crate::{FOLLOWERS, ids, order};

#[tokio::test(flavor = "multi_thread")]
async fn under_a_backlog_the_more_urgent_follower_has_everything_first() {
    // The slowest engine is the most urgent, so that it is not first by itself.
    let batch = "batch = { size = 10 }";
    let followers = ["find", "docs", "copy", "fast"]
        .map(|source| format!("[[entities.order.followers]]\nsource = \"{source}\"\n{batch}\n"));
    let entity = format!("strategy = \"priority\"\n{}", followers.concat());
    let site = Site::open(&SERVERS, &entity).await;
    site.settled().await;
    let told = &site.engine.status().await.entities[0].followers;
    assert_eq!(
        told[0], "find: priority 4, batches of 10",
        "as urgent as it stands first: {told:?}"
    );
    for source in ["find", "docs", "copy", "fast"] {
        site.engine.pause_source(source).await.unwrap();
    }
    for (n, id) in ids(300).iter().enumerate() {
        site.put(&order(id, n as u64)).await;
    }
    let head = site.head().await;
    for source in ["fast", "copy", "docs", "find"] {
        site.engine.resume_source(source).await.unwrap();
    }
    until("the most urgent has everything", async || site.delivery("find").await.position >= head)
        .await;
    let last = site.delivery("fast").await;
    assert!(last.position < head, "the least urgent has waited: {last:?}");
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gathers_comes_in_few_batches() {
    let site = Site::open(&SERVERS, &format!("strategy = \"batch\"\n{FOLLOWERS}")).await;
    site.settled().await;
    let sources = ["fast", "find", "docs", "copy"];
    let mut before = Vec::new();
    for source in sources {
        before.push(site.delivery(source).await.batches);
    }
    let writes = ids(100);
    let all = writes.iter().enumerate().map(|(n, id)| {
        let record = order(id, n as u64);
        let site = &site;
        async move { site.put(&record).await }
    });
    futures::future::join_all(all).await;
    site.settled().await;
    for (source, before) in sources.into_iter().zip(before) {
        let batches = site.delivery(source).await.batches - before;
        assert!((1..=10).contains(&batches), "{source}: {batches} batches for 100 writes");
        assert_eq!(site.holds(source, &writes).await, 100, "{source}");
    }
    site.end().await;
}
