//! Tables that a program has in PostgreSQL or MariaDB, with the columns that such tables have: the declaration that
//! `adopt` prints passes `check` as it is, and the rows are served, found and written through it.
//!
//! Over the servers of `engines/up postgres mysql`.
#![cfg(any(feature = "full", feature = "postgres", feature = "mysql"))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

/// What stands behind the printed declaration: another source follows.
const FOLLOWER: &str = "\n[[entities.orders.followers]]\nsource = \"copy\"\n";

/// A folder with a configuration over a namespace of its own in a server, and a client of that server.
struct Shop {
    folder: tempfile::TempDir,
    sources: String,
    /// A program that runs the SQL that it reads, past Unisono.
    client: Box<dyn Fn() -> Command>,
}

impl Shop {
    fn new(kind: &str, client: impl Fn(&str, &str) -> Command + 'static) -> Self {
        let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
        let file = PathBuf::from(base).join(kind).join("source.toml");
        let options = fs::read_to_string(&file)
            .unwrap_or_else(|e| panic!("{}: {e}; start it: engines/up {kind}", file.display()));
        let namespace = format!("tadopt{}", std::process::id());
        let options = options.replace("{namespace}", &namespace);
        let ca = options.lines().find_map(|line| line.strip_prefix("tls_ca = ")).unwrap();
        let ca = ca.trim_matches('"').to_owned();
        let sources = format!(
            "[sources.shop]\nkind = \"{kind}\"\n{options}\n[sources.copy]\nkind = \"sqlite\"\npath = \"copy.db\"\n"
        );
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("unisono.toml"), &sources).unwrap();
        Shop { folder, sources, client: Box::new(move || client(&namespace, &ca)) }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs SQL in the server; answers the rows.
    fn sql(&self, sql: &str) -> String {
        let mut command = (self.client)();
        let output = command.arg(sql).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn unisono(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_unisono"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("UNISONO_")) {
            command.env_remove(name);
        }
        command.env("HOME", self.path()).output().unwrap()
    }

