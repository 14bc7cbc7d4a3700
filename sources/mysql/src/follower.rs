//! The follower: changes, tombstones and checkpoint in one transaction, as a rule in two exchanges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Change, Entity, Error, ErrorKind, Key, Position, Result, Version};

use crate::client::{checkpoint_of, checkpoint_sql};
use crate::codec::{number_of, text_of};
use crate::connection::ATTEMPTS;
use crate::error::{Class, Failed};
use crate::literal::text;
use crate::mutation::{Mutation, packets, statements};
use crate::pool::{Session, Sets};
use crate::source::MysqlSource;
use crate::table::{Table, cell};
use crate::tombstones;
use crate::truth::log::is_whole;

#[async_trait]
impl Follower for MysqlSource {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let name = batch.entity.name();
        let applied = match self.applied(&batch).await {
            Err(failed) if failed.class == Class::Gone => match self.client().restore(failed).await
            {
                Ok(()) => self.applied(&batch).await,
                Err(failed) => Err(failed),
            },
            applied => applied,
        };
        let place = |e: Error| e.on("apply").at(self.client().name()).of(name);
        let mut applied = applied.map_err(|failed| place(failed.error))?;
        for outcome in &mut applied.outcomes {
            if let Outcome::Rejected(error) = outcome {
                *error = place(error.duplicate());
            }
        }
        Ok(applied)
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        let sql = checkpoint_sql(entity.name());
        let read = match self.client().reader().run(&sql).await {
            Err(failed) if failed.class == Class::Gone => match self.client().restore(failed).await
            {
                Ok(()) => self.client().reader().run(&sql).await,
                Err(failed) => Err(failed),
            },
            read => read,
        };
        let place = |e: Error| e.on("checkpoint").at(self.client().name()).of(entity.name());
        let sets = read.map_err(|failed| place(failed.error))?;
        stored(&sets).map_err(place)
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        let table = self.client().table(entity.name())?;
        let name = text(entity.name());
        // Not TRUNCATE, which ends the transaction. Repeating it has no further effect.
        let sql = format!(
            "START TRANSACTION; UPDATE unisono_checkpoints SET `checkpoint` = NULL WHERE `entity` = {name}; \
             DELETE FROM {}; DELETE FROM unisono_tombstones WHERE `entity` = {name}; COMMIT",
            table.name
        );
        let reset = match self.client().writer().run(&sql).await {
            Err(failed) if failed.class == Class::Gone => match self.client().restore(failed).await
            {
                Ok(()) => self.client().writer().run(&sql).await,
                Err(failed) => Err(failed),
            },
            reset => reset,
        };
        table.is_filled_anew.store(reset.is_ok(), Ordering::Relaxed);
        let place = |f: Failed| f.error.on("reset").at(self.client().name()).of(entity.name());
        reset.map(drop).map_err(place)
    }
}

fn stored(sets: &Sets) -> Result<Option<Checkpoint>> {
    match sets.first().and_then(|rows| rows.first()) {
        Some(row) => checkpoint_of(text_of(cell(row, 0)?)?),
        None => Ok(None),
    }
}

impl MysqlSource {
    async fn applied(&self, batch: &Batch) -> Result<Applied, Failed> {
        let table = self.client().table(batch.entity.name())?;
        let (mut way, mut attempt) = (Way::of(&table, batch), 1);
        loop {
            let failed = match self.transaction(&table, batch, way).await {
                Ok(applied) => return Ok(applied),
                Err(failed) => failed,
            };
            match failed.class {
                Class::Refused if way == Way::Unseen => {
                    table.is_filled_anew.store(false, Ordering::Relaxed);
                    way = Way::Together;
                }
                // Find the change that the table refuses; or another process inserted a row meanwhile.
                Class::Refused if way == Way::Together => way = Way::OneByOne,
                Class::Conflict if attempt < ATTEMPTS => attempt += 1,
                _ => return Err(failed),
            }
        }
    }

    async fn transaction(
        &self,
        table: &Arc<Table>,
        batch: &Batch,
        way: Way,
    ) -> Result<Applied, Failed> {
        let sql = reading(table, batch, way);
        let (mut session, sets) = self.client().writer().begin(&sql).await?;
        let packet_bytes = self.client().server().packet_bytes_max.saturating_sub(1024);
        let work = Work { table, batch, session: &mut session, packet_bytes };
        let done = work.run(&sets, way).await;
        match &done {
            Ok(_) => session.release(),
            Err(failed) if failed.class != Class::Lost && failed.class != Class::Late => {
                session.run("ROLLBACK; SET foreign_key_checks = 1").await?;
                session.release();
            }
            // The connection is closed, which undoes the transaction.
            Err(_) => {}
        }
        done
    }
}

