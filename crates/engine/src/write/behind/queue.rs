//! [`Queue`]: the writes that wait, in the order in which they were acknowledged, and which of them go next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use unisono_core::Key;
use unisono_policy::write::supersedes;

use crate::write::behind::entry::Pending;

/// The writes that wait. Those of one record go one group after another, those of different records independently.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: BTreeMap<u64, Arc<Pending>>,
    by_key: BTreeMap<Key, VecDeque<u64>>,
    /// Groups that were sent and whose outcome is not known yet.
    sent: BTreeMap<Key, Sent>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    entries: usize,
    suspect: bool,
}

/// Writes of one record that are flushed as one: the last of them, which makes the others superfluous.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The sequences of its writes, at least one.
    pub(crate) sequences: Vec<u64>,
    pub(crate) last: Arc<Pending>,
}

impl Queue {
    /// Puts a write at the end.
    pub(crate) fn push(&mut self, pending: Arc<Pending>) {
        self.by_key.entry(pending.write.key.clone()).or_default().push_back(pending.sequence);
        self.entries.insert(pending.sequence, pending);
    }

    /// The write of a sequence, if it waits.
    pub(crate) fn get(&self, sequence: u64) -> Option<&Arc<Pending>> {
        self.entries.get(&sequence)
    }

    /// Every sequence that waits, in order.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = u64> {
        self.entries.keys().copied()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first that waits.
    pub(crate) fn first(&self) -> Option<&Arc<Pending>> {
        self.entries.values().next()
    }

    /// The first that waits and is not suspect.
    pub(crate) fn first_ready(&self) -> Option<&Arc<Pending>> {
        self.entries.values().find(|pending| !self.is_suspect(&pending.write.key))
    }

    /// Whether some records are tried apart from the others.
    pub(crate) fn has_suspects(&self) -> bool {
        self.sent.values().any(|sent| sent.suspect)
    }

    /// The writes of a record that wait, in order.
    pub(crate) fn of(&self, key: &Key) -> Vec<Arc<Pending>> {
        let sequences = self.by_key.get(key).into_iter().flatten();
        sequences.filter_map(|sequence| self.entries.get(sequence)).cloned().collect()
    }

    /// Whether a write up to a sequence waits, of a record if one is given.
    pub(crate) fn waits(&self, key: Option<&Key>, through: u64) -> bool {
        let first = match key {
            Some(key) => self.by_key.get(key).and_then(|sequences| sequences.front()),
            None => self.entries.keys().next(),
        };
        first.is_some_and(|first| *first <= through)
    }

    /// The next group of each record, the longest waiting first, at most `max`; of suspect records or of the others.
    ///
    /// A group that was sent before stays as it is until its outcome is known: it may have been committed, and only the
    /// same write under the same identity is known to the truth.
    pub(crate) fn take(&mut self, suspect: bool, max: usize) -> Vec<Group> {
        let mut fronts: Vec<(u64, &Key)> = self
            .by_key
            .iter()
            .filter(|(key, _)| self.is_suspect(key) == suspect)
            .filter_map(|(key, sequences)| Some((*sequences.front()?, key)))
            .collect();
        fronts.sort_unstable_by_key(|(sequence, _)| *sequence);
        let keys: Vec<Key> = fronts.into_iter().take(max).map(|(_, key)| key.clone()).collect();
        keys.iter().filter_map(|key| self.group(key)).collect()
    }

    fn group(&mut self, key: &Key) -> Option<Group> {
        let sequences = self.by_key.get(key)?;
        let entries = match self.sent.get(key) {
            Some(sent) => sent.entries,
            None => self.run(sequences),
        };
        self.sent.entry(key.clone()).or_insert(Sent { entries, suspect: false });
        let sequences: Vec<u64> = sequences.iter().take(entries).copied().collect();
        let last = Arc::clone(self.entries.get(sequences.last()?)?);
        Some(Group { sequences, last })
    }

    /// How many of the first writes go as one. All that can: the same writes are grouped again after a crash, so that
    /// none of them comes after one that made it superfluous.
    fn run(&self, sequences: &VecDeque<u64>) -> usize {
        let writes = sequences.iter().filter_map(|s| self.entries.get(s));
        let pairs = writes.clone().zip(writes.skip(1));
        1 + pairs.take_while(|(earlier, later)| supersedes(&later.write, &earlier.write)).count()
    }

    fn is_suspect(&self, key: &Key) -> bool {
        self.sent.get(key).is_some_and(|sent| sent.suspect)
    }

    /// Has a group be tried apart from the others from now on.
    pub(crate) fn suspect(&mut self, group: &Group) {
        if let Some(sent) = self.sent.get_mut(&group.last.write.key) {
            sent.suspect = true;
        }
    }

    /// Another process has seen to a write: it waits no more.
    pub(crate) fn forget(&mut self, sequence: u64) {
        let Some(pending) = self.entries.remove(&sequence) else { return };
        let key = &pending.write.key;
        self.sent.remove(key);
        if let Some(sequences) = self.by_key.get_mut(key) {
            sequences.retain(|other| *other != sequence);
            if sequences.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    /// The outcome of a group is known: its writes wait no more.
    pub(crate) fn settle(&mut self, group: &Group) {
        let key = &group.last.write.key;
        self.sent.remove(key);
        for sequence in &group.sequences {
            self.entries.remove(sequence);
        }
        if let Some(sequences) = self.by_key.get_mut(key) {
            sequences.retain(|sequence| !group.sequences.contains(sequence));
            if sequences.is_empty() {
                self.by_key.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
