//! Role reader: by key at once, everything else by reading records in the order of their keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::try_join_all;
use unisono_core::query::aggregate::{Grouping, canonical};
use unisono_core::query::ast::Facet;
use unisono_core::query::{Aggregate, Comparison, Filter, Groups, Page, Path, Query, Step, eval};
use unisono_core::source::{At, Reader};
use unisono_core::value::Ordered;
use unisono_core::{Entity, Error, Key, Position, Result, Stored, Value};

use crate::keys::id;
use crate::scan::{Broken, Range, Scan, bound};
use crate::source::{RedisSource, Table};

/// How many records are read ahead of a question that may need all of them.
const AHEAD: usize = 256;

/// Where the records that can match are.
#[derive(Debug, PartialEq)]
enum Candidates {
    /// Among these keys.
    Keys(Vec<Key>),
    /// In this range of keys.
    Range(Range),
}

/// What a filter says of the key.
fn candidates(entity: &Entity, filter: &Filter) -> Candidates {
    let is_key = |path: &Path| path.field == entity.key_index() && path.step == Step::Whole;
    let key = |value: &Value| Key::from_value(value).ok();
    match filter {
        Filter::Compare(path, Comparison::Eq, value) if is_key(path) => {
            Candidates::Keys(key(value).into_iter().collect())
        }
        Filter::In(path, values) if is_key(path) => {
            let mut keys: Vec<_> = values.iter().filter_map(key).collect();
            keys.sort_unstable();
            keys.dedup();
            Candidates::Keys(keys)
        }
        Filter::And(all) => {
            let mut range = Range::all();
            for part in all {
                match candidates(entity, part) {
                    Candidates::Range(part) => range = narrower(range, part),
                    keys => return keys,
                }
            }
            Candidates::Range(range)
        }
        filter => Candidates::Range(range(filter, is_key, key)),
    }
}

fn range(
    filter: &Filter,
    is_key: impl Fn(&Path) -> bool,
    key: impl Fn(&Value) -> Option<Key>,
) -> Range {
    let mut range = Range::all();
    let at = |kind, value: &Value| key(value).map(|key| bound(kind, &id(&key)));
    let (low, high) = match filter {
        Filter::Compare(path, comparison, value) if is_key(path) => match comparison {
            Comparison::Gt => (at(b'(', value), None),
            Comparison::Gte => (at(b'[', value), None),
            Comparison::Lt => (None, at(b'(', value)),
            Comparison::Lte => (None, at(b'[', value)),
            Comparison::Eq | Comparison::Ne => (None, None),
        },
        Filter::Between(path, low, high) if is_key(path) => (at(b'[', low), at(b'[', high)),
        Filter::Prefix(path, start) if is_key(path) && !start.is_empty() => {
            // No byte of UTF-8 is 255, so that everything that begins with `start` is below.
            let beyond = [start.as_bytes(), &[255]].concat();
            (Some(bound(b'[', start.as_bytes())), Some(bound(b'(', &beyond)))
        }
        _ => (None, None),
    };
    range.low = low.unwrap_or(range.low);
    range.high = high.unwrap_or(range.high);
    range
}

/// A range that holds what both hold; any of two bounds will do, for the filter decides in the end.
fn narrower(a: Range, b: Range) -> Range {
    let everything = Range::all();
    Range {
        low: if a.low == everything.low { b.low } else { a.low },
        high: if a.high == everything.high { b.high } else { a.high },
    }
}

/// Records that can match, page by page.
enum Reading<'a> {
    Keys(Option<(Vec<Key>, &'a RedisSource, &'a Table)>, Position),
    Scan(Scan<'a>),
}

impl<'a> Reading<'a> {
    fn new(
        source: &'a RedisSource,
        table: &'a Table,
        filter: &Filter,
        after: Option<&Key>,
        wanted: usize,
    ) -> Self {
        match candidates(&table.entity, filter) {
            Candidates::Keys(keys) => Reading::Keys(Some((keys, source, table)), Position::ZERO),
            Candidates::Range(range) => {
                let range = match after {
                    Some(key) => range.after(key),
                    None => range,
                };
                Reading::Scan(Scan::new(source, table, range, wanted, Broken::Fails))
            }
        }
    }

