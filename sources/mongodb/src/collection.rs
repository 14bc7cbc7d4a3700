//! [`Place`]: the collection of one entity, with the notes in it that are no records.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mongodb::bson::{Bson, Document, doc};
use mongodb::{ClientSession, Collection};
use unisono_core::source::{Advance, Checkpoint};
use unisono_core::{Entity, Error, ErrorKind, Position, Result, Uuid};

use crate::client::Client;
use crate::document::{DELETED, NOTE, VERSION};

/// The note that holds the checkpoint.
const CHECKPOINT: &str = "checkpoint";

/// The collection of one entity.
pub(crate) struct Place {
    /// The entity.
    pub(crate) entity: Arc<Entity>,
    /// Its documents.
    pub(crate) documents: Collection<Document>,
    /// The newest deletion that may still be remembered; zero if there is none.
    newest_deletion: AtomicI64,
}

/// The `_id` of a note: a document, which no key of a record is.
pub(crate) fn note_id(note: &str) -> Bson {
    Bson::Document(doc! { "unisono": note })
}

impl Place {
    /// The collection of an entity.
    pub(crate) fn new(client: &Client, entity: Arc<Entity>, name: &str) -> Self {
        let documents = client.database().collection(name);
        Place { entity, documents, newest_deletion: AtomicI64::new(i64::MAX) }
    }

    /// The name of the collection.
    pub(crate) fn name(&self) -> &str {
        self.documents.name()
    }

    /// A condition that notes do not satisfy.
    pub(crate) fn records(&self, mut filter: Document) -> Document {
        filter.insert(NOTE, Bson::Null);
        filter
    }

    /// The stored checkpoint, as the transaction of a session sees it if one is given.
    pub(crate) async fn checkpoint(
        &self,
        client: &Client,
        session: Option<&mut ClientSession>,
    ) -> Result<Option<Checkpoint>> {
        let request = self.documents.find_one(doc! { "_id": note_id(CHECKPOINT) });
        let found = match session {
            Some(session) => client.call(request.session(session)).await?,
            None => client.call(request).await?,
        };
        found.map(|document| checkpoint_of(&document)).transpose()
    }

    /// The position that a reader may name for what it reads afterwards.
    pub(crate) async fn position(&self, client: &Client) -> Result<Position> {
        let checkpoint = self.checkpoint(client, None).await?;
        // While the first copy is being made, records are missing that are older than the checkpoint.
        Ok(checkpoint.filter(|c| c.backfill.is_none()).map_or(Position::ZERO, |c| c.position))
    }

    /// Moves the checkpoint, if it is where the advance says; else `checkpoint_moved`.
    pub(crate) async fn advance(
        &self,
        client: &Client,
        advance: &Advance,
        session: Option<&mut ClientSession>,
    ) -> Result<()> {
        let to = note_of(&advance.to);
        let Some(from) = &advance.from else {
            let request = self.documents.insert_one(to);
            let inserted = match session {
                Some(session) => client.write(request.session(session)).await,
                None => client.write(request).await,
            };
            return match inserted {
                Ok(_) => Ok(()),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(moved(None, advance)),
                Err(e) => Err(e),
            };
        };
        let mut from = note_of(from);
        if !from.contains_key("backfill") {
            from.insert("backfill", Bson::Null);
        }
        let request = self.documents.replace_one(from, to);
        let replaced = match session {
            Some(session) => client.write(request.session(session)).await?,
            None => client.write(request).await?,
        };
        if replaced.matched_count == 0 { Err(moved(None, advance)) } else { Ok(()) }
    }

    /// Takes note that a deletion is remembered.
    pub(crate) fn remembers(&self, deletion: Position) {
        self.newest_deletion.fetch_max(deletion.as_i64(), Ordering::AcqRel);
    }

    /// Forgets deletions up to a position. Saves the request when there can be none.
    pub(crate) async fn forget(
        &self,
        client: &Client,
        through: Position,
        session: Option<&mut ClientSession>,
    ) -> Result<()> {
        let newest = self.newest_deletion.load(Ordering::Acquire);
        if newest == 0 {
            return Ok(());
        }
        let request = self
            .documents
            .delete_many(doc! { NOTE: DELETED, VERSION: { "$lte": through.as_i64() } });
        match session {
            Some(session) => client.write(request.session(session)).await?,
            None => client.write(request).await?,
        };
        if newest <= through.as_i64() {
            // Fails if another deletion came meanwhile, which is then still to be forgotten.
            let _ = self.newest_deletion.compare_exchange(
                newest,
                0,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        Ok(())
    }

    /// Finds out which deletions an earlier process left remembered.
    pub(crate) async fn look_for_deletions(&self, client: &Client) -> Result<()> {
        let newest = self.documents.find_one(doc! { NOTE: DELETED }).sort(doc! { VERSION: -1 });
        let newest =
            client.call(newest).await?.map_or(0, |d| crate::document::version(&d).as_i64());
        self.newest_deletion.store(newest, Ordering::Release);
        Ok(())
    }
}

fn note_of(checkpoint: &Checkpoint) -> Document {
    let mut note = doc! {
        "_id": note_id(CHECKPOINT),
        NOTE: CHECKPOINT,
        "log": checkpoint.log.to_string(),
        "position": checkpoint.position.as_i64(),
    };
    if let Some(backfill) = &checkpoint.backfill {
        note.insert("backfill", backfill.as_str());
    }
    note
}

fn checkpoint_of(note: &Document) -> Result<Checkpoint> {
    let read = || {
        Some(Checkpoint {
            log: Uuid::try_parse(note.get_str("log").ok()?).ok()?,
            position: Position::from_i64(note.get_i64("position").ok()?).ok()?,
            backfill: match note.get("backfill") {
                None => None,
                Some(text) => Some(text.as_str()?.to_owned()),
            },
        })
    };
    read().ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "the stored checkpoint cannot be decoded")
            .hint("drop the collection: it is filled again from the truth")
    })
}

/// The error of a batch that begins at another checkpoint than the stored one.
pub(crate) fn moved(stored: Option<&Checkpoint>, advance: &Advance) -> Error {
    let show = |checkpoint: Option<&Checkpoint>| {
        checkpoint.map_or("none".to_owned(), |c| c.position.to_string())
    };
    let error =
        Error::new(ErrorKind::CheckpointMoved, "the checkpoint is not where the delivery left it")
            .with("expected", show(advance.from.as_ref()));
    match stored {
        Some(stored) => error.with("stored", show(Some(stored))),
        None => error,
    }
}
