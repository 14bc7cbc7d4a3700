//! Beginning and ending the capture of a table.
//!
//! The server ends a transaction at every statement that makes a trigger. So the triggers come first, from then on no
//! write is missed; then every row that is there gets a version; and what was done is recorded last. After a crash in
//! between, preparing again does it again.

use unisono_core::source::Binding;
use unisono_core::{Capture, Error, ErrorKind, Result};

use crate::capture::keys::KeyColumn;
use crate::capture::{NOW, triggers};
use crate::codec::text_of;
use crate::error::Failed;
use crate::literal::{quote, text};
use crate::pool::Session;
use crate::schema::word;
use crate::table::cell;

/// Rows that get their version in one statement.
const ROWS: usize = 20_000;

/// Asks under which triggers the writes to a table were captured last.
pub(super) fn recorded_signature(entity: &str) -> String {
    format!("SELECT `triggers` FROM unisono_captures WHERE `entity` = '{entity}'")
}

/// Whether the table of an entity is captured, and if so, whether Unisono made it.
pub(crate) async fn captured(session: &mut Session, entity: &str) -> Result<Option<bool>, Failed> {
    let sql = format!("SELECT `made` FROM unisono_captures WHERE `entity` = '{entity}'");
    let sets = session.run(&sql).await?;
    let row = sets.first().and_then(|rows| rows.first());
    Ok(row.map(|row| word(row, 0)).transpose()?.map(|made| made == "1"))
}

/// Whether the tables of capture are there.
pub(crate) async fn is_there(session: &mut Session) -> Result<bool, Failed> {
    let sql = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() \
               AND table_name = 'unisono_captures'";
    let sets = session.run(sql).await?;
    Ok(sets.first().is_some_and(|rows| !rows.is_empty()))
}

/// Statements that end the capture of a table.
pub(crate) async fn end(
    session: &mut Session,
    binding: &Binding,
    is_there: bool,
) -> Result<Vec<String>, Failed> {
    let entity = binding.entity.name();
    let mut all = Vec::new();
    if is_there {
        all.extend(triggers::Found::look(session, entity, &binding.place).await?.drops());
    }
    let forget = [
        ("unisono_versions", "unisono_entity"),
        ("unisono_intake", "entity"),
        ("unisono_refused", "entity"),
        ("unisono_captures", "entity"),
    ];
    let forget =
        forget.map(|(table, column)| format!("DELETE FROM {table} WHERE `{column}` = '{entity}'"));
    all.extend(forget);
    Ok(all)
}

/// One table whose capture begins or goes on.
pub(crate) struct Capturing<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) binding: &'a Binding,
    pub(crate) key: KeyColumn,
}

