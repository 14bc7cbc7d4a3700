//! Group commit: many units in one statement, which is one transaction and one round trip.
//!
//! Units that look at records (conditions, patches, deletes, idempotency keys) are decided here, on what one read
//! before has found; the statement takes effect only if the log has not moved since. Only where a row is refused, or
//! other processes keep being faster, units go one after the other in a transaction that holds the head row.

use std::collections::HashMap;
use std::sync::Arc;

use unisono_core::source::fenced;
use unisono_core::write::{Committed, Unit};
use unisono_core::{Change, Error, ErrorKind, Key, Position, Result, Version};

use crate::capture::{self, Column, Sequencer};
use crate::client::{Client, Tables};
use crate::error::{Class, Failed, is_of_lock, timed_out};
use crate::parameter::{integer, optional_integer};
use crate::session::{Session, Use};
use crate::table::{Table, quote};
use crate::truth::plan::{Decision, Known, Needs, Plan, change};
use crate::truth::{fences, log, statement};

/// How often a batch is tried before the head row is held instead.
const ATTEMPTS: u32 = 3;
/// How often the head row is held, or a connection made, before the failure is told.
const FAILURES_MAX: u32 = 3;
/// How often a batch is begun anew because others wrote its records meanwhile.
const OVERTAKEN_MAX: u32 = 10;
/// How long a record of a captured table is waited for that another transaction is writing: by a whole batch, and
/// by one unit of it afterwards. Meanwhile nobody else commits.
const LOCK_WAIT: &str = "SET LOCAL lock_timeout = '100ms'";
const LOCK_WAIT_ALONE: &str = "SET LOCAL lock_timeout = '20ms'";

/// Commits are the same few statements, whose plans do not depend on what they carry: planning them again and again
/// would take longer than running them.
const GENERIC: &str = "SET plan_cache_mode = force_generic_plan";

type Results = Vec<Result<Committed>>;

/// Commits units in order; one that fails leaves nothing behind.
pub(super) async fn commit(client: &Client, units: &[Unit]) -> Result<Results, Failed> {
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let tables = client.tables();
    let mut writer = client.writer.lock().await;
    let (mut misses, mut failures) = (0, 0);
    let captured = !written(&tables, units).is_empty();
    let mut way = if captured { Way::Holding } else { Way::Together };
    loop {
        // Taken out, so that a call that is given up half-way takes its connection with it.
        let session = match writer.take().filter(|session| client.is_current(session)) {
            Some(session) => session,
            None => connect(client).await?,
        };
        let work = Batch { session: &session, schema: quote(client.schema()), tables: &tables };
        let limit = client.request_timeout();
        let failed = match tokio::time::timeout(limit, work.run(way, units)).await {
            Ok(Ok(Some(results))) => {
                *writer = Some(session);
                return Ok(results);
            }
            Ok(Ok(None)) => {
                *writer = Some(session);
                misses += 1;
                if misses >= OVERTAKEN_MAX && captured {
                    return Err(overtaken());
                }
                if misses >= ATTEMPTS && way == Way::Together {
                    way = Way::Holding;
                }
                continue;
            }
            Ok(Err(failed)) => failed.with_server(&session.address),
            Err(_) => {
                session.cancel().await;
                return Err(timed_out(limit, "request_timeout").at_commit());
            }
        };
        match failed.class {
            _ if way != Way::OneByOne && (failed.is_of_statement() || failed.is_of_table()) => {
                if way == Way::Holding {
                    session.run("ROLLBACK").await?;
                }
                *writer = Some(session);
                if units.len() == 1 && units.iter().all(|u| u.writes.len() == 1) {
                    return Ok(vec![Err(failed.error)]);
                }
                way = Way::OneByOne;
            }
            _ => {
                failures += 1;
                let helps = client.is_worth_repeating(&failed);
                let written = failed.error.effect_on_data() != unisono_core::Effect::None;
                if written || !helps || failures > FAILURES_MAX {
                    return Err(failed);
                }
            }
        }
    }
}

