//! [`Handle`]: the records of one entity as values of the application's own type.

use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use unisono_core::query::parse;
use unisono_core::write::{Action, Condition, Write, apply_defaults};
use unisono_core::{Ack, Change, Context, Entity, Error, Key, Record, Result, Token, json};
use unisono_engine::{Engine, Written};

use crate::find::Find;

/// The records of one entity as values of `T`, which maps to the declared fields by `serde`.
///
/// Decimals, timestamps, dates and UUIDs are strings in JSON, and so in `T` unless its types read strings. Reads see
/// at least what this handle and its clones have written, whatever source answers. Cheap to clone.
pub struct Handle<T> {
    engine: Engine,
    entity: Arc<Entity>,
    session: Arc<Mutex<Token>>,
    /// When its writes are answered, if not as declared of the entity.
    ack: Option<Ack>,
    record: PhantomData<fn() -> T>,
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Handle {
            engine: self.engine.clone(),
            entity: Arc::clone(&self.entity),
            session: Arc::clone(&self.session),
            ack: self.ack.clone(),
            record: PhantomData,
        }
    }
}

impl<T> Handle<T> {
    pub(crate) fn new(engine: Engine, entity: Arc<Entity>) -> Self {
        Handle { engine, entity, session: Arc::default(), ack: None, record: PhantomData }
    }

    /// The same handle, whose writes are answered when these sources have them. What too few have in time fails with
    /// `quorum_not_reached` and is committed all the same, unless the effect of the error is none.
    #[must_use]
    pub fn with_ack(&self, ack: Ack) -> Self {
        Handle { ack: Some(ack), ..self.clone() }
    }

    /// The declared entity.
    pub fn entity(&self) -> &Arc<Entity> {
        &self.entity
    }

    /// What a reader elsewhere must send to see everything that this handle has written and read.
    pub fn token(&self) -> Token {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes later reads of this handle see at least what a token stands for.
    pub fn observe(&self, token: &Token) {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).merge(token);
    }

    /// Removes a record; `not_found` if there is none.
    pub async fn delete(&self, key: impl Display) -> Result<()> {
        let key = self.key(key)?;
        self.write(key, Action::Delete, Condition::None).await
    }

    /// Changes the named fields of a record by a JSON merge patch (RFC 7396); `not_found` if there is none.
    pub async fn patch(&self, key: impl Display, patch: Json) -> Result<()> {
        let key = self.key(key)?;
        self.write(key, Action::Patch(patch), Condition::None).await
    }

    /// The changes of one record, newest first, at most `limit`: who did what when.
    pub async fn history(&self, key: impl Display, limit: usize) -> Result<Vec<Arc<Change>>> {
        let key = self.key(key)?;
        self.engine.history(&self.context(), &self.entity, &key, None, limit).await
    }

    /// Groups and totals for a body as of `_aggregate`; each group is an object of its keys and metrics.
    pub async fn aggregate(&self, body: &Json) -> Result<Vec<Json>> {
        let aggregate = parse::aggregate(&self.entity, body)?;
        let answer = self.engine.aggregate(&self.context(), &self.entity, &aggregate).await?;
        self.observe(&answer.token);
        Ok(crate::groups::to_json(&self.entity, &aggregate, &answer.value))
    }

    /// Begins a question for records.
    pub fn find(&self) -> Find<'_, T> {
        Find::new(self)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn context(&self) -> Context {
        Context { token: self.token(), ack: self.ack.clone(), ..Context::default() }
    }

    fn key(&self, key: impl Display) -> Result<Key> {
        Key::parse(&self.entity, &key.to_string()).map_err(|e| e.of(self.entity.name()))
    }

    async fn write(&self, key: Key, action: Action, condition: Condition) -> Result<()> {
        let write = Write { entity: Arc::clone(&self.entity), key, action, condition };
        let written = self.engine.write(&self.context(), vec![write]).await;
        self.written(written)
    }

    fn written(&self, written: Result<Written>) -> Result<()> {
        let written = written.inspect_err(|error| {
            // It is committed, and too few have it.
            if let Some(Ok(token)) = error.detail("token").map(str::parse) {
                self.observe(&token);
            }
        })?;
        self.observe(&written.token);
        Ok(())
    }
}

impl<T: DeserializeOwned> Handle<T> {
    /// The record with a key, if there is one.
    pub async fn get(&self, key: impl Display) -> Result<Option<T>> {
        let key = self.key(key)?;
        let answer = self.engine.get(&self.context(), &self.entity, &key).await?;
        self.observe(&answer.token);
        answer.value.map(|stored| self.decode(&stored.record)).transpose()
    }

    pub(crate) fn decode(&self, record: &Record) -> Result<T> {
        serde_json::from_value(json::to_json(&self.entity, record)).map_err(|e| {
            Error::invalid("the record does not fit the type of the handle")
                .of(self.entity.name())
                .hint("make fields that can be null `Option`, and decimals and times strings")
                .caused_by(e)
        })
    }
}

impl<T: Serialize> Handle<T> {
    /// Records of one call to the engine by [`Handle::put_all`].
    const BATCH: usize = 512;

    /// Stores a record, new or not.
    pub async fn put(&self, record: &T) -> Result<()> {
        let (key, action) = self.encode(record)?;
        self.write(key, action, Condition::None).await
    }

    /// Stores a record that must not be there yet; else `already_exists`.
    pub async fn create(&self, record: &T) -> Result<()> {
        let (key, action) = self.encode(record)?;
        self.write(key, action, Condition::Absent).await
    }

    /// Stores many records, each for itself, in order, in few commits; answers how many.
    ///
    /// Ends after the batch in which one was refused; its place among the records is the error's detail `record`,
    /// counted from 0. The other records of that batch and of those before are stored.
    pub async fn put_all(&self, records: impl IntoIterator<Item = T>) -> Result<u64> {
        let mut records = records.into_iter();
        let mut stored = 0;
        loop {
            let batch = records.by_ref().take(Self::BATCH).map(|record| self.put_of(&record));
            let batch = batch.collect::<Result<Vec<_>>>().map_err(|e| e.with("after", stored))?;
            if batch.is_empty() {
                return Ok(stored);
            }
            let first = stored;
            for (n, result) in
                self.engine.write_each(&self.context(), batch).await.into_iter().enumerate()
            {
                self.written(result).map_err(|e| e.with("record", first + n as u64))?;
                stored += 1;
            }
        }
    }

    fn put_of(&self, record: &T) -> Result<Write> {
        let (key, action) = self.encode(record)?;
        Ok(Write { entity: Arc::clone(&self.entity), key, action, condition: Condition::None })
    }

    fn encode(&self, record: &T) -> Result<(Key, Action)> {
        let encoded = serde_json::to_value(record).map_err(|e| {
            Error::invalid("the value cannot be written as JSON")
                .of(self.entity.name())
                .caused_by(e)
        })?;
        let mut record = json::parse(&self.entity, &encoded)?;
        apply_defaults(&self.entity, &mut record);
        Ok((self.entity.key_of(&record)?, Action::Put(record)))
    }
}
