//! Streams of events: append, read, follow, close, limit. Plain JSON or CloudEvents, as the caller asks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use tokio::sync::OwnedSemaphorePermit;
use unisono::core::stream::{Event, Expected, NewEvent, from_cloud, to_cloud};
use unisono::core::{Context, Error, Position, Result, Token};
use unisono::engine::stream::{Appending, EventsPage, Excerpt, Limits, Sought};

use crate::app::{Call, Phase, Shared, flag};
use crate::auth::Principal;
use crate::body::JSON_TYPE;
use crate::dispatch::busy;
use crate::problem::Failure;
use crate::record::{IDEMPOTENCY_REPLAYED, TRUE, describe};
use crate::reply::{self, Body, HeaderWriter, Reply, Response};
use crate::request::{self, UNISONO_TOKEN};

/// The media types of one CloudEvent, and of a list of them.
const CLOUD: &str = "application/cloudevents+json";
const CLOUDS: &str = "application/cloudevents-batch+json";
const EVENTS: &str = "text/event-stream";
/// What a CloudEvent has no place for comes in headers.
const EXPECTED_REVISION: HeaderName = HeaderName::from_static("expected-revision");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long a silent stream stays silent, so that both ends notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
const LIMIT_MAX: usize = 1000;

/// `POST /v1/streams/{type}/{stream}`
pub(crate) async fn append(call: &Call<'_>, body: Incoming) -> Reply {
    call.known_parameters([])?;
    let headers = &call.parts.headers;
    let given = request::text(headers, CONTENT_TYPE)?.unwrap_or_default().to_lowercase();
    let json = call.json(body, &[JSON_TYPE, CLOUD, CLOUDS]).await?;
    let clouds: Option<Vec<&Json>> = match (given.starts_with(CLOUDS), given.starts_with(CLOUD)) {
        (true, _) => match &json {
            Json::Array(all) => Some(all.iter().collect()),
            _ => return Err(Error::invalid("a batch of CloudEvents is a list").into()),
        },
        (_, true) => Some(vec![&json]),
        _ => None,
    };
    let mut appending = match clouds {
        None => Appending::from_json(&call.second, &json)?,
        Some(clouds) => {
            let event = |(n, cloud)| from_cloud(cloud).map_err(|e: Error| e.with("event", n));
            let events =
                clouds.into_iter().enumerate().map(event).collect::<Result<Vec<NewEvent>>>()?;
            Appending::to(call.second.as_ref(), events)
        }
    };
    if let Some(text) = request::text(headers, EXPECTED_REVISION)? {
        appending.expected = Expected::parse(text.trim())?;
    }
    let context = call.write_context(&json)?;
    let appended = call.engine().append(&context, &call.first, appending).await?;
    let status = if appended.replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = reply::json(status, &appended.to_json())?;
    let headers = response.headers_mut();
    HeaderWriter::new().set(headers, UNISONO_TOKEN, format_args!("{}", appended.token));
    if appended.replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, TRUE);
    }
    Ok(response)
}

/// `GET /v1/streams/{type}/{stream}`
pub(crate) async fn read(call: &Call<'_>) -> Reply {
    if request::accepts(&call.parts.headers, EVENTS) {
        return follow(call).await;
    }
    let [from, direction, limit] = call.known_parameters(["from", "direction", "limit"])?;
    let bad = |parameter: &'static str, what: &'static str| {
        Error::invalid(what).with("parameter", parameter)
    };
    let number =
        |text: String| text.parse().map_err(|_| bad("from", "from is a revision: a number from 1"));
    let excerpt = Excerpt {
        from: from.map(number).transpose()?,
        backward: backward(direction.as_deref())?,
        limit: limit_of(limit.as_deref())?,
    };
    let answer =
        call.engine().read_stream(&call.context()?, &call.first, &call.second, excerpt).await?;
    let page = &answer.value;
    let mut response = events(
        call,
        &page.events,
        |items| json!({ "stream": call.second, "archived": page.archived, "items": items, "next": page.next }),
    )?;
    describe(&mut HeaderWriter::new(), response.headers_mut(), &answer, call.started);
    Ok(response)
}