/// Commits one unit in the generation after a position, unless the log has come further already.
pub(super) async fn commit_above(
    client: &Client,
    position: Position,
    unit: &Unit,
) -> Result<Result<Committed>, Failed> {
    let mut writer = client.writer.lock().await;
    // Taken out, so that a call that fails takes its connection and its transaction with it.
    let session = match writer.take().filter(|session| client.is_current(session)) {
        Some(session) => session,
        None => connect(client).await?,
    };
    let tables = client.tables();
    let schema = quote(client.schema());
    let raise = format!(
        "{}; UPDATE {schema}.unisono_head SET position = {} WHERE position <= {position}",
        capture::BEGIN,
        position.next_generation()
    );
    session.run(&raise).await?;
    let work = Batch { session: &session, schema, tables: &tables };
    let moved = || Failed::from(Error::internal("the head moved while it was held"));
    let result = work.attempt(std::slice::from_ref(unit)).await?.ok_or_else(moved)?.pop();
    let result = result.ok_or_else(|| Failed::from(Error::internal("a unit has no outcome")))?;
    let written = result.as_ref().is_ok_and(|c| !c.replayed && !c.changes.is_empty());
    session.run(if written { "COMMIT" } else { "ROLLBACK" }).await.map_err(Failed::at_commit)?;
    *writer = Some(session);
    Ok(result)
}

/// The records of captured tables that units write.
fn written<'a>(
    tables: &'a Tables,
    units: impl IntoIterator<Item = &'a Unit>,
) -> Vec<(&'a Table, &'a Key)> {
    let writes = units.into_iter().flat_map(|unit| &unit.writes);
    let place = |write: &'a unisono_core::write::Write| {
        let table = tables.get(write.entity.name()).filter(|t| t.capture.is_some())?;
        Some((table.as_ref(), &write.key))
    };
    writes.filter_map(place).collect()
}

fn overtaken() -> Failed {
    let error = Error::new(ErrorKind::Unavailable, "other programs keep changing the same records")
        .retry(unisono_core::Retry::Now);
    Failed { class: Class::Conflict, error }
}

async fn connect(client: &Client) -> Result<Session, Failed> {
    let limit = client.request_timeout();
    let connected = async {
        let (session, _) = client.connect().await?;
        // Behind a pooler the connection is not ours alone.
        if session.is_prepared() {
            session.run(GENERIC).await?;
        }
        Ok(session)
    };
    let connected = tokio::time::timeout(limit, connected).await;
    connected.unwrap_or_else(|_| Err(timed_out(limit, "request_timeout")))
}

/// How units are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In one statement, unless another process has committed meanwhile.
    Together,
    /// In one statement, in a transaction that holds the head row.
    Holding,
    /// Write by write, in a transaction that holds the head row.
    OneByOne,
}

/// One call on one connection.
pub(super) struct Batch<'a> {
    pub(super) session: &'a Session,
    /// Quoted for SQL.
    pub(super) schema: String,
    pub(super) tables: &'a Tables,
}