impl Capturing<'_> {
    /// Has the table captured, which was made just now or not; answers whether a trigger of the application can change
    /// what is written, and what people are told.
    pub(crate) async fn begin(
        mut self,
        capture: Capture,
        is_made: bool,
    ) -> Result<(bool, Vec<String>), Failed> {
        if capture == Capture::Trigger {
            self.check_foreign_keys().await?;
        }
        let (entity, place) = (self.binding.entity.name().clone(), self.binding.place.clone());
        let is_new = captured(self.session, &entity).await?.is_none();
        let sets = self.session.run(&recorded_signature(&entity)).await?;
        let row = sets.first().and_then(|rows| rows.first());
        let recorded = row.map(|row| word(row, 0)).transpose()?.unwrap_or_default();
        let mut found = triggers::Found::look(self.session, &entity, &place).await?;
        let is_complete = match capture {
            Capture::Trigger => found.is_complete(self.binding, &self.key),
            Capture::Record => found.signature().is_empty(),
        };
        if !is_complete {
            let creates = triggers::creates(self.binding, &self.key);
            for sql in found.drops().chain(creates).collect::<Vec<_>>() {
                self.session.run(&sql).await?;
            }
            found = triggers::Found::look(self.session, &entity, &place).await?;
        }
        let mut notes = Vec::new();
        if is_new {
            if !is_made {
                self.give_versions().await?;
            }
            let how = capture.as_str();
            notes.push(format!("the writes of others to {place} are captured ({how})"));
        } else if found.signature() != recorded && capture == Capture::Trigger {
            // Nobody knows what was written meanwhile.
            self.note_all().await?;
            notes.push(format!(
                "made the triggers on {place} anew; every record of it is read again"
            ));
        }
        if is_new || found.signature() != recorded {
            let row = format!("'{entity}', {}, {}", i32::from(is_made), text(&found.signature()));
            // The key is the only thing that is unique in this table.
            let sql = format!(
                "INSERT INTO unisono_captures (`entity`, `made`, `triggers`) VALUES ({row}) \
                 ON DUPLICATE KEY UPDATE `triggers` = VALUES(`triggers`)"
            );
            self.session.run(&sql).await?;
        }
        Ok((found.has_before, notes))
    }

    /// What foreign keys do to rows is done without triggers.
    async fn check_foreign_keys(&mut self) -> Result<(), Failed> {
        let sql = format!(
            "SELECT constraint_name, update_rule, delete_rule FROM information_schema.referential_constraints \
             WHERE constraint_schema = DATABASE() AND table_name = {} AND (update_rule NOT IN ('RESTRICT', 'NO ACTION') \
             OR delete_rule NOT IN ('RESTRICT', 'NO ACTION')) LIMIT 1",
            text(&self.binding.place)
        );
        let sets = self.session.run(&sql).await?;
        let Some(row) = sets.first().and_then(|rows| rows.first()) else { return Ok(()) };
        Err(Error::new(
            ErrorKind::SchemaMismatch,
            "a foreign key of the table changes or deletes its rows, for which the server runs no triggers",
        )
        .with("table", &self.binding.place)
        .with("foreign_key", word(row, 0)?)
        .with("rules", format!("ON UPDATE {} ON DELETE {}", word(row, 1)?, word(row, 2)?))
        .hint("make the foreign key RESTRICT and let the application change these rows itself; or declare capture = \"record\" and note them down by record_in")
        .into())
    }

    /// Gives every row the version of the head. Rows that are written meanwhile have entries, so that nobody is held up.
    async fn give_versions(&mut self) -> Result<(), Failed> {
        let (entity, place) = (self.binding.entity.name(), quote(&self.binding.place));
        let (column, key) = (&self.key.name, self.key.textual(""));
        // A version that no change in the log describes counts as trimmed: nobody takes the log for the whole story.
        let begin = format!(
            "DELETE FROM unisono_versions WHERE `unisono_entity` = '{entity}'; \
             UPDATE unisono_head SET `trimmed` = 1, `position` = 1 WHERE `position` = 0"
        );
        self.session.run(&begin).await?;
        let mut after = format!("{column} IS NOT NULL");
        loop {
            // The last key is read before the rows up to it, which may have become fewer by then.
            let last = format!(
                "SELECT QUOTE({}) FROM (SELECT MAX(`k`) AS `k` FROM (\
                 SELECT {column} AS `k` FROM {place} WHERE {after} ORDER BY {column} LIMIT {ROWS}) AS `some`) AS l",
                self.key.textual_of("l.`k`")
            );
            let sets = self.session.run(&last).await?;
            let row = sets.first().and_then(|rows| rows.first());
            let last = row.map(|row| text_of(cell(row, 0)?)).transpose()?.flatten();
            let Some(last) = last.filter(|last| *last != "NULL") else { return Ok(()) };
            let through = self.key.native(last);
            let insert = format!(
                "INSERT INTO unisono_versions (`unisono_entity`, `unisono_key`, `unisono_version`) \
                 SELECT '{entity}', {key}, (SELECT `position` FROM unisono_head WHERE `only` = 1) \
                 FROM {place} WHERE {after} AND {column} <= {through}"
            );
            self.session.run(&insert).await?;
            after = format!("{column} > {through}");
        }
    }

    /// Has every record read again, those that are there and those that were.
    async fn note_all(&mut self) -> Result<(), Failed> {
        let (entity, place) = (self.binding.entity.name(), quote(&self.binding.place));
        let (column, key) = (&self.key.name, self.key.textual(""));
        let sql = format!(
            "INSERT INTO unisono_intake (`entity`, `key`, `time`) SELECT '{entity}', a.`k`, {NOW} FROM (\
             SELECT {key} AS `k` FROM {place} WHERE {column} IS NOT NULL \
             UNION SELECT `unisono_key` FROM unisono_versions WHERE `unisono_entity` = '{entity}') AS a"
        );
        self.session.run(&sql).await.map(drop)
    }
}
