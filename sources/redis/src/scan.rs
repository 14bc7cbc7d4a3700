//! [`Scan`]: records in the order of their keys, over all parts, in pages that fit in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::try_join_all;
use redis::Value as Reply;
use unisono_core::source::At;
use unisono_core::{Key, Position, Record, Result, Stored, Value};

use crate::codec::position as version_of;
use crate::error::unexpected;
use crate::keys::{id, key_of};
use crate::mark::Marked;
use crate::node::Lane;
use crate::reply;
use crate::script::{Call, GET, PAGE};
use crate::shown::Beside;
use crate::source::{RedisSource, Table};

/// The records of one page of a scan, over all parts.
const PAGE_MAX: usize = 256;
/// The bytes of records after which a script stops reading: about 2 ms of the server's time.
const READ_BYTES: usize = 4 << 20;

/// What to do with a record that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Fail.
    Fails,
    /// Show it without its data, so that it differs from the truth and is repaired.
    Shows,
}

/// Bounds of ids as `ZRANGEBYLEX` takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) low: Vec<u8>,
    pub(crate) high: Vec<u8>,
}

impl Range {
    /// Everything.
    pub(crate) fn all() -> Self {
        Range { low: b"-".to_vec(), high: b"+".to_vec() }
    }

    /// With another beginning: after a key.
    pub(crate) fn after(mut self, key: &Key) -> Self {
        self.low = bound(b'(', &id(key));
        self
    }
}

/// A bound that includes (`[`) or excludes (`(`) an id.
pub(crate) fn bound(kind: u8, id: &[u8]) -> Vec<u8> {
    [&[kind], id].concat()
}

/// Records in the order of their keys.
pub(crate) struct Scan<'a> {
    source: &'a RedisSource,
    table: &'a Table,
    high: Vec<u8>,
    parts: Vec<Part>,
    page: usize,
    position: Option<Position>,
    broken: Broken,
}

/// What was read ahead of one part.
struct Part {
    ids: VecDeque<Vec<u8>>,
    low: Vec<u8>,
    end: bool,
}

impl<'a> Scan<'a> {
    /// A scan that is meant to be read in pages of about `wanted` records.
    pub(crate) fn new(
        source: &'a RedisSource,
        table: &'a Table,
        range: Range,
        wanted: usize,
        broken: Broken,
    ) -> Self {
        let parts = usize::from(table.layout.parts());
        let part = |_| Part { ids: VecDeque::new(), low: range.low.clone(), end: false };
        Scan {
            source,
            table,
            high: range.high,
            parts: (0..parts).map(part).collect(),
            // A part rarely has twice its share of a page.
            page: if parts == 1 { wanted } else { 2 * wanted / parts + 1 },
            position: None,
            broken,
        }
    }

    /// The next records, at most 256 and perhaps none, and whether there can be more.
    pub(crate) async fn next(&mut self) -> Result<(Vec<Stored>, bool)> {
        let (keys, more) = self.keys(PAGE_MAX).await?;
        let read = self.source.records(self.table, &keys, self.broken).await?;
        if !keys.is_empty() {
            self.lower(read.position);
        }
        Ok((read.value.into_iter().flatten().collect(), more))
    }

    /// The next keys, at most `limit`, and whether there are more.
    pub(crate) async fn keys(&mut self, limit: usize) -> Result<(Vec<Key>, bool)> {
        let mut keys = Vec::new();
        loop {
            self.refill().await?;
            let first = self.parts.iter_mut().filter(|part| !part.ids.is_empty());
            let Some(part) = first.min_by(|a, b| a.ids.front().cmp(&b.ids.front())) else {
                return Ok((keys, false));
            };
            if keys.len() == limit {
                return Ok((keys, true));
            }
            if let Some(id) = part.ids.pop_front() {
                keys.push(key_of(&self.table.entity, &id)?);
            }
        }
    }

    /// Up to where everything was there when it was read, by everything read so far.
    pub(crate) fn position(&self) -> Position {
        self.position.unwrap_or_default()
    }

    fn lower(&mut self, position: Position) {
        self.position = Some(self.position.map_or(position, |p| p.min(position)));
    }

    /// Reads ahead in the parts of which nothing is left.
    async fn refill(&mut self) -> Result<()> {
        let empty: Vec<_> = self.parts.iter().map(|p| p.ids.is_empty() && !p.end).collect();
        if !empty.contains(&true) {
            return Ok(());
        }
        let (source, table, high, page) = (self.source, self.table, &self.high, self.page);
        let wanted = (0..).zip(self.parts.iter_mut()).zip(empty).filter(|(_, empty)| *empty);
        let reads = wanted.map(|((number, part), _)| async move {
            let read = source.page(table, number, &part.low, high, page).await?;
            part.end = read.ids.len() < page;
            if let Some(last) = read.ids.last() {
                part.low = bound(b'(', last);
            }
            part.ids = read.ids.into();
            Ok(read.position)
        });
        for position in try_join_all(reads).await? {
            self.lower(position);
        }
        Ok(())
    }
}

/// Ids of one part.
pub(crate) struct Ids {
    pub(crate) ids: Vec<Vec<u8>>,
    /// How many the part has in all.
    pub(crate) all: u64,
    pub(crate) position: Position,
}

