//! Beginning and ending the capture of a table.

use unisono_core::{Capture, Result};

use crate::error::Failed;
use crate::parameter::integer;
use crate::schema::Step;

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
    async fn captured(&self) -> Result<Option<bool>, Failed> {
        let (schema, entity) = (self.schema(), self.binding.entity.name());
        let sql = format!(
            "SELECT made::int::bigint FROM {schema}.unisono_captures WHERE entity = '{entity}'"
        );
        let rows = self.rows(&sql).await?;
        Ok(rows.first().map(|row| integer(row, 0)).transpose()?.map(|made| made == 1))
    }

    /// Whether columns may be added: to tables that other programs made and have captured, none are.
    pub(crate) async fn may_add(&self) -> Result<bool, Failed> {
        let is_captured = Capture::of(&self.binding.options).is_some();
        Ok(!is_captured || self.captured().await? == Some(true))
    }

    /// Fails for a captured table that others made and that is gone: an empty one would delete every record.
    pub(crate) async fn check_not_gone(&self) -> Result<(), Failed> {
        if Capture::of(&self.binding.options).is_some() && self.captured().await? == Some(false) {
            return Err(self
                .mismatch("the captured table, which another program made, is gone")
                .hint("put it back, or declare the table that has its records now")
                .into());
        }
        Ok(())
    }

    /// Has the table captured, or no longer. It has a column of versions or not.
    pub(crate) async fn set_capture(
        &mut self,
        origin: Origin,
        has_version: bool,
    ) -> Result<(), Failed> {
        let is_made = origin == Origin::Made;
        match Capture::of(&self.binding.options) {
            Some(_) if has_version => Err(self
                .mismatch("the table to be captured has a column unisono_version, which others cannot fill")
                .hint("drop it (ALTER TABLE … DROP COLUMN unisono_version) while Unisono is stopped: versions begin anew above all earlier ones")
                .into()),
            Some(capture) => self.begin_capture(capture, origin).await,
            None => {
                if self.captured().await?.is_some() {
                    self.end_capture().await?;
                }
                match is_made || has_version {
                    true => Ok(()),
                    false => self.add_version().await,
                }
            }
        }
    }

    async fn begin_capture(&mut self, capture: Capture, origin: Origin) -> Result<(), Failed> {
        let is_made = origin == Origin::Made;
        let (schema, table, place) = (self.schema(), self.table(), self.binding.place.clone());
        let entity = self.binding.entity.name().clone();
        let key = crate::table::quote(&self.binding.entity.key_field().name);
        let mut has_gap = self.make_triggers().await?;
        if self.captured().await?.is_none() {
            has_gap = origin == Origin::Known;
            let version = if is_made { 0 } else { self.version_of_adopted().await? };
            self.run(&format!(
                "DELETE FROM {schema}.unisono_versions WHERE unisono_entity = '{entity}'; \
                 INSERT INTO {schema}.unisono_versions SELECT '{entity}', {key}::text, {version} FROM {table}; \
                 INSERT INTO {schema}.unisono_captures (entity, made) VALUES ('{entity}', {is_made})"
            ))
            .await?;
            self.notes.push(format!(
                "the writes of others to {place} are captured ({})",
                capture.as_str()
            ));
        }
        if has_gap {
            // Nobody knows what was written meanwhile.
            self.run(&format!("INSERT INTO {schema}.unisono_intake (entity) VALUES ('{entity}')"))
                .await?;
            self.notes.push(format!(
                "{place} was not captured for some time; every record of it is told again"
            ));
        }
        Ok(())
    }

    async fn end_capture(&mut self) -> Result<(), Failed> {
        let (schema, entity) = (self.schema(), self.binding.entity.name().clone());
        self.drop_triggers().await?;
        self.run(&format!(
            "DELETE FROM {schema}.unisono_captures WHERE entity = '{entity}'; \
             DELETE FROM {schema}.unisono_versions WHERE unisono_entity = '{entity}'; \
             DELETE FROM {schema}.unisono_intake WHERE entity = '{entity}'"
        ))
        .await?;
        self.notes
            .push(format!("the writes of others to {} are no longer captured", self.binding.place));
        Ok(())
    }
}
