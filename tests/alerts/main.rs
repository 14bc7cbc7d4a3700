//! Every alert of `ops/alerts.yml`, raised: the real program, a condition made from outside, and a real Prometheus that
//! reads its metrics and evaluates the shipped rules. Only how long a condition must last is scaled down.
#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and runs in real time"
)]
#![expect(dead_code, reason = "the program is shared with the end-to-end tests")]

#[path = "../e2e/program.rs"]
mod program;
mod prometheus;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use program::{Place, Server, client, free_port};
use prometheus::Prometheus;
use rusqlite::Connection;
use serde_json::json;

const CONFIGURATION: &str = r#"
[log]
changes_max = 1000

[sources.main]
kind = "sqlite"
path = "main.db"

[sources.journal]
kind = "sqlite"
path = "journal.db"

[sources.copy]
kind = "sqlite"
path = "copy.db"

[sources.archive]
kind = "files"
path = "archive"

[entities.product]
key = "id"
truth = "main"
[entities.product.fields]
id = "string"
name = "string"
[[entities.product.followers]]
source = "copy"
[[entities.product.followers]]
source = "archive"

[entities.coupon]
key = "id"
truth = "main"
[entities.coupon.fields]
id = "string"
code = { type = "string", unique = true }
[entities.coupon.write]
strategy = "write_behind"
journal = "journal"
"#;

/// What the shipped rules say, and what is said here instead, so that nobody waits for minutes.
const SCALED: &[(&str, &str)] = &[
    ("unisono_delivery_lag_seconds > 60", "unisono_delivery_lag_seconds > 1"),
    ("unisono_delivery_stalled_seconds > 60", "unisono_delivery_stalled_seconds > 1"),
];

/// The server, Prometheus, and what was raised so far.
struct Stage {
    place: Place,
    port: u16,
    server: Option<Server>,
    prometheus: Prometheus,
    raised: BTreeSet<String>,
}

impl Stage {
    fn new() -> Self {
        let place = Place::new(CONFIGURATION);
        let port = free_port();
        let server = Some(place.serve_at(port));
        let prometheus = Prometheus::start(place.folder.path(), &scaled(&shipped()), port);
        Stage { place, port, server, prometheus, raised: BTreeSet::new() }
    }