/// `GET /v1/streams/{type}`
pub(crate) async fn list(call: &Call<'_>) -> Reply {
    if request::accepts(&call.parts.headers, EVENTS) {
        return follow(call).await;
    }
    let [after, direction, kind, tag, limit] =
        call.known_parameters(["after", "direction", "type", "tag", "limit"])?;
    let sought = Sought {
        after: after.map(|text| text.parse()).transpose()?,
        backward: backward(direction.as_deref())?,
        kind,
        tag,
        limit: limit_of(limit.as_deref())?,
        ..Sought::default()
    };
    let answer = call.engine().read_events(&call.context()?, &call.first, &sought).await?;
    let EventsPage { events: found, next, through } = &answer.value;
    let mut response =
        events(call, found, |items| json!({ "items": items, "next": next, "position": through }))?;
    describe(&mut HeaderWriter::new(), response.headers_mut(), &answer, call.started);
    Ok(response)
}

/// `DELETE /v1/streams/{type}/{stream}`
pub(crate) async fn delete(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    let token = call.engine().delete_stream(&call.context()?, &call.first, &call.second).await?;
    Ok(done(&token))
}

/// `POST /v1/streams/{type}/{stream}/_archive`
pub(crate) async fn archive(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    let token = call.engine().archive_stream(&call.context()?, &call.first, &call.second).await?;
    Ok(done(&token))
}

/// `GET /v1/streams/{type}/{stream}/_metadata`
pub(crate) async fn limits(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    let limits = call.engine().stream_limits(&call.context()?, &call.first, &call.second).await?;
    reply::json(StatusCode::OK, &limits.to_json())
}

/// `PUT /v1/streams/{type}/{stream}/_metadata`
pub(crate) async fn limit(call: &Call<'_>, body: Incoming) -> Reply {
    call.known_parameters([])?;
    let limits = Limits::from_json(&call.json(body, &[JSON_TYPE]).await?)?;
    let context = call.context()?;
    let token = call.engine().limit_stream(&context, &call.first, &call.second, &limits).await?;
    let mut response = reply::json(StatusCode::OK, &limits.to_json())?;
    HeaderWriter::new().set(response.headers_mut(), UNISONO_TOKEN, format_args!("{token}"));
    Ok(response)
}

fn done(token: &Token) -> Response {
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    HeaderWriter::new().set(response.headers_mut(), UNISONO_TOKEN, format_args!("{token}"));
    response
}

fn backward(direction: Option<&str>) -> Result<bool> {
    match direction {
        None | Some("forward") => Ok(false),
        Some("backward") => Ok(true),
        Some(_) => {
            Err(Error::invalid("direction is forward or backward").with("parameter", "direction"))
        }
    }
}

fn limit_of(text: Option<&str>) -> Result<usize> {
    let Some(text) = text else { return Ok(100) };
    let limit = text.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n));
    limit.ok_or_else(|| {
        Error::invalid("limit is a number from 1 to 1000").with("parameter", "limit")
    })
}

/// Events as the caller wants them: in a page of our own, or as a batch of CloudEvents.
fn events(call: &Call<'_>, found: &[Event], page: impl FnOnce(Vec<Json>) -> Json) -> Reply {
    let headers = &call.parts.headers;
    if request::accepts(headers, CLOUDS) || request::accepts(headers, CLOUD) {
        let all: Vec<Json> = found.iter().map(|event| to_cloud(event, &call.first)).collect();
        let mut response = reply::json(StatusCode::OK, &all)?;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CLOUDS));
        return Ok(response);
    }
    reply::json(StatusCode::OK, &page(found.iter().map(Event::to_json).collect()))
}

