//! A query for values within bounds, by scanning a column.
//!
//! The engine's own range query over columns fails an overflow check when it is the excluded side of an intersection;
//! this one hands out a plain set of records.

use std::ops::{Bound, Range};

use tantivy::columnar::Column;
use tantivy::query::{
    BitSetDocSet, ConstScorer, EmptyScorer, EnableScoring, Explanation, Query, Scorer, Weight,
};
use tantivy::{BitSet, DocId, Score, SegmentReader};

use crate::codec::Form;
use crate::schema::{Shape, Slot};

/// Records that have a value within bounds in a slot.
#[derive(Clone, Debug)]
pub(crate) struct Within {
    slot: Slot,
    low: Bound<Form>,
    high: Bound<Form>,
}

impl Within {
    /// The bounds must have the shape of the slot.
    pub(crate) fn new(slot: &Slot, low: Bound<Form>, high: Bound<Form>) -> Self {
        Within { slot: slot.clone(), low, high }
    }

    fn records(&self, reader: &SegmentReader) -> tantivy::Result<Vec<DocId>> {
        let mut found = Vec::new();
        let (fast, name) = (reader.fast_fields(), &self.slot.name);
        let all = 0..reader.max_doc();
        match self.slot.shape {
            Shape::Number => {
                if let Some(column) = fast.column_opt::<i64>(name)? {
                    select(&column, number(&self.low), number(&self.high), all, &mut found);
                }
            }
            Shape::Bytes => {
                if let Some(column) = fast.bytes(name)? {
                    let (low, high) = (bytes(&self.low), bytes(&self.high));
                    let (low, high) = column.dictionary().term_bounds_to_ord(low, high)?;
                    select(column.ords(), low, high, all, &mut found);
                }
            }
        }
        Ok(found)
    }
}

/// Adds the records with a value within bounds. The column must not be asked for values outside its own bounds: it
/// answers with wrong records.
fn select<T: Step>(
    column: &Column<T>,
    low: Bound<T>,
    high: Bound<T>,
    among: Range<DocId>,
    found: &mut Vec<DocId>,
) {
    let (least, greatest) = (column.min_value(), column.max_value());
    let low = match low {
        Bound::Included(n) => Some(n),
        Bound::Excluded(n) => n.next(),
        Bound::Unbounded => Some(least),
    };
    let high = match high {
        Bound::Included(n) => Some(n),
        Bound::Excluded(n) => n.previous(),
        Bound::Unbounded => Some(greatest),
    };
    if let (Some(low), Some(high)) = (low, high)
        && low.max(least) <= high.min(greatest)
    {
        column.get_docids_for_value_range(low.max(least)..=high.min(greatest), among, found);
    }
}

/// Numbers of a column.
trait Step: Ord + Copy + std::fmt::Debug + Send + Sync + 'static {
    fn next(self) -> Option<Self>;
    fn previous(self) -> Option<Self>;
}

impl Step for i64 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

impl Step for u64 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn previous(self) -> Option<Self> {
        self.checked_sub(1)
    }
}

fn number(bound: &Bound<Form>) -> Bound<i64> {
    bound.as_ref().map(|form| match form {
        Form::Number(n) => *n,
        Form::Bytes(_) => 0,
    })
}

fn bytes(bound: &Bound<Form>) -> Bound<&[u8]> {
    bound.as_ref().map(|form| match form {
        Form::Bytes(bytes) => bytes.as_slice(),
        Form::Number(_) => &[],
    })
}

impl Query for Within {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Within {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let records = self.records(reader)?;
        if records.is_empty() {
            return Ok(Box::new(EmptyScorer));
        }
        let mut set = BitSet::with_max_value(reader.max_doc());
        for doc in records {
            set.insert(doc);
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(set), boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("a value within bounds", 1.0))
    }
}
