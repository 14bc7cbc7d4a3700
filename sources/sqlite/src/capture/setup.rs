//! Beginning and ending the capture of a table.

use rusqlite::{OptionalExtension, params};
use unisono_core::{Capture, Result};

use crate::capture::{NOW, triggers};
use crate::error::translate;
use crate::schema::Step;
use crate::table::quote;

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

    /// Has the table captured, or no longer; `made` says whether it was made just now, `version` what records have
    /// that no change in the log describes.
    pub(crate) fn set_capture(&mut self, made: bool, version: i64) -> Result<()> {
        match Capture::of(&self.binding.options) {
            Some(capture) => self.begin_capture(capture, made, version),
            None if self.captured()?.is_some() => self.end_capture(),
            None => Ok(()),
        }
    }

    fn begin_capture(&mut self, capture: Capture, made: bool, version: i64) -> Result<()> {
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
            let sql = "INSERT INTO unisono_captures (entity, place, made) VALUES (?1, ?2, ?3)";
            let row = params![entity.as_ref(), place.as_ref(), made];
            self.connection.execute(sql, row).map_err(translate)?;
            self.notes.push(format!(
                "the writes of others to {place} are captured ({})",
                capture.as_str()
            ));
        }
        if expected == found {
            return Ok(());
        }
        for name in found.keys() {
            self.execute(&format!("DROP TRIGGER {}", quote(name)))?;
        }
        for sql in expected.values() {
            self.execute(sql)?;
        }
        if !is_new && triggers::has_gap(&found, &expected, &place) {
            // Nobody knows what was written meanwhile.
            self.execute(&format!(
                "INSERT INTO unisono_intake (entity, key, time) SELECT '{entity}', key, {NOW} FROM \
                 (SELECT {key} AS key FROM {table} WHERE {key} IS NOT NULL \
                  UNION SELECT key FROM unisono_versions WHERE entity = '{entity}')"
            ))?;
            self.notes.push(format!(
                "made the triggers on {place} anew; every record of it is read again"
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
