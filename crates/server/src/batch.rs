//! Many writes at once: all or nothing, or each for itself with an answer of its own.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Incoming;
use serde_json::{Map, Value as Json, json};
use unisono::core::write::{Action, Write, apply_defaults};
use unisono::core::{
    Context, Entity, Error, ErrorKind, Key, Operation, Result, Token, json as record_json,
};
use unisono::engine::Written;

use crate::app::Call;
use crate::body::JSON_TYPE;
use crate::problem::Failure;
use crate::record::{accepted_json, mark_replayed};
use crate::reply::{self, HeaderWriter, Reply};
use crate::request::{UNISONO_TOKEN, condition_of};

/// The most operations of one batch.
const OPERATIONS_MAX: usize = 10_000;

/// `POST /v1/{entity}/_batch`
pub(crate) async fn batch(call: &Call<'_>, body: Incoming) -> Reply {
    let entity = call.entity()?;
    call.known_parameters([])?;
    let body = call.json(body, &[JSON_TYPE]).await?;
    let context = call.write_context(&body)?;
    let (atomic, operations) = envelope(&body)?;
    if !atomic && context.idempotency_key.is_some() {
        let error = Error::invalid("an idempotency key needs an atomic batch");
        return Err(error.with("header", "Idempotency-Key").hint("send \"atomic\": true").into());
    }
    if atomic {
        together(call, &context, entity, operations).await
    } else {
        apart(call, &context, entity, operations).await
    }
}

async fn together(
    call: &Call<'_>,
    context: &Context,
    entity: &Arc<Entity>,
    operations: &[Json],
) -> Reply {
    let mut writes = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        let write = parse(entity, operation);
        writes.push(write.map_err(|e| Failure::from(e).member("index", index))?);
    }
    if writes.is_empty() {
        return respond(Vec::new(), &Token::default(), false);
    }
    let keys: Vec<Key> = writes.iter().map(|w| w.key.clone()).collect();
    let written = call.engine().write(context, writes).await;
    let written = written.map_err(|error| with_index(error, &keys))?;
    respond(done(&written), &written.token, written.replayed)
}

async fn apart(
    call: &Call<'_>,
    context: &Context,
    entity: &Arc<Entity>,
    operations: &[Json],
) -> Reply {
    let (mut refusals, mut writes) = (Vec::with_capacity(operations.len()), Vec::new());
    for operation in operations {
        match parse(entity, operation) {
            Ok(write) => {
                writes.push(write);
                refusals.push(None);
            }
            Err(error) => refusals.push(Some(error)),
        }
    }
    let mut written = match writes.is_empty() {
        true => Vec::new(),
        false => call.engine().write_each(context, writes).await,
    }
    .into_iter();
    let (mut items, mut token) = (Vec::with_capacity(operations.len()), Token::default());
    for refusal in refusals {
        let outcome = match refusal {
            Some(error) => Err(error),
            None => {
                written.next().unwrap_or_else(|| Err(Error::internal("a write has no outcome")))
            }
        };
        items.push(match outcome {
            Ok(written) => {
                token.merge(&written.token);
                done(&written).pop().unwrap_or(Json::Null)
            }
            Err(error) => refused(error.into()),
        });
    }
    respond(items, &token, false)
}

/// Says which operation of a unit failed, where its key tells: a unit's error is about one record.
fn with_index(error: Error, keys: &[Key]) -> Failure {
    let key = error.detail("key").unwrap_or_default().to_owned();
    let mut of_key = keys.iter().enumerate().filter(|(_, k)| k.to_string() == key);
    match (of_key.next(), of_key.next()) {
        (Some((index, _)), None) => Failure::from(error).member("index", index),
        _ => error.into(),
    }
}

fn respond(items: Vec<Json>, token: &Token, replayed: bool) -> Reply {
    let failed = items.iter().any(|item| item.get("error").is_some());
    let status = if failed { StatusCode::MULTI_STATUS } else { StatusCode::OK };
    let mut response = reply::json(status, &json!({ "items": items, "token": token.to_string() }))?;
    if !token.is_empty() {
        HeaderWriter::new().set(response.headers_mut(), UNISONO_TOKEN, format_args!("{token}"));
    }
    mark_replayed(response.headers_mut(), replayed);
    Ok(response)
}

/// One item for each write of a unit.
fn done(written: &Written) -> Vec<Json> {
    let accepted = written.accepted.iter().map(|accepted| {
        let mut item = accepted_json(accepted);
        if let Json::Object(members) = &mut item {
            members.insert("status".into(), json!(StatusCode::ACCEPTED.as_u16()));
        }
        item
    });
    let changed = written.changes.iter().map(|change| {
        let status = match change.operation {
            Operation::Put if change.replaced.is_none() => StatusCode::CREATED,
            Operation::Put => StatusCode::OK,
            Operation::Delete => StatusCode::NO_CONTENT,
        };
        json!({ "status": status.as_u16(), "key": change.key, "version": change.position })
    });
    accepted.chain(changed).collect()
}

fn refused(failure: Failure) -> Json {
    if failure.status().is_server_error() {
        tracing::warn!(error = ?failure.error(), "an item of a batch failed");
    }
    json!({ "status": failure.status().as_u16(), "error": failure.to_json(None) })
}