impl Batch<'_> {
    /// The results, or none if the log has moved.
    async fn run(&self, way: Way, units: &[Unit]) -> Result<Option<Results>, Failed> {
        if way == Way::Together {
            return self.attempt(units).await;
        }
        let captured = written(self.tables, units);
        let wait = if way == Way::OneByOne { LOCK_WAIT_ALONE } else { LOCK_WAIT };
        let own = match captured.is_empty() {
            true => String::new(),
            // A record that another transaction is writing fails its own unit, and does not hold up the others for long.
            false => format!("; {}; {wait}", capture::OWN),
        };
        let hold = format!(
            "{}; SELECT position FROM {}.unisono_head FOR UPDATE",
            capture::BEGIN,
            self.schema
        );
        self.session.run(&(hold + &own)).await?;
        let mut whole = Vec::new();
        let results = match way {
            Way::OneByOne => Some(self.one_by_one(units, &mut whole).await?),
            _ => {
                self.settle(&captured, &mut whole).await?;
                self.attempt(units).await?
            }
        };
        // Now that we have locked the rows, nobody else can write them: whoever came in between has committed.
        let done = results.iter().flatten().zip(units).filter(|(result, _)| result.is_ok());
        let written = written(self.tables, done.map(|(_, unit)| unit));
        if !written.is_empty() && self.sequencer().was_overtaken(&written, &whole).await? {
            self.session.run("ROLLBACK").await?;
            return Ok(None);
        }
        self.session.run("COMMIT").await.map_err(Failed::at_commit)?;
        Ok(results)
    }

    fn sequencer(&self) -> Sequencer<'_> {
        Sequencer { session: self.session, schema: &self.schema, tables: self.tables }
    }

    /// What others have committed of some records comes first, so that no condition overlooks it.
    async fn settle(&self, captured: &[(&Table, &Key)], whole: &mut Column) -> Result<(), Failed> {
        if !captured.is_empty() {
            whole.extend(self.sequencer().of(captured).await?);
        }
        Ok(())
    }

    /// Reads what must be known, decides, and writes.
    async fn attempt(&self, units: &[Unit]) -> Result<Option<Results>, Failed> {
        let needs = Needs::of(units);
        let known = match needs.is_empty() {
            true => Known::default(),
            false => self.read(&needs).await?,
        };
        let plan = Plan::new(units, self.tables, &known);
        if !plan.is_set() {
            let error = Error::internal("unique values are given up and taken in one batch");
            return Err(Failed { class: Class::Refused, error });
        }
        let takes = |d: &Decision| matches!(d, Decision::Takes { .. });
        let has_work = !plan.items.is_empty()
            || units.iter().zip(&plan.decisions).any(|(u, d)| u.idempotency.is_some() && takes(d));
        if !has_work {
            return Ok(Some(results(&plan, units, Position::ZERO, &HashMap::new())));
        }
        let commit = statement::commit(&self.schema, &plan, units, known.head);
        let rows = self.session.rows(Use::Often, &commit.sql, &commit.parameters).await;
        let rows = rows.map_err(Failed::at_commit)?;
        let Some(first) = rows.first() else {
            return self.refuse_fenced(&plan).await.map(|()| None);
        };
        let base = Position::from_i64(integer(first, 0)?).map_err(unknown)?;
        let mut replaced = HashMap::with_capacity(rows.len());
        for row in &rows {
            if let (Some(position), Some(version)) = (
                optional_integer(row, 1).map_err(unknown)?,
                optional_integer(row, 2).map_err(unknown)?,
            ) {
                replaced.insert(position, Position::from_i64(version).map_err(unknown)?);
            }
        }
        Ok(Some(results(&plan, units, base, &replaced)))
    }

    /// Fails if the log took nothing because writes of one of the entities are refused.
    async fn refuse_fenced(&self, plan: &Plan) -> Result<(), Failed> {
        let fences = fences(self.session, &self.schema).await?;
        let entities = plan.items.iter().map(|item| item.table.entity.name());
        match entities.into_iter().find(|entity| fences.contains_key(entity.as_ref())) {
            Some(entity) => Err(Failed { class: Class::Refused, error: fenced(entity) }),
            None => Ok(()),
        }
    }

    /// Unit after unit, and write after write, so that each sees what is there before it. The head row is held.
    async fn one_by_one(&self, units: &[Unit], whole: &mut Column) -> Result<Results, Failed> {
        let mut results: Results = Vec::with_capacity(units.len());
        // Nobody waits twice for a record that somebody else keeps locked.
        let mut locked: HashMap<(&Arc<str>, &Key), Error> = HashMap::new();
        for unit in units {
            let places = || unit.writes.iter().map(|w| (w.entity.name(), &w.key));
            if let Some(error) = places().find_map(|place| locked.get(&place)) {
                results.push(Err(error.duplicate()));
                continue;
            }
            self.session.run("SAVEPOINT unisono_unit").await?;
            let result = self.alone(unit, whole).await?;
            if let (Err(error), [_]) = (&result, unit.writes.as_slice())
                && is_of_lock(error)
            {
                locked.extend(places().map(|place| (place, error.duplicate())));
            }
            let end = match &result {
                Ok(_) => "RELEASE unisono_unit",
                Err(_) => "ROLLBACK TO unisono_unit; RELEASE unisono_unit",
            };
            self.session.run(end).await?;
            results.push(result);
        }
        Ok(results)
    }

    /// One unit; the inner error is its own.
    async fn alone(&self, unit: &Unit, whole: &mut Column) -> Result<Result<Committed>, Failed> {
        let captured = written(self.tables, [unit]);
        match self.settle(&captured, whole).await {
            Err(failed) if failed.is_of_table() => return Ok(Err(failed.error)),
            settled => settled?,
        }
        let bare = |writes: Vec<_>| Unit { writes, idempotency: None, ..unit.clone() };
        if unit.idempotency.is_some() {
            let needs = Needs {
                outcomes: Needs::of(std::slice::from_ref(unit)).outcomes,
                ..Needs::default()
            };
            let known = self.read(&needs).await?;
            let empty = [Unit { writes: Vec::new(), ..unit.clone() }];
            match Plan::new(&empty, self.tables, &known).decisions.pop() {
                Some(Decision::Replays(changes)) => {
                    return Ok(Ok(Committed { changes, replayed: true }));
                }
                Some(Decision::Fails(error)) => return Ok(Err(error)),
                _ => {}
            }
        }
        let mut changes = Vec::with_capacity(unit.writes.len());
        for write in &unit.writes {
            match self.attempt(&[bare(vec![write.clone()])]).await {
                Ok(Some(results)) => match results.into_iter().next() {
                    Some(Ok(committed)) => changes.extend(committed.changes),
                    Some(Err(error)) => return Ok(Err(error)),
                    None => return Err(Error::internal("a write has no result").into()),
                },
                Ok(None) => return Err(Error::internal("the head moved while it was held").into()),
                Err(failed) if failed.is_of_statement() || failed.is_of_table() => {
                    return Ok(Err(failed.error));
                }
                Err(failed) => return Err(failed),
            }
        }
        if let Some(idempotency) = &unit.idempotency {
            let first = changes.first().map_or(Position::ZERO, |c: &Arc<Change>| c.position);
            let (sql, parameters) =
                log::remember(&self.schema, idempotency, first, changes.len(), unit.time);
            self.session.execute(Use::Often, &sql, &parameters).await?;
        }
        Ok(Ok(Committed { changes, replayed: false }))
    }
}