/// How a batch is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Without a look at the rows: each is new to the table, or all of it fails.
    Unseen,
    /// With as few statements as possible.
    Together,
    /// Change by change, so that one that the table refuses goes alone.
    OneByOne,
}

impl Way {
    /// The way to begin with. A first copy mostly finds nothing, which the keys of the table tell as well.
    fn of(table: &Table, batch: &Batch) -> Self {
        let is_first_copy =
            table.is_filled_anew.load(Ordering::Relaxed) && batch.may_be_first_copy();
        if is_first_copy { Way::Unseen } else { Way::Together }
    }
}

/// Locks the checkpoint and the rows, and reads what is there. Changes of the other tables may come in any order, so
/// that foreign keys cannot be looked at.
///
/// Batches that only put records share the lock on the checkpoint: two puts of one record meet at its row.
fn reading(table: &Table, batch: &Batch, way: Way) -> String {
    let entity = table.entity.name();
    let lock = if batch.only_puts() { "LOCK IN SHARE MODE" } else { "FOR UPDATE" };
    let checkpoint = checkpoint_sql(entity);
    let mut sql = format!("SET foreign_key_checks = 0; START TRANSACTION; {checkpoint} {lock}");
    if way == Way::Unseen {
        return sql + "; " + &tombstones::any(entity);
    }
    let keys: BTreeSet<&Key> = batch.changes.iter().map(|change| &change.key).collect();
    if !keys.is_empty() {
        let (name, key) = (&table.name, table.key_column());
        sql += &format!(
            "; SELECT {key}, unisono_version FROM {name} WHERE {key} IN ({}) FOR UPDATE; {}",
            table.keys(keys.iter().copied()),
            tombstones::find(entity, keys.iter().copied())
        );
    }
    sql
}

/// What is known of one record.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    version: Option<Version>,
    deleted: Option<Version>,
}

/// One batch in its transaction.
struct Work<'a> {
    table: &'a Arc<Table>,
    batch: &'a Batch,
    session: &'a mut Session,
    packet_bytes: usize,
}

