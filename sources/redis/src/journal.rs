//! Role journal: entries in a stream that several processes write to and read, flushed by one of them at a time.
//!
//! **Durable.** One server that syncs its append-only file before it answers (`appendfsync always`); each call is one
//! script, which that file holds as a whole or not at all. Sentinels and clusters are refused: a copy that takes over lacks
//! what its primary had acknowledged in the last moments.
//!
//! **Lost answers.** An append whose connection broke may still lie in the server's socket and be carried out later.
//! Before anybody looks whether it was, the batch is given up: a script that comes afterwards does nothing.
//!
//! **Sequences** begin at the server's time in microseconds and go on by one. So they rise also when the server has lost
//! everything, and stay below 2^53, which scripts count exactly.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};
use unisono_core::journal::{Appended, Entry, Journal, Mark, NewEntry, News, SharedJournal};
use unisono_core::source::Source;
use unisono_core::{Effect, Error, ErrorKind, Result, Timestamp};

use crate::error::unexpected;
use crate::node::Lane;
use crate::reply;
use crate::script::{APPEND, CLAIM, Call, LEAVE, NEWS, REMOVE};
use crate::source::RedisSource;

/// How many removals are read at once, each of them of many entries.
const REMOVALS_MAX: usize = 1000;
/// How many outcomes are forgotten with one removal.
const FORGET_MAX: usize = 1000;
/// How many entries leave in one script.
const REMOVE_MAX: usize = 4096;
/// For how long those who follow are told of a removal.
const TOLD_FOR: Duration = Duration::from_secs(2 * 60 * 60);
/// How long the server remembers which batches were given up.
const GIVEN_UP_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// What a process knows of the batches that it has sent.
#[derive(Default)]
pub(crate) struct Sent {
    last: AtomicU64,
    /// The last batch of a space of which nobody knows whether it was kept.
    unknown: Mutex<HashMap<String, u64>>,
}

impl Sent {
    fn unknown(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RedisSource {
    /// Fails unless the server keeps what it has acknowledged, whatever ends it.
    pub(crate) async fn check_syncs(&self) -> Result<()> {
        if self.is_arranged {
            return Err(Error::new(ErrorKind::InvalidConfig, "a journal needs one server by itself")
                .hint("sentinels and clusters replace a server by a copy that lacks what was acknowledged last"));
        }
        let mut command = Cmd::new();
        command.arg("CONFIG").arg("GET").arg("append*");
        let mut settings = HashMap::new();
        let answer = reply::list(self.client.command(b"", &command).await?)?;
        let mut texts = answer.into_iter().map(reply::text);
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            settings.insert(name?, value?);
        }
        let set = |name: &str| settings.get(name).map_or("", String::as_str);
        if (set("appendonly"), set("appendfsync")) == ("yes", "always") {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidConfig,
            "the server does not keep what it has acknowledged",
        )
        .with("appendonly", set("appendonly"))
        .with("appendfsync", set("appendfsync"))
        .hint("a journal needs appendonly yes and appendfsync always"))
    }

    fn located(&self, error: Error, operation: &'static str, space: &str) -> Error {
        error.on(operation).at(Source::name(self)).of(space)
    }

    fn of_journal(&self, space: &str, name: &str) -> Vec<u8> {
        format!("{}unisono:{{journal.{space}}}:{name}", self.prefix).into_bytes()
    }

    fn spaces_key(&self) -> Vec<u8> {
        format!("{}unisono:{{journal}}:spaces", self.prefix).into_bytes()
    }

    fn journal_call(
        &self,
        script: &'static std::sync::LazyLock<crate::script::Script>,
        space: &str,
        names: &[&str],
        arguments: Vec<Vec<u8>>,
    ) -> Call {
        let keys = names.iter().map(|name| self.of_journal(space, name)).collect();
        Call::new(script, keys, arguments)
    }

    fn given_up(&self) -> String {
        format!("given_up:{}", String::from_utf8_lossy(&self.holder))
    }

    /// Sees to it that no batch is kept from now on whose outcome is not known.
    async fn give_up(&self, space: &str) -> Result<()> {
        let Some(batch) = self.sent.unknown().get(space).copied() else { return Ok(()) };
        let key = self.of_journal(space, &self.given_up());
        let mut command = Cmd::new();
        command
            .arg("SET")
            .arg(key.as_slice())
            .arg(batch)
            .arg("PX")
            .arg(GIVEN_UP_FOR.as_millis() as u64);
        self.client.command(&key, &command).await?;
        self.sent.unknown().retain(|of, last| of != space || *last > batch);
        Ok(())
    }

