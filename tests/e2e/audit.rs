//! Who did what: every change of a record and everything that is done to the system is in one log, which `unisono log`
//! searches and the archive chains.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::program::{Place, Server};

/// Two people, by the SHA-256 of their tokens.
const CONFIGURATION: &str = r#"
[sources.main]
kind = "sqlite"
path = "main.db"
[sources.copy]
kind = "sqlite"
path = "copy.db"
[sources.vault]
kind = "files"
path = "vault"
[archive]
source = "vault"
every = "10ms"
backups = "0s"
[sweep]
every = "0s"

[[server.tokens]]
name = "mia"
hash = "sha256:762a47942867d9230fa9058b62a669d1e9dfe5749fbfd11074a45df9ee2c54b6"
access = "admin"
[[server.tokens]]
name = "tom"
hash = "sha256:d6ba4194004379881c3b2a8f7e483dd5e0e5b3f8bf605f1c30a2439e64e76716"
access = "write"

[entities.product]
truth = "main"
[entities.product.fields]
id = "string"
name = "string"
price = "integer"
[[entities.product.followers]]
source = "copy"
"#;
const MIA: &str = "usn_mia";
const TOM: &str = "usn_tom";
const WAIT: Duration = Duration::from_secs(60);

/// Runs a command against a server with somebody's token; answers the lines of JSON that it says, if it did it.
fn by(token: &str, place: &Place, server: &Server, arguments: &[&str]) -> Option<Vec<Json>> {
    let (said, done) = place.tell(server, &[arguments, &["--token", token, "--json"]].concat());
    if let (Ok(one), true) = (serde_json::from_str(&said), done) {
        return Some(vec![one]);
    }
    let lines = said.lines().filter_map(|line| serde_json::from_str(line).ok());
    done.then(|| lines.collect())
}

fn mia(place: &Place, server: &Server, arguments: &[&str]) -> Vec<Json> {
    by(MIA, place, server, arguments).unwrap_or_else(|| panic!("{arguments:?} was not done"))
}

/// Waits until it holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
    }
}

