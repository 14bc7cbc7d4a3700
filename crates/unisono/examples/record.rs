//! A program that writes its own tables, and notes its writes down for Unisono in the same transaction.
//!
//! `cargo run -p unisono --example record`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use serde_json::Value as Json;
use unisono::core::{Error, Key, Position, Result};
use unisono::sqlite::record_in;
use unisono::sqlite::rusqlite::{self, Connection, params};
use unisono::{Registry, Unisono, config};

const CONFIGURATION: &str = r#"
[sources.bank]
kind = "sqlite"
path = "bank.db"

[sources.archive]
kind = "files"
path = "archive"

[entities.account]
key = "id"
truth = "bank"
table = "accounts"
capture = "record"

[entities.account.fields]
id = "string"
balance = { type = "integer", required = true }

[[entities.account.followers]]
source = "archive"
"#;

/// Moves an amount: both rows and both notes, or none of them.
fn transfer(bank: &mut Connection, from: &str, to: &str, amount: i64) -> Result<bool> {
    let transaction = bank.transaction().map_err(failed)?;
    for (id, change) in [(from, -amount), (to, amount)] {
        transaction
            .execute(
                "UPDATE accounts SET balance = balance + ?2 WHERE id = ?1",
                params![id, change],
            )
            .map_err(failed)?;
        record_in(&transaction, "account", &Key::from_text(id)?, Some("transfers"))?;
    }
    let sql = "SELECT balance >= 0 FROM accounts WHERE id = ?1";
    let covered: bool = transaction.query_row(sql, [from], |row| row.get(0)).map_err(failed)?;
    if covered {
        transaction.commit().map_err(failed)?;
    }
    // Dropped without a commit, it is rolled back, and nobody hears of it.
    Ok(covered)
}

fn failed(native: rusqlite::Error) -> Error {
    Error::internal("the bank's database failed").caused_by(native)
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::internal("no folder").caused_by(e))?;
    let mut bank = Connection::open(folder.path().join("bank.db")).map_err(failed)?;
    bank.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    bank.execute_batch(
        "CREATE TABLE accounts (id TEXT PRIMARY KEY NOT NULL, balance INTEGER NOT NULL);
         INSERT INTO accounts VALUES ('ann', 100), ('bob', 20)",
    )
    .map_err(failed)?;

    let registry = Registry::builtin();
    let mut configuration =
        config::parse(CONFIGURATION, "record.toml", &registry, &config::Process)?;
    configuration.data = folder.path().to_owned();
    let unisono = Unisono::open(configuration).await?;
    let engine = unisono.engine();
    let (log, begun) = engine.logs().await?.swap_remove(0);

    assert!(transfer(&mut bank, "ann", "bob", 30)?);
    assert!(!transfer(&mut bank, "bob", "ann", 1000)?);

    // Within a second the log has both changes of the one that was committed.
    let mut after: Position = begun.head;
    while after.since(begun.head) < 2 {
        for change in engine.changes(&log, after, 10, Duration::from_secs(30)).await? {
            after = change.position;
            println!("{} {} by {:?}", change.position, change.key, change.actor);
        }
    }
    engine.wait_applied(&engine.head_token().await?, Duration::from_secs(30)).await?;

    let accounts = unisono.entity::<Json>("account")?;
    for (id, balance) in [("ann", 70), ("bob", 50)] {
        let account = accounts.get(id).await?.unwrap_or_default();
        println!("{account}");
        assert_eq!(account["balance"], balance);
    }
    unisono.close().await
}
