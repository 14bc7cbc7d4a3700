//! The log for callers: the history of a record, and all changes as server-sent events that can be resumed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, SelectAll, Stream, StreamExt};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use tokio::sync::OwnedSemaphorePermit;
use unisono::config::Access;
use unisono::core::entity::SYSTEM;
use unisono::core::json::change as json_change;
use unisono::core::source::LogBounds;
use unisono::core::{Change, Error, ErrorKind, Key, LogName, Position, Result, Token};
use unisono::engine::Engine;

use crate::app::{Call, Phase, Shared};
use crate::auth::Principal;
use crate::dispatch::busy;
use crate::problem::Failure;
use crate::reply::{self, Body, Reply, Response};
use crate::request;

/// How long a silent stream stays silent, so that both ends notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The most changes read from the log at once.
const READ_MAX: usize = 500;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const HISTORY_DEFAULT: usize = 50;
const HISTORY_MAX: usize = 1000;

/// `GET /v1/{entity}/{key}/_history`
pub(crate) async fn history(call: &Call<'_>) -> Reply {
    let entity = call.entity()?;
    let key = Key::parse(entity, &call.second)?;
    let [limit, before] = call.known_parameters(["limit", "before"])?;
    let limit = limit.map_or(Ok(HISTORY_DEFAULT), |text| match text.parse() {
        Ok(n) if (1..=HISTORY_MAX).contains(&n) => Ok(n),
        _ => Err(Error::invalid("limit is a number from 1 to 1000").with("parameter", "limit")),
    })?;
    let before = before.map(|text| text.parse::<Position>()).transpose()?;
    let changes = call.engine().history(&call.context()?, entity, &key, before, limit).await?;
    let next = changes.last().filter(|_| changes.len() == limit).map(|c| c.position);
    let items: Vec<Json> = changes.iter().map(|c| to_json(call.engine(), c)).collect();
    reply::json(StatusCode::OK, &json!({ "items": items, "next": next }))
}

/// A change as callers see it.
fn to_json(engine: &Engine, change: &Change) -> Json {
    json_change::to_json(engine.entity_of_log(&change.entity).map(|entity| &**entity), change)
}

/// `GET /v1/changes`
pub(crate) async fn follow(call: &Call<'_>) -> Reply {
    let [entity, log, after] = call.known_parameters(["entity", "log", "after"])?;
    let entities = wanted_entities(call, entity.as_deref())?;
    let logs = wanted_logs(call.engine().logs().await?, log.as_deref())?;
    let last = request::text(&call.parts.headers, LAST_EVENT_ID)?;
    let from = start(&logs, last.as_deref().or(after.as_deref()))?;
    let permit =
        Arc::clone(&call.shared.streams).try_acquire_owned().map_err(|_| busy("streams"))?;
    let mut response = Response::new(Body::Stream(Box::pin(events(call, from, entities, permit))));
    let headers = response.headers_mut();
    headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The names of `?entity=a,b`, each known and permitted; `None` is all that are permitted.
fn wanted_entities(call: &Call<'_>, parameter: Option<&str>) -> Result<Option<Vec<String>>> {
    let Some(text) = parameter else { return Ok(None) };
    let names = text.split(',').map(|name| {
        call.principal.require(Access::Read, Some(name))?;
        call.engine().entity(name).map(|e| e.name().to_string())
    });
    names.collect::<Result<Vec<_>>>().map(Some)
}

fn wanted_logs(
    logs: Vec<(LogName, LogBounds)>,
    name: Option<&str>,
) -> Result<Vec<(LogName, LogBounds)>> {
    let Some(name) = name else { return Ok(logs) };
    let found: Vec<_> = logs.into_iter().filter(|(log, _)| log.to_string() == name).collect();
    if found.is_empty() {
        return Err(
            Error::new(ErrorKind::NotFound, "there is no log with this name").with("log", name)
        );
    }
    Ok(found)
}

/// Where each log is read from: after the given token or position, otherwise from now on.
fn start(
    logs: &[(LogName, LogBounds)],
    after: Option<&str>,
) -> Result<Vec<(LogName, Position)>, Failure> {
    let token = match after.map(str::trim) {
        None => None,
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            let [(log, _)] = logs else {
                return Err(Error::invalid("a bare position does not say which log is meant")
                    .hint("send a token such as main:17, or name the log with ?log=")
                    .into());
            };
            Some(Token::at(log.clone(), text.parse()?))
        }
        Some(text) => Some(text.parse::<Token>()?),
    };
    let mut from = Vec::with_capacity(logs.len());
    for (log, bounds) in logs {
        let position = token.as_ref().map_or(bounds.head, |t| t.position(log));
        if position < bounds.trimmed {
            return Err(truncated(log, bounds));
        }
        if position > bounds.head {
            return Err(Error::invalid("the log has not come to this position")
                .with("log", log)
                .with("head", bounds.head)
                .hint("the truth may have lost changes in a failover; read the records anew")
                .into());
        }
        from.push((log.clone(), position));
    }
    Ok(from)
}

fn truncated(log: &LogName, bounds: &LogBounds) -> Failure {
    let oldest = bounds.trimmed.next();
    let error = Error::new(ErrorKind::LogTruncated, "the log does not reach back that far")
        .with("log", log)
        .with("oldest", oldest)
        .hint("read the records anew, then follow from the token that came with them");
    Failure::from(error).member("oldest", oldest.to_string())
}

/// What was read from one log in one go.
type Piece = (LogName, Result<Vec<Arc<Change>>>);

