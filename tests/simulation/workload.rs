//! Clients: each writes and reads a few keys, keeps its session's token, and repeats what it was not sure of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{
    Ack, Context, Effect, Entity, Error, ErrorKind, Key, Position, Record, Token, Value, Version,
};
use unisono_engine::{Engine, Written};

use crate::acknowledged;
use crate::adaptive;
use crate::disks::{Disks, JOURNAL};
use crate::follower::POISON;
use crate::history::{History, Refusal};
use crate::shape::Shape;

/// How often it is repeated when there are no faults: until followers are copied whose acknowledgement is demanded.
const FINISHES_MAX: usize = 100;

/// How often a request of unknown outcome is repeated in one life of the process.
const REPEATS_MAX: usize = 6;

/// One client. It survives the end of the process, with its token and the request it was not sure of.
pub(crate) struct Client {
    pub(crate) name: usize,
    pub(crate) random: StdRng,
    pub(crate) shape: Arc<Shape>,
    pub(crate) history: Arc<History>,
    pub(crate) disks: Arc<Disks>,
    pub(crate) token: Token,
    /// The request under way, to be repeated until its outcome is known.
    pub(crate) open: Option<Request>,
    pub(crate) made: u32,
    /// The version of a record that it saw last, for conditional writes.
    pub(crate) known: Option<(Key, Option<Version>)>,
}

/// A write under an idempotency key.
#[derive(Clone)]
pub(crate) struct Request {
    idempotency: String,
    writes: Vec<Write>,
    /// The newest change when it was made.
    since: Position,
    /// When it is to be answered, if not as declared.
    ack: Option<Ack>,
}

impl Client {
    /// Makes its requests, or fewer if the process ends.
    pub(crate) async fn run(&mut self, engine: &Engine) {
        for _ in 0..self.shape.requests {
            let pause = self.random.random_range(0..self.shape.pause);
            tokio::time::sleep(Duration::from_micros(pause)).await;
            match self.random.random_range(0..100) {
                _ if self.open.is_some() => self.repeat(engine).await,
                0..50 => self.write(engine).await,
                50..54 => self.write_each(engine).await,
                54..84 => self.read(engine).await,
                _ => self.ask(engine).await,
            }
        }
    }

    /// Finishes what is open, without faults.
    pub(crate) async fn finish(&mut self, engine: &Engine) -> Result<(), String> {
        for _ in 0..FINISHES_MAX {
            self.repeat(engine).await;
        }
        match &self.open {
            None => Ok(()),
            Some(request) => {
                Err(format!("request {} cannot be finished without faults", request.idempotency))
            }
        }
    }

    fn context(&self, request: &Request) -> Context {
        Context {
            token: self.token.clone(),
            timeout: Duration::from_secs(5),
            ack: request.ack.clone(),
            idempotency_key: Some(request.idempotency.as_str().into()),
            trace: Some(request.idempotency.as_str().into()),
            ..Context::default()
        }
    }

    async fn write(&mut self, engine: &Engine) {
        let request = self.request(engine);
        self.open = Some(request.clone());
        self.repeat(engine).await;
        let took_place = self.history.seen().knows(&request.idempotency);
        if took_place && self.random.random_bool(0.1) {
            self.reuse(engine, request).await;
        }
    }

