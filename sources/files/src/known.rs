//! [`Known`]: what a writer remembers of files that it has read or written, where another look costs a request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use unisono_core::{Key, Version};

use crate::store::Tag;

/// The most files that are remembered: about 20 MB.
const FILES_MAX: usize = 100_000;

/// The versions of files, each with the state of the file that holds it. It may be out of date: a write on the condition
/// of a state that is no more is refused by the store, and whoever meets that forgets the file and looks.
#[derive(Default)]
pub(crate) struct Known(Mutex<HashMap<Key, (Version, Tag)>>);

impl Known {
    /// What is remembered of a file.
    pub(crate) fn get(&self, key: &Key) -> Option<(Version, Tag)> {
        self.files().get(key).cloned()
    }

    /// Remembers a file; when there are too many, all others are forgotten.
    pub(crate) fn set(&self, key: &Key, version: Version, tag: Tag) {
        let mut files = self.files();
        if files.len() >= FILES_MAX && !files.contains_key(key) {
            files.clear();
        }
        files.insert(key.clone(), (version, tag));
    }

    /// Forgets a file.
    pub(crate) fn forget(&self, key: &Key) {
        self.files().remove(key);
    }

    /// Forgets every file.
    pub(crate) fn clear(&self) {
        self.files().clear();
    }

    fn files(&self) -> MutexGuard<'_, HashMap<Key, (Version, Tag)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