fn results(
    plan: &Plan,
    units: &[Unit],
    base: Position,
    replaced: &HashMap<i64, Version>,
) -> Results {
    let mut results: Results = Vec::with_capacity(units.len());
    for decision in &plan.decisions {
        let result = match decision {
            Decision::Fails(error) => Err(error.duplicate()),
            Decision::Replays(changes) => {
                Ok(Committed { changes: changes.clone(), replayed: true })
            }
            Decision::Repeats(earlier) => match results.get(*earlier) {
                Some(Ok(committed)) => {
                    Ok(Committed { changes: committed.changes.clone(), replayed: true })
                }
                _ => Err(Error::internal("a repeated unit has no outcome")),
            },
            Decision::Takes { first, count } => {
                let of = |n: usize| {
                    let item = plan.items.get(n)?;
                    let position = base.plus(n as u64 + 1);
                    let replaced = replaced.get(&position.as_i64()).copied();
                    Some(Arc::new(change(item, units.get(item.unit)?, position, replaced)))
                };
                let changes = (*first..first + count).filter_map(of).collect();
                Ok(Committed { changes, replayed: false })
            }
        };
        results.push(result);
    }
    results
}

/// What goes wrong behind a commit does not undo it.
fn unknown(error: Error) -> Failed {
    error.effect(unisono_core::Effect::Unknown).into()
}
