//! Deleted records: in a follower, so that older changes do not bring them back; in a truth, as the newest end of their
//! history.

use rusqlite::{Connection, OptionalExtension, params};
use unisono_core::{Change, Key, Position, Result, Version};

use crate::codec::encode_key;
use crate::error::translate;

/// The version at which a record was deleted, while that is remembered.
pub(crate) fn find(connection: &Connection, entity: &str, key: &Key) -> Result<Option<Version>> {
    let sql = "SELECT version FROM unisono_tombstones WHERE entity = ?1 AND key = ?2";
    let mut statement = connection.prepare_cached(sql).map_err(translate)?;
    let found: Option<i64> = statement
        .query_row(params![entity, encode_key(key)], |row| row.get(0))
        .optional()
        .map_err(translate)?;
    found.map(Position::from_i64).transpose()
}

/// Remembers a deletion.
pub(crate) fn put(connection: &Connection, change: &Change) -> Result<()> {
    let sql = "INSERT INTO unisono_tombstones (entity, key, version) VALUES (?1, ?2, ?3) \
               ON CONFLICT (entity, key) DO UPDATE SET version = excluded.version";
    let mut statement = connection.prepare_cached(sql).map_err(translate)?;
    let row = params![change.entity.as_ref(), encode_key(&change.key), change.position.as_i64()];
    statement.execute(row).map(drop).map_err(translate)
}

/// Forgets the deletion of a record that is there again.
pub(crate) fn remove(connection: &Connection, entity: &str, key: &Key) -> Result<()> {
    let sql = "DELETE FROM unisono_tombstones WHERE entity = ?1 AND key = ?2";
    let mut statement = connection.prepare_cached(sql).map_err(translate)?;
    statement.execute(params![entity, encode_key(key)]).map(drop).map_err(translate)
}

/// Forgets the deletions of an entity up to a position.
pub(crate) fn forget(connection: &Connection, entity: &str, through: Position) -> Result<()> {
    let sql = "DELETE FROM unisono_tombstones WHERE entity = ?1 AND version <= ?2";
    let mut statement = connection.prepare_cached(sql).map_err(translate)?;
    statement.execute(params![entity, through.as_i64()]).map(drop).map_err(translate)
}
