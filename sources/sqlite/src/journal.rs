//! Role journal: entries in a table of their own, flushed to the disk before they are acknowledged.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use unisono_core::journal::{Appended, Entry, Journal, NewEntry};
use unisono_core::write::Idempotency;
use unisono_core::{Error, ErrorKind, Result, Timestamp};

use crate::error::translate;
use crate::source::SqliteSource;
use crate::truth::transaction;

/// `last` outlives the entries, so that no sequence is given twice.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS unisono_journal_spaces (
    space TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unisono_journal (
    space TEXT NOT NULL, sequence INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (space, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unisono_journal_outcomes (
    space TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL, sequence INTEGER NOT NULL,
    time INTEGER NOT NULL, PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unisono_journal_outcomes_time ON unisono_journal_outcomes (space, time);
";

#[async_trait]
impl Journal for SqliteSource {
    async fn begin(&self, space: &str) -> Result<()> {
        let space = space.to_owned();
        let begun = self.client().write("begin", move |connection| {
            transaction(connection, |connection| {
                connection.execute_batch(TABLES).map_err(translate)?;
                let sql =
                    "INSERT OR IGNORE INTO unisono_journal_spaces (space, last) VALUES (?1, 0)";
                connection.execute(sql, [space]).map(drop).map_err(translate)
            })
        });
        begun.await?;
        self.client().keeps_journal();
        Ok(())
    }

    async fn append(&self, space: &str, entries: Vec<NewEntry>) -> Result<Vec<Result<Appended>>> {
        let (space, name) = (space.to_owned(), Arc::clone(self.client().name()));
        let work = move |connection: &mut Connection| {
            let results = transaction(connection, |connection| {
                Batch { connection, space: &space }.append(entries)
            })?;
            Ok(results.into_iter().map(|r| r.map_err(|e| e.on("append").at(&name))).collect())
        };
        self.client().write("append", work).await
    }

    async fn read(&self, space: &str, after: u64, entries_max: usize) -> Result<Vec<Entry>> {
        let space = space.to_owned();
        let (after, limit) = (as_i64(after), i64::try_from(entries_max).unwrap_or(i64::MAX));
        self.client()
            .read("read", move |session| {
                let sql = "SELECT sequence, body FROM unisono_journal WHERE space = ?1 AND sequence > ?2 \
                           ORDER BY sequence LIMIT ?3";
                let mut statement = session.connection.prepare_cached(sql).map_err(translate)?;
                let entry = |row: &rusqlite::Row<'_>| {
                    Ok(Entry { sequence: as_u64(row.get(0)?), body: row.get(1)? })
                };
                let rows = statement.query_map(params![space, after, limit], entry);
                rows.and_then(Iterator::collect).map_err(translate)
            })
            .await
    }

    async fn remove(
        &self,
        space: &str,
        sequences: &[u64],
        outcomes_before: Timestamp,
    ) -> Result<()> {
        let (space, sequences) = (space.to_owned(), sequences.to_vec());
        let work = move |connection: &mut Connection| {
            transaction(connection, |connection| {
                let sql = "DELETE FROM unisono_journal WHERE space = ?1 AND sequence = ?2";
                let mut statement = connection.prepare_cached(sql).map_err(translate)?;
                for sequence in sequences {
                    statement.execute(params![space, as_i64(sequence)]).map_err(translate)?;
                }
                let sql = "DELETE FROM unisono_journal_outcomes AS o WHERE space = ?1 AND time < ?2 AND NOT EXISTS \
                           (SELECT 1 FROM unisono_journal j WHERE j.space = o.space AND j.sequence = o.sequence)";
                let mut statement = connection.prepare_cached(sql).map_err(translate)?;
                let forgotten = statement.execute(params![space, outcomes_before.micros()]);
                forgotten.map(drop).map_err(translate)
            })
        };
        self.client().write("remove", work).await
    }

    async fn spaces(&self) -> Result<Vec<(String, u64)>> {
        self.client()
            .read("spaces", move |session| {
                let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'unisono_journal'";
                let made: i64 =
                    session.connection.query_row(sql, [], |row| row.get(0)).map_err(translate)?;
                if made == 0 {
                    return Ok(Vec::new());
                }
                let sql =
                    "SELECT space, count(*) FROM unisono_journal GROUP BY space ORDER BY space";
                let mut statement = session.connection.prepare_cached(sql).map_err(translate)?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, as_u64(row.get(1)?))));
                rows.and_then(Iterator::collect).map_err(translate)
            })
            .await
    }
}

/// The transaction of one append.
struct Batch<'a> {
    connection: &'a Connection,
    space: &'a str,
}

impl Batch<'_> {
    fn append(&self, entries: Vec<NewEntry>) -> Result<Vec<Result<Appended>>> {
        let sql = "SELECT last FROM unisono_journal_spaces WHERE space = ?1";
        let mut statement = self.connection.prepare_cached(sql).map_err(translate)?;
        let mut last = statement.query_row([self.space], |row| row.get(0)).map_err(translate)?;
        let before = last;
        let mut results = Vec::with_capacity(entries.len());
        for entry in &entries {
            results.push(match self.earlier(entry.idempotency.as_ref())? {
                Some(known) => known,
                None => {
                    last += 1;
                    self.keep(last, entry).map_err(translate)?;
                    Ok(Appended { sequence: as_u64(last), repeated: false })
                }
            });
        }
        if last > before {
            let sql = "UPDATE unisono_journal_spaces SET last = ?2 WHERE space = ?1";
            let mut statement = self.connection.prepare_cached(sql).map_err(translate)?;
            statement.execute(params![self.space, last]).map_err(translate)?;
        }
        Ok(results)
    }

    /// What is known of an earlier entry with the same idempotency key.
    fn earlier(&self, idempotency: Option<&Idempotency>) -> Result<Option<Result<Appended>>> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let sql = "SELECT fingerprint, sequence FROM unisono_journal_outcomes WHERE space = ?1 AND key = ?2";
        let mut statement = self.connection.prepare_cached(sql).map_err(translate)?;
        let found = statement
            .query_row(params![self.space, idempotency.key], |row| {
                Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()
            .map_err(translate)?;
        let Some((fingerprint, sequence)) = found else { return Ok(None) };
        Ok(Some(match u128::from_be_bytes(fingerprint) == idempotency.fingerprint {
            true => Ok(Appended { sequence: as_u64(sequence), repeated: true }),
            false => Err(Error::new(
                ErrorKind::IdempotencyKeyReused,
                "the idempotency key was used for another request",
            )
            .hint("take a new idempotency key for every request; repeat a request with exactly the same content")),
        }))
    }

    fn keep(&self, sequence: i64, entry: &NewEntry) -> rusqlite::Result<()> {
        let sql = "INSERT INTO unisono_journal (space, sequence, body) VALUES (?1, ?2, ?3)";
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.execute(params![self.space, sequence, entry.body])?;
        if let Some(idempotency) = &entry.idempotency {
            let sql = "INSERT INTO unisono_journal_outcomes (space, key, fingerprint, sequence, time) \
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.execute(params![
                self.space,
                idempotency.key,
                idempotency.fingerprint.to_be_bytes(),
                sequence,
                entry.time.micros()
            ])?;
        }
        Ok(())
    }
}

/// Sequences and counts are far below the bound of a column.
fn as_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn as_u64(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