    /// Runs to a good end and answers what was printed.
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.unisono(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn record(&self, key: &str) -> Json {
        serde_json::from_str(&self.good(&["get", "orders", key, "--json"])).unwrap()
    }

    /// Adopts the table `orders`, which must be declared like this.
    fn adopt(&self, expected: &str) {
        let declared = self.good(&["adopt", "--source", "shop", "orders"]);
        assert_eq!(declared, expected);
        fs::write(self.path().join("unisono.toml"), self.sources.clone() + &declared + FOLLOWER)
            .unwrap();
        self.good(&["check"]);
    }

    /// What holds of the rows that were there, whichever server has them.
    fn serves(&self, first: &Json, second: &Json) {
        assert_eq!((&self.record("1"), &self.record("2")), (first, second));
        let found = self.good(&["find", "orders", "number=eq.A-2", "--json"]);
        assert!(found.contains("\"A-2\"") && !found.contains("\"A-1\""), "{found}");
        assert!(self.good(&["verify"]).contains("✓ agrees"), "the rows are followed");
        let mut third = first.clone();
        third["id"] = json!(3);
        let taken = self.unisono(&["put", "orders", &third.to_string()]);
        assert!(errors(&taken).contains("constraint_violated"), "{}", errors(&taken));
        third["number"] = json!("A-3");
        self.good(&["put", "orders", &third.to_string()]);
        assert_eq!(self.record("3"), third);
        assert_eq!(self.sql("SELECT count(*) FROM orders WHERE number = 'A-3'"), "1");
        assert!(self.good(&["verify"]).contains("✓ agrees"));
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[cfg(any(feature = "full", feature = "postgres"))]
#[test]
fn a_table_in_postgres() {
    let shop = Shop::new("postgres", |schema, ca| {
        let mut psql = Command::new("psql");
        psql.env("PGPASSWORD", "app-secret").env("PGOPTIONS", format!("-c search_path={schema}"));
        psql.arg(format!(
            "host=127.0.0.1 port=5541 user=app dbname=app sslmode=verify-full sslrootcert={ca}"
        ));
        psql.args(["-XAtqv", "ON_ERROR_STOP=1", "-c"]);
        psql
    });
    let schema = format!("tadopt{}", std::process::id());
    shop.sql(&format!(
        "CREATE SCHEMA {schema};
         CREATE TYPE state AS ENUM ('open', 'sent');
         CREATE TABLE orders (
             id serial PRIMARY KEY, number varchar(20) NOT NULL, customer uuid, total numeric(12,2),
             placed timestamptz NOT NULL DEFAULT now(), attributes json, extra jsonb, state state NOT NULL DEFAULT 'open',
             note text, paid boolean, weight double precision, due date, tags text[], address inet);
         CREATE UNIQUE INDEX by_number ON orders (number);
         CREATE INDEX by_state ON orders (state);
         INSERT INTO orders (number, customer, total, placed, attributes, extra, note, paid, weight, due) VALUES
             ('A-1', '018f3c5e-7d2a-7c3b-9d4e-5f6a7b8c9d0e', 10.5, '2026-11-02 03:04:05.678901+02', '{{\"b\": 1, \"a\": [1, 2]}}',
              '{{\"a\": null}}', 'a green chair', true, 7.25, '2026-12-24'),
             ('A-2', NULL, NULL, '2026-11-03 00:00:00Z', NULL, NULL, NULL, NULL, NULL, NULL)"
    ));
    shop.adopt(
        r#"# The table orders of shop (postgres).
[entities.orders]
key = "id"
truth = "shop"

[entities.orders.fields]
id = "integer"
number = { type = "string", required = true, unique = true }
customer = "uuid"
total = "decimal(12,2)"
placed = { type = "timestamp", required = true }
attributes = "json"
extra = "json"
state = { type = "string", required = true }
note = "string"
paid = "boolean"
weight = "float"
due = "date"
# left out: tags: no type of a field is kept in text[]
# left out: address: no type of a field is kept in inet
"#,
    );
    let first = json!({
        "id": 1, "number": "A-1", "customer": "018f3c5e-7d2a-7c3b-9d4e-5f6a7b8c9d0e", "total": "10.50",
        "placed": "2026-11-02T01:04:05.678901Z", "attributes": {"b": 1, "a": [1, 2]}, "extra": {"a": null},
        "state": "open", "note": "a green chair", "paid": true, "weight": 7.25, "due": "2026-12-24",
    });
    let second = json!({
        "id": 2, "number": "A-2", "customer": null, "total": null, "placed": "2026-11-03T00:00:00.000000Z",
        "attributes": null, "extra": null, "state": "open", "note": null, "paid": null, "weight": null, "due": null,
    });
    shop.serves(&first, &second);
    shop.sql(&format!("DROP SCHEMA {schema} CASCADE"));
}

#[cfg(any(feature = "full", feature = "mysql"))]
#[test]
fn a_table_in_mariadb() {
    let shop = Shop::new("mysql", |database, ca| {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-h127.0.0.1", "-P3351", "-uapp", "-papp-secret", "-N"]);
        client.arg(format!("--ssl-ca={ca}"));
        client
            .arg(format!("--init-command=CREATE DATABASE IF NOT EXISTS {database}; USE {database}"))
            .arg("-e");
        client
    });
    let database = format!("tadopt{}", std::process::id());
    shop.sql(
        "
         CREATE TABLE orders (
             id INT AUTO_INCREMENT PRIMARY KEY, number VARCHAR(20) NOT NULL, total DECIMAL(12,2),
             placed TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), shipped DATETIME, attributes JSON,
             state ENUM('open', 'sent') NOT NULL DEFAULT 'open', note TEXT, paid BOOLEAN, weight DOUBLE, due DATE, spot POINT,
             UNIQUE KEY by_number (number));
         SET time_zone = '+00:00';
         INSERT INTO orders (number, total, placed, shipped, attributes, note, paid, weight, due) VALUES
             ('A-1', 10.5, '2026-11-02 01:04:05.678901', '2026-11-04 12:00:00', '{\"b\": 1, \"a\": [1, 2]}',
              'a green chair', TRUE, 7.25, '2026-12-24'),
             ('A-2', NULL, '2026-11-03 00:00:00', NULL, NULL, NULL, NULL, NULL, NULL)"
    );
    shop.adopt(
        r#"# The table orders of shop (mysql).
[entities.orders]
key = "id"
truth = "shop"

[entities.orders.fields]
id = "integer"
number = { type = "string", required = true, unique = true }
total = "decimal(12,2)"
placed = { type = "timestamp", required = true }
shipped = "timestamp(0)"
attributes = "json"
state = { type = "string", required = true }
note = "string"
paid = "boolean"
weight = "float"
due = "date"
# left out: spot: no type of a field is kept in point
"#,
    );
    let first = json!({
        "id": 1, "number": "A-1", "total": "10.50", "placed": "2026-11-02T01:04:05.678901Z",
        "shipped": "2026-11-04T12:00:00Z", "attributes": {"b": 1, "a": [1, 2]}, "state": "open", "note": "a green chair", "paid": true,
        "weight": 7.25, "due": "2026-12-24",
    });
    let second = json!({
        "id": 2, "number": "A-2", "total": null, "placed": "2026-11-03T00:00:00.000000Z", "shipped": null,
        "attributes": null, "state": "open", "note": null, "paid": null, "weight": null, "due": null,
    });
    shop.serves(&first, &second);
    assert_eq!(shop.sql(&format!("SELECT state FROM {database}.orders WHERE id = 3")), "open");
    shop.sql(&format!("DROP DATABASE {database}"));
}
