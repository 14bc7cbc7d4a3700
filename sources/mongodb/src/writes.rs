//! Changes as statements of the commands `insert` and `update`, which every server knows. An insert is refused where
//! there is a document, and an update is on the condition of its version.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::try_join_all;
use mongodb::ClientSession;
use mongodb::bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, cstr, doc, rawdoc};
use unisono_core::source::Outcome;
use unisono_core::{Change, Effect, Entity, Error, ErrorKind, Key, Operation, Position, Result};

use crate::client::Client;
use crate::codec::{decode_key, encode_key};
use crate::collection::Place;
use crate::document::{self, VERSION};
use crate::error::{Refusal, refusal, translate, unconfirmed};

/// The most statements of one command.
pub(crate) const STATEMENTS_MAX: usize = 500;
/// The least statements for which a command of their own is worth while.
const STATEMENTS_MIN: usize = 100;
/// About the most bytes of one command; servers take 48 MB.
const COMMAND_BYTES: usize = 8 << 20;
/// The most bytes of one document.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// About the bytes of a statement beside its document.
const STATEMENT_BYTES: usize = 256;
/// How many commands are under way at the same time.
const IN_FLIGHT: usize = 4;
/// How often a record is tried that other writers make and remove meanwhile.
const ROUNDS: usize = 5;

/// One change, ready to be sent.
pub(crate) struct Statement {
    /// Its place in the batch.
    index: usize,
    /// The record.
    pub(crate) key: Key,
    /// A stored version from which on the change is stale.
    stale_from: Position,
    document: RawDocumentBuf,
    /// Whether there is most likely no document yet.
    creates: bool,
}

/// Which command carries statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Makes documents: the quickest where there are none.
    Insert,
    /// Replaces documents of older versions, and makes those that are not there.
    Update,
}

impl Statement {
    /// A statement that replaces a document unless its version is newer, or equal if the change is no copy.
    ///
    /// Fails if the record cannot be a document.
    pub(crate) fn new(
        entity: &Entity,
        index: usize,
        change: &Change,
        copied: bool,
    ) -> Result<Statement> {
        let document = document_of(entity, change)?;
        let stale_from = if copied { change.position.next() } else { change.position };
        let document = RawDocumentBuf::try_from(&document).map_err(|e| translate(e.into()))?;
        if document.as_bytes().len() > DOCUMENT_BYTES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "the document is above 16 MB")
                .with("bytes", document.as_bytes().len())
                .hint("keep large contents elsewhere"));
        }
        let creates = change.replaced.is_none() && change.image.is_some();
        Ok(Statement { index, key: change.key.clone(), stale_from, document, creates })
    }

    /// As a part of the command `update`.
    fn update(&self) -> Result<RawDocumentBuf> {
        // A document without a version was made by hand, and is replaced.
        let condition = doc! {
            "_id": encode_key(&self.key),
            VERSION: { "$not": { "$gte": self.stale_from.as_i64() } },
        };
        let condition = RawDocumentBuf::try_from(&condition).map_err(|e| translate(e.into()))?;
        let mut update = RawDocumentBuf::new();
        update.append(cstr!("q"), condition);
        update.append(cstr!("u"), &*self.document);
        update.append(cstr!("upsert"), true);
        Ok(update)
    }

    /// What becomes of the change beside a stored version; `None` if it is to be written.
    pub(crate) fn stale_beside(&self, stored: Option<Position>) -> bool {
        stored.is_some_and(|stored| stored >= self.stale_from)
    }

    /// Its place in the batch.
    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

fn document_of(entity: &Entity, change: &Change) -> Result<Document> {
    match (&change.image, change.operation) {
        (Some(record), Operation::Put) => {
            document::of_record(entity, &change.key, record, change.position)
        }
        (None, Operation::Delete) => Ok(document::of_deletion(&change.key, change.position)),
        _ => Err(Error::new(ErrorKind::Corrupt, "the change has no image, or one too many")),
    }
}

/// The statements of a batch, and the outcomes of the changes that cannot be sent.
pub(crate) fn statements(
    place: &Place,
    changes: &[Arc<Change>],
    copied: bool,
) -> (Vec<Statement>, Vec<Option<Outcome>>) {
    let mut statements = Vec::with_capacity(changes.len());
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    outcomes.resize_with(changes.len(), || None);
    for (index, (change, outcome)) in changes.iter().zip(&mut outcomes).enumerate() {
        match Statement::new(&place.entity, index, change, copied) {
            Ok(statement) => {
                if change.image.is_none() {
                    place.remembers(change.position);
                }
                statements.push(statement);
            }
            Err(error) => *outcome = Some(Outcome::Rejected(error.with("key", &change.key))),
        }
    }
    (statements, outcomes)
}

