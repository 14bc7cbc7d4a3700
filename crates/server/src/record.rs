//! One record: read, create, put, patch, delete.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{AGE, CACHE_CONTROL, ETAG, HeaderName, HeaderValue, LOCATION};
use hyper::{HeaderMap, StatusCode};
use serde_json::{Value as Json, json};
use tokio::time::Instant;
use unisono::core::write::{Action, Condition, Write, apply_defaults};
use unisono::core::{
    Change, Context, Entity, Error, ErrorKind, Key, Record, Result, Role, Stored,
    json as record_json,
};
use unisono::engine::{Accepted, Answer, CacheStatus, Written};

use crate::app::Call;
use crate::body::{JSON_TYPE, MERGE_PATCH_TYPE};
use crate::problem::Failure;
use crate::reply::{self, HeaderWriter, JSON, Reply, Response};
use crate::request::{self, Known, UNISONO_TOKEN};
use crate::uri;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const UNISONO_SOURCE: HeaderName = HeaderName::from_static("unisono-source");
const UNISONO_ACK: HeaderName = HeaderName::from_static("unisono-ack");
const UNISONO_SERVED_BY: HeaderName = HeaderName::from_static("unisono-served-by");
const UNISONO_FALLBACK: HeaderName = HeaderName::from_static("unisono-fallback");
const UNISONO_RULE: HeaderName = HeaderName::from_static("unisono-rule");
const UNISONO_STALE: HeaderName = HeaderName::from_static("unisono-stale");
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
pub(crate) const TRUE: HeaderValue = HeaderValue::from_static("true");
/// Other caches may keep an answer only if they ask again before each use: they know no tokens.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// `GET /v1/{entity}/{key}`
pub(crate) async fn read(call: &Call<'_>) -> Reply {
    let entity = call.entity()?;
    let key = Key::parse(entity, &call.second)?;
    let meta = call.only_meta()?;
    let known = Known::from_headers(&call.parts.headers)?;
    let answer = call.engine().get(&call.context()?, entity, &key).await?;
    let Some(stored) = &answer.value else { return Err(missing(call, entity, &key, &answer)) };
    let pending = answer.cache == CacheStatus::Pending;
    let mut response = if known.has(stored.version) && !pending {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        let body = if meta { with_meta(entity, stored, &answer) } else { stored.json(entity) };
        let body = if call.is_wrapped() { wrapped(served_by(&answer), &body) } else { body };
        reply::bytes(StatusCode::OK, JSON, body)
    };
    let mut writer = HeaderWriter::new();
    let headers = response.headers_mut();
    // What has no version yet must not be mistaken for a version.
    if !pending {
        writer.set(headers, ETAG, format_args!("\"v{}\"", stored.version));
    }
    describe(&mut writer, headers, &answer, call.started);
    Ok(response)
}

fn missing<T>(call: &Call<'_>, entity: &Entity, key: &Key, answer: &Answer<T>) -> Failure {
    let error = Error::new(ErrorKind::NotFound, "there is no record with this key");
    let mut headers = HeaderMap::new();
    describe(&mut HeaderWriter::new(), &mut headers, answer, call.started);
    Failure::from(error.of(entity.name()).with("key", key)).headers(headers)
}