    /// The next page; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Stored>>> {
        match self {
            Reading::Scan(scan) => {
                let (page, more) = scan.next().await?;
                Ok((more || !page.is_empty()).then_some(page))
            }
            Reading::Keys(keys, position) => {
                let Some((keys, source, table)) = keys.take() else { return Ok(None) };
                let read = source.records(table, &keys, Broken::Fails).await?;
                *position = match keys.is_empty() {
                    true => source.position(table).await?,
                    false => read.position,
                };
                Ok(Some(read.value.into_iter().flatten().collect()))
            }
        }
    }

    fn position(&self) -> Position {
        match self {
            Reading::Keys(_, position) => *position,
            Reading::Scan(scan) => scan.position(),
        }
    }
}

impl RedisSource {
    /// The position of a table of which nothing else is read.
    async fn position(&self, table: &Table) -> Result<Position> {
        let marks = self.marks(table).await?;
        let positions = marks.iter().map(|text| Ok(crate::mark::Marked::parse(text)?.position()));
        Ok(positions.collect::<Result<Vec<_>>>()?.into_iter().min().unwrap_or_default())
    }

    async fn page_of(&self, table: &Table, query: &Query) -> Result<At<Page>> {
        let entity = table.entity.as_ref();
        // In the order of keys, what comes first is read first.
        let by_key = query.order.is_empty() && query.facets.is_empty();
        let after = query.cursor.as_ref().filter(|_| by_key).map(|cursor| &cursor.key);
        let wanted = if by_key { (query.limit + 1).min(AHEAD) } else { AHEAD };
        let mut reading = Reading::new(self, table, &query.filter, after, wanted);
        // One more than the page, which tells whether there is another page.
        let best_of = Query { limit: query.limit + 1, facets: Vec::new(), ..query.clone() };
        let mut best: Vec<Stored> = Vec::new();
        let mut facets = vec![BTreeMap::<Ordered, u64>::new(); query.facets.len()];
        while let Some(page) = reading.next().await? {
            let matching = |s: &&Stored| eval::matches(entity, &query.filter, &s.record);
            for stored in page.iter().filter(matching) {
                for (counts, field) in facets.iter_mut().zip(&query.facets) {
                    count_facet(counts, stored.record.values().get(*field));
                }
            }
            let found = eval::page(entity, &best_of, best.iter().chain(&page))?;
            best = found.hits.into_iter().map(|hit| hit.stored).collect();
            if by_key && best.len() > query.limit {
                break;
            }
        }
        let mut page =
            eval::page(entity, &Query { facets: Vec::new(), ..query.clone() }, best.iter())?;
        page.facets = facets.into_iter().map(top_facet).collect();
        Ok(At { value: page, position: reading.position() })
    }

    async fn count_of(&self, table: &Table, filter: &Filter) -> Result<At<u64>> {
        if *filter == Filter::All {
            let all = Range::all();
            let parts = (0..table.layout.parts())
                .map(|part| self.page(table, part, &all.low, &all.high, 0));
            let parts = try_join_all(parts).await?;
            let position = parts.iter().map(|p| p.position).min().unwrap_or_default();
            return Ok(At { value: parts.iter().map(|p| p.all).sum(), position });
        }
        let mut reading = Reading::new(self, table, filter, None, AHEAD);
        let mut count = 0;
        while let Some(page) = reading.next().await? {
            count += eval::count(&table.entity, filter, None, page.iter())?;
        }
        Ok(At { value: count, position: reading.position() })
    }

