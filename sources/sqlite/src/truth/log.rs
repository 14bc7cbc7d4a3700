//! Reading and trimming the log.

use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, params};
use unisono_core::{
    Change, Error, ErrorKind, Key, Operation, Position, Result, Role, Timestamp, Version, json,
};
use unisono_sql::objects;

use crate::client::Tables;
use crate::codec::{decode_key, encode_key};
use crate::error::translate;
use crate::table::Table;
use crate::tombstones;
use crate::truth::{bounds, is_whole, transaction};

const SELECT: &str = "SELECT position, entity, key, operation, replaced, image, time, actor, trace, previous FROM unisono_log";

/// Writes a change at its position; `previous` is the record's change before it, also one that deleted it.
pub(crate) fn append(
    connection: &Connection,
    table: &Table,
    change: &Change,
    previous: Option<Version>,
) -> Result<()> {
    let image = change.image.as_ref().map(|record| json::to_vec(&table.entity, record));
    let write = || {
        let mut statement = connection.prepare_cached(
            "INSERT INTO unisono_log (position, entity, key, operation, replaced, previous, image, time, actor, trace) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        statement.raw_bind_parameter(1, change.position.as_i64())?;
        statement.raw_bind_parameter(2, change.entity.as_ref())?;
        statement.raw_bind_parameter(3, encode_key(&change.key))?;
        statement.raw_bind_parameter(4, change.operation.as_str())?;
        statement.raw_bind_parameter(5, change.replaced.map(Position::as_i64))?;
        statement.raw_bind_parameter(6, previous.map(Position::as_i64))?;
        let image = image.as_deref().map_or(ValueRef::Null, ValueRef::Text);
        statement.raw_bind_parameter(7, ToSqlOutput::Borrowed(image))?;
        statement.raw_bind_parameter(8, change.time.micros())?;
        statement.raw_bind_parameter(9, change.actor.as_deref())?;
        statement.raw_bind_parameter(10, change.trace.as_deref())?;
        statement.raw_execute()
    };
    write().map(drop).map_err(translate)?;
    mark_deletion(connection, change, previous)
}

/// Keeps a tombstone for a record that is gone, as the end of its history.
fn mark_deletion(
    connection: &Connection,
    change: &Change,
    previous: Option<Version>,
) -> Result<()> {
    match &change.image {
        None => tombstones::put(connection, change),
        Some(_) if change.replaced.is_none() && previous.is_some() => {
            tombstones::remove(connection, &change.entity, &change.key)
        }
        Some(_) => Ok(()),
    }
}

/// The changes after a position.
pub(super) fn read(
    connection: &Connection,
    tables: &Tables,
    after: Position,
    changes_max: usize,
    bytes_max: usize,
) -> Result<Vec<Arc<Change>>> {
    let bounds = bounds(connection)?;
    if after < bounds.trimmed {
        return Err(Error::new(
            ErrorKind::LogTruncated,
            "the changes after the position were trimmed",
        )
        .with("after", after)
        .with("trimmed", bounds.trimmed));
    }
    let sql = format!("{SELECT} WHERE position > ?1 ORDER BY position LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql).map_err(translate)?;
    let mut rows = statement
        .query(params![after.as_i64(), i64::try_from(changes_max.max(1)).unwrap_or(i64::MAX)])
        .map_err(translate)?;
    let (mut changes, mut bytes) = (Vec::new(), 0);
    let mut last = after;
    while bytes < bytes_max.max(1)
        && let Some(row) = rows.next().map_err(translate)?
    {
        let change = change(row, tables)?;
        if change.position != last.next() && change.position.generation() == last.generation() {
            return Err(Error::new(ErrorKind::Corrupt, "a change is missing in the log")
                .with("position", last.next())
                .hint("somebody deleted it by hand: restore the database, or begin a new log"));
        }
        last = change.position;
        bytes += change.weight();
        changes.push(Arc::new(change));
    }
    Ok(changes)
}

/// The changes of one record, newest first.
///
/// Each names its predecessor, from the record's version or its tombstone backwards: an index over the whole log would
/// cost every commit as much as the rows do.
pub(super) fn history(
    connection: &Connection,
    table: &Table,
    tables: &Tables,
    key: &Key,
    before: Option<Position>,
    limit: usize,
) -> Result<Vec<Arc<Change>>> {
    let trimmed = bounds(connection)?.trimmed;
    let before = before.unwrap_or(Position::MAX);
    let of_record = |position: Position| -> Result<Option<(Change, Option<Position>)>> {
        let found = if position > trimmed { at(connection, tables, position)? } else { None };
        // A version can be of another record's change: that of a row which the table had before the log.
        Ok(found.filter(|(change, _)| change.key == *key && change.entity == *table.entity.name()))
    };
    // Going on from the end of an earlier page does not walk through that page again.
    let mut next = match of_record(before)? {
        Some((_, previous)) => previous,
        None => match table.version(connection, key)? {
            Some(version) => Some(version),
            None => tombstones::find(connection, table.entity.name(), key)?,
        },
    };
    let mut changes = Vec::new();
    while changes.len() < limit
        && let Some(position) = next
        && let Some((change, previous)) = of_record(position)?
    {
        if position < before {
            changes.push(Arc::new(change));
        }
        next = previous;
    }
    Ok(changes)
}

/// The change at a position, and the position of the record's change before it.
fn at(
    connection: &Connection,
    tables: &Tables,
    position: Position,
) -> Result<Option<(Change, Option<Position>)>> {
    let sql = format!("{SELECT} WHERE position = ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(translate)?;
    let mut rows = statement.query([position.as_i64()]).map_err(translate)?;
    let Some(row) = rows.next().map_err(translate)? else { return Ok(None) };
    let previous: Option<i64> = row.get(9).map_err(translate)?;
    Ok(Some((change(row, tables)?, previous.map(Position::from_i64).transpose()?)))
}

/// The changes at consecutive positions, also where the log was trimmed for everybody else.
pub(super) fn range(
    connection: &Connection,
    tables: &Tables,
    first: i64,
    count: i64,
) -> Result<Vec<Arc<Change>>> {
    let sql = format!("{SELECT} WHERE position >= ?1 AND position < ?2 ORDER BY position");
    let mut statement = connection.prepare_cached(&sql).map_err(translate)?;
    let mut rows = statement.query([first, first.saturating_add(count)]).map_err(translate)?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next().map_err(translate)? {
        changes.push(Arc::new(change(row, tables)?));
    }
    if i64::try_from(changes.len()) != Ok(count) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "a change that an idempotency key refers to is missing",
        )
        .with("position", first));
    }
    Ok(changes)
}