/// Says where an answer comes from, how old it is and what it cost.
pub(crate) fn describe<T>(
    writer: &mut HeaderWriter,
    headers: &mut HeaderMap,
    answer: &Answer<T>,
    started: Instant,
) {
    headers.insert(CACHE_CONTROL, REVALIDATE);
    writer.set(headers, UNISONO_TOKEN, format_args!("{}", answer.token));
    writer.set(
        headers,
        UNISONO_SOURCE,
        format_args!("{}; role={}", answer.source, answer.role.as_str()),
    );
    headers.insert(UNISONO_SERVED_BY, HeaderValue::from_static(served_by(answer)));
    writer.set(headers, UNISONO_RULE, format_args!("{}", answer.rule));
    match answer.cache {
        CacheStatus::Bypass => {
            headers.insert(CACHE_STATUS, HeaderValue::from_static("unisono; fwd=bypass"));
        }
        CacheStatus::Pending => {
            let pending = HeaderValue::from_static("unisono; fwd=bypass; detail=pending");
            headers.insert(CACHE_STATUS, pending);
        }
        CacheStatus::Hit { ttl, refreshing } => {
            let detail = if refreshing { "; detail=refreshing" } else { "" };
            let hit = format_args!("unisono; hit; ttl={}{detail}", ttl.as_secs());
            writer.set(headers, CACHE_STATUS, hit);
        }
        CacheStatus::Miss { stored, shared } => {
            let stored = if stored { "; stored" } else { "" };
            let shared = if shared { "; collapsed" } else { "" };
            writer.set(headers, CACHE_STATUS, format_args!("unisono; fwd=miss{stored}{shared}"));
        }
    }
    if !answer.failed.is_empty() {
        let failed: Vec<&str> = answer.failed.iter().map(|(source, _)| source.as_ref()).collect();
        writer.set(headers, UNISONO_FALLBACK, format_args!("{}", failed.join(", ")));
    }
    headers.insert(AGE, HeaderValue::from(answer.age.as_secs()));
    timing(writer, headers, started);
    if answer.stale {
        headers.insert(UNISONO_STALE, TRUE);
    }
}

/// What sort of source answered, in the words of people who run one.
pub(crate) fn served_by<T>(answer: &Answer<T>) -> &'static str {
    match (answer.role, answer.replica) {
        (_, true) => "replica",
        (Role::Cache, _) => "cache",
        (Role::Follower, _) => "follower",
        (Role::Truth, _) => PRIMARY,
        // A vault answers no reads.
        (Role::Journal | Role::Vault | Role::Outlet, _) => JOURNAL,
    }
}

/// What decides a write.
const PRIMARY: &str = "primary";
/// What keeps a write until it is decided.
const JOURNAL: &str = "journal";

/// `{"source": "cache", "data": <body>}` without parsing the body again.
fn wrapped(source: &str, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + source.len() + 24);
    out.put_slice(b"{\"source\":\"");
    out.put_slice(source.as_bytes());
    out.put_slice(b"\",\"data\":");
    out.put_slice(body);
    out.put_slice(b"}");
    out.freeze()
}

fn timing(writer: &mut HeaderWriter, headers: &mut HeaderMap, started: Instant) {
    let micros = started.elapsed().as_micros();
    writer.set(
        headers,
        SERVER_TIMING,
        format_args!("total;dur={}.{:03}", micros / 1000, micros % 1000),
    );
}

/// A record with its version, source and age.
pub(crate) fn with_meta<T>(entity: &Entity, stored: &Stored, answer: &Answer<T>) -> Bytes {
    let record = stored.json(entity);
    let pending = answer.cache == CacheStatus::Pending;
    let version = (!pending).then_some(stored.version);
    let mut meta = json!({
        "version": version, "source": answer.source, "age": answer.age.as_secs_f64(), "stale": answer.stale,
    });
    if pending && let Json::Object(members) = &mut meta {
        members.insert("pending".into(), json!(true));
    }
    beside(&record, &meta.to_string())
}

/// `{"record": <record>, <the members of meta>}` without parsing either again.
pub(crate) fn beside(record: &[u8], meta: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(record.len() + meta.len() + 16);
    out.put_slice(b"{\"record\":");
    out.put_slice(record);
    out.put_slice(b",");
    out.put_slice(meta.get(1..).unwrap_or("}").as_bytes());
    out.freeze()
}

