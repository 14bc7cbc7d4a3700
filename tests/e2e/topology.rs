//! `unisono source` against a running server: its configuration file and what runs are one, also after `kill -9`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::program::{Place, client};

const CONFIGURATION: &str = r#"# The shop.
[sources.main]
kind = "sqlite" # decides
path = "main.db"

[entities.product]
key = "id"
truth = "main"
[entities.product.fields]
id = "string"
name = { type = "string", search = true, required = true }
price = "integer"
"#;

const FURTHER: &str = r#"# For the search page.
[sources.search]
kind = "tantivy"
path = "search"

[[entities.product.followers]]
source = "search"

[sources.cheap]
kind = "files"
path = "cheap"

[[entities.product.followers]]
source = "cheap"
where = "record.price < 50"
"#;

fn fill(place: &Place, records: u64) {
    let line = |n: u64| {
        json!({ "id": n.to_string(), "name": format!("n{n}"), "price": n % 100 }).to_string()
    };
    let lines: Vec<String> = (0..records).map(line).collect();
    std::fs::write(place.folder.path().join("all.jsonl"), lines.join("\n")).expect("written");
    let output = place.run(&["import", "product", "all.jsonl", "--data", "data"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn sources_are_added_paused_and_removed_by_the_command_line() {
    let place = Place::new(CONFIGURATION);
    fill(&place, 1_000);
    std::fs::write(place.folder.path().join("more.toml"), FURTHER).expect("written");
    let server = place.serve();
    let planned = place.done(&server, &["source", "add", "more.toml", "--dry-run"]);
    assert!(planned.contains("+ follower search of product"), "{planned}");
    assert_eq!(place.text(), CONFIGURATION, "a plan changes nothing");
    assert!(place.deliveries(&server).is_empty());

    let said = place.done(&server, &["source", "add", "more.toml"]);
    assert!(said.contains("+ follower search of product (copies about 1,000 records)"), "{said}");
    assert_eq!(place.text(), format!("{CONFIGURATION}\n{FURTHER}"));
    place.agree(&server, 2);

    let said = place.done(&server, &["source", "pause", "search"]);
    assert!(said.starts_with("search: paused since 2"), "{said}");
    let (refused, done) = place.tell(&server, &["source", "pause", "main"]);
    assert!(!done && refused.contains("nothing could be written"), "{refused}");
    server.kill();
    let server = place.serve();
    let listed = place.done(&server, &["source", "list"]);
    assert!(
        listed.contains("follower of product") && listed.contains("paused since 2"),
        "{listed}"
    );
    place.done(&server, &["source", "resume", "search"]);
    place.agree(&server, 2);

    let (refused, done) = place.tell(&server, &["source", "remove", "main"]);
    assert!(!done && refused.contains("only a follower can be removed so"), "{refused}");
    place.done(&server, &["source", "remove", "search"]);
    assert!(!place.text().contains("search page") && place.text().contains("# decides"));
    place.agree(&server, 1);
    let folder = place.folder.path().join("data/search/product");
    assert!(folder.exists(), "what it holds stays as it is");
}

#[test]
fn what_the_server_cannot_take_in_stays_out_of_the_file() {
    let place = Place::new(CONFIGURATION);
    fill(&place, 10);
    std::fs::write(place.folder.path().join("data/taken"), "not a folder").expect("written");
    let bad = FURTHER.replace("path = \"cheap\"", "path = \"taken\"");
    std::fs::write(place.folder.path().join("more.toml"), bad).expect("written");
    let server = place.serve();
    let (said, done) = place.tell(&server, &["source", "add", "more.toml"]);
    assert!(!done && said.contains("cheap"), "{said}");
    assert_eq!(place.text(), CONFIGURATION);
    assert!(place.deliveries(&server).is_empty());
    let without_url = place.run(&["source", "add", "more.toml", "--data", "data"]);
    let said = String::from_utf8_lossy(&without_url.stderr).into_owned();
    assert!(!without_url.status.success() && said.contains("--url"), "{said}");
    assert_eq!(place.text(), CONFIGURATION, "a running server must be told");
    drop(server);
    let offline = place.run(&["source", "add", "more.toml", "--data", "data"]);
    assert!(offline.status.success(), "{offline:?}");
    assert!(place.text().contains("taken"));
}

/// A follower is added while a client writes, and the server is killed while it copies: nothing acknowledged is missing.
#[test]
fn a_server_that_is_killed_while_a_follower_is_copied_goes_on() {
    let place = Place::new(CONFIGURATION);
    fill(&place, 20_000);
    std::fs::write(place.folder.path().join("more.toml"), FURTHER).expect("written");
    let server = place.serve();
    let (ended, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let base = server.base.clone();
    let writing = async || {
        let client = client();
        while !ended.load(Ordering::SeqCst) {
            let n = written.load(Ordering::SeqCst);
            let record = json!({ "name": format!("late{n}"), "price": n % 100 });
            let url = format!("{base}/v1/product/late{n}");
            let body = client.put(url).header("content-type", "application/json");
            let Ok(answer) = body.body(record.to_string()).send().await else { continue };
            assert!(answer.status().is_success(), "{}", answer.status());
            written.store(n + 1, Ordering::SeqCst);
        }
    };
    std::thread::scope(|scope| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        scope.spawn(move || runtime.block_on(writing()));
        place.done(&server, &["source", "add", "more.toml"]);
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_copied = |d: &Json| d["copied"].as_u64().unwrap_or(0) > 0;
        while !place.deliveries(&server).iter().any(is_copied) {
            assert!(Instant::now() < deadline, "no copy begins");
        }
        let before = written.load(Ordering::SeqCst);
        while written.load(Ordering::SeqCst) < before + 5 {
            assert!(Instant::now() < deadline, "no write gets through");
            std::thread::yield_now();
        }
        server.kill();
        ended.store(true, Ordering::SeqCst);
    });
    let server = place.serve();
    place.agree(&server, 2);
    let last = written.load(Ordering::SeqCst) - 1;
    let found = place.done(&server, &["get", "product", &format!("late{last}")]);
    assert!(found.contains(&format!("late{last}")), "{found}");
}
