//! [`record_in`]: what a trigger does, for applications that write through this driver themselves.

use rusqlite::{Transaction, params};
use unisono_core::{Key, Result};

use crate::capture::NOW;
use crate::codec::encode_key;
use crate::error::translate;

/// Notes down that the application's own transaction has written, changed or removed a record of a captured entity.
///
/// The log gets the change, with the state that the row has then, when the transaction has committed; if it is rolled
/// back, nothing was noted down. Call it for every record that the transaction touches, and for both keys if a key
/// changes, before or after the statement itself. `actor` is who asked, for the log.
///
/// # Errors
/// Those of the statement: `schema_mismatch` if Unisono has never prepared the database with a captured entity.
pub fn record_in(
    transaction: &Transaction<'_>,
    entity: &str,
    key: &Key,
    actor: Option<&str>,
) -> Result<()> {
    let sql =
        format!("INSERT INTO unisono_intake (entity, key, time, actor) VALUES (?1, ?2, {NOW}, ?3)");
    let mut statement = transaction.prepare_cached(&sql).map_err(translate)?;
    let written = statement.execute(params![entity, encode_key(key), actor]);
    written.map(drop).map_err(|e| translate(e).on("record_in").of(entity))
}
