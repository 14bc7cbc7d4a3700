//! Reading and trimming the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use mysql_async::Row;
use unisono_core::source::LogBounds;
use unisono_core::{
    Change, Error, ErrorKind, Key, Operation, Position, Result, Role, Timestamp, Uuid,
};

use crate::client::{Client, Tables, head_missing};
use crate::codec::{number_of, push_key_text, text_of};
use crate::error::Failed;
use crate::images;
use crate::literal::text;
use crate::pool::Session;
use crate::table::{Table, cell, own_key};
use crate::tombstones;
use crate::truth::reading;

const HEAD: &str = "SELECT `log`, `trimmed`, `position` FROM unisono_head WHERE `only` = 1";
const COLUMNS: &str = "l.`position`, l.`entity`, l.`key`, l.`operation`, l.`replaced`, l.`image`, l.`time`, l.`actor`, \
                       l.`trace`";
/// Changes of one exchange; more come with the next one, so that one reader does not hold very many in memory.
const PAGE: usize = 256;
/// Rows that one statement of a trim deletes: it must not hold up others.
const TRIMMED_ROWS: i64 = 5000;

/// Where the log begins and ends.
pub(super) async fn bounds(client: &Client) -> Result<LogBounds, Failed> {
    let sets = client.reader().run(HEAD).await?;
    let bounds = bounds_in(sets.first().map_or(&[], Vec::as_slice))?;
    client.heard_of(bounds.head);
    Ok(bounds)
}

/// What was said of the entities whose writes are refused.
pub(super) async fn fences(client: &Client) -> Result<BTreeMap<String, String>, Failed> {
    let sql = "SELECT `position`, `fences` FROM unisono_head WHERE `only` = 1";
    let sets = client.reader().run(sql).await?;
    let head = sets.first().and_then(|rows| rows.first()).ok_or_else(head_missing)?;
    Ok(reading::fences(head)?)
}

fn bounds_in(rows: &[Row]) -> Result<LogBounds> {
    let row = rows.first().ok_or_else(head_missing)?;
    let log = Uuid::try_parse(text_of(cell(row, 0)?)?.unwrap_or_default()).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "the identity of the log is not a UUID").caused_by(e)
    })?;
    let position = |at| Position::from_i64(number_of(cell(row, at)?)?.unwrap_or_default());
    Ok(LogBounds { log, trimmed: position(1)?, head: position(2)? })
}

/// The changes after a position.
pub(super) async fn read(
    client: &Client,
    after: Position,
    changes_max: usize,
    bytes_max: usize,
) -> Result<Vec<Arc<Change>>, Failed> {
    let tables = client.tables();
    let (mut changes, mut bytes, mut last) = (Vec::new(), 0, after);
    let page = |last: Position, asked: usize| {
        format!(
            "SELECT {COLUMNS} FROM unisono_log AS l WHERE l.`position` > {last} ORDER BY l.`position` LIMIT {asked}"
        )
    };
    let asked = changes_max.clamp(1, PAGE);
    let first = format!("START TRANSACTION READ ONLY; {HEAD}; {}", page(after, asked));
    let (mut session, sets) = client.reader().begin(&first).await?;
    let mut sets = sets.into_iter();
    let bounds = bounds_in(&sets.next().unwrap_or_default())?;
    let mut rows = sets.next().unwrap_or_default();
    if after < bounds.trimmed {
        session.end().await?;
        return Err(Error::new(
            ErrorKind::LogTruncated,
            "the changes after the position were trimmed",
        )
        .with("after", after)
        .with("trimmed", bounds.trimmed)
        .into());
    }
    let mut asked = asked;
    'pages: loop {
        let is_last = rows.len() < asked;
        for row in &rows {
            if !changes.is_empty() && bytes >= bytes_max {
                break 'pages;
            }
            let change = change(row, &tables)?;
            if change.position != last.next() && change.position.generation() == last.generation() {
                return Err(Error::new(ErrorKind::Corrupt, "a change is missing in the log")
                    .with("position", last.next())
                    .hint("somebody deleted it by hand: restore the database, or begin a new log")
                    .into());
            }
            last = change.position;
            bytes += change.weight();
            changes.push(Arc::new(change));
        }
        asked = changes_max.saturating_sub(changes.len()).min(PAGE);
        if is_last || asked == 0 || bytes >= bytes_max {
            break;
        }
        rows = session.run(&page(last, asked)).await?.into_iter().next().unwrap_or_default();
    }
    session.end().await?;
    client.heard_of(last);
    Ok(changes)
}

