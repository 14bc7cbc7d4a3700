//! Role follower: versions guard the records, and a mark beside them guards the batches, in one script.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use redis::Cmd;
use unisono_core::source::{Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Change, Entity, Error, ErrorKind, Operation, Result};

use crate::codec::{Format, digits};
use crate::error::unexpected;
use crate::keys::{id, key_of};
use crate::mark::{Guard, Marked, agreed, emptying, moved};
use crate::node::Lane;
use crate::reply;
use crate::script::{APPLY, Call, PAGE, SWEEP};
use crate::source::{RedisSource, Table};

/// The most changes of one script: a few milliseconds of the server's time, in which it does nothing else.
pub(crate) const CHANGES_MAX: usize = 512;
/// About the most bytes of one script.
pub(crate) const BYTES_MAX: usize = 2 << 20;

/// The changes of one part by their place in the batch, or that its mark is not the expected one.
type Taken = Option<Vec<(usize, Outcome)>>;

#[async_trait]
impl Follower for RedisSource {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let applied = async {
            let table = self.table(&batch.entity)?;
            self.apply_batch(&table, &batch).await
        };
        applied.await.map_err(|e| self.place(e, "apply", &batch.entity))
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        let read = async {
            let texts = self.marks(&*self.table(entity)?).await?;
            let marks: Vec<_> = texts.iter().map(|t| Marked::parse(t)).collect::<Result<_>>()?;
            Ok(agreed(&marks).map(|mark| mark.checkpoint.clone()))
        };
        read.await.map_err(|e| self.place(e, "checkpoint", entity))
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        let emptied = async { self.empty(&*self.table(entity)?).await };
        emptied.await.map_err(|e| self.place(e, "reset", entity))
    }
}

impl RedisSource {
    /// The mark of each part as it is stored; empty for none.
    pub(crate) async fn marks(&self, table: &Table) -> Result<Vec<Vec<u8>>> {
        let read = |part| async move {
            let ledger = table.layout.control(part, "ledger");
            let mut command = Cmd::new();
            command.arg("HGET").arg(ledger.as_slice()).arg("");
            Ok(reply::bytes(self.client.command(&ledger, &command).await?)?.unwrap_or_default())
        };
        try_join_all((0..table.layout.parts()).map(read)).await
    }

    async fn apply_batch(&self, table: &Table, batch: &Batch) -> Result<Applied> {
        let mut outcomes: Vec<Option<Outcome>> = batch.changes.iter().map(|_| None).collect();
        let mut parts = vec![Vec::new(); usize::from(table.layout.parts())];
        for ((n, change), outcome) in batch.changes.iter().enumerate().zip(&mut outcomes) {
            match broken(change) {
                Some(error) => *outcome = Some(Outcome::Rejected(error)),
                // A part is below the number of parts.
                None => parts[usize::from(table.layout.part(&change.key))].push(n),
            }
        }
        let moves = outcomes.iter().all(Option::is_none);
        let taken = self.take(table, batch, &parts, moves).await?;
        for (n, outcome) in taken {
            if let Some(place) = outcomes.get_mut(n) {
                *place = Some(outcome);
            }
        }
        let outcomes = outcomes.into_iter().map(|o| o.ok_or_else(unexpected));
        let advanced = moves && batch.advance.is_some();
        Ok(Applied { outcomes: outcomes.collect::<Result<_>>()?, advanced })
    }

    /// Takes in the changes of every part, and moves the checkpoint if there is one to move.
    async fn take(
        &self,
        table: &Table,
        batch: &Batch,
        parts: &[Vec<usize>],
        moves: bool,
    ) -> Result<Vec<(usize, Outcome)>> {
        for attempt in 0..2 {
            let guard = match &batch.advance {
                None => None,
                Some(advance) if attempt == 0 && parts.len() == 1 => {
                    Some(Guard::expecting(advance, moves)?)
                }
                Some(advance) => {
                    let mut texts = self.marks(table).await?;
                    if advance.from.is_none() && texts.iter().any(|t| is_emptying(t)) {
                        // Somebody began to empty it and did not come to the end.
                        self.empty(table).await?;
                        texts = self.marks(table).await?;
                    }
                    Some(Guard::after(texts, advance, moves)?)
                }
            };
            let guard = guard.as_ref();
            let concerned = (0..).zip(parts).filter(|(_, all)| guard.is_some() || !all.is_empty());
            let taken = concerned.map(|(part, all)| self.take_part(table, batch, part, all, guard));
            let taken: Option<Vec<_>> = try_join_all(taken).await?.into_iter().collect();
            if let Some(taken) = taken {
                return Ok(taken.into_iter().flatten().collect());
            }
        }
        // It moved twice in a moment: others are at work.
        let advance = batch.advance.as_ref().ok_or_else(unexpected)?;
        Err(moved(None, advance))
    }