fn envelope(body: &Json) -> Result<(bool, &[Json])> {
    let wrong = |field: &str, message: &'static str| Error::invalid(message).with("field", field);
    let Json::Object(map) = body else {
        return Err(Error::invalid("a batch is a JSON object")
            .hint(r#"{"atomic": false, "operations": […]}"#));
    };
    if let Some(name) = map.keys().find(|name| !matches!(name.as_str(), "atomic" | "operations")) {
        return Err(wrong(name, "is not known").hint("a batch has `atomic` and `operations`"));
    }
    let atomic = match map.get("atomic") {
        None | Some(Json::Bool(false)) => false,
        Some(Json::Bool(true)) => true,
        Some(_) => return Err(wrong("atomic", "is true or false")),
    };
    let Some(Json::Array(operations)) = map.get("operations") else {
        return Err(wrong("operations", "is a list of operations"));
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(Error::new(ErrorKind::LimitExceeded, "has too many operations")
            .with("field", "operations")
            .with("limit", OPERATIONS_MAX));
    }
    Ok((atomic, operations))
}

/// One operation: exactly one of `put`, `patch` and `delete`, and its conditions.
fn parse(entity: &Arc<Entity>, operation: &Json) -> Result<Write> {
    let usage = |message: &'static str| {
        Error::invalid(message)
            .of(entity.name())
            .hint(r#"{"put": {…}}, {"patch": {…}} or {"delete": "key"}"#)
    };
    let Json::Object(map) = operation else { return Err(usage("an operation is a JSON object")) };
    let known = |name: &&String| {
        !matches!(name.as_str(), "put" | "patch" | "delete" | "if_match" | "if_none_match")
    };
    if let Some(name) = map.keys().find(known) {
        return Err(usage("an operation has a member that is not known").with("member", name));
    }
    let condition = condition_of(text(map, "if_match")?, text(map, "if_none_match")?)?;
    let (key, action) = match (map.get("put"), map.get("patch"), map.get("delete")) {
        (Some(json), None, None) => {
            let mut record = record_json::parse(entity, json)?;
            apply_defaults(entity, &mut record);
            // The truth checks this too; here the place in the batch is known.
            entity.check(&record)?;
            (entity.key_of(&record)?, Action::Put(record))
        }
        (None, Some(json), None) => (
            key_of(entity, json.get(entity.key_field().name.as_ref()))?,
            Action::Patch(json.clone()),
        ),
        (None, None, Some(json)) => (key_of(entity, Some(json))?, Action::Delete),
        _ => return Err(usage("an operation is exactly one of put, patch and delete")),
    };
    Ok(Write { entity: Arc::clone(entity), key, action, condition })
}

fn key_of(entity: &Entity, json: Option<&Json>) -> Result<Key> {
    let wrong = |e: Error| e.of(entity.name()).with("field", &entity.key_field().name);
    let key = match json {
        None => Err(Error::invalid("key is missing")),
        Some(Json::String(text)) => Key::parse(entity, text),
        Some(json) => {
            record_json::parse_value(&entity.key_field().ty, json).and_then(|v| Key::from_value(&v))
        }
    };
    key.map_err(wrong)
}

fn text<'a>(map: &'a Map<String, Json>, name: &'static str) -> Result<Option<&'a str>> {
    match map.get(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::invalid("is text such as \"\\\"v17\\\"\"").with("field", name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono::core::write::Condition;
    use unisono::core::{Field, FieldType, Value};

    fn entity() -> Arc<Entity> {
        let status = Field {
            default: Some(Value::String("open".into())),
            ..Field::new("status", FieldType::String)
        };
        Arc::new(
            Entity::new("order", "id", vec![Field::new("id", FieldType::Integer), status]).unwrap(),
        )
    }

    #[test]
    fn operations_are_read_with_their_conditions() {
        let e = entity();
        let put = parse(&e, &json!({"put": {"id": 1}, "if_none_match": "*"})).unwrap();
        assert_eq!((put.key, put.condition), (Key::Integer(1), Condition::Version(None)));
        assert!(
            matches!(put.action, Action::Put(r) if r.values()[1] == Value::String("open".into()))
        );
        let patch =
            parse(&e, &json!({"patch": {"id": 2, "status": "x"}, "if_match": "*"})).unwrap();
        assert_eq!((patch.key, patch.condition), (Key::Integer(2), Condition::Present));
        for key in [json!("3"), json!(3)] {
            let delete = parse(&e, &json!({"delete": key})).unwrap();
            assert_eq!(delete.key, Key::Integer(3));
        }
    }

    #[test]
    fn malformed_operations_and_envelopes_are_refused() {
        let e = entity();
        for json in [
            json!(1),
            json!({}),
            json!({"put": {"id": 1}, "delete": "1"}),
            json!({"put": {}}),
            json!({"put": {"id": "x"}}),
            json!({"patch": {"status": "x"}}),
            json!({"delete": null}),
            json!({"delete": "x"}),
            json!({"upsert": {"id": 1}}),
            json!({"delete": 1, "if_match": 17}),
            json!({"delete": 1, "if_match": "17"}),
        ] {
            assert_eq!(parse(&e, &json).unwrap_err().kind(), ErrorKind::InvalidInput, "{json}");
        }
        for json in [
            json!([]),
            json!({}),
            json!({"operations": {}}),
            json!({"operations": [], "atomic": 1}),
            json!({"ops": []}),
        ] {
            assert!(envelope(&json).is_err(), "{json}");
        }
        let many = json!({ "operations": vec![0; OPERATIONS_MAX + 1] });
        assert_eq!(envelope(&many).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn one_refusal_makes_the_answer_mixed() {
        let status = |items| respond(items, &Token::default(), false).unwrap().status();
        assert_eq!(status(vec![json!({"status": 200})]), StatusCode::OK);
        assert_eq!(status(vec![refused(Error::invalid("x").into())]), StatusCode::MULTI_STATUS);
    }
}
