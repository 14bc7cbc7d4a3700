//! Beginning and ending the capture of a table.

use rusqlite::{OptionalExtension, params};
use unisono_core::{Capture, Result};

use crate::capture::{NOW, triggers};
use crate::error::translate;
use crate::schema::Step;
use crate::table::quote;

/// How a table came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was made just now.
    Made,
    /// It was prepared before.
    Known,
    /// Others made it, and it is prepared for the first time.
    Adopted,
}

impl Step<'_> {
    /// Whether the table of the entity is captured, and if so, whether Unisono made it.
    pub(crate) fn captured(&self) -> Result<Option<bool>> {
        let sql = "SELECT made FROM unisono_captures WHERE entity = ?1";
        let mut statement = self.connection.prepare(sql).map_err(translate)?;
        let entity = self.binding.entity.name().as_ref();
        statement.query_row([entity], |row| row.get(0)).optional().map_err(translate)
    }

    /// Whether columns may be added: to tables that other programs made and have captured, none are.
    pub(crate) fn may_add(&self) -> Result<bool> {
        Ok(Capture::of(&self.binding.options).is_none() || self.captured()? == Some(true))
    }

    /// Fails for a captured table that others made and that is gone: an empty one would delete every record.
    pub(crate) fn check_not_gone(&self) -> Result<()> {
        if Capture::of(&self.binding.options).is_some() && self.captured()? == Some(false) {
            return Err(self
                .mismatch("the captured table, which another program made, is gone")
                .hint("put it back, or declare the table that has its records now"));
        }
        Ok(())
    }

    /// Has the table captured, or no longer; `version` is what records have that no change in the log describes.
    pub(crate) fn set_capture(&mut self, origin: Origin, version: i64) -> Result<()> {
        match Capture::of(&self.binding.options) {
            Some(capture) => self.begin_capture(capture, origin, version),
            None if self.captured()?.is_some() => self.end_capture(),
            None => Ok(()),
        }
    }

    fn begin_capture(&mut self, capture: Capture, origin: Origin, version: i64) -> Result<()> {
        let (entity, place) = (self.binding.entity.name().clone(), self.binding.place.clone());
        let (table, key) = (self.table(), quote(&self.binding.entity.key_field().name));
        let expected = triggers::expected(self.connection, self.binding)?;
        let found = triggers::found(self.connection, &place)?;
        let is_new = self.captured()?.is_none();
        if is_new {
            self.execute(&format!(
                "INSERT INTO unisono_versions (entity, key, version) SELECT '{entity}', {key}, {version} FROM {table} \
                 WHERE {key} IS NOT NULL"
            ))?;
            self.notes.push(format!(
                "the writes of others to {place} are captured ({})",
                capture.as_str()
            ));
        }
        let sql = "INSERT INTO unisono_captures (entity, place, made) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (entity) DO UPDATE SET place = excluded.place";
        let row = params![entity.as_ref(), place.as_ref(), origin == Origin::Made];
        self.connection.execute(sql, row).map_err(translate)?;
        if expected != found {
            for name in found.keys() {
                self.execute(&format!("DROP TRIGGER {}", quote(name)))?;
            }
            for sql in expected.values() {
                self.execute(sql)?;
            }
        }
        let was_unwatched =
            if is_new { origin == Origin::Known } else { triggers::has_gap(&found, &expected) };
        if was_unwatched {
            // Nobody knows what was written meanwhile.
            self.execute(&format!(
                "INSERT INTO unisono_intake (entity, key, time) SELECT '{entity}', key, {NOW} FROM \
                 (SELECT {key} AS key FROM {table} WHERE {key} IS NOT NULL \
                  UNION SELECT key FROM unisono_versions WHERE entity = '{entity}')"
            ))?;
            self.notes.push(format!(
                "{place} was not captured for some time; every record of it is told again"
            ));
        }
        Ok(())
    }

    fn end_capture(&mut self) -> Result<()> {
        for name in triggers::found(self.connection, &self.binding.place)?.keys() {
            self.execute(&format!("DROP TRIGGER {}", quote(name)))?;
        }
        let entity = self.binding.entity.name();
        for table in ["unisono_captures", "unisono_versions", "unisono_intake"] {
            self.execute(&format!("DELETE FROM {table} WHERE entity = '{entity}'"))?;
        }
        self.notes
            .push(format!("the writes of others to {} are no longer captured", self.binding.place));
        Ok(())
    }
}