/// `PUT /v1/{entity}/{key}`
pub(crate) async fn put(call: &Call<'_>, body: Incoming) -> Reply {
    let entity = call.entity()?;
    let key = Key::parse(entity, &call.second)?;
    let meta = call.only_meta()?;
    let condition = request::condition(&call.parts.headers)?;
    let json = call.json(body, &[JSON_TYPE]).await?;
    let context = call.write_context(&json)?;
    let mut record = record_json::parse(entity, &json)?;
    let index = entity.key_index();
    if let Some(value) = record.values_mut().get_mut(index).filter(|v| v.is_null()) {
        *value = key.to_value();
    }
    if entity.key_of(&record)? != key {
        return Err(Error::invalid("the key in the body is not the key in the path")
            .of(entity.name())
            .with("field", &entity.key_field().name)
            .into());
    }
    apply_defaults(entity, &mut record);
    let action = Action::Put(record);
    let written =
        write(call, &context, Write { entity: Arc::clone(entity), key, action, condition }).await?;
    let created = written.changes.first().is_some_and(|c| c.replaced.is_none());
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    finish(call, entity, &written, status, meta)
}

/// `POST /v1/{entity}`
pub(crate) async fn create(call: &Call<'_>, body: Incoming) -> Reply {
    let entity = call.entity()?;
    let meta = call.only_meta()?;
    if request::condition(&call.parts.headers)? != Condition::None {
        return Err(Error::invalid(
            "a create has no condition of its own; it never replaces a record",
        )
        .hint("leave If-Match and If-None-Match out, or use PUT")
        .into());
    }
    let json = call.json(body, &[JSON_TYPE]).await?;
    let context = call.write_context(&json)?;
    let mut record = record_json::parse(entity, &json)?;
    apply_defaults(entity, &mut record);
    let key = ensure_key(call, entity, &mut record)?;
    let action = Action::Put(record);
    let condition = Condition::Absent;
    let written =
        write(call, &context, Write { entity: Arc::clone(entity), key, action, condition }).await?;
    let mut response = finish(call, entity, &written, StatusCode::CREATED, meta)?;
    // A repeated request has made no record of its own; the place is that of the first one's.
    let accepted = written.accepted.as_ref().map(|accepted| &accepted.key);
    if let Some(key) = written.changes.first().map(|change| &change.key).or(accepted) {
        let key = uri::encode(&key.to_string());
        let (writer, headers) = (&mut HeaderWriter::new(), response.headers_mut());
        match call.route {
            Some(route) => writer.set(headers, LOCATION, format_args!("{}/{key}", route.path)),
            None => writer.set(headers, LOCATION, format_args!("/v1/{}/{key}", entity.name())),
        }
    }
    Ok(response)
}

/// The key of a new record, made if it has none.
fn ensure_key(call: &Call<'_>, entity: &Entity, record: &mut Record) -> Result<Key> {
    if let Some(slot) = record.values_mut().get_mut(entity.key_index()).filter(|v| v.is_null()) {
        *slot = call.engine().new_key(entity)?.to_value();
    }
    entity.key_of(record)
}

/// `PATCH /v1/{entity}/{key}`
pub(crate) async fn patch(call: &Call<'_>, body: Incoming) -> Reply {
    let entity = call.entity()?;
    let key = Key::parse(entity, &call.second)?;
    let meta = call.only_meta()?;
    let condition = request::condition(&call.parts.headers)?;
    let json = call.json(body, &[MERGE_PATCH_TYPE, JSON_TYPE]).await?;
    let context = call.write_context(&json)?;
    let action = Action::Patch(json);
    let written =
        write(call, &context, Write { entity: Arc::clone(entity), key, action, condition }).await?;
    finish(call, entity, &written, StatusCode::OK, meta)
}

/// `DELETE /v1/{entity}/{key}`
pub(crate) async fn delete(call: &Call<'_>) -> Reply {
    let entity = call.entity()?;
    let key = Key::parse(entity, &call.second)?;
    call.known_parameters([])?;
    let condition = request::condition(&call.parts.headers)?;
    let context = call.write_context(&Json::Null)?;
    let action = Action::Delete;
    let written =
        write(call, &context, Write { entity: Arc::clone(entity), key, action, condition }).await?;
    let mut response = match &written.accepted {
        Some(accepted) => waiting(accepted)?,
        None => reply::empty(StatusCode::NO_CONTENT),
    };
    describe_write(call, entity, &written, &mut response);
    Ok(response)
}

