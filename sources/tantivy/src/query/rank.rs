//! The best matches by an order: within a segment by columns alone, then across segments by the values.
//!
//! In a segment every criterion is a number: a score, a number's own order, or the place of bytes in the segment's
//! sorted dictionary. Such ranks are compared without reading a value, and a cursor is turned into a rank as well.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Bound;

use tantivy::columnar::{BytesColumn, Column};
use tantivy::{DocAddress, DocId, SegmentReader};
use unisono_core::query::{Cursor, Query};
use unisono_core::{Error, Result, Value};

use crate::codec::{self, Form};
use crate::error::OrError;
use crate::query::matching::Match;
use crate::schema::{Layout, Shape, Slot};

/// What matches are ordered by; the last criterion is the key.
pub(crate) struct Ranking<'a> {
    criteria: Vec<Criterion<'a>>,
    after: Option<Vec<Value>>,
    limit: usize,
}

struct Criterion<'a> {
    by: By<'a>,
    descending: bool,
}

#[derive(Clone, Copy)]
enum By<'a> {
    Score,
    Slot(&'a Slot),
}

/// A value of a criterion, comparable across segments. Null is least.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Null,
    Number(u128),
    Bytes(Vec<u8>),
}

/// One of the best matches.
pub(crate) struct Ranked {
    /// Where the record is.
    pub(crate) at: DocAddress,
    /// How relevant it is.
    pub(crate) score: f32,
    sorts: Vec<Sort>,
}

impl<'a> Ranking<'a> {
    /// The order of a query; `None` if it is not by indexed fields. `limit` is how many of the best are wanted.
    pub(crate) fn new(layout: &'a Layout, query: &Query, limit: usize) -> Result<Option<Self>> {
        let mut criteria = Vec::with_capacity(query.order.len() + 1);
        if query.by_relevance() {
            criteria.push(Criterion { by: By::Score, descending: true });
        }
        for order in &query.order {
            let scalar = order.path.ty(&layout.entity).is_scalar();
            let Some(slot) = layout.slot(&order.path).filter(|_| scalar) else { return Ok(None) };
            criteria.push(Criterion { by: By::Slot(slot), descending: order.descending });
        }
        criteria.push(Criterion { by: By::Slot(layout.key()), descending: false });
        let after = query.cursor.as_ref().map(after);
        if after.as_ref().is_some_and(|values| values.len() != criteria.len()) {
            return Err(foreign());
        }
        Ok(Some(Ranking { criteria, after, limit }))
    }

    /// The slots whose values decide.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &'a Slot> {
        self.criteria.iter().filter_map(|c| match c.by {
            By::Slot(slot) => Some(slot),
            By::Score => None,
        })
    }

    /// Whether scores decide.
    pub(crate) fn scored(&self) -> bool {
        self.criteria.iter().any(|c| matches!(c.by, By::Score))
    }

    /// The ranking of one segment.
    pub(crate) fn segment(&self, reader: &SegmentReader) -> Result<SegmentRanking> {
        let mut columns = Vec::with_capacity(self.criteria.len());
        for criterion in &self.criteria {
            let column = match criterion.by {
                By::Score => RankColumn::Score,
                By::Slot(slot) => RankColumn::open(slot, reader)?,
            };
            columns.push((column, criterion.descending));
        }
        let after = match &self.after {
            None => None,
            Some(values) => {
                let parts = columns.iter().zip(&self.criteria).zip(values);
                let parts = parts.map(|(((column, descending), criterion), value)| {
                    Ok(turn(column.rank_of(criterion.by, value)?, *descending))
                });
                Some(parts.collect::<Result<Vec<_>>>()?)
            }
        };
        Ok(SegmentRanking {
            columns,
            after,
            best: BinaryHeap::new(),
            limit: self.limit,
            rank: Vec::new(),
        })
    }

    /// The best of all segments, best first.
    pub(crate) fn merge(&self, mut all: Vec<Ranked>) -> Vec<Ranked> {
        let order = |a: &Ranked, b: &Ranked| {
            let pairs = a.sorts.iter().zip(&b.sorts).zip(&self.criteria);
            let mut orders = pairs.map(|((x, y), criterion)| match criterion.descending {
                true => y.cmp(x),
                false => x.cmp(y),
            });
            orders.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        };
        all.sort_by(order);
        all.truncate(self.limit);
        all
    }
}

/// The values of a cursor, the key last.
fn after(cursor: &Cursor) -> Vec<Value> {
    let mut values = cursor.values.clone();
    values.push(cursor.key.to_value());
    values
}

/// Ranks are compared ascending: a descending criterion is turned around.
fn turn(rank: u128, descending: bool) -> u128 {
    if descending { !rank } else { rank }
}

/// A criterion's column in one segment.
enum RankColumn {
    Score,
    /// No record of the segment has a value.
    Nulls,
    Number(Column<i64>),
    Bytes(BytesColumn),
}

