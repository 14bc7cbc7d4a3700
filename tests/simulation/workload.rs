//! Clients: each writes and reads a few keys, keeps its session's token, and repeats what it was not sure of.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{
    Consistency, Context, Effect, Entity, Error, ErrorKind, Key, Position, Record, Token, Value,
};
use unisono_engine::{Engine, Written};

use crate::faults::POISON;
use crate::history::{History, Read};

const KEYS: u32 = 8;
/// How often a request of unknown outcome is repeated in one life of the process.
const REPEATS_MAX: usize = 6;

/// One client. It survives the end of the process, with its token and the request it was not sure of.
pub(crate) struct Client {
    pub(crate) name: usize,
    pub(crate) random: StdRng,
    pub(crate) token: Token,
    /// The request under way, to be repeated until its outcome is known.
    pub(crate) open: Option<Request>,
    pub(crate) made: u32,
}

/// A write under an idempotency key.
#[derive(Clone)]
pub(crate) struct Request {
    idempotency: String,
    writes: Vec<Write>,
}

impl Client {
    /// Makes `requests` requests, or fewer if the process ends.
    pub(crate) async fn run(&mut self, engine: &Engine, history: &History, requests: u32) {
        for _ in 0..requests {
            let pause = self.random.random_range(0..20_000);
            tokio::time::sleep(Duration::from_micros(pause)).await;
            if self.open.is_some() || self.random.random_bool(0.55) {
                self.write(engine, history).await;
            } else {
                self.read(engine, history).await;
            }
        }
    }

    /// Finishes what is open, without faults.
    pub(crate) async fn finish(
        &mut self,
        engine: &Engine,
        history: &History,
    ) -> Result<(), String> {
        self.repeat(engine, history).await;
        match &self.open {
            None => Ok(()),
            Some(request) => {
                Err(format!("request {} cannot be finished without faults", request.idempotency))
            }
        }
    }

    async fn write(&mut self, engine: &Engine, history: &History) {
        if self.open.is_none() {
            self.open = Some(self.request(engine));
        }
        self.repeat(engine, history).await;
    }

    async fn repeat(&mut self, engine: &Engine, history: &History) {
        for _ in 0..REPEATS_MAX {
            let Some(request) = self.open.clone() else { return };
            let context = Context {
                token: self.token.clone(),
                timeout: Duration::from_secs(5),
                idempotency_key: Some(request.idempotency.as_str().into()),
                trace: Some(request.idempotency.as_str().into()),
                ..Context::default()
            };
            match engine.write(&context, request.writes).await {
                Ok(Written { changes, token, .. }) => {
                    history.acknowledged(
                        &changes,
                        (changes.len() == 1).then_some(request.idempotency.as_str()),
                    );
                    self.token = token;
                    self.open = None;
                }
                Err(error) if is_refusal(&error) => self.open = None,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn read(&mut self, engine: &Engine, history: &History) {
        let key = self.key();
        let Ok(entity) = engine.entity("thing") else { return };
        let consistency = match self.random.random_range(0..6) {
            0 => Consistency::Strong,
            _ => Consistency::Session,
        };
        let context = Context {
            token: self.token.clone(),
            timeout: Duration::from_secs(2),
            consistency,
            ..Context::default()
        };
        let demanded = only_position(&self.token);
        if let Ok(answer) = engine.get(&context, entity, &key).await {
            history.read(Read {
                key,
                token: demanded,
                version: answer.value.as_ref().map(|s| s.version),
                image: answer.value.as_ref().map(|s| Arc::clone(&s.record)),
                source: format!("{} ({:?})", answer.source, answer.cache),
            });
            self.token = answer.token;
        }
    }

    fn request(&mut self, engine: &Engine) -> Request {
        self.made += 1;
        let idempotency = format!("client-{}-{}", self.name, self.made);
        let count = if self.random.random_bool(0.15) { 2 } else { 1 };
        let writes = match engine.entity("thing") {
            Ok(entity) => (0..count).map(|_| self.one_write(entity)).collect(),
            Err(_) => Vec::new(),
        };
        Request { idempotency, writes }
    }

    fn one_write(&mut self, entity: &Arc<Entity>) -> Write {
        let key = self.key();
        let (action, condition) = match self.random.random_range(0..10) {
            0..2 => (Action::Delete, Condition::None),
            2..4 => (Action::Patch(serde_json::json!({"stock": self.stock()})), Condition::None),
            4 => (Action::Put(self.record(&key)), Condition::Absent),
            _ => (Action::Put(self.record(&key)), Condition::None),
        };
        Write { entity: Arc::clone(entity), key, action, condition }
    }

    fn key(&mut self) -> Key {
        Key::Integer(i64::from(self.random.random_range(0..KEYS)))
    }

    fn stock(&mut self) -> i64 {
        self.random.random_range(0..10)
    }

    fn record(&mut self, key: &Key) -> Record {
        let note = match self.random.random_range(0..12) {
            0 => POISON.to_owned(),
            n => format!("note {n}"),
        };
        Record::new(vec![key.to_value(), Value::Integer(self.stock()), Value::String(note)])
    }
}

/// The position that a token of the one log demands.
pub(crate) fn only_position(token: &Token) -> Position {
    token.position(&unisono_core::LogName::of(&"truth".into()))
}

/// Whether a failure says for certain that the write is refused, so that repeating it is pointless.
fn is_refusal(error: &Error) -> bool {
    let refusal = matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::VersionConflict
            | ErrorKind::InvalidInput
    );
    refusal && error.effect_on_data() == Effect::None
}