impl Work<'_> {
    async fn run(mut self, sets: &Sets, way: Way) -> Result<Applied, Failed> {
        if let Some(advance) = &self.batch.advance {
            let stored = stored(sets)?;
            if stored != advance.from {
                return Err(moved(stored.as_ref(), advance).into());
            }
        }
        let mut known = match way {
            Way::Unseen => nothing_known(sets)?,
            Way::Together | Way::OneByOne => self.known(sets)?,
        };
        let mut outcomes = Vec::with_capacity(self.batch.changes.len());
        let (mut mutations, mut deletions) = (Vec::new(), Vec::new());
        for change in &self.batch.changes {
            let before = known.get(&change.key).copied().unwrap_or_default();
            let mutation = match self.decide(change, before) {
                Ok(mutation) => mutation,
                Err(outcome) => {
                    outcomes.push(outcome);
                    continue;
                }
            };
            match way {
                Way::Unseen | Way::Together => mutations.push(mutation),
                Way::OneByOne => {
                    if let Some(error) = self.refused(mutation).await? {
                        outcomes.push(Outcome::Rejected(error.with("key", &change.key)));
                        continue;
                    }
                }
            }
            let gone = change.image.is_none().then_some(change.position);
            let there = change.image.is_some().then_some(change.position);
            if gone.is_some() || before.deleted.is_some() {
                deletions.push((change.key.clone(), gone));
            }
            known.insert(change.key.clone(), Known { version: there, deleted: gone });
            outcomes.push(Outcome::Applied);
        }
        let settled = outcomes.iter().all(|o| matches!(o, Outcome::Applied | Outcome::Stale));
        let advance = self.batch.advance.as_ref().filter(|_| settled);
        let mut all = statements(mutations);
        self.finish(advance, &deletions, &mut all)?;
        let mut packets = packets(all, self.packet_bytes);
        let last = packets.pop().unwrap_or_default();
        for packet in packets {
            self.session.run(&packet).await?;
        }
        self.session.run(&last).await.map_err(Failed::at_commit)?;
        Ok(Applied { outcomes, advanced: advance.is_some() })
    }

    fn known(&self, sets: &Sets) -> Result<BTreeMap<Key, Known>> {
        let mut known: BTreeMap<Key, Known> = BTreeMap::new();
        for row in sets.get(1).map_or(&[][..], Vec::as_slice) {
            let key = self.table.key_in(cell(row, 0)?)?;
            let version = number_of(cell(row, 1)?)?.unwrap_or_default();
            known.entry(key).or_default().version = Some(Position::from_i64(version)?);
        }
        let deleted = sets.get(2).map_or(&[][..], Vec::as_slice);
        for (key, at) in tombstones::found(&self.table.entity, deleted)? {
            known.entry(key).or_default().deleted = Some(at);
        }
        Ok(known)
    }

    /// What a change does to its row, or its outcome if it does nothing.
    fn decide(&self, change: &Change, before: Known) -> Result<Mutation, Outcome> {
        let rejected = |error: Error| Outcome::Rejected(error.with("key", &change.key));
        if !is_whole(change.operation, change.image.is_some()) {
            return Err(rejected(Error::new(
                ErrorKind::Corrupt,
                "the change has no image, or one too many",
            )));
        }
        let newest = before.version.max(before.deleted);
        let is_stale = newest.is_some_and(|newest| match self.batch.copied {
            true => change.position < newest,
            false => change.position <= newest,
        });
        if is_stale {
            return Err(Outcome::Stale);
        }
        let row = change.image.as_ref().map(|record| self.table.row(record, change.position));
        let row = row.transpose().map_err(rejected)?;
        let bytes: usize = row.iter().flatten().map(|literal| literal.len() + 2).sum();
        let limit = self.packet_bytes.saturating_sub(64 << 10);
        if bytes > limit {
            return Err(rejected(
                Error::new(ErrorKind::LimitExceeded, "the record is too big for the server")
                    .with("bytes", bytes)
                    .with("limit", limit)
                    .hint("raise max_allowed_packet of the server, and replay the dead letter"),
            ));
        }
        Ok(Mutation {
            table: Arc::clone(self.table),
            key: change.key.clone(),
            existed: before.version.is_some(),
            row,
        })
    }

    /// Writes one row behind a savepoint; answers why the table refuses it.
    async fn refused(&mut self, mutation: Mutation) -> Result<Option<Error>, Failed> {
        let mut all = vec!["SAVEPOINT unisono_change".to_owned()];
        all.extend(statements(vec![mutation]));
        for packet in packets(all, self.packet_bytes) {
            match self.session.run(&packet).await {
                Ok(_) => {}
                Err(failed) if failed.class == Class::Refused => {
                    if failed.error.detail("field") == Some("PRIMARY") {
                        // Somebody inserted the row after it was looked for: look again.
                        return Err(Failed { class: Class::Conflict, ..failed });
                    }
                    self.session.run("ROLLBACK TO SAVEPOINT unisono_change").await?;
                    return Ok(Some(failed.error));
                }
                Err(failed) => return Err(failed),
            }
        }
        Ok(None)
    }

    /// Tombstones, checkpoint, and the end of the transaction.
    fn finish(
        &self,
        advance: Option<&Advance>,
        deletions: &[(Key, Option<Version>)],
        all: &mut Vec<String>,
    ) -> Result<()> {
        let entity = self.table.entity.name();
        // While the first copy is made, records that were read before a deletion may still be under way.
        if let Some(Advance { from: Some(passed), .. }) = advance
            && passed.backfill.is_none()
        {
            // Everything up to a position that the checkpoint has left behind is never sent again.
            all.push(tombstones::forget(entity, passed.position));
        }
        // After the old ones were forgotten: a deletion outlives the batch that brought it.
        tombstones::change(entity, deletions, all);
        if let Some(advance) = advance {
            let json = serde_json::to_string(&advance.to)
                .map_err(|e| Error::internal("the checkpoint cannot be encoded").caused_by(e))?;
            // The key is the only thing that is unique in this table.
            all.push(format!(
                "INSERT INTO unisono_checkpoints (`entity`, `checkpoint`) VALUES ({}, {}) \
                 ON DUPLICATE KEY UPDATE `checkpoint` = VALUES(`checkpoint`)",
                text(entity),
                text(&json)
            ));
        }
        all.push("COMMIT; SET foreign_key_checks = 1".into());
        Ok(())
    }
}

/// What is known of rows that were not looked at; fails where deletions are remembered, which could outdate them.
fn nothing_known(sets: &Sets) -> Result<BTreeMap<Key, Known>, Failed> {
    let any = sets.get(1).and_then(|rows| rows.first());
    match any.map(|row| number_of(cell(row, 0)?)).transpose()?.flatten() {
        Some(0) => Ok(BTreeMap::new()),
        _ => {
            let error = Error::internal("deletions are remembered: the rows must be looked at");
            Err(Failed { class: Class::Refused, error })
        }
    }
}

fn moved(stored: Option<&Checkpoint>, advance: &Advance) -> Error {
    let show = |checkpoint: Option<&Checkpoint>| {
        checkpoint.map_or("none".to_owned(), |c| c.position.to_string())
    };
    Error::new(ErrorKind::CheckpointMoved, "the checkpoint is not where the delivery left it")
        .with("expected", show(advance.from.as_ref()))
        .with("stored", show(stored))
}