/// Runs a command on the machine itself, without a server.
fn local(place: &Place, arguments: &[&str]) -> Option<String> {
    let output = place.run(&[arguments, &["--data", "data", "--json"]].concat());
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What is in the audit trail: actor, action, source and details, in order.
fn trail(place: &Place) -> Vec<(Json, Json, Json, Json)> {
    let entries = local(place, &["log", "--entity", "unisono_audit"]).expect("it is told");
    let entry = |line: &str| {
        let mut change: Json = serde_json::from_str(line).expect("JSON");
        let (actor, mut about) = (change["actor"].take(), change["record"].take());
        (actor, about["action"].take(), about["source"].take(), about["details"].take())
    };
    entries.lines().map(entry).collect()
}

fn sql(place: &Place, database: &str, sql: &str) {
    let path = place.folder.path().join("data").join(database);
    let database = rusqlite::Connection::open(path).expect("the database opens");
    database.busy_timeout(WAIT).expect("it waits");
    database.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A change that the follower refuses becomes a dead letter, which mia forgets and then repairs what differs.
fn refuse_discard_repair(place: &Place, server: &Server) {
    sql(
        place,
        "copy.db",
        "CREATE TRIGGER no BEFORE UPDATE ON product WHEN NEW.price = 13 BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    sql(
        place,
        "copy.db",
        "CREATE TRIGGER never BEFORE INSERT ON product WHEN NEW.price = 13 BEGIN SELECT RAISE(ABORT, 'no'); END",
    );
    let unlucky = r#"{"id":"p2","name":"lamp","price":13}"#;
    assert!(by(TOM, place, server, &["put", "product", unlucky]).is_some());
    let letters = || mia(place, server, &["dead-letters", "list"]);
    until("a dead letter", || !letters().is_empty());
    assert!(by(TOM, place, server, &["dead-letters", "discard", "--all"]).is_none(), "tom may not");
    mia(place, server, &["dead-letters", "discard", "--all"]);
    assert!(letters().is_empty());
    sql(place, "copy.db", "DROP TRIGGER no; DROP TRIGGER never");
    mia(place, server, &["repair", "--yes"]);
}

#[test]
fn who_did_what_is_found_by_key_actor_and_time_and_cannot_be_changed() {
    let place = Place::new(CONFIGURATION);
    let server = place.serve();
    assert!(
        by(TOM, &place, &server, &["put", "product", r#"{"id":"p1","name":"lamp","price":5}"#])
            .is_some()
    );
    mia(&place, &server, &["put", "product", r#"{"id":"p1","name":"lamp","price":7}"#]);
    refuse_discard_repair(&place, &server);
    mia(&place, &server, &["source", "pause", "copy"]);
    mia(&place, &server, &["source", "resume", "copy"]);
    mia(&place, &server, &["backfill", "product", "copy"]);
    let file = place.folder.path().join("unisono.toml");
    let text = place.text().replace("truth = \"main\"", "truth = \"main\"\nack_timeout = \"7s\"");
    std::fs::write(&file, text).expect("written");
    mia(&place, &server, &["reload"]);
    mia(&place, &server, &["backup"]);

    // Before and after.
    let history = mia(&place, &server, &["log", "--entity", "product", "--key", "p1", "--diff"]);
    let [changed, made] = &history[..] else { panic!("{history:?}") };
    assert_eq!((&changed["actor"], &made["actor"]), (&json!("mia"), &json!("tom")));
    assert_eq!(changed["changed"], json!({ "price": [5, 7] }));
    // By whom, and when.
    let of_tom = mia(&place, &server, &["log", "--actor", "tom"]);
    let keys: Vec<_> = of_tom.iter().map(|change| &change["key"]).collect();
    assert_eq!(keys, ["p1", "p2"], "{of_tom:?}");
    let time = changed["time"].as_str().expect("a time");
    let before = mia(&place, &server, &["log", "--until", time]);
    assert_eq!(before.len(), 1, "{before:?}");
    let since =
        mia(&place, &server, &["log", "--since", time, "--actor", "tom", "--entity", "product"]);
    assert_eq!(since.iter().map(|c| &c["key"]).collect::<Vec<_>>(), ["p2"]);

    let archived = || mia(&place, &server, &["status"])[0]["archives"][0]["lag_changes"] == 0;
    until("the whole log in the archive", archived);
    server.kill();

    let done = trail(&place);
    let actions: Vec<_> =
        done.iter().map(|(_, action, ..)| action.as_str().unwrap_or_default()).collect();
    assert_eq!(actions[..6], ["discard", "repair", "pause", "resume", "backfill", "reload"]);
    assert!(done.iter().all(|(actor, ..)| actor == "mia"), "{done:?}");
    let about = |action: &str| {
        done.iter().find(|e| e.1 == action).map(|e| (&e.2, &e.3)).expect("it is there")
    };
    let (source, letter) = about("discard");
    assert!(
        source == "copy" && letter["key"] == "p2" && letter["reason"].to_string().contains("no"),
        "{letter}"
    );
    assert_eq!(about("repair").1["records"], json!([{ "key": "p2", "class": "missing" }]));
    assert_eq!((about("pause").0, about("resume").0), (&json!("copy"), &json!("copy")));
    assert_eq!(about("resume").1["paused"]["by"], "mia", "what was before is told");
    let change = about("reload").1.to_string();
    assert!(change.contains("ack_timeout") && change.contains("-> 7s"), "{change}");

    assert!(local(&place, &["log", "--check"]).is_some());
    let by_another =
        "UPDATE unisono_log SET actor = 'tom' WHERE actor = 'mia' AND entity = 'unisono_audit'";
    sql(&place, "main.db", by_another);
    assert!(local(&place, &["log", "--check"]).is_none(), "somebody has changed who it was");
    assert!(local(&place, &["source", "pause", "copy"]).is_some());
    let last = local(&place, &["log", "--entity", "unisono_audit", "--actor", "cli"]);
    let last = last.expect("it is told");
    assert!(last.contains("\"pause\"") && last.lines().count() == 1, "{last}");
}
