//! Role cache: entries that several processes share, under the protocol of epoch, fence and applied position.
//!
//! **What it promises**: an entry in a [`Lookup`] contains every change at or before the `applied` of the same lookup,
//! whatever fills, changes, evictions, restarts, flushes and failovers go on meanwhile.
//!
//! **Why that holds.** Each call is one script or one command, so calls come one after the other. The fence of a part
//! holds the epoch of its life, `applied`, and `floor`; entries and the two lists of changed keys carry the epoch and mean nothing under
//! another one. Within a life:
//!
//! * `follow` takes exactly the changes after `applied` (compare-and-set), notes every key of them in `recent`, brings
//!   those that are cached up to date, and raises `applied` in the same step. Whichever process is first does that; the
//!   others, which read the same log, go on behind it.
//! * `fill` brings what was read in a snapshot that holds everything up to `read`. If the key changed in
//!   `(read, applied]`, a list knows or `floor` is above `read`, and it is refused. It never replaces a newer version.
//! * Eviction of an entry, and `invalidate`, only remove it. A list that was evicted lacks the epoch: fills are refused
//!   until `follow` has begun a new one, with `floor` at that position. A fence that was evicted ends the life: nothing
//!   is found, filled or followed until a restart, whose epoch was never used before, so that what is left of the life
//!   stays unread.
//! * A server that lost its newest writes (a failover, a crash between two syncs of its file) is as it was at an earlier
//!   moment, in all keys of the part, which are in one slot. `applied` is then back as well, and the next `follow`,
//!   which begins where the server no longer is, is refused. A fill of before is still checked against the lists of
//!   that moment: they know every change up to the `applied` of that moment, which is all that the entry must hold.
//!
//! **Leases** are keys of their own that end by themselves, and no part of the above: without any of them, or with all
//! of them given twice, records are only read more often. A lease is a process's, not a caller's: whichever caller
//! of the process reads, its fill ends the lease.
//!
//! **Compression** (`compression.rs`) concerns what stands in an entry behind its flag, which no script reads: to whom cannot
//! decompress it, it is as if it had been evicted. The dictionary is a key of its own, not bound to a life.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{join, try_join_all};
use redis::{Cmd, Value as Reply};
use unisono_core::kind::Options;
use unisono_core::source::{Cache, Entry, Filled, Lease, Life, Lookup};
use unisono_core::{Change, Entity, Error, ErrorKind, Key, Position, Result, Timestamp, Uuid};

use crate::codec::{
    EPOCH, POSITION, digits, entry, entry_tail, epoch, instant, lacks_dictionary, position,
};
use crate::company::KEPT;
use crate::config::compress_above;
use crate::error::unexpected;
use crate::follower::{BYTES_MAX, CHANGES_MAX};
use crate::keys::id;
use crate::node::Lane;
use crate::reply;
use crate::script::{Call, FILL, FOLLOW, INVALIDATE, LOOKUP, RELEASE, RESTART};
use crate::shelf::Shelf;
use crate::source::RedisSource;

#[async_trait]
impl Cache for RedisSource {
    async fn lookup(&self, entity: &Arc<Entity>, key: &Key, now: Timestamp) -> Result<Lookup> {
        let found = async { self.look(&*self.shelf(entity)?, key, now).await };
        found.await.map_err(|e| self.place(e, "lookup", entity))
    }