    /// Takes in the changes of one part, script by script; the last one moves its mark.
    async fn take_part(
        &self,
        table: &Table,
        batch: &Batch,
        part: u16,
        changes: &[usize],
        guard: Option<&Guard>,
    ) -> Result<Taken> {
        let mut taken = Vec::with_capacity(changes.len());
        let run = |rest: &[usize]| {
            let changes = rest.iter().filter_map(|n| batch.changes.get(*n)).map(AsRef::as_ref);
            Run::new(table, part, batch.copied, guard).with(table, changes)
        };
        let mut rest = changes;
        let mut next = run(rest);
        loop {
            let (these, others) = rest.split_at(next.changes());
            rest = others;
            let mark = guard.and_then(|g| g.next.as_ref()).filter(|_| rest.is_empty());
            let call = next.into_call(mark);
            // The next one is put together while the server has this one.
            let sent = self.client.write(Lane::Bulk, &call);
            let (answer, after) =
                futures::join!(sent, async { (!rest.is_empty()).then(|| run(rest)) });
            let mut answer = reply::list(answer?)?.into_iter();
            let (said, stale) = (answer.next(), answer.next());
            if reply::number(&said.ok_or_else(unexpected)?)? == 0 {
                return Ok(None);
            }
            // Few, in their order, and counted from 1.
            let stale = reply::list(stale.ok_or_else(unexpected)?)?;
            let stale: Vec<i64> = stale.iter().map(reply::number).collect::<Result<_>>()?;
            taken.extend((1..).zip(these).map(|(place, n)| match stale.binary_search(&place) {
                Ok(_) => (*n, Outcome::Stale),
                Err(_) => (*n, Outcome::Applied),
            }));
            let Some(after) = after else { return Ok(Some(taken)) };
            next = after;
        }
    }

    /// Removes every record of a table, its versions and its checkpoint, some at a time.
    ///
    /// The checkpoint goes first. A late request of an earlier emptying does nothing: it names another mark.
    pub(crate) async fn empty(&self, table: &Table) -> Result<()> {
        let mark = emptying();
        try_join_all((0..table.layout.parts()).map(|part| self.empty_part(table, part, &mark)))
            .await?;
        self.keep_schema(table).await
    }

    async fn empty_part(&self, table: &Table, part: u16, mark: &[u8]) -> Result<()> {
        let controls =
            ["ledger", "index", "deletions"].map(|name| table.layout.control(part, name));
        let [ledger, index, _] = &controls;
        let sets: Vec<_> = table.layout.sets().collect();
        let mut begin = Cmd::new();
        begin.arg("HSET").arg(ledger.as_slice()).arg("").arg(mark);
        self.client.command(ledger, &begin).await?;
        loop {
            let arguments = [b"-".to_vec(), b"+".to_vec(), CHANGES_MAX.to_string().into_bytes()];
            let page = Call::new(&PAGE, vec![ledger.clone(), index.clone()], arguments.to_vec());
            let page = reply::list(self.client.read(Lane::Bulk, &page).await?)?.into_iter().nth(2);
            let mut sweep = Call::new(&SWEEP, controls.to_vec(), vec![mark.to_vec()]);
            sweep.keys.extend(sets.iter().cloned());
            for id in reply::list(page.ok_or_else(unexpected)?)? {
                let id = reply::bytes(id)?.ok_or_else(unexpected)?;
                // Not an id of ours: nothing belongs to it but its place in the index.
                if let Ok(key) = key_of(&table.entity, &id) {
                    sweep.keys.push(table.layout.record(&key));
                    sweep.keys.extend(table.layout.values(&key));
                }
                sweep.arguments.push(id);
            }
            match reply::number(&self.client.write(Lane::Bulk, &sweep).await?)? {
                1 => {}
                2 => return Ok(()),
                _ => {
                    return Err(Error::new(
                        ErrorKind::CheckpointMoved,
                        "somebody else is emptying or filling this follower",
                    ));
                }
            }
        }
    }
}

