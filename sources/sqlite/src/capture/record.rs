//! [`record_in`]: what a trigger does, for applications that write through this driver themselves.

use rusqlite::{Transaction, params};
use unisono_core::{Error, ErrorKind, Key, Result};

use crate::capture::NOW;
use crate::codec::encode_key;
use crate::error::translate;

/// Notes down that the application's own transaction has written, changed or removed a record of a captured entity.
///
/// The log gets the change, with the state that the row has then, when the transaction has committed; if it is rolled
/// back, nothing was noted down. Call it for every record that the transaction touches, and for both keys if a key
/// changes, before or after the statement itself. `actor` is who asked, for the log; of several that are noted down
/// for one record, also by a trigger, the last is told.
///
/// # Errors
/// `not_found` if no entity of this name is captured; `schema_mismatch` if Unisono has never prepared the database as
/// a truth; else those of the statement.
pub fn record_in(
    transaction: &Transaction<'_>,
    entity: &str,
    key: &Key,
    actor: Option<&str>,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO unisono_intake (entity, key, time, actor) SELECT entity, ?2, {NOW}, ?3 FROM unisono_captures \
         WHERE entity = ?1"
    );
    let noted = transaction
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.execute(params![entity, encode_key(key), actor]))
        .map_err(translate);
    let failed = match noted {
        Ok(0) => Error::new(ErrorKind::NotFound, "no entity of this name is captured")
            .hint("declare it with `capture`, and start Unisono once, which prepares the database"),
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    Err(failed.on("record_in").of(entity))
}