impl RedisSource {
    /// Ids of one part within bounds, with the position of the same moment.
    pub(crate) async fn page(
        &self,
        table: &Table,
        part: u16,
        low: &[u8],
        high: &[u8],
        limit: usize,
    ) -> Result<Ids> {
        let keys = ["ledger", "index"].map(|name| table.layout.control(part, name)).to_vec();
        let arguments = vec![low.to_vec(), high.to_vec(), limit.to_string().into_bytes()];
        let answer = self.client.read(Lane::Bulk, &Call::new(&PAGE, keys, arguments)).await?;
        let mut answer = reply::list(answer)?.into_iter();
        let mut next = || answer.next().ok_or_else(unexpected);
        let mark = reply::bytes(next()?)?.unwrap_or_default();
        let all = u64::try_from(reply::number(&next()?)?).map_err(|_| unexpected())?;
        let ids = reply::list(next()?)?.into_iter();
        let ids = ids.map(|id| reply::bytes(id)?.ok_or_else(unexpected)).collect::<Result<_>>()?;
        Ok(Ids { ids, all, position: Marked::parse(&mark)?.position() })
    }

    /// Records by key, in the order of the keys, with the position of the same moment or an earlier one.
    ///
    /// Keys of one part, up to the size of a page, are of one moment.
    pub(crate) async fn records(
        &self,
        table: &Table,
        keys: &[Key],
        broken: Broken,
    ) -> Result<At<Vec<Option<Stored>>>> {
        let mut parts = vec![Vec::new(); usize::from(table.layout.parts())];
        for (n, key) in keys.iter().enumerate() {
            // A part is below the number of parts.
            parts[usize::from(table.layout.part(key))].push((n, key));
        }
        let asked = (0..).zip(&parts).filter(|(_, keys)| !keys.is_empty());
        let reads = asked.map(|(part, keys)| self.records_of(table, part, keys, broken));
        let mut found: Vec<Option<Stored>> = vec![None; keys.len()];
        let mut position: Option<Position> = None;
        for (at, records) in try_join_all(reads).await? {
            position = Some(position.map_or(at, |p| p.min(at)));
            for (n, stored) in records {
                if let Some(place) = found.get_mut(n) {
                    *place = stored;
                }
            }
        }
        Ok(At { value: found, position: position.unwrap_or_default() })
    }

    async fn records_of(
        &self,
        table: &Table,
        part: u16,
        keys: &[(usize, &Key)],
        broken: Broken,
    ) -> Result<(Position, Vec<(usize, Option<Stored>)>)> {
        let mut found = Vec::with_capacity(keys.len());
        let mut position = Position::MAX;
        while let Some(rest) = keys.get(found.len()..).filter(|rest| !rest.is_empty()) {
            let some = rest.get(..PAGE_MAX).unwrap_or(rest);
            let beside = broken == Broken::Shows && !table.layout.shown().is_empty();
            let call = reading(table, part, some, beside);
            let lane = if some.len() > 16 { Lane::Bulk } else { Lane::Quick };
            let mut answer = reply::list(self.client.read(lane, &call).await?)?.into_iter();
            let mark = reply::bytes(answer.next().ok_or_else(unexpected)?)?.unwrap_or_default();
            position = position.min(Marked::parse(&mark)?.position());
            let before = found.len();
            for (n, key) in some {
                let (Some(version), Some(value)) = (answer.next(), answer.next()) else { break };
                let stored = stored(table, key, version, value, broken)?;
                let beside = if beside { answer.next() } else { None };
                found.push((*n, agreeing(table, stored, beside)?));
            }
            if found.len() == before {
                return Err(unexpected());
            }
        }
        Ok((position, found))
    }
}

/// The script that reads records, and if that is asked for what stands beside them.
fn reading(table: &Table, part: u16, some: &[(usize, &Key)], beside: bool) -> Call {
    let [values, sets] = if beside { table.layout.shown().counts() } else { [0, 0] };
    let mut call = Call::new(&GET, vec![table.layout.control(part, "ledger")], Vec::new());
    call.arguments = vec![
        table.format.shape().to_vec(),
        READ_BYTES.to_string().into_bytes(),
        values.to_string().into_bytes(),
        sets.to_string().into_bytes(),
    ];
    call.keys.extend(table.layout.sets().take(sets));
    for (_, key) in some {
        call.keys.push(table.layout.record(key));
        call.keys.extend(table.layout.values(key).take(values));
        call.arguments.push(id(key));
    }
    if sets > 0 {
        call.arguments.extend(some.iter().map(|(_, key)| key.to_string().into_bytes()));
    }
    call
}

/// A record by what stands beside it: without its data if that is something else, and none if a part of it is missing. In
/// either case it differs from the truth, and is written again with what belongs beside it.
fn agreeing(
    table: &Table,
    stored: Option<Stored>,
    beside: Option<Reply>,
) -> Result<Option<Stored>> {
    let (Some(stored), Some(beside)) = (&stored, beside) else { return Ok(stored) };
    let record = match table.layout.shown().compare(&table.entity, &stored.record, beside)? {
        Beside::Whole => Arc::clone(&stored.record),
        Beside::Wrong => bare(table, &stored.key).into(),
        Beside::Missing => return Ok(None),
    };
    Ok(Some(Stored::new(stored.key.clone(), stored.version, record)))
}

/// A record of which only the key is known.
fn bare(table: &Table, key: &Key) -> Record {
    let mut record = Record::new(vec![Value::Null; table.entity.fields().len()]);
    if let Some(place) = record.values_mut().get_mut(table.entity.key_index()) {
        *place = key.to_value();
    }
    record
}

fn stored(
    table: &Table,
    key: &Key,
    version: Reply,
    value: Reply,
    broken: Broken,
) -> Result<Option<Stored>> {
    let version = reply::bytes(version)?.unwrap_or_default();
    if version.len() != 20 {
        return Ok(None);
    }
    let entity = &table.entity;
    let record = match table.format.decode(entity, value) {
        Err(_) if broken == Broken::Shows => Some(bare(table, key)),
        decoded => decoded.map_err(|e| e.with("key", key))?,
    };
    let version = version_of(&version)?;
    Ok(record.map(|record| Stored::new(key.clone(), version, record.into())))
}
