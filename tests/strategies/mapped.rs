//! `cascade`, with a `map` for each step: a step that stops holds up those behind it, and goes on.

use serde_json::{Value as Json, json};
use unisono::engine::status::DeliveryState;

use crate::site::{SERVERS, Site, until};
use crate::{ids, order};

/// MariaDB, then MongoDB, then OpenSearch, then Redis.
const CASCADE: &str = r#"
strategy = "cascade"
[[entities.order.followers]]
source = "copy"
[[entities.order.followers]]
source = "docs"
map = { note = "record.country == 'de' ? 'withheld' : record.note", units = "record.units * 10" }
[[entities.order.followers]]
source = "find"
map = { amount = "null" }
[[entities.order.followers]]
source = "fast"
map = { units = "record.units + 1", kind = "record.kind == 'gift' ? null : record.kind" }
[[entities.order.read.rules]]
name = "mapped"
when = "'docs' in request.hints"
ask = ["docs"]
only = true
"#;

/// What each step keeps of an order.
fn kept(source: &str, id: &str, n: u64) -> Json {
    let mut record = order(id, n);
    if source == "copy" {
        return record;
    }
    if record["country"] == "de" {
        record["note"] = "withheld".into();
    }
    record["units"] = (n * 10).into();
    if source == "docs" {
        return record;
    }
    record["amount"] = Json::Null;
    if source == "find" {
        return record;
    }
    record["units"] = (n * 10 + 1).into();
    if record["kind"] == "gift" {
        record["kind"] = Json::Null;
    }
    record
}

const STEPS: [&str; 4] = ["copy", "docs", "find", "fast"];

async fn has(site: &Site, source: &str, id: &str, n: u64) -> bool {
    site.held(source, id).await == Some(kept(source, id, n))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_maps_step_by_step_stops_where_one_stops_and_goes_on() {
    let site = Site::open(&SERVERS, CASCADE).await;
    for (n, id) in ids(30).iter().enumerate() {
        site.put(&order(id, n as u64)).await;
    }
    site.agrees().await;
    for (n, id) in ids(30).iter().enumerate() {
        for source in STEPS {
            assert_eq!(site.held(source, id).await, Some(kept(source, id, n as u64)), "{source}");
        }
    }
    // Who asks for an order gets it as it is, unless a rule names a source that keeps it otherwise.
    let asked = site.read("o0001", &[]).await.unwrap();
    assert_eq!(asked, (Some(order("o0001", 1)), "main".into()));
    let asked = site.read("o0001", &["docs"]).await.unwrap();
    assert_eq!(asked, (Some(kept("docs", "o0001", 1)), "docs".into()));

    // The second step stops: the first goes on, and those behind stop as well.
    site.cut("docs", true);
    for (n, id) in ids(30).iter().enumerate() {
        site.put(&order(id, n as u64 + 100)).await;
    }
    until("the first step has all", async || has(&site, "copy", "o0029", 129).await).await;
    until("the second is known to wait", async || {
        site.delivery("docs").await.state == DeliveryState::Waiting
    })
    .await;
    for source in ["find", "fast"] {
        assert!(has(&site, source, "o0029", 29).await, "{source} has nothing that docs has not");
    }
    site.cut("docs", false);
    site.agrees().await;
    for source in STEPS {
        assert!(has(&site, source, "o0029", 129).await, "{source} goes on by itself");
    }
    site.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_fails_makes_a_dead_letter_for_its_step_and_those_behind_and_the_rest_goes_on() {
    let cascade = CASCADE
        .replace("record.units * 10", "record.units / (record.units - 7) * 0 + 10 * record.units");
    let site = Site::open(&SERVERS, &cascade).await;
    site.put(&order("seven", 3)).await;
    site.put(&order("seven", 7)).await;
    site.put(&order("nine", 9)).await;
    let letters = async || {
        let letters = site.engine.dead_letters().await.unwrap().into_iter();
        let mut told: Vec<_> = letters.map(|l| (l.source.to_string(), l.key, l.reason)).collect();
        told.sort();
        told
    };
    until("three dead letters", async || letters().await.len() == 3).await;
    site.settled().await;
    let told = letters().await;
    let of: Vec<_> = told.iter().map(|(source, key, _)| (source.as_str(), key.as_str())).collect();
    assert_eq!(of, [("docs", "seven"), ("fast", "seven"), ("find", "seven")]);
    assert!(told[0].2.contains("`map` gives no value that the field takes: it is required"));
    assert!(told[0].2.contains("field=units"), "{told:?}");
    assert!(told[1].2.contains("after=find") && told[2].2.contains("after=docs"), "{told:?}");
    assert!(has(&site, "copy", "seven", 7).await, "before the step it is there");
    for source in STEPS {
        assert!(has(&site, source, "nine", 9).await, "{source}: others go on");
    }
    site.put(&order("seven", 8)).await;
    until("no dead letters", async || letters().await.is_empty()).await;
    site.agrees().await;
    for source in STEPS {
        assert!(has(&site, source, "seven", 8).await, "{source}");
    }
    assert_eq!(json!(81), site.held("fast", "seven").await.unwrap()["units"]);
    site.end().await;
}
