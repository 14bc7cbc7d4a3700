//! Facets: how often each value of a field occurs among the matches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use tantivy::columnar::{BytesColumn, Column};
use tantivy::{DocId, SegmentReader};
use unisono_core::query::Query;
use unisono_core::query::ast::Facet;
use unisono_core::{Error, Record, Result};

use crate::codec::{self, Form};
use crate::error::{OrError, unreadable};
use crate::schema::{Layout, Shape, Slot};

/// The counts of the facets that a query asks for.
pub(crate) struct Facets<'a> {
    fields: Vec<(usize, &'a Slot)>,
    counts: Vec<BTreeMap<Form, u64>>,
}

impl<'a> Facets<'a> {
    /// No counts yet.
    pub(crate) fn new(layout: &'a Layout, query: &Query) -> Result<Self> {
        let slot = |field: &usize| {
            let declared = layout.entity.fields().get(*field);
            let scalar = declared.is_some_and(|f| f.ty.is_scalar());
            let slot = layout.slots(*field).0.filter(|_| scalar);
            slot.map(|slot| (*field, slot)).ok_or_else(|| {
                Error::invalid("a facet is a scalar field")
                    .with("field", declared.map_or("", |f| &f.name))
            })
        };
        let fields = query.facets.iter().map(slot).collect::<Result<Vec<_>>>()?;
        let counts = vec![BTreeMap::new(); fields.len()];
        Ok(Facets { fields, counts })
    }

    /// The slots that are counted.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &'a Slot> {
        self.fields.iter().map(|(_, slot)| *slot)
    }

    /// Opens the columns of a segment.
    pub(crate) fn segment(&self, reader: &SegmentReader) -> Result<SegmentFacets> {
        let open = |slot: &Slot| {
            let fast = reader.fast_fields();
            Ok(match slot.shape {
                Shape::Number => fast.column_opt(&slot.name)?.map(Counter::numbers),
                Shape::Bytes => fast.bytes(&slot.name)?.map(Counter::bytes),
            })
        };
        let counters = self.slots().map(open).collect::<tantivy::Result<_>>().or_error()?;
        Ok(SegmentFacets { counters })
    }

    /// Adds the counts of a segment.
    pub(crate) fn add(&mut self, segment: SegmentFacets) -> Result<()> {
        for (counter, counts) in segment.counters.into_iter().zip(&mut self.counts) {
            let Some(counter) = counter else { continue };
            counter.resolve(|form, n| *counts.entry(form).or_default() += n)?;
        }
        Ok(())
    }

    /// Counts one record by its own values.
    pub(crate) fn add_record(&mut self, record: &Record) {
        for ((field, slot), counts) in self.fields.iter().zip(&mut self.counts) {
            let value = record.values().get(*field);
            if let Some(form) = value.and_then(|value| codec::to_form(&slot.ty, value)) {
                *counts.entry(form).or_default() += 1;
            }
        }
    }

    /// The most frequent values of each.
    pub(crate) fn finish(self) -> Result<Vec<Facet>> {
        let facet = |((_, slot), counts): ((usize, &Slot), BTreeMap<Form, u64>)| {
            let mut counts: Vec<_> = counts.into_iter().collect();
            // The sort is stable, and the values were in order.
            counts.sort_by_key(|(_, n)| Reverse(*n));
            counts.truncate(Query::FACET_VALUES);
            let value = |(form, n): (Form, u64)| {
                let value = codec::from_form(&slot.ty, &form);
                Ok((value.ok_or_else(|| unreadable("an indexed value cannot be decoded"))?, n))
            };
            counts.into_iter().map(value).collect()
        };
        self.fields.into_iter().zip(self.counts).map(facet).collect()
    }
}

/// The counts of one segment, by the numbers in its columns.
pub(crate) struct SegmentFacets {
    counters: Vec<Option<Counter>>,
}

impl SegmentFacets {
    /// Counts a match.
    pub(crate) fn count(&mut self, doc: DocId) {
        self.counters.iter_mut().flatten().for_each(|counter| counter.count(doc));
    }
}

enum Counter {
    Numbers {
        column: Column<i64>,
        counts: HashMap<i64, u64>,
    },
    /// Counted by place in the segment's dictionary.
    Bytes {
        column: BytesColumn,
        counts: Vec<u64>,
    },
}

impl Counter {
    fn numbers(column: Column<i64>) -> Self {
        Counter::Numbers { column, counts: HashMap::new() }
    }

    fn bytes(column: BytesColumn) -> Self {
        let counts = vec![0; column.num_terms()];
        Counter::Bytes { column, counts }
    }

    fn count(&mut self, doc: DocId) {
        match self {
            Counter::Numbers { column, counts } => {
                if let Some(n) = column.first(doc) {
                    *counts.entry(n).or_default() += 1;
                }
            }
            Counter::Bytes { column, counts } => {
                let ord = column.ords().first(doc).and_then(|ord| usize::try_from(ord).ok());
                if let Some(count) = ord.and_then(|ord| counts.get_mut(ord)) {
                    *count += 1;
                }
            }
        }
    }

    fn resolve(self, mut each: impl FnMut(Form, u64)) -> Result<()> {
        match self {
            Counter::Numbers { counts, .. } => {
                counts.into_iter().for_each(|(n, count)| each(Form::Number(n), count));
            }
            Counter::Bytes { column, counts } => {
                let counted = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
                let (ords, counts): (Vec<_>, Vec<_>) =
                    counted.map(|(ord, count)| (ord as u64, count)).unzip();
                let mut counts = counts.into_iter();
                let dictionary = column.dictionary();
                let found = dictionary.sorted_ords_to_term_cb(&ords, |bytes| {
                    if let Some(count) = counts.next() {
                        each(Form::Bytes(bytes.to_vec()), count);
                    }
                });
                if !found.or_error()? {
                    return Err(unreadable("a column has a value that its dictionary lacks"));
                }
            }
        }
        Ok(())
    }
}
