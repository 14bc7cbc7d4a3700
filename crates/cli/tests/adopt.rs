//! A database that another program has: adopted, followed, and written from both sides.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;
use unisono::sqlite::rusqlite::Connection;

const SOURCES: &str = r#"
[sources.shop]
kind = "sqlite"
path = "shop.db"
[sources.search]
kind = "tantivy"
path = "search"
[sources.short]
kind = "memory"
"#;

const TABLES: &str = "
CREATE TABLE Orders (
    id INTEGER PRIMARY KEY, number VARCHAR(20) NOT NULL UNIQUE, status TEXT NOT NULL DEFAULT 'open', total DECIMAL(12,2),
    placed DATE, paid BOOLEAN, note TEXT, weight REAL, picture BLOB, \"two words\" TEXT, half REAL AS (total / 2));
CREATE INDEX by_status ON Orders (status);
INSERT INTO Orders (id, number, status, total, placed, paid, note, weight) VALUES
    (1, 'A-1', 'open', 10.5, '2026-11-02', 0, 'a green chair', 7.25), (2, 'A-2', 'sent', 7, NULL, 1, NULL, NULL);
CREATE TABLE lines (order_id INTEGER, n INTEGER, PRIMARY KEY (order_id, n));
CREATE TABLE \"old orders\" (id INTEGER PRIMARY KEY);
CREATE TABLE changes (id TEXT PRIMARY KEY NOT NULL);
CREATE TABLE customers (id UUID PRIMARY KEY NOT NULL, name TEXT);
CREATE VIEW open_orders AS SELECT * FROM Orders WHERE status = 'open';
";

fn folder() -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unisono.toml"), SOURCES).unwrap();
    let shop = Connection::open(folder.path().join("shop.db")).unwrap();
    shop.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    shop.execute_batch(TABLES).unwrap();
    (folder, shop)
}

fn unisono(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unisono"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("HOME", folder);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("UNISONO_")) {
        command.env_remove(name);
    }
    command.output().unwrap()
}

/// Runs to a good end and answers what was printed.
fn good(folder: &Path, arguments: &[&str]) -> String {
    let output = unisono(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn log(folder: &Path) -> Vec<(String, String)> {
    let text = good(folder, &["log", "--limit", "0", "--json"]);
    let change = |line: &str| {
        let change: Json = serde_json::from_str(line).unwrap();
        let of = |name: &str| change[name].as_str().unwrap().to_owned();
        (of("operation"), change["key"].to_string().trim_matches('"').to_owned())
    };
    text.lines().map(change).collect()
}

#[test]
fn a_table_is_adopted_and_what_its_program_writes_is_followed() {
    let (folder, shop) = folder();
    let f = folder.path();
    let declared = good(
        f,
        &["adopt", "--source", "shop", "orders", "--entity", "order", "--capture", "trigger"],
    );
    let expected = r#"# The table orders of shop (sqlite).
[entities.order]
key = "id"
truth = "shop"
table = "orders"
capture = "trigger"

[entities.order.fields]
id = "integer"
number = { type = "string", required = true, unique = true }
status = { type = "string", required = true, index = true }
total = "decimal(12,2)"
placed = "date"
paid = "boolean"
note = "string"
weight = "float"
picture = "bytes"
# left out: two words: the name cannot be that of a field: a name is 1 to 48 characters of a-z, 0-9 and _, and starts with a letter
# left out: half: it is computed from others
"#;
    assert_eq!(declared, expected);
    let columns: i64 = shop
        .query_row("SELECT count(*) FROM pragma_table_xinfo('orders')", [], |r| r.get(0))
        .unwrap();
    let others: i64 = shop
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'unisono%'", [], |r| {
            r.get(0)
        })
        .unwrap();
    assert_eq!((columns, others), (11, 0), "nothing was changed");

    let searched =
        declared.replace("note = \"string\"", "note = { type = \"string\", search = true }");
    let follower = "[[entities.order.followers]]\nsource = \"search\"\n";
    fs::write(f.join("unisono.toml"), format!("{SOURCES}\n{searched}\n{follower}")).unwrap();
    good(f, &["check"]);
    assert!(good(f, &["get", "order", "1"]).contains("\"total\": \"10.50\""));
    assert!(good(f, &["verify"]).contains("✓ agrees"));

    shop.execute_batch(
        "INSERT INTO Orders (id, number, note) VALUES (3, 'A-3', 'a blue lamp');
         UPDATE Orders SET status = 'sent' WHERE id = 1;
         BEGIN; DELETE FROM Orders; ROLLBACK;
         UPDATE Orders SET id = 4 WHERE id = 2;
         REPLACE INTO Orders (id, number) VALUES (5, 'A-2')",
    )
    .unwrap();
    // The fourth came and went before anybody looked.
    let expected = [("put", "3"), ("put", "1"), ("delete", "2"), ("put", "5")];
    assert_eq!(log(f), expected.map(|(operation, key)| (operation.to_owned(), key.to_owned())));
    let held = good(f, &["get", "order", "1", "--json"]);
    let told = errors(&unisono(f, &["get", "order", "1", "--meta"]));
    let held_version =
        told.lines().find_map(|l| l.strip_prefix("version ")?.split_whitespace().next()).unwrap();
    shop.execute_batch("UPDATE Orders SET weight = 8.5 WHERE id = 1").unwrap();
    let refused = unisono(f, &["put", "order", held.trim(), "--if-match", held_version]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains("version_conflict"), "{}", errors(&refused));

    let record = r#"{"id": 6, "number": "A-6", "status": "open", "note": "a red table"}"#;
    good(f, &["put", "order", record]);
    let status: String =
        shop.query_row("SELECT status FROM Orders WHERE number = 'A-6'", [], |r| r.get(0)).unwrap();
    assert_eq!(status, "open");
    assert!(good(f, &["verify"]).contains("✓ agrees"));
    assert!(good(f, &["find", "order", "--search", "lamp"]).contains("A-3"));
    assert!(good(f, &["find", "order", "--search", "table"]).contains("A-6"));
    good(f, &["doctor"]);
}

