//! Role auditor: records in the order of their keys, read back from where they are kept, and sums of their versions.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use futures::try_join;
use redis::Cmd;
use unisono_core::slice::{SliceDigest, Slices, Sums};
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Position, Result, Stored, Version};

use crate::codec::position as version_of;
use crate::error::unexpected;
use crate::keys::key_of;
use crate::reply;
use crate::scan::{Broken, Range, Scan};
use crate::source::{RedisSource, Table};

/// The most records that are read ahead of one part.
const AHEAD_MAX: usize = 1024;
/// Entries of a ledger that are read at once: about a millisecond of the server's time.
const STEP: usize = 2_000;

#[async_trait]
impl Auditor for RedisSource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let scanned = async {
            let table = self.table(entity)?;
            let range = after.map_or_else(Range::all, |key| Range::all().after(key));
            let wanted = limit.saturating_add(1).min(AHEAD_MAX);
            let mut scan = Scan::new(self, &table, range, wanted, Broken::Shows);
            let mut records = Vec::new();
            loop {
                // Records that were removed from under their place in the index leave pages short, never empty.
                let (keys, more) = scan.keys(limit - records.len()).await?;
                let read = self.records(&table, &keys, Broken::Shows).await?;
                let position = scan.position();
                let position = if keys.is_empty() { position } else { position.min(read.position) };
                records.extend(read.value.into_iter().flatten());
                if !more || records.len() == limit {
                    return Ok(At { value: ScanPage { records, end: !more }, position });
                }
            }
        };
        scanned.await.map_err(|e| self.place(e, "scan", entity))
    }

    async fn held(
        &self,
        entity: &Arc<Entity>,
        keys: &[Key],
    ) -> Result<Option<At<Vec<Option<Stored>>>>> {
        let read = async {
            let table = self.table(entity)?;
            if keys.is_empty() {
                return Ok(None);
            }
            self.records(&table, keys, Broken::Shows).await.map(Some)
        };
        read.await.map_err(|e| self.place(e, "held", entity))
    }

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        let summed = async {
            let mut sums = Sums::new(slices);
            let table = self.table(entity)?;
            let position = self.each_version(&table, |_, version| sums.add(version)).await?;
            Ok(At { value: sums.finish(), position })
        };
        summed.await.map_err(|e| self.place(e, "digests", entity))
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        let listed = async {
            let mut found = Vec::new();
            let table = self.table(entity)?;
            let listed = self.each_version(&table, |key, version| {
                if among.binary_search(&slices.of_version(version)).is_ok() {
                    found.push((key, version));
                }
            });
            Ok(At { position: listed.await?, value: found })
        };
        listed.await.map_err(|e| self.place(e, "versions", entity))
    }
}

impl RedisSource {
    /// Gives the key and the version of every record that is there, some of them perhaps twice, as they are in the
    /// ledgers; answers up to where everything was there when it began.
    async fn each_version(
        &self,
        table: &Table,
        mut each: impl FnMut(Key, Version) + Send,
    ) -> Result<Position> {
        let mut position = Position::MAX;
        for part in 0..table.layout.parts() {
            position = position.min(self.page(table, part, b"-", b"-", 0).await?.position);
            let ledger = table.layout.control(part, "ledger");
            let mut next = Some(b"0".to_vec());
            let mut waiting = Vec::new();
            while next.is_some() || !waiting.is_empty() {
                // Whether the records of one step are there is asked beside the next step.
                let step = async {
                    match &next {
                        Some(cursor) => self.step(&ledger, cursor).await,
                        None => Ok((None, Vec::new())),
                    }
                };
                let there = self.there(table, std::mem::take(&mut waiting));
                let ((cursor, found), there) = try_join!(step, there)?;
                there.into_iter().for_each(|(key, version)| each(key, version));
                waiting = found
                    .into_iter()
                    .map(|(id, version)| Ok((key_of(&table.entity, &id)?, version)))
                    .collect::<Result<_>>()?;
                next = cursor;
            }
        }
        Ok(position)
    }

    /// Some entries of a ledger that are no deletions, and where to go on.
    async fn step(
        &self,
        ledger: &[u8],
        cursor: &[u8],
    ) -> Result<(Option<Vec<u8>>, Vec<(Vec<u8>, Version)>)> {
        let mut command = Cmd::new();
        command.arg("HSCAN").arg(ledger).arg(cursor).arg("COUNT").arg(STEP);
        let mut answer = reply::list(self.client.look(ledger, &command).await?)?.into_iter();
        let mut part = || answer.next().ok_or_else(unexpected);
        let cursor = reply::bytes(part()?)?.filter(|cursor| cursor != b"0");
        let mut entries = reply::list(part()?)?.into_iter();
        let mut found = Vec::with_capacity(entries.len() / 2);
        while let (Some(id), Some(version)) = (entries.next(), entries.next()) {
            let version = reply::bytes(version)?.unwrap_or_default();
            if let (Some(id), 20) = (reply::bytes(id)?.filter(|id| !id.is_empty()), version.len()) {
                found.push((id, version_of(&version)?));
            }
        }
        Ok((cursor, found))
    }

    /// Those of some records of one part that are there, with what belongs beside them: the server may have lost one without
    /// the ledger's knowing, and anybody can delete one.
    async fn there(
        &self,
        table: &Table,
        records: Vec<(Key, Version)>,
    ) -> Result<Vec<(Key, Version)>> {
        let keys: Vec<_> = records.iter().map(|(key, _)| key).collect();
        if self.are_there(table, &keys).await? {
            return Ok(records);
        }
        let each = keys.iter().map(|key| self.are_there(table, std::slice::from_ref(key)));
        let mut there = try_join_all(each).await?;
        if !table.layout.shown().is_empty() {
            // Beside a record is nothing for a field that is null: only the record can tell.
            let unsure = || keys.iter().zip(&there).enumerate().filter(|(_, (_, there))| !**there);
            let (places, keys): (Vec<_>, Vec<_>) =
                unsure().map(|(n, (key, _))| (n, (*key).clone())).unzip();
            let read = self.records(table, &keys, Broken::Shows).await?.value;
            for (n, stored) in places.into_iter().zip(read) {
                if let Some(there) = there.get_mut(n) {
                    *there = stored.is_some();
                }
            }
        }
        let all = records.into_iter().zip(there).filter(|(_, there)| *there);
        Ok(all.map(|(record, _)| record).collect())
    }

    /// Whether nothing of these records of one part is missing, as far as their keys and members tell.
    async fn are_there(&self, table: &Table, records: &[&Key]) -> Result<bool> {
        let Some(first) = records.first() else { return Ok(true) };
        let slot = table.layout.record(first);
        let mut exist = Cmd::new();
        exist.arg("EXISTS");
        let mut count = 0;
        for key in records {
            exist.arg(table.layout.record(key));
            table.layout.values(key).for_each(|key| _ = exist.arg(key));
            count += 1 + table.layout.values(key).count();
        }
        if reply::number(&self.client.look(&slot, &exist).await?)? != count as i64 {
            return Ok(false);
        }
        for set in table.layout.sets() {
            let mut scores = Cmd::new();
            scores.arg("ZMSCORE").arg(set.as_slice());
            records.iter().for_each(|key| _ = scores.arg(key.to_string()));
            let Ok(scores) = self.client.look(&set, &scores).await.and_then(reply::list) else {
                return Ok(false);
            };
            if scores.contains(&redis::Value::Nil) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
