//! Reading and trimming the log.

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use unisono_core::source::LogBounds;
use unisono_core::write::Idempotency;
use unisono_core::{Change, Error, ErrorKind, Key, Operation, Position, Result, Role, Timestamp};
use unisono_sql::{objects, text as escaped};

use crate::client::Tables;
use crate::codec::{Form, decode_key_text, decode_timestamp, encode_key, key_text, timestamp};
use crate::error::Failed;
use crate::parameter::{Parameter, cell, integer, optional_integer, optional_text, text};
use crate::session::{Session, Use};
use crate::table::Table;
use crate::truth::bounds_of;

const COLUMNS: &str = "position, entity, key, operation, replaced, image, time, actor, trace";
/// The most changes of one statement: what is beyond the bytes asked for was sent in vain.
const CHUNK: usize = 500;

/// The changes after a position.
pub(super) async fn read(
    session: &Session,
    schema: &str,
    tables: &Tables,
    after: Position,
    changes_max: usize,
    bytes_max: usize,
) -> Result<Vec<Arc<Change>>, Failed> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {schema}.unisono_log WHERE position > $1 ORDER BY position LIMIT $2"
    );
    let bounds = bounds_of(session, schema).await?;
    check_trimmed(after, &bounds)?;
    let (mut changes, mut bytes, mut last) = (Vec::new(), 0, after);
    let mut is_whole = after >= bounds.head;
    'reading: while after < bounds.head && changes.len() < changes_max.max(1) {
        let limit = (changes_max.max(1) - changes.len()).min(CHUNK);
        let parameters = [Parameter::integer(last.as_i64()), Parameter::integer(limit as i64)];
        let rows = session.rows(Use::Often, &sql, &parameters).await?;
        for row in &rows {
            let change = change(row, tables)?;
            if change.position != last.next() && change.position.generation() == last.generation() {
                break 'reading;
            }
            (last, is_whole) = (change.position, true);
            bytes += change.weight();
            changes.push(Arc::new(change));
            if bytes >= bytes_max {
                break 'reading;
            }
        }
        if rows.len() < limit {
            break;
        }
    }
    if !is_whole {
        // It may have been trimmed meanwhile.
        check_trimmed(after, &bounds_of(session, schema).await?)?;
        return Err(Error::new(ErrorKind::Corrupt, "a change is missing in the log")
            .with("position", after.next())
            .hint("somebody deleted it by hand: restore the database, or begin a new log")
            .into());
    }
    Ok(changes)
}

fn check_trimmed(after: Position, bounds: &LogBounds) -> Result<()> {
    if after >= bounds.trimmed {
        return Ok(());
    }
    Err(Error::new(ErrorKind::LogTruncated, "the changes after the position were trimmed")
        .with("after", after)
        .with("trimmed", bounds.trimmed))
}

/// The changes of one record, newest first.
///
/// Each names its predecessor, from the record's version or its tombstone backwards: an index over the whole log would
/// cost every commit as much as the rows do.
pub(super) async fn history(
    session: &Session,
    table: &Table,
    tables: &Tables,
    key: &Key,
    before: Option<Position>,
    limit: usize,
) -> Result<Vec<Arc<Change>>, Failed> {
    let Table { schema, name, entity, version, .. } = table;
    let entity = entity.name();
    let of_record = format!(
        "l.entity = '{entity}' AND l.key = $1 AND l.position > (SELECT trimmed FROM {schema}.unisono_head)"
    );
    // Going on from the end of an earlier page does not walk through that page again.
    let sql = format!(
        "WITH RECURSIVE chain AS ( \
         SELECT l.* FROM {schema}.unisono_log l WHERE {of_record} AND l.position = coalesce( \
          (SELECT previous FROM {schema}.unisono_log WHERE position = $3 AND entity = '{entity}' AND key = $1), \
          (SELECT {version} FROM {name} WHERE {key_column} = $2), \
          (SELECT version FROM {schema}.unisono_tombstones WHERE entity = '{entity}' AND key = $1)) \
         UNION ALL \
         SELECT l.* FROM chain c JOIN {schema}.unisono_log l ON l.position = c.previous WHERE {of_record}) \
         SELECT {COLUMNS} FROM chain WHERE position < $3 LIMIT $4",
        key_column = table.key(),
    );
    let key_type = Form::of(table.key_type()).wire();
    let parameters = [
        Parameter::text(&key_text(key)),
        Parameter::new(key_type, Some(encode_key(key))),
        Parameter::integer(before.unwrap_or(Position::MAX).as_i64()),
        Parameter::integer(i64::try_from(limit).unwrap_or(i64::MAX)),
    ];
    let rows = session.rows(Use::Once, &sql, &parameters).await?;
    Ok(rows.iter().map(|row| change(row, tables).map(Arc::new)).collect::<Result<_>>()?)
}