/// `GET /v1/streams/{type}/_subscribe`, and the other reads when they are asked for server-sent events.
pub(crate) async fn follow(call: &Call<'_>) -> Reply {
    let [after, kind, tag, stream, now] =
        call.known_parameters(["after", "type", "tag", "stream", "now"])?;
    let stream = Some(call.second.to_string()).filter(|name| !name.is_empty()).or(stream);
    // The type must be one before anything is promised.
    call.engine().stream(&call.first)?;
    let last = request::text(&call.parts.headers, LAST_EVENT_ID)?.map(|id| id.trim().to_owned());
    let context = call.context()?;
    let after = match last.filter(|id| !id.is_empty()).or(after) {
        Some(text) => text.parse()?,
        None if flag("now", now.as_deref())? => {
            let newest = Sought { backward: true, limit: 1, ..Sought::default() };
            let newest = call.engine().read_events(&context, &call.first, &newest).await?.value;
            newest.events.first().map_or(Position::ZERO, |event| event.position)
        }
        None => Position::ZERO,
    };
    let sought =
        Sought { after: Some(after), kind, tag, stream, limit: LIMIT_MAX, backward: false };
    let permit =
        Arc::clone(&call.shared.streams).try_acquire_owned().map_err(|_| busy("streams"))?;
    let follower = Following {
        shared: Arc::clone(call.shared),
        principal: Arc::clone(call.principal),
        context,
        ty: call.first.to_string(),
        cloud: request::accepts(&call.parts.headers, CLOUD),
        sought,
        failed: false,
        _permit: permit,
    };
    let mut phase = call.shared.phase.clone();
    let closing = async move {
        // A closed channel means that the server is gone, which ends the stream as well.
        let _ = phase.wait_for(|p| *p != Phase::Serving).await;
    };
    // The first bytes go out at once: they tell the caller that it is connected, and where.
    let hello = stream::once(std::future::ready(Bytes::from(heartbeat(after))));
    let body = hello.chain(follower.pieces()).take_until(Box::pin(closing));
    let mut response = Response::new(Body::Stream(Box::pin(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENTS));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// One caller that follows the events of a type of streams.
struct Following {
    shared: Arc<Shared>,
    principal: Arc<Principal>,
    context: Context,
    ty: String,
    cloud: bool,
    sought: Sought,
    failed: bool,
    _permit: OwnedSemaphorePermit,
}

impl Following {
    /// The text piece by piece; ends with the token of the caller, or with a failure that it is told.
    fn pieces(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut this| async move {
            let engine = &this.shared.app.engine;
            if this.failed || this.principal.is_expired(engine.runtime().now()) {
                return None;
            }
            let read = engine.follow_events(&this.context, &this.ty, &this.sought, HEARTBEAT).await;
            let text = match read {
                Ok(page) => {
                    this.sought.after = Some(page.through);
                    match page.events.is_empty() {
                        true => heartbeat(page.through),
                        false => page.events.iter().map(|event| this.event(event)).collect(),
                    }
                }
                Err(error) => {
                    this.failed = true;
                    tracing::warn!(%error, "a stream of events failed");
                    let at = this.sought.after.unwrap_or_default();
                    format!(
                        "id: {at}\nevent: error\ndata: {}\n\n",
                        Failure::from(error).to_json(None)
                    )
                }
            };
            Some((Bytes::from(text), this))
        })
    }

    /// One server-sent event. JSON has no line breaks, so the data is one line; the id is where to go on from.
    fn event(&self, event: &Event) -> String {
        let data = if self.cloud { to_cloud(event, &self.ty) } else { event.to_json() };
        let name = event.kind.replace(['\r', '\n'], " ");
        format!("id: {}\nevent: {name}\ndata: {data}\n\n", event.position)
    }
}

fn heartbeat(at: Position) -> String {
    format!(": heartbeat\nid: {at}\n\n")
}
