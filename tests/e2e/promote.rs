//! `unisono source promote` and `POST /admin/v1/sources/NAME/promote`: the truth goes to a follower and back while clients
//! write, also when the server is killed on the way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

use crate::program::{Place, Server, client, kill_seed};

/// What is worked out is kept where the truth is at first, and so in a follower later.
const CONFIGURATION: &str = r#"# Ice.
[sources.one]
kind = "sqlite" # at first
path = "one.db"
[sources.other]
kind = "sqlite"
path = "other.db"
[sources.copy]
kind = "files"
path = "copy"

[entities.item]
truth = "one"
[entities.item.fields]
id = "string"
number = { type = "integer", required = true }
group = "string"
[[entities.item.followers]]
source = "other"
[[entities.item.followers]]
source = "copy"

[projections.totals]
from = "item"
key = { group = "record.group" }
[projections.totals.fields]
items = { count = true }
sum = { sum = "record.number" }
[[projections.totals.targets]]
source = "one"
"#;

const FOLLOWERS: usize = 3;
const WRITERS: u64 = 4;
const KEYS: u64 = 5;
const WAIT: Duration = Duration::from_secs(60);
const KILLS: u32 = 12;

/// The last number of each record that was acknowledged.
type Acknowledged = Arc<Mutex<BTreeMap<String, u64>>>;

/// Writes rising numbers into its own records until it is told to stop, or nobody answers.
async fn write(base: String, writer: u64, acknowledged: Acknowledged, stop: Arc<AtomicBool>) {
    let client = client();
    let keys = (0..KEYS).map(|n| format!("w{writer}-{n}"));
    for key in keys.collect::<Vec<_>>().iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let before = acknowledged.lock().expect("not poisoned").get(key).copied();
        let number = before.unwrap_or(0) + 1;
        let record = json!({ "number": number, "group": format!("g{writer}") });
        let url = format!("{base}/v1/item/{key}");
        let Ok(answer) = client.put(&url).json(&record).send().await else { return };
        let status = answer.status();
        assert!(status.is_success(), "{key}: {status} {:?}", answer.text().await);
        acknowledged.lock().expect("not poisoned").insert(key.clone(), number);
    }
}

/// Writers against a server, until they are told to stop.
struct Writers {
    runtime: tokio::runtime::Runtime,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    acknowledged: Acknowledged,
    stop: Arc<AtomicBool>,
}

impl Writers {
    fn start(server: &Server, acknowledged: &Acknowledged) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let stop = Arc::new(AtomicBool::new(false));
        let task = |writer| {
            let (acknowledged, stop) = (Arc::clone(acknowledged), Arc::clone(&stop));
            runtime.spawn(write(server.base.clone(), writer, acknowledged, stop))
        };
        let tasks = (0..WRITERS).map(task).collect();
        Writers { runtime, tasks, acknowledged: Arc::clone(acknowledged), stop }
    }

    /// Waits until every writer has gone on.
    fn go_on(&self) {
        let total = || self.acknowledged.lock().expect("not poisoned").values().sum::<u64>();
        let (before, deadline) = (total(), Instant::now() + WAIT);
        while total() < before + 4 * WRITERS * KEYS {
            assert!(Instant::now() < deadline, "no write gets through");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            self.runtime.block_on(task).expect("a writer does not panic");
        }
    }
}