/// The changes at consecutive positions, also where the log was trimmed for everybody else.
pub(super) async fn range(
    session: &Session,
    schema: &str,
    tables: &Tables,
    first: i64,
    count: i64,
) -> Result<Vec<Arc<Change>>, Failed> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM {schema}.unisono_log WHERE position >= $1 AND position < $2 ORDER BY position"
    );
    let parameters = [Parameter::integer(first), Parameter::integer(first.saturating_add(count))];
    let rows = session.rows(Use::Often, &sql, &parameters).await?;
    if i64::try_from(rows.len()) != Ok(count) {
        let missing = "a change that an idempotency key refers to is missing";
        return Err(Error::new(ErrorKind::Corrupt, missing).with("position", first).into());
    }
    Ok(rows.iter().map(|row| change(row, tables).map(Arc::new)).collect::<Result<_>>()?)
}

/// Keeps where the changes of a unit are in the log.
pub(super) fn remember(
    schema: &str,
    idempotency: &Idempotency,
    first: Position,
    changes: usize,
    time: Timestamp,
) -> (String, Vec<Parameter>) {
    let sql = format!(
        "INSERT INTO {schema}.unisono_outcomes (key, fingerprint, first, changes, time) VALUES ($1, $2, $3, $4, $5)"
    );
    let fingerprint = idempotency.fingerprint.to_be_bytes().to_vec();
    let parameters = vec![
        Parameter::text(&escaped::escape(&idempotency.key)),
        Parameter::new(Type::BYTEA, Some(fingerprint)),
        Parameter::integer(first.as_i64()),
        Parameter::integer(changes as i64),
        Parameter::new(Type::TIMESTAMPTZ, Some(timestamp(time))),
    ];
    (sql, parameters)
}

/// Forgets changes and outcomes. Changes of outcomes that are kept stay in the table, out of sight.
pub(super) async fn trim(
    session: &Session,
    schema: &str,
    tables: &Tables,
    through: Position,
    outcomes_before: Timestamp,
) -> Result<u64, Failed> {
    session.run("BEGIN").await?;
    let bounds = bounds_of(session, schema).await?;
    let through = through.min(bounds.head).max(bounds.trimmed);
    let before = Parameter::new(Type::TIMESTAMPTZ, Some(timestamp(outcomes_before)));
    let up_to = Parameter::integer(through.as_i64());
    let outcomes = format!("DELETE FROM {schema}.unisono_outcomes WHERE time < $1");
    session.execute(Use::Once, &outcomes, &[before]).await?;
    let changes = format!(
        "DELETE FROM {schema}.unisono_log l WHERE l.position <= $1 AND l.position >= coalesce( \
         (SELECT o.first + o.changes FROM {schema}.unisono_outcomes o WHERE o.first <= l.position AND o.first > 0 \
          ORDER BY o.first DESC LIMIT 1), 0)"
    );
    session.execute(Use::Once, &changes, std::slice::from_ref(&up_to)).await?;
    let truths: Vec<_> = tables
        .values()
        .filter(|t| t.role == Role::Truth)
        .map(|t| Some(t.entity.name().as_bytes().to_vec()))
        .collect();
    let tombstones = format!(
        "DELETE FROM {schema}.unisono_tombstones WHERE entity = ANY ($2) AND version <= $1"
    );
    let parameters = [up_to.clone(), Parameter::array(&Type::TEXT, &truths)];
    session.execute(Use::Once, &tombstones, &parameters).await?;
    // Last, as commits wait for the head row from here on.
    let head = format!("UPDATE {schema}.unisono_head SET trimmed = greatest(trimmed, $1)");
    session.execute(Use::Once, &head, &[up_to]).await?;
    session.run("COMMIT").await?;
    Ok(through.since(bounds.trimmed))
}

fn change(row: &Row, tables: &Tables) -> Result<Change> {
    let position = Position::from_i64(integer(row, 0)?)?;
    let name = text(row, 1)?;
    let table = tables.get(name);
    let entity = table.map_or_else(|| Arc::from(name), |t| Arc::clone(t.entity.name()));
    let at = |e: Error| e.of(name).with("position", position);
    let corrupt = |message: &'static str| at(Error::new(ErrorKind::Corrupt, message));
    // An entity that is no longer declared: nobody asks for its changes, but the log stays contiguous.
    let key = decode_key_text(table.map(|t| t.key_type()), text(row, 2)?).map_err(at)?;
    let operation = Operation::parse(text(row, 3)?)
        .ok_or_else(|| corrupt("the log holds an operation that does not exist"))?;
    let image = match (table, cell(row, 5)?) {
        (Some(table), Some(json)) => {
            Some(Arc::new(objects::record(&table.entity, json).map_err(at)?))
        }
        _ => None,
    };
    if table.is_some() && (operation == Operation::Put) != image.is_some() {
        return Err(corrupt("the log holds a change without its image"));
    }
    let time = cell(row, 6)?.ok_or_else(|| corrupt("the log holds a change without a time"))?;
    let words = |column| -> Result<Option<Arc<str>>> {
        let word = optional_text(row, column)?.map(escaped::unescape).transpose()?;
        Ok(word.map(|word| Arc::from(word.as_ref())))
    };
    Ok(Change {
        position,
        entity,
        key,
        operation,
        replaced: optional_integer(row, 4)?.map(Position::from_i64).transpose()?,
        image,
        time: decode_timestamp(time)?,
        actor: words(7)?,
        trace: words(8)?,
    })
}
