//! [`Rows`]: the records that satisfy a filter, one after the other.

use std::collections::BTreeSet;

use mongodb::Cursor;
use mongodb::bson::{Document, doc};
use unisono_core::query::{Filter, eval};
use unisono_core::{Result, Stored};

use crate::client::Client;
use crate::collection::Place;
use crate::document::{self, FAIL, MICROS, TEXT, VERSION};
use crate::query::batch_size;
use crate::query::filter::Condition;

/// What is asked for beside a condition.
#[derive(Default)]
pub(crate) struct Wanted {
    /// In which order.
    pub(crate) sort: Option<Document>,
    /// How many records at most will be taken.
    pub(crate) limit: Option<usize>,
    /// Which fields are needed, by index; all if absent. The others are null.
    pub(crate) fields: Option<BTreeSet<usize>>,
}

/// The records of an answer.
pub(crate) struct Rows<'a> {
    client: &'a Client,
    place: &'a Place,
    filter: &'a Filter,
    exact: bool,
    cursor: Cursor<Document>,
}

impl<'a> Rows<'a> {
    /// Asks for the records that satisfy a filter; `condition` is its native form, or a narrower one that says where
    /// a page begins.
    pub(crate) async fn ask(
        client: &'a Client,
        place: &'a Place,
        filter: &'a Filter,
        condition: Condition,
        wanted: Wanted,
    ) -> Result<Self> {
        let limit = wanted.limit.unwrap_or(usize::MAX);
        let mut request =
            place.documents.find(place.records(condition.document)).batch_size(batch_size(limit));
        if let Some(sort) = wanted.sort {
            request = request.sort(sort).allow_disk_use(true);
        }
        // What the evaluator turns away does not count.
        if let (Some(limit), true) = (wanted.limit, condition.exact) {
            request = request.limit(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        if let Some(fields) = wanted.fields {
            request = request.projection(projection(place, fields));
        }
        let cursor = client.call(request).await?;
        Ok(Rows { client, place, filter, exact: condition.exact, cursor })
    }

    /// The next record.
    pub(crate) async fn next(&mut self) -> Result<Option<Stored>> {
        let entity = &self.place.entity;
        while let Some(document) = self.client.next(&mut self.cursor).await? {
            let Some(stored) = document::stored(entity, &document, FAIL)? else { continue };
            if self.exact || eval::matches(entity, self.filter, &stored.record) {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }
}

fn projection(place: &Place, fields: BTreeSet<usize>) -> Document {
    let mut projection = doc! { VERSION: 1, MICROS: 1, TEXT: 1 };
    let names = fields.into_iter().filter_map(|n| place.entity.fields().get(n));
    projection.extend(names.map(|field| (field.name.to_string(), 1.into())));
    projection
}

/// The fields that a filter looks at.
pub(crate) fn fields_of(filter: &Filter, fields: &mut BTreeSet<usize>) {
    match filter {
        Filter::All => {}
        Filter::And(all) | Filter::Or(all) => all.iter().for_each(|f| fields_of(f, fields)),
        Filter::Not(inner) => fields_of(inner, fields),
        Filter::Compare(path, ..)
        | Filter::In(path, _)
        | Filter::Between(path, ..)
        | Filter::Like(path, _)
        | Filter::Prefix(path, _)
        | Filter::Contains(path, _)
        | Filter::IsNull(path) => _ = fields.insert(path.field),
    }
}