    fn data(&self, file: &str) -> PathBuf {
        self.place.folder.path().join("data").join(file)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Runs a command against the server; whether it succeeds is the caller's matter.
    fn command(&self, arguments: &[&str]) -> bool {
        let url = self.url("");
        let output = self.place.run(&[arguments, &["--url", &url]].concat());
        output.status.success()
    }

    fn import(&self, entity: &str, records: impl Iterator<Item = serde_json::Value>) {
        let lines: String = records.map(|record| format!("{record}\n")).collect();
        fs::write(self.place.folder.path().join("records.jsonl"), lines).expect("a file");
        assert!(self.command(&["import", entity, "records.jsonl"]), "the import fails");
    }

    /// Waits until an alert with these labels fires, and counts it as raised.
    async fn fires(&mut self, alert: &str, labels: &[(&str, &str)]) {
        self.prometheus.until(alert, |found| found.iter().any(|a| a.is(alert, labels))).await;
        self.raised.insert(alert.to_owned());
    }

    /// Waits until no alert of this name is left.
    async fn ends(&mut self, alert: &str) {
        self.prometheus.until(alert, |found| !found.iter().any(|a| a.is(alert, &[]))).await;
    }
}

#[tokio::test]
async fn each_alert_is_raised_by_what_it_is_for_and_by_nothing_else() {
    let mut stage = Stage::new();
    let product = |n: usize| json!({ "id": format!("p{n}"), "name": format!("ice {n}") });
    stage.import("product", (0..5).map(product));
    stage.prometheus.is_quiet().await;
    let old = stage.data("old.db");
    let main = Connection::open(stage.data("main.db")).expect("the truth opens");
    main.execute("VACUUM INTO ?1", [old.to_string_lossy()]).expect("a copy is made");
    drop(main);

    a_source_that_is_down(&mut stage).await;
    a_record_that_is_refused(&mut stage).await;
    a_record_that_was_changed(&mut stage).await;
    an_acknowledged_write_that_is_refused(&mut stage).await;
    a_follower_that_takes_nothing_in(&mut stage).await;
    an_older_copy_of_the_truth(&mut stage, &old).await;

    let declared: BTreeSet<String> = names(&shipped());
    assert_eq!(stage.raised, declared, "every alert that is shipped was raised");
}

async fn a_source_that_is_down(stage: &mut Stage) {
    let (folder, aside) = (stage.data("archive"), stage.data("aside"));
    fs::rename(&folder, &aside).expect("the folder is moved");
    // As a mount that is gone: nothing can be read there, and nothing made.
    std::os::unix::fs::symlink(&folder, &folder).expect("a link");
    stage.fires("UnisonoSourceDown", &[("source", "archive")]).await;
    fs::remove_file(&folder).expect("the link is removed");
    fs::rename(&aside, &folder).expect("the folder is moved back");
    stage.ends("UnisonoSourceDown").await;
}

async fn a_record_that_is_refused(stage: &mut Stage) {
    let copy = Connection::open(stage.data("copy.db")).expect("the follower opens");
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON product WHEN NEW.id = 'bad' \
                   BEGIN SELECT RAISE(ABORT, 'not here'); END";
    copy.execute_batch(trigger).expect("the trigger is made");
    stage.import("product", [json!({ "id": "bad", "name": "worse" })].into_iter());
    stage.fires("UnisonoDeadLetters", &[("source", "copy"), ("entity", "product")]).await;
    copy.execute_batch("DROP TRIGGER refuse").expect("the trigger is removed");
    assert!(stage.command(&["dead-letters", "replay"]), "the replay fails");
    stage.ends("UnisonoDeadLetters").await;
}

async fn a_record_that_was_changed(stage: &mut Stage) {
    let copy = Connection::open(stage.data("copy.db")).expect("the follower opens");
    let damaged = copy.execute("UPDATE product SET name = 'other' WHERE id = 'p1'", []);
    assert_eq!(damaged, Ok(1));
    assert!(!stage.command(&["verify", "--deep"]), "the comparison finds it");
    stage.fires("UnisonoDivergence", &[("source", "copy"), ("entity", "product")]).await;
    assert!(stage.command(&["repair", "--deep", "--yes"]), "the repair fails");
    assert!(stage.command(&["verify", "--deep"]), "it agrees after the repair");
    stage.ends("UnisonoDivergence").await;
}

async fn an_acknowledged_write_that_is_refused(stage: &mut Stage) {
    let client = client();
    for id in ["c1", "c2"] {
        let url = stage.url(&format!("/v1/coupon/{id}"));
        let answer = client.put(url).json(&json!({ "code": "SAME" })).send().await;
        assert_eq!(answer.expect("an answer").status().as_u16(), 202);
    }
    stage.fires("UnisonoWriteRefused", &[("source", "journal"), ("entity", "coupon")]).await;
}

async fn a_follower_that_takes_nothing_in(stage: &mut Stage) {
    let copy = Connection::open(stage.data("copy.db")).expect("the follower opens");
    copy.busy_timeout(std::time::Duration::from_secs(5)).expect("it waits for the lock");
    copy.execute_batch("BEGIN IMMEDIATE").expect("the lock is had");
    stage.import("product", (0..700).map(|n| json!({ "id": format!("q{n}"), "name": "more" })));
    let labels = [("source", "copy"), ("entity", "product")];
    for alert in ["UnisonoLag", "UnisonoNoProgress", "UnisonoLogHeld"] {
        stage.fires(alert, &labels).await;
    }
    copy.execute_batch("COMMIT").expect("the lock is given up");
    for alert in ["UnisonoLag", "UnisonoNoProgress", "UnisonoLogHeld"] {
        stage.ends(alert).await;
    }
}

async fn an_older_copy_of_the_truth(stage: &mut Stage, old: &Path) {
    stage.server.take().expect("it runs").kill();
    stage.fires("UnisonoDown", &[("job", "unisono")]).await;
    for file in ["main.db-wal", "main.db-shm"] {
        // There is none if everything was carried into the database.
        let _ = fs::remove_file(stage.data(file));
    }
    fs::copy(old, stage.data("main.db")).expect("the older copy takes its place");
    stage.server = Some(stage.place.serve_at(stage.port));
    stage.fires("UnisonoTruthSplit", &[("source", "copy"), ("entity", "product")]).await;
    stage.ends("UnisonoDown").await;
}

/// The rules as they are shipped.
fn shipped() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/alerts.yml");
    fs::read_to_string(path).expect("the rules are there")
}

fn names(rules: &str) -> BTreeSet<String> {
    let named = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    named.map(str::to_owned).collect()
}

fn scaled(rules: &str) -> String {
    let mut rules = rules.to_owned();
    for (shipped, scaled) in SCALED {
        assert!(rules.contains(shipped), "the rules do not say `{shipped}` any more");
        rules = rules.replace(shipped, scaled);
    }
    let at_once = rules.lines().map(|line| match line.trim().starts_with("for: ") {
        true => "        for: 0s",
        false => line,
    });
    at_once.collect::<Vec<_>>().join("\n")
}