    async fn append_batch(
        &self,
        space: &str,
        entries: Vec<NewEntry>,
    ) -> Result<Vec<Result<Appended>>> {
        self.give_up(space).await.map_err(|e| e.effect(Effect::None))?;
        let (count, batch) = (entries.len(), self.sent.last.fetch_add(1, Ordering::Relaxed) + 1);
        let mut arguments = vec![text(batch)];
        for NewEntry { body, idempotency, time } in entries {
            let (key, fingerprint) = match idempotency {
                Some(i) => (i.key.as_bytes().to_vec(), format!("{:032x}", i.fingerprint)),
                None => Default::default(),
            };
            arguments.extend([
                body.into_bytes(),
                key,
                fingerprint.into_bytes(),
                text(time.micros()),
            ]);
        }
        let names = ["entries", "last", "outcomes", "times", &self.given_up()];
        let answer = self
            .client
            .write(Lane::Quick, &self.journal_call(&APPEND, space, &names, arguments))
            .await;
        let answer = answer.inspect_err(|error| {
            if error.effect_on_data() != Effect::None {
                self.sent.unknown().insert(space.to_owned(), batch);
            }
        })?;
        let answers = reply::list(answer)?;
        if answers.len() != count {
            return Err(unexpected());
        }
        answers.into_iter().map(|answer| outcome(&reply::text(answer)?)).collect()
    }

    async fn news_of(&self, space: &str, since: &Mark, entries_max: usize) -> Result<News> {
        let arguments = vec![
            text(since.sequence),
            since.removal.as_bytes().to_vec(),
            text(entries_max),
            text(REMOVALS_MAX),
        ];
        let call = self.journal_call(&NEWS, space, &["entries", "last", "removals"], arguments);
        let mut answer = reply::list(self.client.read(Lane::Bulk, &call).await?)?.into_iter();
        let (Some(last), Some(kept), Some(gone)) = (answer.next(), answer.next(), answer.next())
        else {
            return Err(unexpected());
        };
        let last = sequence(&reply::text(last)?)?;
        let entries = reply::list(kept)?.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
        let gone = reply::list(gone)?.into_iter().map(item).collect::<Result<Vec<_>>>()?;
        let is_all = entries.len() < entries_max && gone.len() < REMOVALS_MAX;
        let mut mark = Mark {
            sequence: match is_all {
                true => last.max(since.sequence),
                false => entries.last().map_or(since.sequence, |entry| entry.sequence),
            },
            // A name that comes before all others.
            removal: gone.last().map_or_else(|| "0-0".to_owned(), |(id, _)| id.clone()),
        };
        let mut removed = Vec::new();
        if !since.removal.is_empty() {
            if gone.is_empty() {
                mark.removal = since.removal.clone();
            }
            for (_, sequences) in &gone {
                for word in sequences.split(' ') {
                    removed.push(sequence(word)?);
                }
            }
        }
        Ok(News { entries, removed, mark, is_all })
    }
}

#[async_trait]
impl Journal for RedisSource {
    async fn begin(&self, space: &str) -> Result<()> {
        let key = self.spaces_key();
        let mut command = Cmd::new();
        command.arg("HSET").arg(key.as_slice()).arg(space).arg(1);
        let begun = self.client.command(&key, &command).await;
        begun.map(drop).map_err(|e| self.located(e, "begin", space))
    }

    async fn append(&self, space: &str, entries: Vec<NewEntry>) -> Result<Vec<Result<Appended>>> {
        let located = |e| self.located(e, "append", space);
        let results = self.append_batch(space, entries).await.map_err(located)?;
        Ok(results.into_iter().map(|result| result.map_err(located)).collect())
    }

    async fn read(&self, space: &str, after: u64, entries_max: usize) -> Result<Vec<Entry>> {
        let read = async {
            self.give_up(space).await?;
            let since = Mark { sequence: after, removal: String::new() };
            Ok(self.news_of(space, &since, entries_max).await?.entries)
        };
        read.await.map_err(|e| self.located(e, "read", space))
    }

