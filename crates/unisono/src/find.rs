//! [`Find`]: a question for records, built step by step.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};
use unisono_core::query::{Query, parse};
use unisono_core::{Error, Result};

use crate::handle::Handle;

/// A question for records; see [`Handle::find`].
///
/// ```no_run
/// # async fn f(products: unisono::Handle<serde_json::Value>) -> unisono::core::Result<()> {
/// let cheap = products.find().filter("price", "lt", "2.00").search("milk").order("-price").limit(10).page().await?;
/// # Ok(()) }
/// ```
#[must_use = "nothing is asked before `page`, `first` or `count`"]
pub struct Find<'a, T> {
    handle: &'a Handle<T>,
    tests: Vec<Json>,
    body: Map<String, Json>,
    failed: Option<Error>,
}

/// One page of records.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The records, in the order asked for.
    pub items: Vec<T>,
    /// What [`Find::after`] takes to go on; `None` if this is the last page.
    pub next: Option<String>,
}

impl<'a, T> Find<'a, T> {
    pub(crate) fn new(handle: &'a Handle<T>) -> Self {
        Find { handle, tests: Vec::new(), body: Map::new(), failed: None }
    }

    /// Only records whose field passes a test, for example `("stock", "gt", 3)`; several filters must all hold.
    ///
    /// The operators are those of the HTTP interface: `eq`, `ne`, `lt`, `lte`, `gt`, `gte`, `in`, `like`, ….
    pub fn filter(mut self, field: &str, operator: &str, value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => self.tests.push(json!({"field": field, "op": operator, "value": value})),
            Err(e) => {
                let error = Error::invalid("the value of a filter cannot be written as JSON");
                self.failed = Some(error.with("field", field).caused_by(e));
            }
        }
        self
    }

    /// Only records that match these words.
    pub fn search(self, words: &str) -> Self {
        self.with("search", words.into())
    }

    /// Orders by a field, greatest first if it begins with `-`. Further calls decide between equals.
    pub fn order(mut self, field: &str) -> Self {
        let order = self.body.entry("order").or_insert_with(|| Json::Array(Vec::new()));
        if let Json::Array(fields) = order {
            fields.push(field.into());
        }
        self
    }

    /// At most this many records, 1 to 1000; 50 if not given.
    pub fn limit(self, records: usize) -> Self {
        self.with("limit", records.into())
    }

    /// Goes on where an earlier page of the same question ended.
    pub fn after(self, next: &str) -> Self {
        self.with("cursor", next.into())
    }

    /// How many records match, whatever the limit.
    pub async fn count(mut self) -> Result<u64> {
        self.body.remove("cursor");
        let handle = self.handle;
        let query = self.query()?;
        let (context, search) = (handle.context(), query.search.as_deref());
        let answer =
            handle.engine().count(&context, handle.entity(), &query.filter, search).await?;
        handle.observe(&answer.token);
        Ok(answer.value)
    }

    fn with(mut self, name: &str, value: Json) -> Self {
        self.body.insert(name.into(), value);
        self
    }

    fn query(mut self) -> Result<Query> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if !self.tests.is_empty() {
            self.body.insert("where".into(), json!({"and": self.tests}));
        }
        parse::query(self.handle.entity(), &Json::Object(self.body))
    }
}

impl<T: DeserializeOwned> Find<'_, T> {
    /// One page of the records that match.
    pub async fn page(self) -> Result<Page<T>> {
        let handle = self.handle;
        let query = self.query()?;
        let answer = handle.engine().query(&handle.context(), handle.entity(), &query).await?;
        handle.observe(&answer.token);
        let hits = answer.value.hits.iter();
        Ok(Page {
            items: hits.map(|hit| handle.decode(&hit.stored.record)).collect::<Result<_>>()?,
            next: answer.value.next.map(|cursor| cursor.encode(handle.entity(), &query)),
        })
    }

    /// The first record that matches, if any does.
    pub async fn first(self) -> Result<Option<T>> {
        Ok(self.limit(1).page().await?.items.into_iter().next())
    }
}
