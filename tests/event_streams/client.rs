//! Clients: each appends under some expectation, and repeats what it was not sure of, also in the next life of the process.

use std::sync::Mutex;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use unisono_core::stream::{Event, Expected, NewEvent};
use unisono_core::{Consistency, Context, Effect, Error, ErrorKind, Token};
use unisono_engine::Engine;
use unisono_engine::stream::{
    AppendCondition, Appended, Appending, Excerpt, Sought, StreamPage, Tagged,
};

use crate::world::{TYPE, Tally};

/// The stream whose balance is never to be negative.
pub(crate) const ACCOUNT: &str = "account";
/// Streams that anybody appends to.
const SHARED: [&str; 3] = ["a", "b", "c"];
/// Streams that are archived at some time.
const CLOSING: [&str; 4] = ["w", "x", "y", "z"];
/// Streams that are deleted at some time.
const PASSING: [&str; 4] = ["p", "q", "r", "s"];
const NAMES: u32 = 6;

/// One append until its outcome is known.
#[derive(Clone)]
struct Request {
    id: String,
    appending: Appending,
    /// Whether it is told from others by an idempotency key; otherwise by the ids of its events.
    by_key: bool,
}

/// What became of a request.
pub(crate) enum Told {
    /// These events are where they say.
    Appended(Vec<Event>),
    /// It had no effect.
    Refused,
}

/// One client. It survives the end of the process.
pub(crate) struct Client {
    name: usize,
    random: StdRng,
    token: Token,
    made: u32,
    open: Option<Request>,
    /// The stream that it wants to have deleted, until it knows that it is.
    deleting: Option<&'static str>,
    /// Streams of which it was told that they are deleted.
    pub(crate) deleted: Vec<String>,
    /// Requests whose outcome it knows, with how many events each has.
    pub(crate) told: Vec<(String, usize, Told)>,
    /// Streams of which it was told that they take no more events.
    pub(crate) archived: Vec<String>,
    /// Something that may never be.
    pub(crate) breach: Option<String>,
}

impl Client {
    pub(crate) fn new(name: usize, seed: u64) -> Self {
        Client {
            name,
            random: StdRng::seed_from_u64(seed),
            token: Token::default(),
            made: 0,
            open: None,
            deleting: None,
            deleted: Vec::new(),
            told: Vec::new(),
            archived: Vec::new(),
            breach: None,
        }
    }

    pub(crate) async fn run(&mut self, engine: &Engine, tally: &Mutex<Tally>) {
        for _ in 0..40 {
            let pause = Duration::from_millis(self.random.random_range(0..60));
            tokio::time::sleep(pause).await;
            if self.open.is_some() {
                self.send(engine, tally).await;
                continue;
            }
            match self.random.random_range(0..20) {
                0..7 => self.appends(),
                7..11 => self.withdraws(engine, tally).await,
                11..15 => self.registers(engine, tally).await,
                15..17 => self.appends_to(&CLOSING),
                17 => self.archives(engine, tally).await,
                18 => self.appends_to(&PASSING),
                _ => self.reads(engine, tally).await,
            }
            if self.deleting.is_none() && self.random.random_bool(0.03) {
                self.deleting = Some(PASSING[self.random.random_range(0..PASSING.len())]);
            }
            self.deletes(engine, tally).await;
            self.send(engine, tally).await;
        }
    }

    /// Finishes what is open, with nothing broken.
    pub(crate) async fn finish(
        &mut self,
        engine: &Engine,
        tally: &Mutex<Tally>,
    ) -> Result<(), String> {
        for _ in 0..50 {
            self.send(engine, tally).await;
            self.deletes(engine, tally).await;
        }
        match (&self.open, self.deleting, self.breach.take()) {
            (_, _, Some(breach)) => Err(breach),
            (Some(request), _, _) => Err(format!("{} does not come to an end", request.id)),
            (_, Some(stream), _) => Err(format!("{stream} cannot be deleted")),
            (None, None, None) => Ok(()),
        }
    }

    fn context(&self) -> Context {
        let timeout = Duration::from_millis(800);
        Context { token: self.token.clone(), timeout, ..Context::default() }
    }

