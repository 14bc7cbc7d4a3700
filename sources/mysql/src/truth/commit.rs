//! Group commit: many units in one transaction and, as a rule, two exchanges. The first locks the head of the log,
//! which makes the transactions of all processes serial, and reads and locks the rows; the second writes and commits.
//!
//! The rows of captured tables can be locked by other programs. They are locked before the head, so that nobody else
//! waits for those programs; and a unit whose record stays locked fails alone.

use unisono_core::write::{Committed, Unit};
use unisono_core::{Error, ErrorKind, Position, Result, Retry};

use crate::capture::{LOCK_SECONDS, NOT_OWN, Sequencer};
use crate::client::{Client, Tables, head_missing};
use crate::codec::number_of;
use crate::connection::ATTEMPTS;
use crate::error::{Class, Failed};
use crate::literal::text;
use crate::mutation::packets;
use crate::pool::{Session, Sets};
use crate::table::cell;
use crate::truth::STATEMENT_OVERHEAD;
use crate::truth::batch::Batch;
use crate::truth::pending::Pending;
use crate::truth::reading::{Busy, HEAD, Reading, fences, is_busy};

/// How often what others have written is sequenced before a transaction is begun anew.
const OVERTAKEN_MAX: usize = 3;

/// Commits units in order; one that fails leaves nothing behind.
///
/// If they are to be `above` a position, they are in the generation after it, unless the log has come further already.
pub(super) async fn commit(
    client: &Client,
    units: &[Unit],
    above: Option<Position>,
) -> Result<Vec<Result<Committed>>, Failed> {
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let tables = client.tables();
    let mut way = Way::default();
    let mut attempt = 1;
    loop {
        let failed = match transaction(client, &tables, units, &way, above).await {
            Ok(results) => return Ok(results),
            Err(failed) => failed,
        };
        match failed.class {
            // A constraint that only the server knows: find the unit that it refuses.
            Class::Refused if !way.one_by_one => way.one_by_one = true,
            Class::Conflict if attempt < ATTEMPTS => {
                attempt += 1;
                let reading = Reading::of(&tables, units, &way.busy);
                if failed.is_lock_wait() && reading.captured().next().is_some() {
                    way.busy.extend(reading.busy(client).await?);
                    way.one_by_one = true;
                }
            }
            _ => return Err(failed),
        }
    }
}

/// How units are committed.
#[derive(Default)]
struct Way {
    /// Each behind a savepoint, so that a refusal concerns it alone.
    one_by_one: bool,
    /// Records that other programs hold for long: units that write them fail.
    busy: Busy,
}

async fn transaction(
    client: &Client,
    tables: &Tables,
    units: &[Unit],
    way: &Way,
    above: Option<Position>,
) -> Result<Vec<Result<Committed>>, Failed> {
    let reading = Reading::of(tables, units, &way.busy);
    let (mut session, sets) = begin(client, &reading).await?;
    let work = (units, way, above);
    let done = written(client, tables, work, &mut session, &reading, sets).await;
    match &done {
        Ok((results, head)) => {
            let is_written = |c: &Committed| !c.replayed && !c.changes.is_empty();
            if results.iter().flatten().any(is_written) {
                client.heard_of(*head);
            }
            session.release();
        }
        Err(failed) if matches!(failed.class, Class::Refused | Class::Conflict) => {
            let end = ending(client, &reading, "ROLLBACK");
            session.run(&format!("{end}; {NOT_OWN}")).await?;
            session.release();
        }
        // The connection is closed, which undoes the transaction.
        Err(_) => {}
    }
    done.map(|(results, _)| results)
}

/// Locks the head of the log and reads; before that, waits for others who write records of captured tables.
async fn begin(client: &Client, reading: &Reading<'_>) -> Result<(Session, Sets), Failed> {
    let locks = reading.locks();
    if locks.is_empty() {
        return client.writer().begin(&format!("START TRANSACTION; {}", held(reading))).await;
    }
    let sql = format!("{}; START TRANSACTION; {}", lock_wait(LOCK_SECONDS), locks.join("; "));
    let (mut session, _) = client.writer().begin(&sql).await?;
    let sql = format!(
        "{}; {HEAD}; {}; {}",
        lock_wait(client.server().lock_seconds),
        lock_wait(LOCK_SECONDS),
        reading.sql()
    );
    let sets = session.run(&sql).await?;
    Ok((session, sets))
}

fn held(reading: &Reading<'_>) -> String {
    match reading.sql() {
        sql if sql.is_empty() => HEAD.to_owned(),
        sql => format!("{HEAD}; {sql}"),
    }
}

fn lock_wait(seconds: u64) -> String {
    format!("SET SESSION innodb_lock_wait_timeout = {seconds}")
}

/// Ends what [`begin`] has begun.
fn ending(client: &Client, reading: &Reading<'_>, end: &str) -> String {
    match reading.captured().next() {
        Some(_) => format!("{end}; {}", lock_wait(client.server().lock_seconds)),
        None => end.to_owned(),
    }
}

