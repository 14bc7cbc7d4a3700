//! Deleted records: in a follower, so that older changes do not bring them back; in a truth, as the newest end of their
//! history.

use std::collections::BTreeMap;

use mysql_async::Row;
use unisono_core::{Entity, Key, Position, Result, Version};

use crate::codec::{number_of, push_key_text};
use crate::literal::text;
use crate::mutation::inserts;
use crate::table::{cell, own_key};

/// Asks when records were deleted, as far as that is remembered.
pub(crate) fn find<'k>(entity: &str, keys: impl IntoIterator<Item = &'k Key>) -> String {
    format!(
        "SELECT `key`, `version` FROM unisono_tombstones WHERE `entity` = {} AND `key` IN ({})",
        text(entity),
        list(keys)
    )
}

/// Asks whether any deletion of the entity is remembered: 1 or 0.
pub(crate) fn any(entity: &str) -> String {
    format!("SELECT EXISTS (SELECT 1 FROM unisono_tombstones WHERE `entity` = {})", text(entity))
}

/// The answer to [`find`].
pub(crate) fn found(entity: &Entity, rows: &[Row]) -> Result<Vec<(Key, Version)>> {
    let one = |row: &Row| {
        let version = number_of(cell(row, 1)?)?.unwrap_or_default();
        Ok((own_key(Some(entity), cell(row, 0)?)?, Position::from_i64(version)?))
    };
    rows.iter().map(one).collect()
}

/// Remembers deletions, and forgets those of records that are there again; the last word on a key counts.
pub(crate) fn change(entity: &str, all: &[(Key, Option<Version>)], out: &mut Vec<String>) {
    let newest: BTreeMap<&Key, Option<Version>> = all.iter().map(|(key, v)| (key, *v)).collect();
    let row = |(key, version): (&&Key, &Option<Version>)| {
        let mut row = text(entity);
        row.push_str(", ");
        push_key_text(&mut row, key);
        version.map(|version| format!("{row}, {version}"))
    };
    let into = "unisono_tombstones (`entity`, `key`, `version`)";
    // The key is the only thing that is unique in this table.
    let replace = " ON DUPLICATE KEY UPDATE `version` = VALUES(`version`)";
    inserts(into, newest.iter().filter_map(row), replace, out);
    let gone = list(newest.iter().filter(|(_, version)| version.is_none()).map(|(key, _)| *key));
    if !gone.is_empty() {
        let entity = text(entity);
        out.push(format!(
            "DELETE FROM unisono_tombstones WHERE `entity` = {entity} AND `key` IN ({gone})"
        ));
    }
}

/// Forgets the deletions of an entity up to a position.
pub(crate) fn forget(entity: &str, through: Position) -> String {
    let entity = text(entity);
    format!("DELETE FROM unisono_tombstones WHERE `entity` = {entity} AND `version` <= {through}")
}

fn list<'k>(keys: impl IntoIterator<Item = &'k Key>) -> String {
    let mut out = String::new();
    for key in keys {
        if !out.is_empty() {
            out.push_str(", ");
        }
        push_key_text(&mut out, key);
    }
    out
}
