//! [`Target`]: what a command works on, the sources themselves or a running server. Commands cannot tell which.

pub(crate) mod embedded;
mod events;
pub(crate) mod remote;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use unisono::core::write::Write;
use unisono::core::{Position, Result};
use unisono::engine::archive::backup::Backup;
use unisono::engine::delivery::dead_letter::DeadLetter;
use unisono::engine::sync::Conflict;
use unisono::engine::verify::report::VerifyOptions;

pub(crate) use embedded::Embedded;
pub(crate) use remote::Remote;

/// The most conflicts of each entity that are shown.
pub(super) const CONFLICTS_MAX: usize = 1000;

/// Where data is read and written. Records, reports and states are the JSON of the HTTP interface.
#[async_trait]
pub(crate) trait Target: Send + Sync {
    /// One record with what is known about it; `None` if there is none.
    async fn get(&self, entity: &str, key: &str) -> Result<Option<Found>>;

    /// Stores one record; answers its version, or `None` if the write waits to be flushed to the truth.
    async fn put(
        &self,
        entity: &str,
        record: &Json,
        condition: PutCondition,
    ) -> Result<Option<Position>>;

    /// One page of records for parameters as in the URL.
    async fn find(&self, entity: &str, parameters: &[(String, String)]) -> Result<Page>;

    /// How many records there are.
    async fn count(&self, entity: &str) -> Result<u64>;

    /// How to turn a line into something that [`Target::store`] takes.
    fn parser(&self, entity: &str) -> Result<Parser>;

    /// Stores records, each for itself, in order; one answer for each.
    async fn store(&self, entity: &str, records: Vec<Prepared>) -> Result<Vec<Result<()>>>;

    /// How many calls of [`Target::store`] may be under way at once and still take place in order.
    fn stores_at_once(&self) -> usize;

    /// The records after a place in the order of keys.
    async fn export(&self, entity: &str, after: Option<String>) -> Result<Page>;

    /// How everything is doing.
    async fn status(&self) -> Result<Json>;

    /// The logs and where they begin and end.
    async fn logs(&self) -> Result<Vec<Log>>;

    /// The changes of a log after a position, in order, at most `max`; waits a while for the first if `follow`.
    async fn changes(
        &self,
        log: &str,
        after: Position,
        max: usize,
        follow: bool,
    ) -> Result<Vec<Json>>;

    /// The changes of one record, newest first, before a position if given.
    async fn history(
        &self,
        entity: &str,
        key: &str,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Json>>;

    /// Appends events to a stream: the body and the answer of `POST /v1/streams/TYPE/STREAM`.
    async fn append(&self, ty: &str, stream: &str, body: &Json) -> Result<Json>;

    /// A page of a stream, or of the events of all streams of a type, for parameters as in the URL.
    async fn events(
        &self,
        ty: &str,
        stream: Option<&str>,
        parameters: &[(String, String)],
    ) -> Result<Json>;

    /// Compares followers with the truth; repairs if asked. Answers the report.
    async fn verify(&self, options: &VerifyOptions, progress: &ReportProgress<'_>) -> Result<Json>;

    /// Makes the copy of an entity in a follower anew; answers when it has begun.
    async fn backfill(&self, entity: &str, source: &str) -> Result<()>;

    /// The projections, and how their versions are doing.
    async fn projections(&self) -> Result<Vec<Json>>;

    /// Changes the versions of a projection: `rebuild`, `back` or `discard`; answers how it is then, when that has begun.
    async fn change_projection(&self, name: &str, action: &str) -> Result<Json>;

    /// Leaves a source alone; answers since when, and by whom.
    async fn pause_source(&self, source: &str) -> Result<Json>;

    /// Goes on with a source; answers whether it was paused.
    async fn resume_source(&self, source: &str) -> Result<bool>;

    /// Erases a person; answers what became of it.
    async fn erase(&self, subject: &str) -> Result<Json>;

    /// Makes a backup of each truth, or of one; answers what was made.
    async fn back_up(
        &self,
        truth: Option<&str>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Backup>>;

    /// The backups that there are.
    async fn backups(&self, truth: Option<&str>) -> Result<Vec<Backup>>;

    /// Whether the archived logs are as they were written; answers a report for each.
    async fn check_archive(&self, truth: Option<&str>) -> Result<Vec<Json>>;

    /// The dead letters that wait.
    async fn dead_letters(&self) -> Result<Vec<DeadLetter>>;

    /// Writes that gave way where two truths follow each other, the newest first.
    async fn conflicts(&self, entity: Option<&str>, key: Option<&str>) -> Result<Vec<Conflict>>;

    /// Delivers a dead letter's record again; answers whether it was accepted.
    async fn replay(&self, letter: &DeadLetter) -> Result<bool>;

    /// Forgets a dead letter.
    async fn discard(&self, letter: &DeadLetter) -> Result<()>;

    /// The decision for a read, one line per candidate. Without a key it is that for a list.
    async fn explain(
        &self,
        entity: &str,
        key: Option<&str>,
        parameters: &[(String, String)],
    ) -> Result<Vec<String>>;

    /// Whether deliveries stop when the program ends, so that it should wait for followers to catch up.
    fn ends_with_program(&self) -> bool;

    /// Lets go of everything.
    async fn close(&self) -> Result<()>;
}

/// One record, and where the answer came from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The record as a JSON object.
    pub(crate) record: Box<RawValue>,
    /// Its version.
    pub(crate) version: Position,
    /// The source that answered.
    pub(crate) source: String,
    /// Seconds for which that source has known it unrefreshed.
    pub(crate) age: f64,
    /// Whether newer data may exist.
    pub(crate) stale: bool,
}

/// Some records of an answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    /// The records as JSON objects.
    pub(crate) items: Vec<Box<RawValue>>,
    /// Where the next page begins; `None` if this is the last.
    pub(crate) next: Option<String>,
}

/// A log, and where it begins and ends.
#[derive(Debug, Deserialize)]
pub(crate) struct Log {
    /// Its name.
    #[serde(rename = "log")]
    pub(crate) name: String,
    /// The newest position.
    pub(crate) head: Position,
    /// Changes up to here have been forgotten.
    pub(crate) trimmed: Position,
}

/// What must hold for a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutCondition {
    /// Nothing.
    None,
    /// The record must not be there.
    Absent,
    /// The record must be at this version.
    Version(Position),
}

/// A record ready to be stored.
#[derive(Clone, Debug)]
pub(crate) enum Prepared {
    /// For sources of this process.
    Write(Box<Write>),
    /// For a server.
    Json(Box<RawValue>),
}

/// Turns a line into a record ready to be stored, or says why it is refused. Runs on the thread that reads the file.
pub(crate) type Parser = Arc<dyn Fn(&[u8]) -> Result<Prepared> + Send + Sync>;

/// Told how far a verification has come: entity, source, records compared, records in all.
pub(crate) type ReportProgress<'a> = dyn Fn(&str, &str, u64, u64) + Send + Sync + 'a;