async fn written(
    client: &Client,
    tables: &Tables,
    (units, way, above): (&[Unit], &Way, Option<Position>),
    session: &mut Session,
    reading: &Reading<'_>,
    sets: Sets,
) -> Result<(Vec<Result<Committed>>, Position), Failed> {
    let packet_bytes = client.server().packet_bytes_max.saturating_sub(1024);
    let row_bytes = packet_bytes.saturating_sub(STATEMENT_OVERHEAD);
    let (mut batch, sets) = current(tables, session, reading, sets, row_bytes).await?;
    reading.outcomes(tables, session, &sets, &mut batch).await?;
    if let Some(above) = above.filter(|above| batch.head <= *above) {
        batch.head = above.next_generation();
    }
    let begun = batch.head;
    let mut pending = Pending::default();
    let mut results = Vec::with_capacity(units.len());
    for unit in units {
        results.push(match way.one_by_one {
            _ if is_busy(unit, &way.busy) => Err(busy(unit)),
            false => batch.unit(unit, &mut pending),
            true => alone(&mut batch, unit, session, packet_bytes).await?,
        });
    }
    let mut statements = pending.into_statements();
    if batch.head != begun {
        statements
            .push(format!("UPDATE unisono_head SET `position` = {} WHERE `only` = 1", batch.head));
    }
    statements.push(ending(client, reading, "COMMIT"));
    let mut packets = packets(statements, packet_bytes);
    let last = packets.pop().unwrap_or_default();
    for packet in packets {
        session.run(&packet).await?;
    }
    session.run(&last).await.map_err(Failed::at_commit)?;
    Ok((results, batch.head))
}

/// The state that was read. What others have committed comes into the log first, so that no condition overlooks it.
async fn current<'a>(
    tables: &'a Tables,
    session: &mut Session,
    reading: &Reading<'a>,
    mut sets: Sets,
    row_bytes: usize,
) -> Result<(Batch<'a>, Sets), Failed> {
    for _ in 0..OVERTAKEN_MAX {
        let (batch, was_overtaken) = reading.batch(tables, &sets, row_bytes)?;
        if !was_overtaken {
            return Ok((batch, sets));
        }
        let mut sequencer = Sequencer::new(session, tables, batch.head);
        for touched in reading.captured() {
            sequencer.of(touched.table, touched.keys.iter().copied()).await?;
        }
        sets = session.run(&held(reading)).await?;
    }
    let error = Error::new(ErrorKind::Unavailable, "other programs keep changing the same records");
    Err(Failed { class: Class::Conflict, error: error.retry(Retry::Now) })
}

/// The error of a unit whose record another program does not let go of.
fn busy(unit: &Unit) -> Error {
    let error = Error::new(
        ErrorKind::Unavailable,
        "another program is writing the record and has not ended its transaction",
    )
    .hint(
        "repeat the request; if it stays so, end that transaction (information_schema.innodb_trx)",
    );
    match unit.writes.first().filter(|_| unit.writes.len() == 1) {
        Some(write) => error.of(write.entity.name()).with("key", &write.key),
        None => error,
    }
}

/// Writes one unit behind a savepoint, so that a refusal concerns it alone.
async fn alone(
    batch: &mut Batch<'_>,
    unit: &Unit,
    session: &mut Session,
    packet_bytes: usize,
) -> Result<Result<Committed>, Failed> {
    let begun = batch.head;
    let mut pending = Pending::default();
    let committed = match batch.unit(unit, &mut pending) {
        Ok(committed) if !committed.replayed => committed,
        answered => return Ok(answered),
    };
    let mut statements = pending.into_statements();
    statements.insert(0, "SAVEPOINT unisono_unit".into());
    for packet in packets(statements, packet_bytes) {
        match session.run(&packet).await {
            Ok(_) => {}
            Err(failed) if failed.class == Class::Refused || failed.is_lock_wait() => {
                if failed.error.detail("field") == Some("PRIMARY") {
                    // Somebody inserted the row after it was looked for: look again.
                    return Err(Failed { class: Class::Conflict, ..failed });
                }
                session.run(&format!("ROLLBACK TO SAVEPOINT unisono_unit; {NOT_OWN}")).await?;
                batch.undo(begun);
                batch.forget_outcome(unit);
                let write = unit.writes.first();
                let entity = write.map_or("", |write| write.entity.name());
                let error = failed.error.of(entity);
                return Ok(Err(match write.filter(|_| unit.writes.len() == 1) {
                    Some(write) => error.with("key", &write.key),
                    None => error,
                }));
            }
            Err(failed) => return Err(failed),
        }
    }
    Ok(Ok(committed))
}

/// Says of an entity that its writes are refused, or are not; answers the head, or nothing if something else was said.
pub(super) async fn fence(
    client: &Client,
    entity: &str,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<Option<Position>, Failed> {
    let (mut session, sets) = client.writer().begin(&format!("START TRANSACTION; {HEAD}")).await?;
    let head = sets.first().and_then(|rows| rows.first()).ok_or_else(head_missing)?;
    let mut said = fences(head)?;
    let position = Position::from_i64(number_of(cell(head, 0)?)?.unwrap_or_default())?;
    if said.get(entity).map(String::as_str) != from {
        session.end().await?;
        return Ok(None);
    }
    match to {
        Some(to) => said.insert(entity.to_owned(), to.to_owned()),
        None => said.remove(entity),
    };
    let json = serde_json::to_string(&said)
        .map_err(|e| Error::internal("what is refused cannot be encoded").caused_by(e))?;
    let sql =
        format!("UPDATE unisono_head SET `fences` = {} WHERE `only` = 1; COMMIT", text(&json));
    session.run(&sql).await.map_err(Failed::at_commit)?;
    session.release();
    Ok(Some(position))
}
