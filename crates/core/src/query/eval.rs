//! The reference meaning of queries: what every source must answer. Used by `memory` and by the tests.

use crate::entity::Entity;
use crate::error::Result;
use crate::query::aggregate::{Aggregate, Groups};
use crate::query::ast::{Filter, Page, Query};
use crate::record::{Record, Stored};

/// Whether a record satisfies a filter.
pub fn matches(_entity: &Entity, _filter: &Filter, _record: &Record) -> bool {
    false
}

/// One page over all records given, in any order.
pub fn page<'a>(_entity: &Entity, _query: &Query, _records: impl Iterator<Item = &'a Stored>) -> Result<Page> {
    Err(crate::error::Error::internal("not built"))
}

/// How many of the records match.
pub fn count<'a>(
    _entity: &Entity,
    _filter: &Filter,
    _search: Option<&str>,
    _records: impl Iterator<Item = &'a Stored>,
) -> Result<u64> {
    Err(crate::error::Error::internal("not built"))
}

/// Groups and totals over the records given.
pub fn aggregate<'a>(
    _entity: &Entity,
    _aggregate: &Aggregate,
    _records: impl Iterator<Item = &'a Stored>,
) -> Result<Groups> {
    Err(crate::error::Error::internal("not built"))
}