impl RankColumn {
    fn open(slot: &Slot, reader: &SegmentReader) -> Result<Self> {
        let fast = reader.fast_fields();
        Ok(match slot.shape {
            Shape::Number => fast
                .column_opt(&slot.name)
                .or_error()?
                .map_or(RankColumn::Nulls, RankColumn::Number),
            Shape::Bytes => {
                fast.bytes(&slot.name).or_error()?.map_or(RankColumn::Nulls, RankColumn::Bytes)
            }
        })
    }

    /// Null is 0; bytes have the even numbers, so that absent ones find place between them.
    fn rank(&self, m: Match) -> u128 {
        match self {
            RankColumn::Score => score_rank(m.score),
            RankColumn::Nulls => 0,
            RankColumn::Number(column) => column.first(m.doc).map_or(0, number_rank),
            RankColumn::Bytes(column) => {
                column.ords().first(m.doc).map_or(0, |ord| u128::from(ord) * 2 + 2)
            }
        }
    }

    /// The rank that a value has, or would have, in this segment.
    fn rank_of(&self, by: By<'_>, value: &Value) -> Result<u128> {
        let form = match by {
            By::Score => {
                let Value::Float(score) = value else { return Err(foreign()) };
                return Ok(score_rank(*score as f32));
            }
            By::Slot(_) if value.is_null() => return Ok(0),
            By::Slot(slot) => codec::to_form(&slot.ty, value).ok_or_else(foreign)?,
        };
        match (self, form) {
            (_, Form::Number(n)) => Ok(number_rank(n)),
            (RankColumn::Bytes(column), Form::Bytes(bytes)) => {
                let dictionary = column.dictionary();
                if let Some(ord) = dictionary.term_ord(&bytes).or_error()? {
                    return Ok(u128::from(ord) * 2 + 2);
                }
                let bounds =
                    dictionary.term_bounds_to_ord(Bound::Included(bytes), Bound::Unbounded);
                match bounds.or_error()?.0 {
                    Bound::Included(next) | Bound::Excluded(next) => Ok(u128::from(next) * 2 + 1),
                    Bound::Unbounded => Ok(1),
                }
            }
            // All records are null here, and 1 is above null.
            (_, Form::Bytes(_)) => Ok(1),
        }
    }

    fn sort(&self, m: Match) -> Result<Sort> {
        Ok(match self {
            RankColumn::Score => Sort::Number(score_rank(m.score)),
            RankColumn::Nulls => Sort::Null,
            RankColumn::Number(column) => {
                column.first(m.doc).map_or(Sort::Null, |n| Sort::Number(number_rank(n)))
            }
            RankColumn::Bytes(column) => match column.ords().first(m.doc) {
                None => Sort::Null,
                Some(ord) => {
                    let mut bytes = Vec::new();
                    column.ord_to_bytes(ord, &mut bytes).or_error()?;
                    Sort::Bytes(bytes)
                }
            },
        })
    }
}

/// Scores are never negative, so their bits are in their order.
fn score_rank(score: f32) -> u128 {
    u128::from(score.to_bits()) + 1
}

fn number_rank(n: i64) -> u128 {
    u128::from(n as u64 ^ (1 << 63)) + 1
}

fn foreign() -> Error {
    Error::invalid("the cursor belongs to another query")
}

/// The best matches of one segment so far.
pub(crate) struct SegmentRanking {
    columns: Vec<(RankColumn, bool)>,
    after: Option<Vec<u128>>,
    /// The worst on top.
    best: BinaryHeap<Candidate>,
    limit: usize,
    /// Room for the rank of the match at hand.
    rank: Vec<u128>,
}

/// Ranks differ, because they end with the key.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: Vec<u128>,
    doc: DocId,
    score_bits: u32,
}

impl SegmentRanking {
    /// Takes in a match.
    pub(crate) fn add(&mut self, m: Match) {
        self.rank.clear();
        self.rank.extend(self.columns.iter().map(|(column, desc)| turn(column.rank(m), *desc)));
        if self.after.as_ref().is_some_and(|after| self.rank <= *after) {
            return;
        }
        let candidate = |rank: &Vec<u128>| Candidate {
            rank: rank.clone(),
            doc: m.doc,
            score_bits: m.score.to_bits(),
        };
        if self.best.len() < self.limit {
            self.best.push(candidate(&self.rank));
        } else if let Some(mut worst) = self.best.peek_mut()
            && self.rank < worst.rank
        {
            *worst = candidate(&self.rank);
        }
    }

    /// The best, with values that compare across segments.
    pub(crate) fn finish(self, ordinal: usize) -> Result<Vec<Ranked>> {
        let Self { columns, best, .. } = self;
        let ranked = best.into_iter().map(|candidate| {
            let m = Match { doc: candidate.doc, score: f32::from_bits(candidate.score_bits) };
            let sorts = columns.iter().map(|(column, _)| column.sort(m));
            Ok(Ranked {
                at: DocAddress::new(ordinal as u32, m.doc),
                score: m.score,
                sorts: sorts.collect::<Result<_>>()?,
            })
        });
        ranked.collect()
    }
}
