//! The versions of captured tables, which have no column for them, and entries of our own.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::{Key, Version};

use crate::capture::NOW;
use crate::capture::keys::{list, push_key};
use crate::mutation::inserts;

/// Records whose rows are to be read again.
pub(crate) type Notes = Vec<(Arc<str>, Key)>;

/// Gives records their versions, and takes those away of records that are gone; the last word on a key counts.
pub(crate) fn change(entity: &str, all: &[(Key, Option<Version>)], out: &mut Vec<String>) {
    let newest: BTreeMap<&Key, Option<Version>> = all.iter().map(|(key, v)| (key, *v)).collect();
    let row = |(key, version): (&&Key, &Option<Version>)| {
        let mut row = format!("'{entity}', ");
        push_key(&mut row, key);
        version.map(|version| format!("{row}, {version}"))
    };
    let into = "unisono_versions (`unisono_entity`, `unisono_key`, `unisono_version`)";
    // The key is the only thing that is unique in this table.
    let replace = " ON DUPLICATE KEY UPDATE `unisono_version` = VALUES(`unisono_version`)";
    inserts(into, newest.iter().filter_map(row), replace, out);
    let gone = list(newest.iter().filter(|(_, version)| version.is_none()).map(|(key, _)| *key));
    if !gone.is_empty() {
        out.push(format!(
            "DELETE FROM unisono_versions WHERE `unisono_entity` = '{entity}' AND `unisono_key` IN ({gone})"
        ));
    }
}

/// Has rows read again that we have written ourselves: a trigger of the application may have changed them.
pub(crate) fn note(notes: &Notes, out: &mut Vec<String>) {
    let row = |(entity, key): &(Arc<str>, Key)| {
        let mut row = format!("'{entity}', ");
        push_key(&mut row, key);
        format!("{row}, {NOW}")
    };
    inserts("unisono_intake (`entity`, `key`, `time`)", notes.iter().map(row), "", out);
}