#[test]
fn several_tables_at_once_and_as_json() {
    let (folder, _shop) = folder();
    let f = folder.path();
    fs::write(f.join("other.toml"), SOURCES).unwrap();
    let of_other = |arguments: &[&str]| good(f, &[arguments, &["--config", "other.toml"]].concat());
    let text = of_other(&["adopt", "--source", "shop", "orders", "customers"]);
    fs::write(f.join("other.toml"), format!("{SOURCES}{text}")).unwrap();
    of_other(&["check"]);
    assert!(of_other(&["get", "orders", "2"]).contains("\"status\": \"sent\""));
    let json: Json =
        serde_json::from_str(&good(f, &["adopt", "--source", "shop", "orders", "--json"])).unwrap();
    assert_eq!((&json["table"], &json["entity"]), (&"orders".into(), &"orders".into()));
    assert!(json["left_out"]["half"].as_str().unwrap().contains("computed"));
    assert!(!json["toml"].as_str().unwrap().contains("capture ="));
}

#[test]
fn what_cannot_be_adopted_is_refused_with_the_way_out() {
    let (folder, _shop) = folder();
    let f = folder.path();
    let refused = |code: i32, arguments: &[&str]| {
        let output = unisono(f, &[&["adopt", "--source"][..], arguments].concat());
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty() && errors.contains("hint: "), "{errors}");
        errors
    };
    assert!(refused(1, &["shop", "order"]).contains("the database has Orders, changes, customers"));
    assert!(refused(2, &["shop", "lines"]).contains("can be the key"));
    assert!(refused(2, &["shop", "old orders"]).contains("rename the table"));
    assert!(refused(2, &["shop", "open_orders"]).contains("a view"));
    assert!(refused(2, &["shopp", "orders"]).contains("it has search, shop, short"));
    assert!(refused(2, &["search", "orders"]).contains("kinds that can: sqlite"));
    assert!(
        refused(2, &["short", "orders", "--capture", "trigger"]).contains("kinds that can: sqlite")
    );
    assert!(refused(2, &["short", "orders"]).contains("no tables"));
    assert!(refused(2, &["shop", "orders", "lines", "--entity", "x"]).contains("one by one"));
    // Found by the check of the whole.
    assert!(refused(2, &["shop", "changes"]).contains("/v1/changes is taken"));
    let declared = good(f, &["adopt", "--source", "shop", "orders"]);
    fs::write(f.join("unisono.toml"), format!("{SOURCES}\n{declared}")).unwrap();
    assert!(refused(2, &["shop", "orders"]).contains("--entity"));
    assert!(
        refused(2, &["shop", "orders", "--entity", "other"])
            .contains("is used by `orders` already")
    );
}
