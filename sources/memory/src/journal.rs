//! Role journal: entries of each space, kept for as long as the disk is.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::journal::{Appended, Entry, Journal, NewEntry};
use unisono_core::{Error, ErrorKind, Result, Timestamp};

use crate::source::MemorySource;

/// The entries of one space.
#[derive(Clone, Debug, Default)]
pub(crate) struct Space {
    /// The last sequence that was given.
    last: u64,
    entries: BTreeMap<u64, String>,
    outcomes: BTreeMap<Arc<str>, Outcome>,
}

#[derive(Clone, Debug)]
struct Outcome {
    fingerprint: u128,
    sequence: u64,
    time: Timestamp,
}

impl Space {
    fn append(&mut self, entry: NewEntry) -> Result<Appended> {
        let known = entry.idempotency.as_ref().and_then(|i| Some((i, self.outcomes.get(&i.key)?)));
        if let Some((idempotency, outcome)) = known {
            return match outcome.fingerprint == idempotency.fingerprint {
                true => Ok(Appended { sequence: outcome.sequence, repeated: true }),
                false => Err(Error::new(
                    ErrorKind::IdempotencyKeyReused,
                    "the idempotency key was used for another request",
                )),
            };
        }
        self.last += 1;
        let sequence = self.last;
        self.entries.insert(sequence, entry.body);
        if let Some(idempotency) = entry.idempotency {
            let (fingerprint, time) = (idempotency.fingerprint, entry.time);
            self.outcomes.insert(idempotency.key, Outcome { fingerprint, sequence, time });
        }
        Ok(Appended { sequence, repeated: false })
    }
}

#[async_trait]
impl Journal for MemorySource {
    async fn begin(&self, space: &str) -> Result<()> {
        self.state("begin")?.journal.entry(space.to_owned()).or_default();
        Ok(())
    }

    async fn append(&self, space: &str, entries: Vec<NewEntry>) -> Result<Vec<Result<Appended>>> {
        let mut state = self.state("append")?;
        let space = state.journal.entry(space.to_owned()).or_default();
        Ok(entries.into_iter().map(|entry| space.append(entry)).collect())
    }

    async fn read(&self, space: &str, after: u64, entries_max: usize) -> Result<Vec<Entry>> {
        let state = self.state("read")?;
        let entries =
            state.journal.get(space).into_iter().flat_map(|s| s.entries.range(after + 1..));
        let entry =
            |(sequence, body): (&u64, &String)| Entry { sequence: *sequence, body: body.clone() };
        Ok(entries.take(entries_max).map(entry).collect())
    }

    async fn remove(
        &self,
        space: &str,
        sequences: &[u64],
        outcomes_before: Timestamp,
    ) -> Result<()> {
        let mut state = self.state("remove")?;
        let Some(space) = state.journal.get_mut(space) else { return Ok(()) };
        for sequence in sequences {
            space.entries.remove(sequence);
        }
        let entries = &space.entries;
        space.outcomes.retain(|_, outcome| {
            outcome.time >= outcomes_before || entries.contains_key(&outcome.sequence)
        });
        Ok(())
    }

    async fn spaces(&self) -> Result<Vec<(String, u64)>> {
        let state = self.state("spaces")?;
        let spaces = state.journal.iter().map(|(name, s)| (name.clone(), s.entries.len() as u64));
        Ok(spaces.filter(|(_, entries)| *entries > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryDisk, Settings};
    use unisono_core::write::Idempotency;

    fn entry(body: &str, key: Option<(&str, u128)>) -> NewEntry {
        let idempotency =
            key.map(|(key, fingerprint)| Idempotency { key: key.into(), fingerprint });
        NewEntry { body: body.into(), idempotency, time: Timestamp::EPOCH }
    }

    #[test]
    fn sequences_rise_and_repetitions_are_told_by_their_key() {
        use futures::FutureExt;
        keeps_and_tells().now_or_never().expect("memory never waits");
    }

    async fn keeps_and_tells() {
        let disk = Arc::new(MemoryDisk::new());
        let journal = || MemorySource::new("queue", Arc::clone(&disk), Settings::default());
        let first = journal();
        first.begin("thing").await.unwrap();
        let entries =
            vec![entry("a", Some(("k", 1))), entry("b", None), entry("a", Some(("k", 1)))];
        let appended = first.append("thing", entries).await.unwrap();
        let appended: Vec<_> =
            appended.into_iter().map(|a| a.map(|a| (a.sequence, a.repeated)).unwrap()).collect();
        assert_eq!(appended, [(1, false), (2, false), (1, true)]);
        let reused = first.append("thing", vec![entry("c", Some(("k", 2)))]).await.unwrap();
        assert_eq!(reused[0].as_ref().unwrap_err().kind(), ErrorKind::IdempotencyKeyReused);

        first.remove("thing", &[1, 2], Timestamp::EPOCH).await.unwrap();
        let second = journal();
        assert_eq!(second.spaces().await.unwrap(), []);
        let again =
            second.append("thing", vec![entry("a", Some(("k", 1))), entry("d", None)]).await;
        let again = again.unwrap();
        assert_eq!(*again[0].as_ref().unwrap(), Appended { sequence: 1, repeated: true });
        assert_eq!(again[1].as_ref().unwrap().sequence, 3, "a sequence is used once");
        assert_eq!(second.read("thing", 0, 10).await.unwrap().len(), 1);
        assert_eq!(second.spaces().await.unwrap(), [("thing".to_owned(), 1)]);
    }
}
