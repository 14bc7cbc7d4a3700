//! SQL databases.

use std::path::Path;

use unisono_core::kind::Options;

use crate::hand::Damage;
use crate::{Failed, engines};

fn statements(table: &str, damage: &Damage) -> String {
    let list =
        |keys: &[String]| keys.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ");
    let added = damage.added.iter().map(|key| format!("('{key}', 'added by hand', 1, 1, 5)"));
    format!(
        "UPDATE {table} SET name = 'changed by hand' WHERE id IN ({}); \
         DELETE FROM {table} WHERE id IN ({}); \
         INSERT INTO {table} (id, name, amount, stock, unisono_version) VALUES {}; \
         UPDATE {table} SET unisono_version = unisono_version - 1 WHERE id IN ({}); \
         UPDATE {table} SET unisono_version = unisono_version + {} WHERE id IN ({});",
        list(&damage.changed),
        list(&damage.deleted),
        added.collect::<Vec<_>>().join(", "),
        list(&damage.older),
        damage.shift(),
        list(&damage.newer),
    )
}

pub(crate) fn sqlite(path: &Path, damage: &Damage) -> Result<(), Failed> {
    let connection = rusqlite::Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(connection.execute_batch(&statements("item", damage))?)
}

pub(crate) async fn postgres(options: &Options, damage: &Damage) -> Result<(), Failed> {
    let schema = options.text("schema").unwrap_or_default();
    Ok(engines::postgres::run(options, &statements(&format!("\"{schema}\".item"), damage)).await?)
}

pub(crate) async fn mysql(options: &Options, damage: &Damage) -> Result<(), Failed> {
    let url = options.text("url").unwrap_or_default();
    let database = url.rsplit_once('/').map_or("", |(_, database)| database);
    Ok(engines::mysql::run(options, &statements(&format!("`{database}`.item"), damage)).await?)
}