/// Forgets changes and outcomes. Changes of outcomes that are kept stay in the table, out of sight.
pub(super) fn trim(
    connection: &mut Connection,
    tables: &Tables,
    through: Position,
    outcomes_before: Timestamp,
) -> Result<u64> {
    transaction(connection, |connection| {
        let bounds = bounds(connection)?;
        let through = through.min(bounds.head).max(bounds.trimmed);
        let run = |sql: &str, n: i64| connection.execute(sql, [n]).map_err(translate);
        run("DELETE FROM unisono_outcomes WHERE time < ?1", outcomes_before.micros())?;
        run(
            "DELETE FROM unisono_log WHERE position <= ?1 AND position >= coalesce( \
             (SELECT first + changes FROM unisono_outcomes WHERE first <= position AND first > 0 \
              ORDER BY first DESC LIMIT 1), 0)",
            through.as_i64(),
        )?;
        for table in tables.values().filter(|t| t.role == Role::Truth) {
            tombstones::forget(connection, table.entity.name(), through)?;
        }
        run("UPDATE unisono_head SET trimmed = ?1", through.as_i64())?;
        Ok(through.since(bounds.trimmed))
    })
}

fn change(row: &Row<'_>, tables: &Tables) -> Result<Change> {
    let cell = |n| row.get_ref(n).map_err(translate);
    let position = Position::from_i64(row.get(0).map_err(translate)?)?;
    let name: &str = cell(1)?.as_str().map_err(|e| translate(e.into()))?;
    let table = tables.get(name);
    let entity = table.map_or_else(|| Arc::from(name), |t| Arc::clone(t.entity.name()));
    let at = |e: Error| e.of(name).with("position", position);
    let key = match table {
        Some(table) => table.decode_key(cell(2)?),
        // The entity is no longer declared; nobody asks for its changes, but the log stays contiguous.
        None => decode_key(None, cell(2)?),
    };
    let operation = cell(3)?.as_str().ok().and_then(Operation::parse).ok_or_else(|| {
        at(Error::new(ErrorKind::Corrupt, "the log holds an operation that does not exist"))
    })?;
    let image = match (table, cell(5)?) {
        (Some(table), ValueRef::Text(text)) => {
            Some(Arc::new(objects::record(&table.entity, text).map_err(at)?))
        }
        _ => None,
    };
    if table.is_some() && !is_whole(operation, image.is_some()) {
        return Err(at(Error::new(ErrorKind::Corrupt, "the log holds a change without its image")));
    }
    let replaced: Option<i64> = row.get(4).map_err(translate)?;
    Ok(Change {
        position,
        entity,
        key: key.map_err(at)?,
        operation,
        replaced: replaced.map(Position::from_i64).transpose()?,
        image,
        time: Timestamp::from_micros(row.get(6).map_err(translate)?)?,
        actor: row.get::<_, Option<Arc<str>>>(7).map_err(translate)?,
        trace: row.get::<_, Option<Arc<str>>>(8).map_err(translate)?,
    })
}