/// The changes of one record, newest first.
///
/// Each names its predecessor, from the record's version or its tombstone backwards: an index over the whole log would
/// cost every commit as much as the rows do.
pub(super) async fn history(
    client: &Client,
    table: &Table,
    key: &Key,
    before: Option<Position>,
    limit: usize,
) -> Result<Vec<Arc<Change>>, Failed> {
    let tables = client.tables();
    let before = before.unwrap_or(Position::MAX);
    let entity = table.entity.name();
    let mut of_record = format!("`entity` = {} AND `key` = ", text(entity));
    push_key_text(&mut of_record, key);
    let sql = format!(
        "START TRANSACTION READ ONLY; {HEAD}; \
         SELECT `previous` FROM unisono_log WHERE `position` = {before} AND {of_record}; \
         SELECT {} FROM {} WHERE {} = {}; {}",
        table.version,
        table.name,
        table.key_column(),
        table.literal(key),
        tombstones::find(entity, [key])
    );
    let (mut session, sets) = client.reader().begin(&sql).await?;
    let set = |n: usize| sets.get(n).map_or(&[][..], Vec::as_slice);
    let trimmed = bounds_in(set(0))?.trimmed;
    // Going on from the end of an earlier page does not walk through that page again.
    let start = match (set(1).first(), set(2).first()) {
        (Some(row), _) => number_of(cell(row, 0)?)?,
        (None, Some(row)) => number_of(cell(row, 0)?)?,
        (None, None) => {
            let deleted = tombstones::found(&table.entity, set(3))?;
            deleted.first().map(|(_, at)| at.as_i64())
        }
    };
    let mut changes: Vec<Arc<Change>> = Vec::new();
    let mut next = start;
    while let Some(position) = next.filter(|_| changes.len() < limit) {
        let (some, end) = walk(&mut session, &of_record, position, trimmed).await?;
        next = end;
        for row in &some {
            let change = change(row, &tables)?;
            if change.position < before && changes.len() < limit {
                changes.push(Arc::new(change));
            }
        }
    }
    session.end().await?;
    Ok(changes)
}

/// Some changes of a record from one backwards, and where its next is.
async fn walk(
    session: &mut Session,
    of_record: &str,
    from: i64,
    trimmed: Position,
) -> Result<(Vec<Row>, Option<i64>), Failed> {
    // A version can be of another record's change: that of a row which the table had before the log.
    let sql = format!(
        "WITH RECURSIVE `chain` (`at`, `before`, `n`) AS (\
         SELECT `position`, `previous`, 1 FROM unisono_log \
         WHERE `position` = {from} AND `position` > {trimmed} AND {of_record} \
         UNION ALL SELECT p.`position`, p.`previous`, `chain`.`n` + 1 FROM `chain` JOIN unisono_log AS p \
         ON p.`position` = `chain`.`before` WHERE p.`position` > {trimmed} AND `chain`.`n` < {PAGE}) \
         SELECT {COLUMNS}, `chain`.`before`, `chain`.`n` FROM `chain` JOIN unisono_log AS l ON l.`position` = `chain`.`at` \
         ORDER BY l.`position` DESC"
    );
    let rows = session.run(&sql).await?.into_iter().next().unwrap_or_default();
    let next = match rows.last() {
        Some(row) if number_of(cell(row, 10)?)? == i64::try_from(PAGE).ok() => {
            number_of(cell(row, 9)?)?
        }
        _ => None,
    };
    Ok((rows, next))
}

/// The changes at consecutive positions, also where the log was trimmed for everybody else.
pub(super) async fn range(
    session: &mut Session,
    tables: &Tables,
    first: i64,
    count: i64,
) -> Result<Vec<Arc<Change>>, Failed> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let end = first.saturating_add(count);
    let sql = format!(
        "SELECT {COLUMNS} FROM unisono_log AS l WHERE l.`position` >= {first} AND l.`position` < {end} \
         ORDER BY l.`position`"
    );
    let rows = session.run(&sql).await?.into_iter().next().unwrap_or_default();
    if i64::try_from(rows.len()) != Ok(count) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "a change that an idempotency key refers to is missing",
        )
        .with("position", first)
        .into());
    }
    Ok(rows.iter().map(|row| change(row, tables).map(Arc::new)).collect::<Result<_>>()?)
}