/// The text of the stream, piece by piece; ends with the server, the token, or a failure.
fn events(
    call: &Call<'_>,
    from: Vec<(LogName, Position)>,
    entities: Option<Vec<String>>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let shared = Arc::clone(call.shared);
    let mut at = Token::default();
    for (log, position) in &from {
        at.merge(&Token::at(log.clone(), *position));
    }
    let pieces: SelectAll<_> = from
        .into_iter()
        .map(|(log, at)| Box::pin(tail(shared.app.engine.clone(), log, at)))
        .collect();
    let mut phase = shared.phase.clone();
    let closing = async move {
        // A closed channel means that the server is gone, which ends the stream as well.
        let _ = phase.wait_for(|p| *p != Phase::Serving).await;
    };
    let mut writer = Writer {
        shared,
        principal: Arc::clone(call.principal),
        entities,
        at,
        failed: false,
        _permit: permit,
    };
    // The first bytes go out at once: they tell the caller that it is connected, and where.
    let hello = writer.heartbeat();
    let rest = pieces.map(move |piece| writer.write(piece));
    let until_end = rest.scan((), |(), text| std::future::ready(text));
    stream::once(std::future::ready(hello))
        .chain(until_end)
        .map(Bytes::from)
        .take_until(Box::pin(closing))
}

/// Reads one log for ever; an empty piece means that nothing happened for a while.
fn tail(engine: Engine, log: LogName, after: Position) -> impl Stream<Item = Piece> + Send {
    stream::unfold(Some((engine, log, after)), |state| async move {
        let (engine, log, after) = state?;
        let read = engine.changes(&log, after, READ_MAX, HEARTBEAT).await;
        let next = match &read {
            Ok(changes) => Some(changes.last().map_or(after, |c| c.position)),
            Err(_) => None,
        };
        let state = next.map(|after| (engine, log.clone(), after));
        Some(((log, read), state))
    })
}

/// Turns changes into events.
struct Writer {
    shared: Arc<Shared>,
    principal: Arc<Principal>,
    entities: Option<Vec<String>>,
    /// What the bearer of the stream has seen so far: the id of the last event.
    at: Token,
    failed: bool,
    _permit: OwnedSemaphorePermit,
}

impl Writer {
    /// The text for a piece; `None` ends the stream.
    fn write(&mut self, (log, read): Piece) -> Option<String> {
        let now = self.shared.app.engine.runtime().now();
        if self.failed || self.principal.is_expired(now) {
            return None;
        }
        let changes = match read {
            Ok(changes) => changes,
            Err(error) => return self.failure(error),
        };
        let mut text = String::new();
        for change in &changes {
            self.at.merge(&Token::at(log.clone(), change.position));
            if self.is_wanted(&change.entity) {
                let mut data = to_json(&self.shared.app.engine, change);
                if let Json::Object(map) = &mut data {
                    map.insert("log".into(), log.to_string().into());
                }
                text.push_str(&event(change.operation.as_str(), &self.at, &data));
            }
        }
        // A piece of which nothing was wanted still moves the place to resume from.
        Some(if text.is_empty() { self.heartbeat() } else { text })
    }

    /// Keeps the connection alive and moves the place to resume from, without an event.
    fn heartbeat(&self) -> String {
        format!(": heartbeat\nid: {}\n\n", self.at)
    }

    /// The last event of a stream that cannot go on.
    fn failure(&mut self, error: Error) -> Option<String> {
        self.failed = true;
        tracing::warn!(error = %error, "a stream of changes failed");
        Some(event("error", &self.at, &Failure::from(error).to_json(None)))
    }

    fn is_wanted(&self, entity: &str) -> bool {
        // The engine's own entities are of no use to others, unless they are asked for.
        let asked = match &self.entities {
            Some(names) => names.iter().any(|n| n == entity),
            None => !entity.starts_with(SYSTEM),
        };
        asked && self.principal.covers(entity)
    }
}

/// One server-sent event. JSON has no line breaks, so the data is one line.
fn event(name: &str, id: &Token, data: &Json) -> String {
    format!("id: {id}\nevent: {name}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono::core::Uuid;

    fn logs() -> Vec<(LogName, LogBounds)> {
        let position = |n| Position::new(n).unwrap();
        let bounds = LogBounds { log: Uuid::nil(), trimmed: position(10), head: position(20) };
        vec![(LogName::of(&"main".into()), bounds)]
    }

    fn from(after: Option<&str>) -> Result<u64, (ErrorKind, u16)> {
        let found = start(&logs(), after).map_err(|f| (f.error().kind(), f.status().as_u16()))?;
        Ok(found[0].1.as_u64())
    }

    #[test]
    fn a_stream_begins_where_the_caller_says() {
        assert_eq!(from(None), Ok(20));
        assert_eq!(from(Some("main:17")), Ok(17));
        assert_eq!(from(Some("17")), Ok(17));
        assert_eq!(from(Some("10")), Ok(10));
        assert_eq!(from(Some("9")), Err((ErrorKind::LogTruncated, 410)));
        assert_eq!(from(Some("other:17")), Err((ErrorKind::LogTruncated, 410)));
        assert_eq!(from(Some("21")), Err((ErrorKind::InvalidInput, 400)));
        assert_eq!(from(Some("main")), Err((ErrorKind::InvalidInput, 400)));
    }

    #[test]
    fn a_truncated_log_names_its_oldest_entry() {
        let failure = start(&logs(), Some("3")).unwrap_err();
        assert_eq!(failure.to_json(None)["oldest"], "11");
    }

    #[test]
    fn an_event_is_one_block() {
        let id: Token = "main:17".parse().unwrap();
        assert_eq!(
            event("put", &id, &json!({"a": "b\nc"})),
            "id: main:17\nevent: put\ndata: {\"a\":\"b\\nc\"}\n\n"
        );
    }
}
