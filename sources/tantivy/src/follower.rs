//! The role of a follower: batches from the log, one commit each, with the checkpoint in the commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use tantivy::TantivyDocument;
use tantivy::query::TermSetQuery;
use unisono_core::source::{Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{
    Change, Effect, Entity, Error, ErrorKind, Key, Operation, Record, Result, Value, Version,
};

use crate::TantivySource;
use crate::client::{Handle, Meta, Open};
use crate::codec::{self, Form};
use crate::error::OrError;
use crate::query::lookup::{Finder, key_term};
use crate::schema::{Layout, Mark, Slot};

#[async_trait]
impl Follower for TantivySource {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        self.handle(&batch.entity)?.write("apply", move |h, open| apply(h, open, &batch)).await
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        self.handle(entity)?.write("checkpoint", |_, open| Ok(open.meta.checkpoint.clone())).await
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        self.handle(entity)?.reset().await
    }
}

fn apply(handle: &Handle, open: &mut Open, batch: &Batch) -> Result<Applied> {
    if let Some(advance) = &batch.advance
        && advance.from != open.meta.checkpoint
    {
        return Err(Error::new(
            ErrorKind::CheckpointMoved,
            "the checkpoint is not where the batch expects it",
        ));
    }
    take_in(handle, open, batch).map_err(|e| e.effect(Effect::Unknown))
}

/// What a batch makes of one key.
struct Write<'a> {
    version: Version,
    /// The new state; `None` if the record is gone.
    record: Option<&'a Record>,
    /// Whether the index holds an older one.
    replaces: bool,
}

fn take_in(handle: &Handle, open: &mut Open, batch: &Batch) -> Result<Applied> {
    let snapshot = Arc::clone(&open.snapshot);
    let finder = Finder::new(&snapshot)?;
    let remembered = remembered(&handle.layout, open)?;
    let mut deleted = remembered.clone();
    let mut writes: HashMap<&Key, Write<'_>> = HashMap::with_capacity(batch.changes.len());
    let mut outcomes = Vec::with_capacity(batch.changes.len());
    for change in &batch.changes {
        let indexed = finder.version(&change.key)?;
        let written = writes.get(&change.key).map(|write| write.version);
        let known = indexed.max(written).max(deleted.get(&change.key).copied());
        // A copy of the truth is written again over an equal version, to repair what was changed by hand.
        let is_stale = |known| known > change.position || known == change.position && !batch.copied;
        if known.is_some_and(is_stale) {
            outcomes.push(Outcome::Stale);
            continue;
        }
        let record = new_record(change)?;
        match record {
            Some(_) => deleted.remove(&change.key),
            None => deleted.insert(change.key.clone(), change.position),
        };
        let write = Write { version: change.position, record, replaces: indexed.is_some() };
        writes.insert(&change.key, write);
        outcomes.push(Outcome::Applied);
    }
    let to = batch.advance.as_ref().map(|advance| advance.to.clone());
    if let Some(to) = &to {
        // A deletion of an earlier batch is forgotten once the checkpoint has come to it.
        deleted
            .retain(|key, version| *version > to.position || remembered.get(key) != Some(version));
    }
    let advanced = to.is_some();
    if !writes.is_empty() || advanced {
        gather(handle, open, &writes)?;
        let deleted = deleted.into_iter().map(|(key, version)| (key.to_string(), version));
        let meta = Meta {
            layout: open.meta.layout.clone(),
            checkpoint: to.or_else(|| open.meta.checkpoint.clone()),
            deleted: deleted.collect(),
        };
        handle.commit(open, meta)?;
    }
    Ok(Applied { outcomes, advanced })
}

/// The deletions that must be remembered.
fn remembered(layout: &Layout, open: &Open) -> Result<BTreeMap<Key, Version>> {
    let parse =
        |(key, version): &(String, Version)| Ok((Key::parse(&layout.entity, key)?, *version));
    open.meta.deleted.iter().map(parse).collect()
}

/// Hands the writes to the engine's writer, for the next commit.
fn gather(handle: &Handle, open: &mut Open, writes: &HashMap<&Key, Write<'_>>) -> Result<()> {
    let layout = handle.layout.as_ref();
    let writer = handle.writer_of(open)?;
    let replaced = writes.iter().filter(|(_, write)| write.replaces);
    let replaced: Vec<_> = replaced.map(|(key, _)| key_term(layout, key)).collect();
    if !replaced.is_empty() {
        // One operation for all: the engine keeps more than a kilobyte for each.
        writer.delete_query(Box::new(TermSetQuery::new(replaced))).or_error()?;
    }
    for write in writes.values() {
        if let Some(record) = write.record {
            writer.add_document(to_native(layout, write.version, record)).or_error()?;
        }
    }
    Ok(())
}

/// The state after a change; `None` if the record is gone.
fn new_record(change: &Change) -> Result<Option<&Record>> {
    match (change.operation, &change.image) {
        (Operation::Put, Some(record)) => Ok(Some(record)),
        (Operation::Delete, _) => Ok(None),
        (Operation::Put, None) => Err(Error::internal("a put without the record's state")
            .with("key", &change.key)
            .with("position", change.position)),
    }
}

/// The engine's form of a record.
fn to_native(layout: &Layout, version: Version, record: &Record) -> TantivyDocument {
    let mut native = TantivyDocument::new();
    native.add_bytes(layout.record, &codec::encode(version, record));
    native.add_u64(layout.version, version.as_u64());
    for (field, value) in record.values().iter().enumerate() {
        let (whole, columns) = layout.slots(field);
        if matches!(value, Value::Null | Value::Json(serde_json::Value::Null)) {
            native.add_u64(layout.marks, Mark::Null.of(Layout::whole_code(field)));
        }
        match (whole, value) {
            (Some(slot), Value::List(items)) => add_values(layout, &mut native, slot, items.iter()),
            (Some(slot), value) => add_values(layout, &mut native, slot, std::iter::once(value)),
            (None, _) => {}
        }
        let rows: &[Vec<Value>] = if let Value::Objects(rows) = value { rows } else { &[] };
        for (column, slot) in columns.iter().enumerate() {
            let values = || rows.iter().filter_map(|row| row.get(column));
            if values().all(Value::is_null) {
                native.add_u64(layout.marks, Mark::Null.of(Layout::each_code(field, column)));
            }
            if let Some(slot) = slot {
                add_values(layout, &mut native, slot, values());
            }
        }
    }
    for (field, target) in &layout.search {
        if let Some(Value::String(text)) = record.values().get(*field) {
            native.add_text(*target, text);
        }
    }
    native
}

fn add_values<'a>(
    layout: &Layout,
    native: &mut TantivyDocument,
    slot: &Slot,
    values: impl Iterator<Item = &'a Value>,
) {
    let mut any_cut = false;
    for form in values.filter_map(|value| codec::to_form(&slot.ty, value)) {
        match form {
            Form::Number(n) => native.add_i64(slot.native, n),
            Form::Bytes(bytes) => {
                let (head, was_cut) = codec::cut(&bytes);
                native.add_bytes(slot.native, head);
                any_cut |= was_cut;
            }
        }
    }
    if any_cut {
        native.add_u64(layout.marks, Mark::Cut.of(slot.code));
    }
}
