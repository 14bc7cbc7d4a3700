//! What a batch must know of the database before it is decided.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::{BoxFuture, try_join_all};
use tokio_postgres::Row;
use unisono_core::stream;
use unisono_core::{Error, ErrorKind, Key, Position, Record, Result, Stored};

use crate::codec::key_array;
use crate::error::Failed;
use crate::parameter::{Parameter, cell, integer, text};
use crate::session::Use;
use crate::table::Table;
use crate::truth::commit::Batch;
use crate::truth::log;
use crate::truth::plan::{Earlier, Known, Needs};

impl Batch<'_> {
    /// Reads the head first: what is read behind it is at its position, if the log has not moved when it is written.
    pub(super) async fn read(&self, needs: &Needs) -> Result<Known, Failed> {
        let head = format!("SELECT position FROM {}.unisono_head", self.schema);
        self.session.prepare(&head, &[]).await?;
        let asked = self.questions(needs)?;
        let mut statements: Vec<BoxFuture<'_, Result<Vec<Row>, Failed>>> =
            vec![Box::pin(self.session.rows(Use::Often, &head, &[]))];
        for (_, sql, parameters) in &asked {
            self.session.prepare(sql, parameters).await?;
            statements.push(Box::pin(self.session.rows(Use::Often, sql, parameters)));
        }
        let mut answers = match self.session.is_pipelining() {
            true => try_join_all(statements).await?,
            false => {
                let mut answers = Vec::with_capacity(statements.len());
                for statement in statements {
                    answers.push(statement.await?);
                }
                answers
            }
        }
        .into_iter();
        let head = answers.next().unwrap_or_default();
        let head = head.first().ok_or_else(missing_head)?;
        let mut known =
            Known { head: Some(Position::from_i64(integer(head, 0)?)?), ..Known::default() };
        for ((what, ..), rows) in asked.iter().zip(answers) {
            match what {
                Asked::Records(table, whole) => {
                    for row in &rows {
                        let key = if *whole { table.entity.key_index() } else { 0 };
                        let key =
                            Key::from_value(&table.value(table.entity.key_index(), row, key)?)?;
                        // A row that somebody broke fails the units that need it, and no others.
                        let stored =
                            if *whole { table.stored(row, 0) } else { version_only(&key, row) };
                        known.records.insert((Arc::clone(table.entity.name()), key), stored);
                    }
                }
                Asked::Ends(table) => {
                    for row in &rows {
                        let value = table.value(table.entity.key_index(), row, 0)?;
                        let key = Key::from_value(&value)?;
                        let name = stream::name_of(&key).unwrap_or_default().into();
                        known.ends.insert((Arc::clone(table.entity.name()), name), key);
                    }
                }
                Asked::Outcomes => known.outcomes = self.outcomes(&rows).await?,
            }
        }
        Ok(known)
    }

    /// What is asked behind the head: one question for each table and need.
    fn questions(&self, needs: &Needs) -> Result<Vec<Question<'_>>> {
        let mut by_table: HashMap<(&Arc<str>, bool), Vec<&Key>> = HashMap::new();
        for ((entity, key), whole) in &needs.records {
            by_table.entry((entity, *whole)).or_default().push(key);
        }
        let mut asked = Vec::new();
        for ((entity, whole), keys) in &by_table {
            // A table that was not prepared is told of when the unit is decided.
            let Some(table) = self.tables.get(*entity) else { continue };
            let (sql, parameters) = record_query(table, *whole, keys);
            asked.push((Asked::Records(table, *whole), sql, parameters));
        }
        let mut streams: HashMap<&Arc<str>, Vec<&Arc<str>>> = HashMap::new();
        for (entity, stream) in &needs.streams {
            streams.entry(entity).or_default().push(stream);
        }
        for (entity, streams) in &streams {
            let Some(table) = self.tables.get(*entity) else { continue };
            let (sql, parameters) = ends_query(table, streams)?;
            asked.push((Asked::Ends(table), sql, parameters));
        }
        if !needs.outcomes.is_empty() {
            let (sql, parameters) = self.outcome_query(needs);
            asked.push((Asked::Outcomes, sql, parameters));
        }
        Ok(asked)
    }

    fn outcome_query(&self, needs: &Needs) -> (String, Vec<Parameter>) {
        let keys: Vec<_> = (needs.outcomes.iter())
            .map(|key| Some(unisono_sql::text::escape(key).into_owned().into_bytes()))
            .collect();
        let sql = format!(
            "SELECT key, fingerprint, first, changes FROM {}.unisono_outcomes WHERE key = ANY ($1)",
            self.schema
        );
        (sql, vec![Parameter::array(&tokio_postgres::types::Type::TEXT, &keys)])
    }

    async fn outcomes(&self, rows: &[Row]) -> Result<HashMap<Arc<str>, Earlier>, Failed> {
        let mut outcomes = HashMap::with_capacity(rows.len());
        for row in rows {
            let key = unisono_sql::text::unescape(text(row, 0)?)?;
            let fingerprint = cell(row, 1)?.and_then(|bytes| bytes.try_into().ok());
            let fingerprint = fingerprint.map(u128::from_be_bytes).ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "the fingerprint of an idempotency key is damaged")
            })?;
            let (first, count) = (integer(row, 2)?, integer(row, 3)?);
            let changes = log::range(self.session, &self.schema, self.tables, first, count).await?;
            outcomes.insert(Arc::from(key.as_ref()), Earlier { fingerprint, changes });
        }
        Ok(outcomes)
    }
}

type Question<'a> = (Asked<'a>, String, Vec<Parameter>);

enum Asked<'a> {
    Records(&'a Table, bool),
    Ends(&'a Table),
    Outcomes,
}

/// Rows of keys: whole, or key and version.
fn record_query(table: &Table, whole: bool, keys: &[&Key]) -> (String, Vec<Parameter>) {
    let selected = match whole {
        true => table.selected.clone(),
        false => format!("{}, {}", table.selected_key(), table.version),
    };
    let sql = format!("SELECT {selected} FROM {} WHERE {} = ANY ($1)", table.name, table.key());
    (sql, vec![key_array(table.key_type(), keys)])
}

/// The greatest keys of streams: a step into the index for each.
fn ends_query(table: &Table, streams: &[&Arc<str>]) -> Result<(String, Vec<Parameter>)> {
    let ranges = streams.iter().map(|name| stream::range(name)).collect::<Result<Vec<_>>>()?;
    let keys = |keys: Vec<&Key>| key_array(table.key_type(), &keys);
    let parameters = vec![
        keys(ranges.iter().map(|(first, _)| first).collect()),
        keys(ranges.iter().map(|(_, last)| last).collect()),
    ];
    let (name, key, selected) = (&table.name, table.ordered_key(), table.selected_key());
    let sql = format!(
        "SELECT e.unisono_end FROM unnest($1, $2) AS s(unisono_first, unisono_last) CROSS JOIN LATERAL \
         (SELECT {selected} AS unisono_end FROM {name} WHERE {key} >= s.unisono_first AND {key} <= s.unisono_last \
         ORDER BY {key} DESC LIMIT 1) e"
    );
    Ok((sql, parameters))
}

/// A record of which only the version is known: only a patch looks at more.
fn version_only(key: &Key, row: &Row) -> Result<Stored> {
    let version = Position::from_i64(integer(row, 1)?)?;
    Ok(Stored::new(key.clone(), version, Arc::new(Record::new(Vec::new()))))
}

fn missing_head() -> Error {
    Error::new(ErrorKind::Corrupt, "the head row of the log is missing")
        .hint("restore the database from a backup")
}