    fn appends(&mut self) {
        let stream = SHARED[self.random.random_range(0..SHARED.len())];
        let revision = u64::from(self.random.random_range(0..self.made + 3));
        let expected = match self.random.random_range(0..10) {
            0 => Expected::None,
            1 => Expected::Exists,
            2..6 => self.known(stream).map_or(Expected::Revision(revision), Expected::Revision),
            _ => Expected::Any,
        };
        let count = self.random.random_range(1..4);
        self.request(stream, "noted", count, |events| {
            Appending::to(stream, events).expecting(expected)
        });
    }

    fn appends_to(&mut self, streams: &[&str]) {
        let stream = streams[self.random.random_range(0..streams.len())];
        self.request(stream, "noted", 1, |events| Appending::to(stream, events));
    }

    /// The last revision of a stream that it was told.
    fn known(&self, stream: &str) -> Option<u64> {
        let events = self.told.iter().rev().find_map(|(_, _, told)| match told {
            Told::Appended(events) => events.iter().rev().find(|event| event.stream == stream),
            Told::Refused => None,
        });
        events.map(|event| event.revision)
    }

    /// Decides over the whole stream: takes out only what is there.
    async fn withdraws(&mut self, engine: &Engine, tally: &Mutex<Tally>) {
        let (context, excerpt) = (self.context(), Excerpt { limit: 1000, ..Excerpt::default() });
        let read = engine.read_stream(&context, TYPE, ACCOUNT, excerpt).await;
        let events = match read {
            Ok(answer) => answer.value.events,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(_) => return,
        };
        let balance: i64 = events.iter().map(amount).sum();
        let amount = self.random.random_range(1..10);
        if balance >= amount {
            let expected = Expected::Revision(events.len() as u64);
            self.request(ACCOUNT, "withdrawn", 1, |events| {
                Appending::to(ACCOUNT, events).expecting(expected)
            });
            self.set_amount(-amount);
            tally.lock().unwrap().count("withdrawn");
        } else {
            self.request(ACCOUNT, "deposited", 1, |events| Appending::to(ACCOUNT, events));
            self.set_amount(amount);
        }
    }

    fn set_amount(&mut self, amount: i64) {
        let event = self.open.as_mut().and_then(|request| request.appending.events.first_mut());
        if let Some(event) = event {
            event.data["amount"] = json!(amount);
        }
    }

    /// Takes a name that nobody has taken yet: a rule over all streams.
    async fn registers(&mut self, engine: &Engine, tally: &Mutex<Tally>) {
        let tag = format!("name:{}", self.random.random_range(0..NAMES));
        let sought =
            Sought { after: Some(Default::default()), tag: Some(tag.clone()), ..Sought::default() };
        let Ok(answer) = engine.read_events(&self.context(), TYPE, &sought).await else { return };
        if !answer.value.events.is_empty() {
            return;
        }
        let any_of = vec![Tagged { tags: vec![tag.clone()], types: Vec::new() }];
        let condition = AppendCondition { any_of, after: answer.value.through };
        let stream = format!("user-{}", self.name);
        self.request(&stream, "registered", 1, |events| {
            let tagged = events.into_iter().map(|event| event.tag(tag.clone())).collect();
            Appending::to(&stream, tagged).unless(condition)
        });
        // Somebody else may be faster.
        let pause = Duration::from_millis(self.random.random_range(0..30));
        tokio::time::sleep(pause).await;
        let before = self.told.len();
        self.send(engine, tally).await;
        if matches!(self.told.get(before), Some((_, _, Told::Refused))) {
            tally.lock().unwrap().count("condition refused");
        }
    }

    async fn archives(&mut self, engine: &Engine, tally: &Mutex<Tally>) {
        let stream = CLOSING[self.random.random_range(0..CLOSING.len())];
        if let Ok(token) = engine.archive_stream(&self.context(), TYPE, stream).await {
            self.token.merge(&token);
            self.archived.push(stream.to_owned());
            tally.lock().unwrap().count("archived");
        }
    }

