//! Records by key and by place.

use std::sync::Arc;

use tantivy::columnar::Column;
use tantivy::index::{InvertedIndexReader, SegmentReader};
use tantivy::schema::IndexRecordOption;
use tantivy::schema::document::{DeserializeError, DocumentDeserialize, DocumentDeserializer};
use tantivy::store::StoreReader;
use tantivy::{DocAddress, DocId, DocSet, Searcher, TERMINATED, Term};
use unisono_core::{Entity, Key, Result, Stored, Version};

use crate::client::Snapshot;
use crate::codec::{self, Form};
use crate::error::{OrError, unreadable};
use crate::schema::{Layout, Slot};

/// The term of a form in a slot.
pub(crate) fn term(slot: &Slot, form: &Form) -> Term {
    match form {
        Form::Number(n) => Term::from_field_i64(slot.native, *n),
        Form::Bytes(bytes) => Term::from_field_bytes(slot.native, bytes),
    }
}

/// The term under which a record is found by its key.
pub(crate) fn key_term(layout: &Layout, key: &Key) -> Term {
    term(layout.key(), &codec::key_form(key))
}

/// The bytes of a stored record: the only stored field.
struct Blob(Vec<u8>);

impl DocumentDeserialize for Blob {
    fn deserialize<'de, D: DocumentDeserializer<'de>>(
        mut input: D,
    ) -> Result<Self, DeserializeError> {
        let field = input.next_field::<Vec<u8>>()?;
        Ok(Blob(field.map(|(_, bytes)| bytes).unwrap_or_default()))
    }
}

/// Reads a record from where the index keeps it.
pub(crate) fn fetch(snapshot: &Snapshot, at: DocAddress) -> Result<Stored> {
    let blob: Blob = snapshot.searcher.doc(at).or_error()?;
    codec::decode(&snapshot.layout.entity, &blob.0)
}

/// Reads a record of one segment; for reading many in their order.
pub(crate) fn fetch_from(entity: &Entity, store: &StoreReader, doc: DocId) -> Result<Stored> {
    let blob: Blob = store.get(doc).or_error()?;
    codec::decode(entity, &blob.0)
}

/// Finds records by key in one snapshot.
pub(crate) struct Finder<'a> {
    layout: &'a Layout,
    segments: Vec<Segment<'a>>,
}

struct Segment<'a> {
    reader: &'a SegmentReader,
    keys: Arc<InvertedIndexReader>,
    versions: Column<u64>,
}

impl<'a> Finder<'a> {
    /// Opens what lookups need.
    pub(crate) fn new(snapshot: &'a Snapshot) -> Result<Self> {
        let layout = snapshot.layout.as_ref();
        let segment = |reader: &'a SegmentReader| {
            Ok(Segment {
                reader,
                keys: reader.inverted_index(layout.key().native)?,
                versions: reader.fast_fields().u64(layout.version_name)?,
            })
        };
        let segments = readers(&snapshot.searcher).iter().map(segment);
        Ok(Finder { layout, segments: segments.collect::<tantivy::Result<_>>().or_error()? })
    }

    /// Where the record of a key is: at most one place is alive.
    pub(crate) fn address(&self, key: &Key) -> Result<Option<DocAddress>> {
        Ok(self.find(key)?.map(|(ordinal, doc)| DocAddress::new(ordinal as u32, doc)))
    }

    /// The version of the record of a key.
    pub(crate) fn version(&self, key: &Key) -> Result<Option<Version>> {
        let Some((ordinal, doc)) = self.find(key)? else { return Ok(None) };
        let version = self.segments.get(ordinal).and_then(|s| s.versions.first(doc));
        let version = version.and_then(|v| Version::new(v).ok());
        version.map(Some).ok_or_else(|| unreadable("a stored record has no version"))
    }

    fn find(&self, key: &Key) -> Result<Option<(usize, DocId)>> {
        let term = key_term(self.layout, key);
        for (ordinal, segment) in self.segments.iter().enumerate() {
            let postings =
                segment.keys.read_postings(&term, IndexRecordOption::Basic).or_error()?;
            let Some(mut postings) = postings else { continue };
            let mut doc = postings.doc();
            while doc != TERMINATED {
                if !segment.reader.is_deleted(doc) {
                    return Ok(Some((ordinal, doc)));
                }
                doc = postings.advance();
            }
        }
        Ok(None)
    }
}

/// The segments of a snapshot; the ordinal of a [`DocAddress`] is the index here.
pub(crate) fn readers(searcher: &Searcher) -> &[SegmentReader] {
    searcher.segment_readers()
}
