//! [`record_in`]: what a trigger does, for applications that write through this driver themselves.

use tokio_postgres::Transaction;
use unisono_core::{Error, ErrorKind, Key, Result};
use unisono_sql::text;

use crate::codec::key_text;
use crate::error::translate;
use crate::table::quote;

/// Notes down that the application's own transaction has written, changed or removed a record of a captured entity.
///
/// The log gets the change, with the state that the row has then, when the transaction has committed; if it is rolled
/// back, nothing was noted down. Call it for every record that the transaction touches, and for both keys if a key
/// changes, before or after the statement itself. `schema` is that of the source. `actor` is who asked, for the log; of
/// several that are noted down for one record, also by a trigger, the last is told.
///
/// # Errors
/// `not_found` if no entity of this name is captured; `schema_mismatch` if Unisono has never prepared the schema;
/// `permission_denied` if the user may not read `unisono_captures` or insert into `unisono_intake`.
pub async fn record_in(
    transaction: &Transaction<'_>,
    schema: &str,
    entity: &str,
    key: &Key,
    actor: Option<&str>,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO {0}.unisono_intake (entity, key, actor) \
         SELECT entity, $2::text, $3::text FROM {0}.unisono_captures WHERE entity = $1::text",
        quote(schema)
    );
    let actor = actor.map(text::escape);
    let row: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&entity, &key_text(key), &actor.as_deref()];
    let failed = match transaction.execute(&sql, &row).await {
        Ok(0) => Error::new(ErrorKind::NotFound, "no entity of this name is captured")
            .hint("declare it with `capture`, and start Unisono once, which prepares the database"),
        Ok(_) => return Ok(()),
        Err(error) => translate(error).error,
    };
    Err(failed.on("record_in").of(entity))
}