/// Forgets changes and outcomes. Changes of outcomes that are kept stay in the table, out of sight.
///
/// The log is out of sight first; rows are then deleted in small transactions that hold up nobody. What a crash leaves
/// is deleted by the next trim.
pub(super) async fn trim(
    client: &Client,
    through: Position,
    outcomes_before: Timestamp,
) -> Result<u64, Failed> {
    let writer = client.writer();
    let lock = format!("START TRANSACTION; {HEAD} FOR UPDATE");
    let (mut session, sets) = writer.begin(&lock).await?;
    let bounds = bounds_in(sets.first().map_or(&[], Vec::as_slice))?;
    let through = through.min(bounds.head).max(bounds.trimmed);
    let sql = format!("UPDATE unisono_head SET `trimmed` = {through} WHERE `only` = 1; COMMIT");
    session.run(&sql).await?;
    let outcomes = format!(
        "DELETE FROM unisono_outcomes WHERE `time` < {} LIMIT {TRIMMED_ROWS}",
        outcomes_before.micros()
    );
    delete_all(&mut session, &outcomes).await?;
    let log = format!(
        "DELETE FROM unisono_log WHERE `position` <= {through} AND `position` >= COALESCE((\
         SELECT o.`first` + o.`changes` FROM unisono_outcomes AS o \
         WHERE o.`first` <= unisono_log.`position` AND o.`first` > 0 ORDER BY o.`first` DESC LIMIT 1), 0) \
         ORDER BY `position` LIMIT {TRIMMED_ROWS}"
    );
    delete_all(&mut session, &log).await?;
    for table in client.tables().values().filter(|t| t.role == Role::Truth) {
        session.run(&tombstones::forget(table.entity.name(), through)).await?;
    }
    session.release();
    Ok(through.since(bounds.trimmed))
}

/// Repeats a statement with a limit until it finds nothing more.
async fn delete_all(session: &mut Session, statement: &str) -> Result<(), Failed> {
    loop {
        let sets = session.run(&format!("{statement}; SELECT ROW_COUNT()")).await?;
        let row = sets.first().and_then(|rows| rows.first());
        let deleted = row.map(|row| number_of(cell(row, 0)?)).transpose()?.flatten();
        if deleted.is_none_or(|n| n < TRIMMED_ROWS) {
            return Ok(());
        }
    }
}

fn change(row: &Row, tables: &Tables) -> Result<Change> {
    let number = |at| number_of(cell(row, at)?);
    let word = |at| text_of(cell(row, at)?);
    let position = Position::from_i64(number(0)?.unwrap_or_default())?;
    let name = word(1)?.unwrap_or_default();
    let table = tables.get(name);
    let entity = table.map_or_else(|| Arc::from(name), |t| Arc::clone(t.entity.name()));
    let at = |e: Error| e.of(name).with("position", position);
    // If the entity is no longer declared, nobody asks for its changes, but the log stays contiguous.
    let key = own_key(table.map(|t| t.entity.as_ref()), cell(row, 2)?).map_err(at)?;
    let operation = word(3)?.and_then(Operation::parse).ok_or_else(|| {
        at(Error::new(ErrorKind::Corrupt, "the log holds an operation that does not exist"))
    })?;
    let image = match (table, word(5)?) {
        (Some(table), Some(text)) => {
            Some(Arc::new(images::record(&table.entity, text).map_err(at)?))
        }
        _ => None,
    };
    if table.is_some() && !is_whole(operation, image.is_some()) {
        return Err(at(Error::new(ErrorKind::Corrupt, "the log holds a change without its image")));
    }
    Ok(Change {
        position,
        entity,
        key,
        operation,
        replaced: number(4)?.map(Position::from_i64).transpose()?,
        image,
        time: Timestamp::from_micros(number(6)?.unwrap_or_default())?,
        actor: word(7)?.map(Arc::from),
        trace: word(8)?.map(Arc::from),
    })
}

/// Whether a change has what its operation needs: a put an image, a delete none.
pub(crate) fn is_whole(operation: Operation, has_image: bool) -> bool {
    (operation == Operation::Put) == has_image
}