    /// Has the stream deleted that it wants to have deleted; somebody else may be about it as well.
    async fn deletes(&mut self, engine: &Engine, tally: &Mutex<Tally>) {
        let Some(stream) = self.deleting else { return };
        match engine.delete_stream(&self.context(), TYPE, stream).await {
            Ok(_) => {
                self.deleted.push(stream.to_owned());
                tally.lock().unwrap().count("deleted");
            }
            Err(error) if is_refusal(&error) || error.kind() == ErrorKind::NotFound => {}
            Err(_) => return,
        }
        self.deleting = None;
    }

    /// What it has appended itself is in every stream that it reads.
    async fn reads(&mut self, engine: &Engine, tally: &Mutex<Tally>) {
        let stream = SHARED[self.random.random_range(0..SHARED.len())];
        let excerpt = Excerpt { limit: 1000, ..Excerpt::default() };
        let Ok(answer) = engine.read_stream(&self.context(), TYPE, stream, excerpt).await else {
            return;
        };
        if *answer.source == *"copy" {
            tally.lock().unwrap().count("answered by the copy");
        }
        let StreamPage { events, .. } = answer.value;
        let own = self.told.iter().filter_map(|(_, _, told)| match told {
            Told::Appended(events) => Some(events),
            Told::Refused => None,
        });
        let mut own = own.flatten().filter(|event| event.stream == stream);
        if let Some(lost) = own.find(|event| !events.contains(event)) {
            self.breach = Some(format!("{} does not show {lost:?}", answer.source));
        }
    }

    fn request(
        &mut self,
        stream: &str,
        kind: &str,
        count: usize,
        appending: impl FnOnce(Vec<NewEvent>) -> Appending,
    ) {
        self.made += 1;
        let id = format!("{}-{}-{stream}", self.name, self.made);
        let by_key = self.random.random_bool(0.5);
        let event = |n: usize| {
            let mut event = NewEvent::new(kind, json!({ "request": id, "n": n }));
            event.id = (!by_key).then(|| format!("{id}-{n}"));
            event
        };
        let appending = appending((0..count).map(event).collect());
        self.open = Some(Request { id, appending, by_key });
    }

    /// Sends what is open until its outcome is known, a few times.
    async fn send(&mut self, engine: &Engine, tally: &Mutex<Tally>) {
        for _ in 0..4 {
            let Some(request) = self.open.clone() else { return };
            let mut context = self.context();
            if self.random.random_bool(0.2) {
                context.consistency = Consistency::Strong;
            }
            context.idempotency_key = request.by_key.then(|| request.id.as_str().into());
            match engine.append(&context, TYPE, request.appending.clone()).await {
                Ok(appended) => self.appended(&request, appended, tally),
                Err(error) if is_refusal(&error) => {
                    let closed = error.kind() == ErrorKind::StreamClosed;
                    tally.lock().unwrap().count(if closed { "closed" } else { "refused" });
                    self.over(&request, Told::Refused);
                }
                Err(error) => {
                    if error.effect_on_data() == Effect::Unknown {
                        tally.lock().unwrap().count("answer lost");
                    }
                    tokio::time::sleep(Duration::from_millis(15)).await;
                }
            }
        }
    }

    fn appended(&mut self, request: &Request, appended: Appended, tally: &Mutex<Tally>) {
        let Appended { events, replayed, token } = appended;
        tally.lock().unwrap().count(if replayed { "replayed" } else { "appended" });
        self.token.merge(&token);
        if self.archived.contains(&request.appending.stream) && !replayed {
            self.breach = Some(format!("{} was appended to what was archived", request.id));
        }
        self.over(request, Told::Appended(events));
    }

    fn over(&mut self, request: &Request, told: Told) {
        self.told.push((request.id.clone(), request.appending.events.len(), told));
        self.open = None;
    }
}

/// What an event adds to the balance.
pub(crate) fn amount(event: &Event) -> i64 {
    event.data["amount"].as_i64().unwrap_or_default()
}

fn is_refusal(error: &Error) -> bool {
    let refusal = matches!(
        error.kind(),
        ErrorKind::VersionConflict | ErrorKind::StreamClosed | ErrorKind::InvalidInput
    );
    refusal && error.effect_on_data() == Effect::None
}