    async fn repeat(&mut self, engine: &Engine) {
        for _ in 0..REPEATS_MAX {
            let Some(request) = self.open.clone() else { return };
            let result = engine.write(&self.context(&request), request.writes.clone()).await;
            self.history.trace_result(
                &format!(
                    "client {} {} {:?}",
                    self.name,
                    request.idempotency,
                    request
                        .writes
                        .iter()
                        .map(|w| (&w.key, &w.action, w.condition))
                        .collect::<Vec<_>>()
                ),
                &result.as_ref().map(|w| &w.changes).map_err(|e| e.duplicate()),
            );
            match result {
                Ok(written) => {
                    let ack = self.waited(&written, request.ack.as_ref());
                    acknowledged::check(&self.disks, &self.history, &ack, &written.changes).await;
                    self.acknowledged(&request, written);
                }
                Err(error) if error.kind() == ErrorKind::QuorumNotReached => {
                    let trace = &request.idempotency;
                    acknowledged::check_shortfall(&self.history, &error, trace);
                    // What is pending may take for ever: one who knows that it is committed goes on.
                    if error.effect_on_data() == Effect::Committed && self.random.random_bool(0.5) {
                        self.open = None;
                        self.known = None;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) if is_refusal(&error) => self.refused(&request, &error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// What an answer had to wait for: what was asked or is declared; of `adaptive`, what the answer says.
    fn waited(&self, written: &Written, asked: Option<&Ack>) -> Ack {
        if self.shape.adaptive.is_none() || asked.is_some() {
            return asked.unwrap_or(&self.shape.ack.ack).clone();
        }
        let told = written.acknowledged.get("thing");
        adaptive::seen(&self.history, told);
        told.cloned().unwrap_or_default()
    }

    fn acknowledged(&mut self, request: &Request, written: Written) {
        let Written { changes, token, accepted, acknowledged: _, replayed } = written;
        if let (Some(accepted), [write]) = (accepted, request.writes.as_slice()) {
            self.history.accepted(accepted.sequence, write, &request.idempotency);
            if replayed {
                self.history.count("accepted write repeated");
            }
            self.token = token;
            self.open = None;
            return;
        }
        self.history.acknowledged(&changes, Some(request.idempotency.as_str()));
        for (write, change) in request.writes.iter().zip(&changes) {
            if let Condition::Version(expected) = write.condition {
                self.history.count("if-match taken");
                if expected != change.replaced {
                    self.history.breach(format!(
                        "P1: a write of {} at version {expected:?} replaced {:?}",
                        write.key, change.replaced
                    ));
                }
            }
            let version = change.image.as_ref().map(|_| change.position);
            self.known = Some((change.key.clone(), version));
        }
        self.token = token;
        self.open = None;
    }

    fn refused(&mut self, request: &Request, error: &Error) {
        if let [Write { key, condition, .. }] = request.writes.as_slice() {
            if matches!(condition, Condition::Version(_)) {
                self.history.count("if-match refused");
            }
            let refusal = Refusal {
                idempotency: request.idempotency.clone(),
                key: key.clone(),
                condition: *condition,
                kind: error.kind(),
                between: (request.since, self.history.head()),
            };
            self.history.seen().refusals.push(refusal);
        }
        self.open = None;
        self.known = None;
    }

    /// Sends another request under the key of one that is over, which must not be answered as if it were the same.
    async fn reuse(&mut self, engine: &Engine, earlier: Request) {
        let other = Request { idempotency: earlier.idempotency.clone(), ..self.request(engine) };
        if format!("{:?}", other.writes) == format!("{:?}", earlier.writes) {
            return;
        }
        let result = engine.write(&self.context(&other), other.writes.clone()).await;
        self.history
            .trace_result(&format!("client {} reuses {}", self.name, other.idempotency), &result);
        match result {
            Ok(written) => self.history.breach(format!(
                "P4: another request under the key {} was answered with {written:?}",
                earlier.idempotency
            )),
            Err(error) if error.kind() == ErrorKind::IdempotencyKeyReused => {
                self.history.count("idempotency key reused for another request");
            }
            _ => {}
        }
    }

    /// Some writes that take place each for itself; what is not sure is not repeated.
    async fn write_each(&mut self, engine: &Engine) {
        let Ok(entity) = engine.entity("thing") else { return };
        let mut writes: Vec<Write> =
            (0..self.random.random_range(2..6)).map(|_| self.one_write(entity)).collect();
        self.made += 1;
        let trace = format!("client-{}-{}", self.name, self.made);
        if self.shape.is_behind() {
            // The trace and the key tell a write.
            let mut keys = BTreeSet::new();
            writes.retain(|write| keys.insert(write.key.clone()));
        }
        let context = Context {
            token: self.token.clone(),
            trace: Some(trace.as_str().into()),
            ..Context::default()
        };
        let count = writes.len();
        let results = engine.write_each(&context, writes.clone()).await;
        self.history.trace(|| format!("client {} write_each -> {results:?}", self.name));
        if results.len() != count {
            self.history.breach("a write has no answer of its own".to_owned());
        }
        for (write, written) in writes.iter().zip(results) {
            let written = match written {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::QuorumNotReached => {
                    acknowledged::check_shortfall(&self.history, &error, &trace);
                    continue;
                }
                Err(_) => continue,
            };
            self.history.count("writes each for itself");
            let ack = self.waited(&written, None);
            acknowledged::check(&self.disks, &self.history, &ack, &written.changes).await;
            if let Some(accepted) = &written.accepted {
                self.history.accepted(accepted.sequence, write, &trace);
            }
            self.history.acknowledged(&written.changes, None);
            self.token.merge(&written.token);
        }
    }

    fn request(&mut self, engine: &Engine) -> Request {
        self.made += 1;
        let idempotency = format!("client-{}-{}", self.name, self.made);
        // Several records are not written behind as one.
        let two = self.random.random_bool(0.15) && !self.shape.is_behind();
        let count = if two { 2 } else { 1 };
        let writes = match engine.entity("thing") {
            Ok(entity) => (0..count).map(|_| self.one_write(entity)).collect(),
            Err(_) => Vec::new(),
        };
        Request { idempotency, writes, since: self.history.head(), ack: self.ack() }
    }

    /// Sometimes more or less than is declared.
    fn ack(&mut self) -> Option<Ack> {
        let other = !self.shape.is_behind() && self.random.random_bool(0.15);
        other.then(|| match self.random.random_range(0..3) {
            0 => Ack::Truth,
            1 => Ack::Named(vec!["lanes".into()]),
            _ => Ack::Count(2),
        })
    }

    fn one_write(&mut self, entity: &Arc<Entity>) -> Write {
        let mut key = self.key();
        let (action, condition) = match self.random.random_range(0..12) {
            0..2 => (Action::Delete, Condition::None),
            2..4 => (Action::Patch(serde_json::json!({"stock": self.stock()})), Condition::None),
            4 => (Action::Put(self.record(&key)), Condition::Absent),
            5 => (Action::Put(self.record(&key)), Condition::Present),
            6..9 => {
                let (known, version) = self.known.clone().unwrap_or((key, None));
                key = known;
                (Action::Put(self.record(&key)), Condition::Version(version))
            }
            _ => (Action::Put(self.record(&key)), Condition::None),
        };
        Write { entity: Arc::clone(entity), key, action, condition }
    }

    pub(crate) fn key(&mut self) -> Key {
        let all = self.shape.keys.max(self.shape.preloaded);
        // Mostly the few that everyone works on.
        let below = if self.random.random_bool(0.9) { self.shape.keys } else { all };
        Key::Integer(i64::from(self.random.random_range(0..below)))
    }

    pub(crate) fn stock(&mut self) -> i64 {
        self.random.random_range(0..10)
    }

    fn record(&mut self, key: &Key) -> Record {
        let note = match self.random.random_range(0..12) {
            0 => POISON.to_owned(),
            n => format!("note {n}"),
        };
        record(key, self.stock(), note)
    }
}

/// A record of the entity of all worlds.
pub(crate) fn record(key: &Key, stock: i64, note: String) -> Record {
    Record::new(vec![key.to_value(), Value::Integer(stock), Value::String(note)])
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

/// The last write of the journal that a token demands.
pub(crate) fn last_seen(token: &Token) -> u64 {
    let name = format!("{JOURNAL}/thing");
    token.position(&unisono_core::LogName::of(&name.into())).as_u64()
}
