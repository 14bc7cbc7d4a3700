//! [`record_in`]: what a trigger does, for applications that write through this driver themselves.

use mysql_async::Transaction;
use mysql_async::prelude::Queryable;
use unisono_core::{Key, Result};
use unisono_sql::text::escape;

use crate::capture::NOW;
use crate::error::translate;
use crate::literal::quote;

/// Notes down that the application's own transaction has written, changed or removed a record of a captured entity.
///
/// The log gets the change, with the state that the row has then, when the transaction has committed; if it is rolled
/// back, nothing was noted down. Call it for every record that the transaction touches, and for both keys if a key
/// changes, **after** the statement itself, whose lock keeps others from changing the record in between. `database` is
/// that of the source. `actor` is who asked, for the log.
///
/// # Errors
/// Those of the statement: `schema_mismatch` if Unisono has never prepared the database with a captured entity,
/// `permission_denied` if the user may not insert into its `unisono_intake`.
pub async fn record_in(
    transaction: &mut Transaction<'_>,
    database: &str,
    entity: &str,
    key: &Key,
    actor: Option<&str>,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO {}.unisono_intake (`entity`, `key`, `time`, `actor`) VALUES (?, ?, {NOW}, ?)",
        quote(database)
    );
    let key = match key {
        Key::String(text) => escape(text).into_owned(),
        key => key.to_string(),
    };
    let written = transaction.exec_drop(sql, (entity, key, actor)).await;
    written.map_err(|e| translate(e).error.on("record_in").of(entity))
}