    async fn remove(
        &self,
        space: &str,
        sequences: &[u64],
        outcomes_before: Timestamp,
    ) -> Result<()> {
        for some in sequences.chunks(REMOVE_MAX) {
            let told = TOLD_FOR.as_millis() as u64;
            let mut arguments = vec![text(outcomes_before.micros()), text(FORGET_MAX), text(told)];
            arguments.extend(some.iter().map(text));
            let names = ["entries", "removals", "outcomes", "times"];
            let call = self.journal_call(&REMOVE, space, &names, arguments);
            let removed = self.client.write(Lane::Quick, &call).await;
            removed.map_err(|e| self.located(e, "remove", space))?;
        }
        Ok(())
    }

    async fn spaces(&self) -> Result<Vec<(String, u64)>> {
        let counted = async {
            let key = self.spaces_key();
            let mut command = Cmd::new();
            command.arg("HGETALL").arg(key.as_slice());
            let names = reply::list(self.client.command(&key, &command).await?)?;
            let mut spaces = Vec::new();
            for name in names.into_iter().step_by(2) {
                let name = reply::text(name)?;
                let key = self.of_journal(&name, "entries");
                let mut command = Cmd::new();
                command.arg("XLEN").arg(key.as_slice());
                let count = reply::number(&self.client.command(&key, &command).await?)?;
                spaces.push((name, u64::try_from(count).unwrap_or(0)));
            }
            spaces.retain(|(_, count)| *count > 0);
            spaces.sort();
            Ok(spaces)
        };
        counted.await.map_err(|e: Error| e.on("spaces").at(Source::name(self)))
    }

    fn shared(self: Arc<Self>) -> Option<Arc<dyn SharedJournal>> {
        Some(self)
    }
}

#[async_trait]
impl SharedJournal for RedisSource {
    async fn news(&self, space: &str, since: &Mark, entries_max: usize) -> Result<News> {
        let news = self.news_of(space, since, entries_max).await;
        news.map_err(|e| self.located(e, "news", space))
    }

    async fn claim(&self, space: &str, at_most: Duration) -> Result<Option<u64>> {
        let claimed = async {
            let arguments = vec![self.holder.clone(), text(at_most.as_micros())];
            let call = self.journal_call(&CLAIM, space, &["flusher"], arguments);
            match reply::bytes(self.client.write(Lane::Quick, &call).await?)? {
                None => Ok(None),
                Some(tenure) => {
                    sequence(std::str::from_utf8(&tenure).map_err(|_| unexpected())?).map(Some)
                }
            }
        };
        claimed.await.map_err(|e| self.located(e, "claim", space))
    }

    async fn release(&self, space: &str) -> Result<()> {
        let call = self.journal_call(&LEAVE, space, &["flusher"], vec![self.holder.clone()]);
        let released = self.client.write(Lane::Quick, &call).await;
        released.map(drop).map_err(|e| self.located(e, "release", space))
    }
}

fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn sequence(text: &str) -> Result<u64> {
    text.parse().map_err(|_| unexpected())
}

/// What became of one entry, as the script says it.
fn outcome(said: &str) -> Result<Result<Appended>> {
    if said == "!" {
        let reused = "the idempotency key was used for another request";
        return Ok(Err(Error::new(ErrorKind::IdempotencyKeyReused, reused).hint(
            "take a new idempotency key for every request; repeat a request with exactly the same content",
        )));
    }
    let repeated = said.strip_prefix('=');
    let sequence = sequence(repeated.unwrap_or(said))?;
    Ok(Ok(Appended { sequence, repeated: repeated.is_some() }))
}

/// An item of a stream: its id, and the value of its one field.
fn item(item: Value) -> Result<(String, String)> {
    let mut parts = reply::list(item)?.into_iter();
    let (Some(id), Some(fields)) = (parts.next(), parts.next()) else { return Err(unexpected()) };
    let value = reply::list(fields)?.into_iter().nth(1).ok_or_else(unexpected)?;
    Ok((reply::text(id)?, reply::text(value)?))
}

fn entry(kept: Value) -> Result<Entry> {
    let (id, body) = item(kept)?;
    let (first, _) = id.split_once('-').ok_or_else(unexpected)?;
    Ok(Entry { sequence: sequence(first)?, body })
}