    async fn groups_of(&self, table: &Table, aggregate: &Aggregate) -> Result<At<Groups>> {
        let entity = table.entity.as_ref();
        let mut reading = Reading::new(self, table, &aggregate.filter, None, AHEAD);
        let mut grouping = Grouping::new(entity, aggregate);
        while let Some(page) = reading.next().await? {
            for stored in page {
                if eval::matches(entity, &aggregate.filter, &stored.record) {
                    grouping.add(&stored.record)?;
                }
            }
        }
        Ok(At { value: grouping.finish()?, position: reading.position() })
    }
}

fn count_facet(counts: &mut BTreeMap<Ordered, u64>, value: Option<&Value>) {
    if let Some(value) = value.filter(|v| !v.is_null()) {
        *counts.entry(Ordered(canonical(value))).or_default() += 1;
    }
}

/// The most frequent values; the map gives ties in the order of values.
fn top_facet(counts: BTreeMap<Ordered, u64>) -> Facet {
    let mut facet: Facet = counts.into_iter().map(|(value, count)| (value.0, count)).collect();
    facet.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    facet.truncate(Query::FACET_VALUES);
    facet
}

fn refuse_search(search: Option<&str>) -> Result<()> {
    match search {
        None => Ok(()),
        Some(_) => Err(Error::unsupported("a redis source does not search text")
            .hint("add a follower that does, such as one of kind tantivy")),
    }
}

#[async_trait]
impl Reader for RedisSource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let read = async {
            let table = self.table(entity)?;
            if keys.is_empty() {
                return Ok(At { value: Vec::new(), position: self.position(&table).await? });
            }
            self.records(&table, keys, Broken::Fails).await
        };
        read.await.map_err(|e| self.place(e, "get", entity))
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        let read = async {
            refuse_search(query.search.as_deref())?;
            self.page_of(&*self.table(entity)?, query).await
        };
        read.await.map_err(|e| self.place(e, "query", entity))
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        let read = async {
            refuse_search(search)?;
            self.count_of(&*self.table(entity)?, filter).await
        };
        read.await.map_err(|e| self.place(e, "count", entity))
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        let read = async { self.groups_of(&*self.table(entity)?, aggregate).await };
        read.await.map_err(|e| self.place(e, "aggregate", entity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_testkit::Sample;

    #[test]
    fn a_filter_on_the_key_reads_only_what_can_match() {
        let entity = Sample::product();
        let (id, name) = (Path::whole(0), Path::whole(1));
        let text = |t: &str| Value::String(t.to_owned());
        let eq = |path: &Path, t| Filter::Compare(path.clone(), Comparison::Eq, text(t));
        let of = |filter: Filter| candidates(&entity, &filter);
        let range = |low: &[u8], high: &[u8]| {
            Candidates::Range(Range { low: low.to_vec(), high: high.to_vec() })
        };
        assert_eq!(of(Filter::All), range(b"-", b"+"));
        assert_eq!(of(eq(&name, "a")), range(b"-", b"+"));
        assert_eq!(of(eq(&id, "a")), Candidates::Keys(vec![Sample::key("a")]));
        assert_eq!(of(eq(&id, "")), Candidates::Keys(vec![]), "no record has an empty key");
        let both = Filter::And(vec![eq(&name, "x"), eq(&id, "a")]);
        assert_eq!(of(both), Candidates::Keys(vec![Sample::key("a")]));
        assert_eq!(of(Filter::Or(vec![eq(&id, "a"), eq(&name, "x")])), range(b"-", b"+"));
        assert_eq!(of(Filter::Prefix(id.clone(), "ab".into())), range(b"[ab", b"(ab\xff"));
        let some = Filter::In(id.clone(), vec![text("b"), text("a"), text("b")]);
        assert_eq!(of(some), Candidates::Keys(vec![Sample::key("a"), Sample::key("b")]));
        let between = Filter::And(vec![
            Filter::Compare(id.clone(), Comparison::Gt, text("a")),
            Filter::Compare(id, Comparison::Lte, text("c")),
        ]);
        assert_eq!(of(between), range(b"(a", b"[c"));
    }
}