async fn write(call: &Call<'_>, context: &Context, write: Write) -> Result<Written> {
    call.engine().write(context, vec![write]).await
}

/// The answer to a write: the record as it is now, unless the caller prefers nothing.
fn finish(
    call: &Call<'_>,
    entity: &Entity,
    written: &Written,
    status: StatusCode,
    meta: bool,
) -> Reply {
    if let Some(accepted) = &written.accepted {
        let mut response = waiting(accepted)?;
        describe_write(call, entity, written, &mut response);
        return Ok(response);
    }
    let change =
        written.changes.first().ok_or_else(|| Error::internal("a write without a change"))?;
    let minimal = request::wants_minimal(&call.parts.headers)?;
    let mut response = match &change.image {
        Some(image) if !minimal => {
            let record = record_json::to_vec(entity, image);
            let body =
                if meta { written_meta(call, entity, change, &record) } else { record.into() };
            let body = if call.is_wrapped() { wrapped(PRIMARY, &body) } else { body };
            reply::bytes(status, JSON, body)
        }
        _ if status == StatusCode::CREATED => reply::empty(status),
        _ => reply::empty(StatusCode::NO_CONTENT),
    };
    describe_write(call, entity, written, &mut response);
    let headers = response.headers_mut();
    HeaderWriter::new().set(headers, ETAG, format_args!("\"v{}\"", change.position));
    if minimal {
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("return=minimal"));
    }
    Ok(response)
}

/// The answer to a write that waits: what it is, and where it waits. Whether it takes place is not known yet.
fn waiting(accepted: &Accepted) -> Reply {
    reply::json(StatusCode::ACCEPTED, &accepted_json(accepted))
}

/// A write that waits in a journal.
pub(crate) fn accepted_json(accepted: &Accepted) -> Json {
    let Accepted { journal, key, sequence } = accepted;
    json!({ "key": key, "state": "pending", "journal": journal, "sequence": sequence.to_string() })
}

fn written_meta(call: &Call<'_>, entity: &Entity, change: &Change, record: &[u8]) -> Bytes {
    let meta = json!({ "version": change.position, "source": truth(call, entity), "age": 0.0, "stale": false });
    beside(record, &meta.to_string())
}

fn describe_write(call: &Call<'_>, entity: &Entity, written: &Written, response: &mut Response) {
    let (mut writer, headers) = (HeaderWriter::new(), response.headers_mut());
    writer.set(headers, UNISONO_TOKEN, format_args!("{}", written.token));
    let (source, role, served_by) = match &written.accepted {
        Some(accepted) => (Some(Arc::clone(&accepted.journal)), Role::Journal, JOURNAL),
        None => (truth(call, entity), Role::Truth, PRIMARY),
    };
    if let Some(source) = source {
        writer.set(headers, UNISONO_SOURCE, format_args!("{source}; role={}", role.as_str()));
    }
    if let Some(ack) = written.acknowledged.get(entity.name()) {
        writer.set(headers, UNISONO_ACK, format_args!("{ack}"));
    }
    headers.insert(UNISONO_SERVED_BY, HeaderValue::from_static(served_by));
    timing(&mut writer, headers, call.started);
    mark_replayed(headers, written.replayed);
}

/// Says that a write had taken place before.
pub(crate) fn mark_replayed(headers: &mut HeaderMap, replayed: bool) {
    if replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, TRUE);
    }
}

fn truth(call: &Call<'_>, entity: &Entity) -> Option<Arc<str>> {
    call.engine().declaration().entities.get(entity.name()).map(|e| Arc::clone(&e.truth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_wrapped_without_being_parsed() {
        let wrapped = beside(br#"{"id":"1"}"#, r#"{"version":"7"}"#);
        assert_eq!(wrapped, r#"{"record":{"id":"1"},"version":"7"}"#);
        let in_envelope = super::wrapped("cache", br#"{"id":"1"}"#);
        assert_eq!(in_envelope, r#"{"source":"cache","data":{"id":"1"}}"#);
    }
}