fn is_emptying(text: &[u8]) -> bool {
    matches!(Marked::parse(text), Ok(Marked::Emptying))
}

/// Why a change can never be taken in.
fn broken(change: &Change) -> Option<Error> {
    let whole = match change.operation {
        Operation::Put => change.image.is_some(),
        Operation::Delete => change.image.is_none(),
    };
    (!whole).then(|| {
        Error::new(ErrorKind::Corrupt, "the change has no image, or one too many")
            .with("key", &change.key)
            .with("position", change.position)
    })
}

/// One script while its arguments are gathered.
struct Run {
    /// Of the part, of the sorted sets, then of each record and of its fields beside it.
    keys: Vec<Vec<u8>>,
    /// What is said once; the place of the next mark is empty.
    head: [Vec<u8>; 8],
    ids: Vec<Vec<u8>>,
    /// What sorted sets call each record.
    members: Vec<Vec<u8>>,
    /// What the ledger will say of each record, its values, and what stands beside it.
    states: Vec<Vec<u8>>,
}

/// The place of the next mark in the head.
const NEXT: usize = 4;

impl Run {
    fn new(table: &Table, part: u16, copied: bool, guard: Option<&Guard>) -> Self {
        let flag = |yes: bool| if yes { b"1".to_vec() } else { b"0".to_vec() };
        let [values, sets] = table.layout.shown().counts();
        let expected = guard.and_then(|g| g.expected.get(usize::from(part)));
        let settled = guard.filter(|g| g.next.is_some()).and_then(|g| g.passed);
        let head = [
            table.format.shape().to_vec(),
            flag(copied),
            flag(guard.is_some()),
            expected.cloned().unwrap_or_default(),
            Vec::new(),
            settled.map(|passed| digits(passed.next())).unwrap_or_default(),
            values.to_string().into_bytes(),
            sets.to_string().into_bytes(),
        ];
        let keys = ["ledger", "index", "deletions"].map(|name| table.layout.control(part, name));
        let keys = keys.into_iter().chain(table.layout.sets()).collect();
        Run { keys, head, ids: Vec::new(), members: Vec::new(), states: Vec::new() }
    }

    /// Adds changes, as many as one script takes.
    fn with<'a>(mut self, table: &Table, changes: impl Iterator<Item = &'a Change>) -> Self {
        let mut bytes = 0;
        for change in changes {
            if self.changes() == CHANGES_MAX || bytes >= BYTES_MAX {
                break;
            }
            let before = self.states.len();
            let mut entry = digits(change.position);
            match &change.image {
                None => {
                    entry.push(b'D');
                    self.states.push(entry);
                }
                Some(record) => {
                    let values = table.format.encode(&table.entity, record, change.position);
                    self.states.push(entry);
                    if table.format == Format::Hash {
                        self.states.push(values.len().to_string().into_bytes());
                    }
                    self.states.extend(values);
                    self.states.extend(table.layout.shown().arguments(&table.entity, record));
                }
            }
            bytes += 128 + self.states.iter().skip(before).map(Vec::len).sum::<usize>();
            self.keys.push(table.layout.record(&change.key));
            self.keys.extend(table.layout.values(&change.key));
            self.ids.push(id(&change.key));
            if table.layout.sets().next().is_some() {
                self.members.push(change.key.to_string().into_bytes());
            }
        }
        self
    }

    /// How many changes it has.
    fn changes(&self) -> usize {
        self.ids.len()
    }

    /// The script, which moves the mark to the next one, if there is one.
    fn into_call(mut self, next: Option<&Vec<u8>>) -> Call {
        self.head[NEXT] = next.cloned().unwrap_or_default();
        let arguments =
            self.head.into_iter().chain(self.ids).chain(self.members).chain(self.states);
        Call::new(&APPLY, self.keys, arguments.collect())
    }
}
