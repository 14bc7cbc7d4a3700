//! Projections: their versions for operators, and their rows as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use tokio::sync::OwnedSemaphorePermit;
use unisono::core::json::to_json;
use unisono::core::{Entity, Error, LogName, Position, Result, Token};
use unisono::engine::{RowsChanged, RowsFollowed};

use crate::app::{Call, Phase, Shared};
use crate::auth::Principal;
use crate::dispatch::busy;
use crate::problem::Failure;
use crate::reply::{self, Body, Reply, Response};
use crate::request;

/// How long a silent stream stays silent, so that both ends notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// `GET /admin/v1/projections`
pub(crate) async fn list(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    let mut all = call.engine().projections().await;
    all.retain(|projection| call.principal.covers(&projection.name));
    reply::json(StatusCode::OK, &json!({ "items": all }))
}

/// `GET /admin/v1/projections/{projection}`
pub(crate) async fn show(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    let found = call.engine().projection(&call.first).await?;
    reply::json(StatusCode::OK, &json!(found))
}

/// `POST /admin/v1/projections/{projection}/rebuild`
pub(crate) async fn rebuild(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    let begun = call.operator().rebuild_projection(&call.first).await?;
    reply::json(StatusCode::ACCEPTED, &json!(begun))
}

/// `POST /admin/v1/projections/{projection}/back`
pub(crate) async fn back(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    let found = call.operator().projection_back(&call.first).await?;
    reply::json(StatusCode::OK, &json!(found))
}

/// `POST /admin/v1/projections/{projection}/discard`
pub(crate) async fn discard(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    let begun = call.operator().discard_projection(&call.first).await?;
    reply::json(StatusCode::ACCEPTED, &json!(begun))
}

/// `GET /v1/projections/{projection}/_changes`
pub(crate) async fn follow(call: &Call<'_>) -> Reply {
    let [after] = call.known_parameters(["after"])?;
    let rows = Arc::clone(call.entity()?);
    let last = request::text(&call.parts.headers, LAST_EVENT_ID)?.map(|id| id.trim().to_owned());
    let after = last.filter(|id| !id.is_empty()).or(after);
    let log = call.engine().log_of(&call.first)?;
    let after = after.map(|text| position(&text, &log)).transpose()?;
    let followed = call.engine().follow_rows(&call.first, after).await?;
    let permit =
        Arc::clone(&call.shared.streams).try_acquire_owned().map_err(|_| busy("streams"))?;
    let follower = Following {
        shared: Arc::clone(call.shared),
        principal: Arc::clone(call.principal),
        rows,
        followed,
        failed: false,
        _permit: permit,
    };
    let mut phase = call.shared.phase.clone();
    let closing = async move {
        // A closed channel means that the server is gone, which ends the stream as well.
        let _ = phase.wait_for(|p| *p != Phase::Serving).await;
    };
    // The first bytes go out at once: they tell the caller that it is connected.
    let hello = stream::once(std::future::ready(Bytes::from(": heartbeat\n\n")));
    let body = hello.chain(follower.pieces()).take_until(Box::pin(closing));
    let mut response = Response::new(Body::Stream(Box::pin(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A position of a log: by itself, or as a token.
fn position(text: &str, log: &LogName) -> Result<Position> {
    match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse(),
        false => {
            let position = text.parse::<Token>()?.position(log);
            match position {
                Position::ZERO => Err(Error::invalid("the token says nothing of the log")
                    .with("log", log)
                    .hint("send the id of an event of this stream, or the token of a write")),
                position => Ok(position),
            }
        }
    }
}

/// One caller that follows the rows of a projection.
struct Following {
    shared: Arc<Shared>,
    principal: Arc<Principal>,
    rows: Arc<Entity>,
    followed: RowsFollowed,
    failed: bool,
    _permit: OwnedSemaphorePermit,
}

impl Following {
    /// The text step by step; ends with the token of the caller, or with a failure that it is told.
    fn pieces(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut this| async move {
            let now = this.shared.app.engine.runtime().now();
            if this.failed || this.principal.is_expired(now) {
                return None;
            }
            let text = match this.followed.next(HEARTBEAT).await {
                Ok(Some(step)) => events(&this.rows, this.followed.log(), &step),
                Ok(None) => ": heartbeat\n\n".to_owned(),
                Err(error) => {
                    this.failed = true;
                    tracing::warn!(%error, "a stream of rows failed");
                    format!("event: error\ndata: {}\n\n", Failure::from(error).to_json(None))
                }
            };
            Some((Bytes::from(text), this))
        })
    }
}

/// A step as events. Its last one has the id: who lost the connection before has not seen all of the step, and is given it
/// again. JSON has no line breaks, so the data is one line.
fn events(rows: &Entity, log: &LogName, step: &RowsChanged) -> String {
    let mut all: Vec<(&str, Json)> = Vec::with_capacity(step.rows.len() + 1);
    if step.anew {
        all.push(("anew", json!({ "rows": step.rows.len(), "position": step.position })));
    }
    all.extend(step.rows.iter().map(|(key, row)| match row {
        Some(row) => ("row", to_json(rows, row)),
        None => ("gone", json!({ &*rows.key_field().name: key.to_string() })),
    }));
    let last = all.len().saturating_sub(1);
    let event = |(n, (name, data)): (usize, (&str, Json))| match n == last {
        true => format!("id: {log}:{}\nevent: {name}\ndata: {data}\n\n", step.position),
        false => format!("event: {name}\ndata: {data}\n\n"),
    };
    all.into_iter().enumerate().map(event).collect()
}

#[cfg(test)]
mod tests {
    use unisono::core::{Field, FieldType, Key, Record, Value};

    use super::*;

    #[test]
    fn a_step_is_some_events_of_which_the_last_has_the_id() {
        let fields = vec![
            Field::new("product_id", FieldType::String),
            Field::new("sold", FieldType::Integer),
        ];
        let rows = Entity::derived("sales", "product_id", fields).unwrap();
        let row = |key: &str, sold| {
            let values = vec![Value::String(key.into()), Value::Integer(sold)];
            (Key::from_text(key).unwrap(), Some(Arc::new(Record::new(values))))
        };
        let log = LogName::of(&"main".into());
        let position = Position::new(17).unwrap();
        let gone = (Key::from_text("c").unwrap(), None);
        let step = RowsChanged { position, anew: false, rows: vec![row("a", 1), gone] };
        assert_eq!(
            events(&rows, &log, &step),
            "event: row\ndata: {\"product_id\":\"a\",\"sold\":1}\n\n\
             id: main:17\nevent: gone\ndata: {\"product_id\":\"c\"}\n\n"
        );
        let nothing = RowsChanged { position, anew: true, rows: Vec::new() };
        assert_eq!(
            events(&rows, &log, &nothing),
            "id: main:17\nevent: anew\ndata: {\"position\":\"17\",\"rows\":0}\n\n"
        );
    }

    #[test]
    fn a_place_to_go_on_from_is_a_position_or_a_token_of_the_log() {
        let log = LogName::of(&"main".into());
        assert_eq!(position("17", &log).unwrap().as_u64(), 17);
        assert_eq!(position("main:17", &log).unwrap().as_u64(), 17);
        assert!(position("other:17", &log).is_err());
        assert!(position("yesterday", &log).is_err());
    }
}