/// Sends statements until each has its outcome: several commands at a time, in no order.
pub(crate) async fn send_all(
    client: &Client,
    place: &Place,
    statements: Vec<Statement>,
    outcomes: &mut [Option<Outcome>],
) -> Result<()> {
    let mut settle = |index: usize, outcome| {
        if let Some(place) = outcomes.get_mut(index) {
            *place = Some(outcome);
        }
    };
    let (mut inserts, mut updates): (Vec<_>, Vec<_>) =
        statements.into_iter().partition(|statement| statement.creates);
    for _ in 0..ROUNDS {
        let most = (inserts.len() + updates.len()).div_ceil(IN_FLIGHT);
        let most = most.clamp(STATEMENTS_MIN, STATEMENTS_MAX);
        let groups = commands(inserts, most).into_iter().map(|group| (Command::Insert, group));
        let groups =
            groups.chain(commands(updates, most).into_iter().map(|g| (Command::Update, g)));
        let groups: Vec<_> = groups.collect();
        let mut answers = Vec::with_capacity(groups.len());
        for some in groups.chunks(IN_FLIGHT) {
            let sent = some.iter().map(|(how, some)| send(client, place, *how, some, None));
            answers.extend(try_join_all(sent).await?);
        }
        let mut existing = Vec::new();
        for ((_, statements), mut refusals) in groups.into_iter().zip(answers) {
            for (n, statement) in statements.into_iter().enumerate() {
                match refusals.remove(&n) {
                    None => settle(statement.index, Outcome::Applied),
                    Some(Refusal::Exists) => existing.push(statement),
                    Some(Refusal::Rejected(error)) => {
                        let error = error.with("key", &statement.key);
                        settle(statement.index, Outcome::Rejected(error));
                    }
                    Some(Refusal::Later(error)) => settle(statement.index, Outcome::Retry(error)),
                }
            }
        }
        (inserts, updates) = (Vec::new(), Vec::new());
        if existing.is_empty() {
            return Ok(());
        }
        // A key that is there need not mean a newer version.
        let versions = versions(client, place, &existing, None).await?;
        for statement in existing {
            if statement.stale_beside(versions.get(&statement.key).copied()) {
                settle(statement.index, Outcome::Stale);
            } else {
                updates.push(statement);
            }
        }
        if updates.is_empty() {
            return Ok(());
        }
    }
    for statement in updates {
        let error =
            Error::new(ErrorKind::Unavailable, "other writers change the record all the time");
        settle(statement.index, Outcome::Retry(error.with("key", &statement.key)));
    }
    Ok(())
}

/// Statements as groups for one command each, of at most so many.
pub(crate) fn commands(statements: Vec<Statement>, most: usize) -> Vec<Vec<Statement>> {
    let mut groups: Vec<Vec<Statement>> = Vec::new();
    let mut bytes = 0;
    for statement in statements {
        let size = statement.document.as_bytes().len() + STATEMENT_BYTES;
        match groups.last_mut() {
            Some(group) if group.len() < most && bytes + size <= COMMAND_BYTES => {
                bytes += size;
                group.push(statement);
            }
            _ => {
                bytes = size;
                groups.push(vec![statement]);
            }
        }
    }
    groups
}

/// Sends one command; answers which of its statements were refused, by their place in it.
pub(crate) async fn send(
    client: &Client,
    place: &Place,
    how: Command,
    statements: &[Statement],
    session: Option<&mut ClientSession>,
) -> Result<HashMap<usize, Refusal>> {
    let mut parts = RawArrayBuf::new();
    for statement in statements {
        match how {
            Command::Insert => parts.push(&*statement.document),
            Command::Update => parts.push(&*statement.update()?),
        }
    }
    let mut command = RawDocumentBuf::new();
    let (name, list) = match how {
        Command::Insert => (cstr!("insert"), cstr!("documents")),
        Command::Update => (cstr!("update"), cstr!("updates")),
    };
    command.append(name, place.name());
    command.append(cstr!("ordered"), false);
    command.append(list, &*parts);
    if session.is_none() {
        command.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
    }
    let answer = client.command(command, session).await?;
    if answer.contains_key("writeConcernError") {
        return Err(unconfirmed().effect(Effect::Unknown));
    }
    let errors = answer.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
    let refused = errors.iter().filter_map(Bson::as_document).map(|error| {
        let index = number(error, "index").and_then(|n| usize::try_from(n).ok());
        let code = number(error, "code").unwrap_or_default();
        let message = error.get_str("errmsg").unwrap_or_default();
        // Without its index nothing is known of any.
        let index = index.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the server's answer cannot be read")
                .effect(Effect::Unknown)
        })?;
        Ok((index, refusal(code, message)))
    });
    refused.collect()
}

fn number(document: &Document, name: &str) -> Option<i32> {
    match document.get(name)? {
        Bson::Int32(n) => Some(*n),
        Bson::Int64(n) => i32::try_from(*n).ok(),
        Bson::Double(n) => Some(*n as i32),
        _ => None,
    }
}

/// The stored versions of the records of statements, deletions among them.
pub(crate) async fn versions(
    client: &Client,
    place: &Place,
    statements: &[Statement],
    session: Option<&mut ClientSession>,
) -> Result<HashMap<Key, Position>> {
    let keys: Vec<Bson> = statements.iter().map(|s| encode_key(&s.key)).collect();
    let request = place
        .documents
        .find(doc! { "_id": { "$in": keys } })
        .projection(doc! { VERSION: 1 })
        .batch_size(u32::try_from(statements.len()).unwrap_or(u32::MAX).max(2));
    let mut versions = HashMap::with_capacity(statements.len());
    let ty = &place.entity.key_field().ty;
    let mut take = |document: &Document| {
        let key = document.get("_id").and_then(|id| decode_key(ty, id));
        versions.extend(key.map(|key| (key, document::version(document))));
    };
    match session {
        None => {
            let mut cursor = client.call(request).await?;
            while let Some(document) = client.next(&mut cursor).await? {
                take(&document);
            }
        }
        Some(session) => {
            let mut cursor = client.call(request.session(&mut *session)).await?;
            while client.call(cursor.advance(session)).await? {
                take(&cursor.deserialize_current().map_err(translate)?);
            }
        }
    }
    Ok(versions)
}