    async fn lookup_or_lease(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<(Lookup, Lease)> {
        let found = async { self.look_or_lease(&*self.shelf(entity)?, key, now, at_most).await };
        found.await.map_err(|e| self.place(e, "lookup", entity))
    }

    async fn release(&self, entity: &Arc<Entity>, key: &Key) -> Result<()> {
        let released = async {
            let shelf = self.shelf(entity)?;
            let lease = shelf.lease(shelf.layout.part(key), key);
            let call = Call::new(&RELEASE, vec![lease], vec![self.holder.clone()]);
            self.client.write(Lane::Quick, &call).await.map(drop)
        };
        released.await.map_err(|e| self.place(e, "release", entity))
    }

    async fn fill(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        entry: Entry,
        read: Position,
        epoch: u64,
    ) -> Result<Filled> {
        let filled = async { self.offer(&*self.shelf(entity)?, key, &entry, read, epoch).await };
        filled.await.map_err(|e| self.place(e, "fill", entity))
    }

    async fn follow(
        &self,
        entity: &Arc<Entity>,
        changes: &[Arc<Change>],
        from: Position,
        to: Position,
        expires: Timestamp,
    ) -> Result<()> {
        let followed = async {
            let shelf = self.shelf(entity)?;
            let mut parts = vec![Vec::new(); usize::from(shelf.layout.parts())];
            for change in changes {
                // A part is below the number of parts.
                parts[usize::from(shelf.layout.part(&change.key))].push(change.as_ref());
            }
            let parts = (0..).zip(&parts).map(|(part, changes)| {
                self.follow_part(&shelf, part, changes, (from, to), expires)
            });
            let (followed, ()) = join(try_join_all(parts), self.share_dictionary(&shelf)).await;
            followed.map(drop)
        };
        followed.await.map_err(|e| self.place(e, "follow", entity))
    }

    async fn invalidate(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<()> {
        let invalidated = async {
            let shelf = self.shelf(entity)?;
            let mut parts = vec![Vec::new(); usize::from(shelf.layout.parts())];
            for key in keys {
                let part = shelf.layout.part(key);
                // A part is below the number of parts.
                let names = &mut parts[usize::from(part)];
                names.push(shelf.entry(part, key));
                names.extend(shelf.shown(key));
            }
            let calls = parts.iter().flat_map(|names| names.chunks(CHANGES_MAX));
            let run = |names: &[Vec<u8>]| {
                let call = Call::new(&INVALIDATE, names.to_vec(), Vec::new());
                async move { self.client.write(Lane::Bulk, &call).await }
            };
            try_join_all(calls.map(run)).await.map(drop)
        };
        invalidated.await.map_err(|e| self.place(e, "invalidate", entity))
    }

    async fn join(&self, entity: &Arc<Entity>, log: Uuid) -> Result<Option<Life>> {
        let joined = async { self.going_on(&*self.shelf(entity)?, log).await };
        joined.await.map_err(|e| self.place(e, "join", entity))
    }

    fn adjust(&self, entity: &Arc<Entity>, options: &Options) -> Result<()> {
        self.shelf(entity)?.compression.adjust(compress_above(options));
        Ok(())
    }

    async fn restart(&self, entity: &Arc<Entity>, log: Uuid, at: Position) -> Result<u64> {
        let restarted = async {
            let shelf = self.shelf(entity)?;
            // The lower half of such an id is random: no two lives share it. Zero means that there is none.
            let life = (Uuid::now_v7().as_u128() as u64).max(1);
            let calls = (0..shelf.layout.parts()).map(|part| {
                let fence = vec![epoch(life), digits(at), log.simple().to_string().into_bytes()];
                Call::new(&RESTART, shelf.controls(part).to_vec(), fence)
            });
            let run = |call: Call| async move { self.client.write(Lane::Bulk, &call).await };
            try_join_all(calls.map(run)).await?;
            self.restore_dictionary(&shelf).await;
            Ok(life)
        };
        restarted.await.map_err(|e| self.place(e, "restart", entity))
    }
}

impl RedisSource {
    /// Asks for what is there by one command, which costs the server a fraction of a script.
    async fn look(&self, shelf: &Shelf, key: &Key, now: Timestamp) -> Result<Lookup> {
        let part = shelf.layout.part(key);
        let (fence, entry) = (shelf.fence(part), shelf.entry(part, key));
        let mut command = Cmd::with_capacity(3, fence.len() + entry.len() + 8);
        command.arg("MGET").arg(fence).arg(entry);
        let answer = self.client.look(fence, &command).await?;
        let (lookup, _) = self.known(shelf, key, now, answer).await?;
        Ok(lookup)
    }

    /// The same, and takes a lease by a script if that was not enough; by the script at once where it seldom was of late,
    /// and not at all where nobody else reads.
    async fn look_or_lease(
        &self,
        shelf: &Shelf,
        key: &Key,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<(Lookup, Lease)> {
        self.look_around(shelf, now).await;
        let alone = shelf.company.is_alone(now);
        if alone || shelf.trend.expects_hits() {
            let lookup = self.look(shelf, key, now).await?;
            let done = lookup.entry.is_some() || lookup.epoch == 0;
            if done {
                shelf.trend.note(true);
                return Ok((lookup, Lease::Free));
            }
            if alone {
                shelf.trend.note(false);
                return Ok((lookup, Lease::Free));
            }
        }
        let part = shelf.layout.part(key);
        let keys = vec![shelf.fence(part).to_vec(), shelf.entry(part, key), shelf.lease(part, key)];
        let ends = milliseconds(now, now.plus(at_most));
        let arguments = vec![instant(now).into_bytes(), self.holder.clone(), ends];
        let answer = self.client.read(Lane::Quick, &Call::new(&LOOKUP, keys, arguments)).await?;
        let (lookup, lease) = self.known(shelf, key, now, answer).await?;
        shelf.trend.note(lookup.entry.is_some());
        Ok((lookup, lease))
    }

    /// Says that this process reads, and learns who did before, when it is time to.
    async fn look_around(&self, shelf: &Shelf, now: Timestamp) {
        if !shelf.company.is_to_look(now) {
            return;
        }
        let mut command = Cmd::new();
        command.arg("SET").arg(shelf.readers()).arg(self.holder.as_slice());
        command.arg("PX").arg(KEPT.as_millis() as u64).arg("GET");
        let said = self.client.command(shelf.readers(), &command).await.and_then(reply::bytes);
        shelf.company.saw(said.ok().flatten().as_deref(), &self.holder, now);
    }

    /// What an answer of fence, entry and perhaps the holder of the lease says.
    async fn known(
        &self,
        shelf: &Shelf,
        key: &Key,
        now: Timestamp,
        answer: Reply,
    ) -> Result<(Lookup, Lease)> {
        let mut answer = reply::list(answer)?.into_iter();
        let mut next = || answer.next().map(reply::bytes).transpose().map(Option::flatten);
        let (Some(fence), bytes, holder) = (next()?, next()?, next()?) else {
            let unknown = Lookup { entry: None, applied: Position::ZERO, epoch: 0 };
            return Ok((unknown, Lease::Free));
        };
        let (epoch, applied) = standing(&fence)?;
        let compression = &shelf.compression;
        if bytes.as_deref().is_some_and(|bytes| lacks_dictionary(bytes, compression)) {
            self.fetch_dictionary(shelf).await;
        }
        let life = fence.get(..EPOCH).unwrap_or_default();
        let found = bytes.and_then(|bytes| entry(&shelf.entity, key, life, bytes, compression));
        let lease = match holder {
            None => Lease::Free,
            Some(holder) if holder == self.holder => Lease::Held,
            Some(_) => Lease::Taken,
        };
        let entry = found.filter(|e| now < e.expires);
        Ok((Lookup { entry, applied, epoch }, lease))
    }

    /// What all parts have in common: an epoch of this log, and the position of the one that is behind.
    async fn going_on(&self, shelf: &Shelf, log: Uuid) -> Result<Option<Life>> {
        let log = log.simple().to_string();
        let fences = (0..shelf.layout.parts()).map(|part| async move {
            let mut command = Cmd::new();
            command.arg("GET").arg(shelf.fence(part));
            reply::bytes(self.client.look(shelf.fence(part), &command).await?)
        });
        let mut life: Option<Life> = None;
        for fence in try_join_all(fences).await? {
            let Some(fence) = fence else { return Ok(None) };
            let (epoch, applied) = standing(&fence)?;
            let same = life.is_none_or(|life| life.epoch == epoch);
            if !same || !fence.ends_with(log.as_bytes()) {
                return Ok(None);
            }
            let applied = life.map_or(applied, |life| life.applied.min(applied));
            life = Some(Life { epoch, applied });
        }
        Ok(life)
    }

    async fn offer(
        &self,
        shelf: &Shelf,
        key: &Key,
        entry: &Entry,
        read: Position,
        life: u64,
    ) -> Result<Filled> {
        let part = shelf.layout.part(key);
        let mut keys = shelf.controls(part).to_vec();
        keys.extend([shelf.entry(part, key), shelf.lease(part, key)]);
        keys.extend(shelf.shown(key));
        let record = entry.stored.as_ref().map(|stored| stored.record.as_ref());
        let (filled, expires) = (entry.filled, entry.expires);
        let arguments = vec![
            epoch(life),
            digits(entry.version),
            digits(read),
            id(key),
            instant(expires).into_bytes(),
            milliseconds(filled, expires),
            entry_tail(&shelf.entity, record, filled, expires, &shelf.compression),
            self.holder.clone(),
        ];
        let call = Call::new(&FILL, keys, arguments);
        let filling = self.client.write(Lane::Quick, &call);
        let (answer, ()) = join(filling, self.share_dictionary(shelf)).await;
        match reply::text(answer?)?.as_str() {
            "stored" => Ok(Filled::Stored),
            "outdated" => Ok(Filled::Outdated),
            "epoch" => Ok(Filled::OtherEpoch),
            _ => Err(unexpected()),
        }
    }

    /// Takes in the changes of one part, script by script, each of which moves `applied` to where it has come.
    async fn follow_part(
        &self,
        shelf: &Shelf,
        part: u16,
        changes: &[&Change],
        (mut from, to): (Position, Position),
        expires: Timestamp,
    ) -> Result<()> {
        let keep = milliseconds(self.clock.now(), expires);
        let recent_max = shelf.recent_max().to_string().into_bytes();
        let mut rest = changes;
        loop {
            let mut call = Call::new(&FOLLOW, shelf.controls(part).to_vec(), Vec::new());
            call.arguments = vec![digits(from), digits(to), keep.clone(), recent_max.clone()];
            let (mut bytes, mut last, mut shown) = (0, from, Vec::new());
            while let Some((change, later)) = rest.split_first()
                && call.keys.len() < CHANGES_MAX
                && bytes < BYTES_MAX
            {
                // It counts as put in when the write was asked for, so that its age is never told too low.
                let (record, filled) = (change.image.as_deref(), change.time);
                let tail = entry_tail(&shelf.entity, record, filled, expires, &shelf.compression);
                bytes += tail.len() + 128;
                last = change.position;
                call.keys.push(shelf.entry(part, &change.key));
                shown.extend(shelf.shown(&change.key));
                call.arguments.extend([id(&change.key), digits(change.position), tail]);
                rest = later;
            }
            call.keys.append(&mut shown);
            let reached = if rest.is_empty() { to } else { last };
            if let Some(place) = call.arguments.get_mut(1) {
                *place = digits(reached);
            }
            let actual = reply::text(self.client.write(Lane::Bulk, &call).await?)?;
            from = match position(actual.as_bytes()) {
                _ if actual.is_empty() => reached,
                // Another process was first.
                Ok(there) if there > from => {
                    // A partition point is at most the length.
                    rest = &changes[changes.partition_point(|c| c.position <= there)..];
                    there
                }
                elsewhere => return Err(moved(from, elsewhere.ok())),
            };
            if from >= to {
                return Ok(());
            }
        }
    }
}

fn moved(expected: Position, actual: Option<Position>) -> Error {
    Error::new(ErrorKind::CheckpointMoved, "the cache has not applied up to there")
        .with("expected", expected)
        .with("actual", actual.map_or("none".to_owned(), |position| position.to_string()))
}

/// How long an entry may stay in the server: its own time decides when it is no longer served.
fn milliseconds(from: Timestamp, to: Timestamp) -> Vec<u8> {
    let left = to.micros().saturating_sub(from.micros()) / 1000;
    left.clamp(1, i64::from(u32::MAX) * 1000).to_string().into_bytes()
}

/// Epoch and applied position of a fence.
fn standing(fence: &[u8]) -> Result<(u64, Position)> {
    let (epoch, rest) = fence.split_at_checked(EPOCH).ok_or_else(unexpected)?;
    let text = std::str::from_utf8(epoch).map_err(|_| unexpected())?;
    let epoch = u64::from_str_radix(text, 16).map_err(|_| unexpected())?;
    Ok((epoch, position(rest.get(..POSITION).ok_or_else(unexpected)?)?))
}