fn ask(server: &Server, method: reqwest::Method, path: &str, body: Option<Json>) -> (u16, Json) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut request = client().request(method, format!("{}{path}", server.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("the server answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    })
}

/// Waits until every follower has its first copy.
fn copied(place: &Place, server: &Server) {
    let deadline = Instant::now() + WAIT;
    let keeps_up = |d: &Json| d["state"] == "live" || d["state"] == "catching_up";
    loop {
        let deliveries = place.deliveries(server);
        if deliveries.len() == FOLLOWERS && deliveries.iter().all(keeps_up) {
            return;
        }
        assert!(Instant::now() < deadline, "{deliveries:?}");
    }
}

fn promote_over_http(server: &Server, source: &str) -> (u16, Json) {
    let path = format!("/admin/v1/sources/{source}/promote");
    ask(server, reqwest::Method::POST, &path, Some(json!({ "entity": "item" })))
}

fn truth(server: &Server) -> String {
    let (_, config) = ask(server, reqwest::Method::GET, "/admin/v1/config", None);
    config["entities"]["item"]["truth"].as_str().unwrap_or_default().to_owned()
}

fn comes_to(server: &Server, wanted: &str) {
    let deadline = Instant::now() + WAIT;
    while truth(server) != wanted {
        assert!(Instant::now() < deadline, "the truth never comes to {wanted}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Everything that was acknowledged is there, and what is worked out is what it comes to.
fn check(place: &Place, server: &Server, acknowledged: &Acknowledged) {
    place.agree(server, FOLLOWERS);
    let said = place.done(server, &["export", "item"]);
    let records = said.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON"));
    let records: BTreeMap<String, Json> =
        records.map(|r| (r["id"].as_str().unwrap_or_default().to_owned(), r)).collect();
    for (key, number) in acknowledged.lock().expect("not poisoned").iter() {
        let found = records.get(key).and_then(|r| r["number"].as_u64());
        assert!(found.is_some_and(|n| n >= *number), "{key}: {number} is lost, {found:?}");
    }
    let totals = place.done(server, &["export", "totals"]);
    let mut groups = 0;
    for row in totals.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON")) {
        let of_group = records.values().filter(|r| r["group"] == row["group"]);
        let numbers: Vec<u64> = of_group.filter_map(|r| r["number"].as_u64()).collect();
        let found = (row["items"].as_u64(), row["sum"].as_u64());
        assert_eq!(found, (Some(numbers.len() as u64), Some(numbers.iter().sum())), "{row}");
        groups += numbers.len();
    }
    assert_eq!(groups, records.len(), "{totals}");
}

#[test]
fn the_truth_goes_to_a_follower_and_back_while_clients_write() {
    let place = Place::new(CONFIGURATION);
    let server = place.serve();
    let acknowledged = Acknowledged::default();
    let writers = Writers::start(&server, &acknowledged);
    writers.go_on();
    let planned =
        place.done(&server, &["source", "promote", "other", "--entity", "item", "--dry-run"]);
    assert_eq!(
        (place.text().as_str(), truth(&server).as_str()),
        (CONFIGURATION, "one"),
        "{planned}"
    );
    copied(&place, &server);
    let said = place.done(&server, &["source", "promote", "other", "--entity", "item"]);
    assert!(said.contains("one") && said.contains("other"), "{said}");
    assert_eq!(truth(&server), "other");
    let text = place.text();
    assert!(text.contains("[entities.item]\ntruth = \"other\""), "{text}");
    assert!(
        text.contains("[[entities.item.followers]]\nsource = \"one\"") && text.contains("# Ice."),
        "{text}"
    );
    writers.go_on();
    copied(&place, &server);
    // Over HTTP the server alone moves it; nobody changes the file.
    let (status, answer) = promote_over_http(&server, "one");
    assert_eq!((status, &answer["truth"]), (200, &json!("one")), "{answer}");
    assert_eq!((truth(&server), place.text()), ("one".to_owned(), text));
    writers.go_on();
    let (status, refused) = promote_over_http(&server, "nowhere");
    assert_eq!(status, 404, "{refused}");
    let path = "/admin/v1/sources/copy/promote";
    let totals = Some(json!({ "entity": "totals" }));
    let (status, refused) = ask(&server, reqwest::Method::POST, path, totals);
    assert!(status == 400 && refused.to_string().contains("for item"), "{status} {refused}");
    writers.end();
    check(&place, &server, &acknowledged);
    server.kill();
    // The next start goes by the file.
    let server = place.serve();
    let writers = Writers::start(&server, &acknowledged);
    comes_to(&server, "other");
    writers.go_on();
    writers.end();
    check(&place, &server, &acknowledged);
}

#[test]
fn a_server_that_is_killed_while_the_truth_moves_goes_on_where_the_file_says() {
    let mut random = StdRng::seed_from_u64(kill_seed());
    let place = Place::new(CONFIGURATION);
    let acknowledged = Acknowledged::default();
    let mut server = place.serve();
    let mut killed_in_between = 0;
    for _ in 0..KILLS {
        let writers = Writers::start(&server, &acknowledged);
        writers.go_on();
        copied(&place, &server);
        let to = if truth(&server) == "one" { "other" } else { "one" };
        let of = ["source", "promote", to, "--entity", "item"];
        std::thread::scope(|scope| {
            let base = server.base.clone();
            let (place, of) = (&place, &of);
            let moving = scope.spawn(move || place.tell_at(&base, of));
            std::thread::sleep(Duration::from_millis(random.random_range(10..150)));
            server.kill();
            let (_, moved) = moving.join().expect("the command ends");
            killed_in_between += u32::from(!moved);
        });
        writers.end();
        server = place.serve();
        let is_other = place.text().contains("[entities.item]\ntruth = \"other\"");
        comes_to(&server, if is_other { "other" } else { "one" });
        check(&place, &server, &acknowledged);
    }
    assert!(killed_in_between > 0, "every move came to its end before the server was killed");
}
