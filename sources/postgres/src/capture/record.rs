//! [`record_in`]: what a trigger does, for applications that write through this driver themselves.

use tokio_postgres::Transaction;
use unisono_core::{Key, Result};
use unisono_sql::text;

use crate::codec::key_text;
use crate::error::translate;
use crate::table::quote;

/// Notes down that the application's own transaction has written, changed or removed a record of a captured entity.
///
/// The log gets the change, with the state that the row has then, when the transaction has committed; if it is rolled
/// back, nothing was noted down. Call it for every record that the transaction touches, and for both keys if a key
/// changes, **after** the statement itself, whose lock keeps others from changing the record in between. `schema` is that
/// of the source. `actor` is who asked, for the log.
///
/// # Errors
/// Those of the statement: `schema_mismatch` if Unisono has never prepared the schema, `permission_denied` if the user
/// may not insert into its `unisono_intake`.
pub async fn record_in(
    transaction: &Transaction<'_>,
    schema: &str,
    entity: &str,
    key: &Key,
    actor: Option<&str>,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO {}.unisono_intake (entity, key, actor) VALUES ($1, $2, $3)",
        quote(schema)
    );
    let actor = actor.map(text::escape);
    let row: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&entity, &key_text(key), &actor.as_deref()];
    let written = transaction.execute(&sql, &row).await;
    written.map(drop).map_err(|e| translate(e).error.on("record_in").of(entity))
}
