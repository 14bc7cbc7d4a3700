//! Every strategy of replication on real servers: PostgreSQL as the truth, followers in Redis, OpenSearch, MongoDB and MariaDB,
//! over lines that are cut and made slow. Each test asserts what a user of the strategy relies on, and ends with a
//! comparison of every follower with the truth, by versions and by data.
//!
//! ```text
//! engines/up postgres mysql redis opensearch mongodb
//! cargo test -p unisono-tests --features full --test strategies
//! ```
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod acknowledged;
mod adapted;
#[path = "../behaviour/engines/dump.rs"]
mod dump;
#[path = "../behaviour/engines/mod.rs"]
mod engines;
mod mapped;
mod ordered;
mod placed;
mod resident;
mod site;

use serde_json::{Value as Json, json};

/// An order, of which `n` is all that tells it from others.
fn order(id: &str, n: u64) -> Json {
    let (kind, country) =
        (["sale", "refund", "gift"][n as usize % 3], ["fr", "de"][n as usize % 2]);
    json!({
        "id": id,
        "kind": kind,
        "country": country,
        "amount": format!("{n}.50"),
        "units": n,
        "note": format!("number{n}"),
    })
}

/// As many ids.
fn ids(count: u64) -> Vec<String> {
    (0..count).map(|n| format!("o{n:04}")).collect()
}

/// Followers in Redis, OpenSearch, MongoDB and MariaDB, with nothing else declared of them.
const FOLLOWERS: &str = "followers = [{ source = \"fast\" }, { source = \"find\" }, { source = \"docs\" }, { source = \"copy\" }]\n";
