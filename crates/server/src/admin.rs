//! Operation: status, verification, backfill, dead letters, decisions, configuration and its reload.

use std::error::Error as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use hyper::header::HeaderValue;
use serde::{Deserialize as _, Serialize};
use serde_json::{Map, Value as Json, json};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use unisono::Registry;
use unisono::config::{Access, Problems};
use unisono::core::kind::{OptionSpec, OptionType, OptionValue, Options, SourceKind};
use unisono::core::query::parse;
use unisono::core::{Error, ErrorKind, Key, Result, Role};
use unisono::engine::delivery::dead_letter::DeadLetter;
use unisono::engine::verify::report::{Depth, Progress, VerifyOptions};
use unisono::engine::{Engine, Operation};
use unisono::policy::declaration::Declaration;

use crate::app::{Call, flag};
use crate::body::JSON_TYPE;
use crate::problem::Failure;
use crate::reply::{self, Body, Reply};
use crate::request;

/// Lines of progress that may wait for a slow reader; further ones are left out.
const PROGRESS_LINES_MAX: usize = 64;

/// Conflicts of each entity that are answered if nothing else is asked for.
const CONFLICTS_DEFAULT: usize = 100;

/// `GET /admin/v1/status`
pub(crate) async fn status(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    let app = &call.shared.app;
    let status = call.engine().status().await;
    let mut json = serde_json::to_value(status)
        .map_err(|e| Error::internal("the status cannot be written as JSON").caused_by(e))?;
    if let Json::Object(map) = &mut json {
        map.insert("name".into(), json!(app.name));
        map.insert("version".into(), json!(app.version));
    }
    reply::json(StatusCode::OK, &json)
}

/// `GET /admin/v1/config`
pub(crate) fn config(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    reply::json(StatusCode::OK, &redacted(&call.engine().declaration()))
}

/// `POST /admin/v1/reload?dry_run=true`
pub(crate) async fn reload(call: &Call<'_>) -> Reply {
    let [dry_run] = call.known_parameters(["dry_run"])?;
    let dry_run = flag("dry_run", dry_run.as_deref())?;
    // A configuration is one for all entities.
    of_every_entity(call)?;
    let reload = call.shared.app.reload.clone().ok_or_else(|| {
        Error::unsupported("this server has no configuration file that could be read again")
    })?;
    // To its end, also if the caller goes away.
    let (sender, reloaded) = oneshot::channel();
    let by = call.principal.name().cloned();
    call.engine().runtime().spawn(async move { drop(sender.send(reload(dry_run, by).await)) });
    let reloaded = reloaded.await.map_err(|_| Error::internal("a reload was ended"))?;
    let changes = reloaded.map_err(not_reloaded)?;
    reply::json(StatusCode::OK, &json!({ "applied": !dry_run, "changes": changes }))
}

/// Who may change the configuration is told what is wrong with it.
fn not_reloaded(error: Error) -> Failure {
    if error.kind() != ErrorKind::InvalidConfig {
        return error.into();
    }
    let problems = error.source().and_then(|cause| cause.downcast_ref::<Problems>());
    let problems = problems.map(Problems::to_json);
    let failure = Failure::with_status(StatusCode::UNPROCESSABLE_ENTITY, error).shown();
    match problems {
        Some(problems) => failure.member("problems", problems),
        None => failure,
    }
}

/// `GET /admin/v1/explain?entity=product&key=1`, or with the parameters of a list instead of the key
pub(crate) fn explain(call: &Call<'_>) -> Reply {
    let mut parameters = call.parameters()?;
    let mut take = |name: &str| {
        let index = parameters.iter().position(|(n, _)| n == name)?;
        Some(parameters.remove(index).1)
    };
    let name = take("entity").ok_or_else(|| {
        Error::invalid("a parameter is missing")
            .with("parameter", "entity")
            .hint("?entity=product&key=1")
    })?;
    let key = take("key");
    call.principal.require(Access::Admin, Some(&name))?;
    let entity = call.engine().entity(&name)?;
    let operation = match key {
        Some(_) if !parameters.is_empty() => {
            return Err(Error::invalid("a key and filters exclude each other")
                .with("parameter", "key")
                .into());
        }
        Some(key) => Operation::Get(Key::parse(entity, &key)?),
        None => Operation::Query(Box::new(parse::url(entity, &parameters)?)),
    };
    let lines = call.engine().explain(&call.context()?, entity, &operation);
    reply::json(StatusCode::OK, &json!({ "lines": lines }))
}

/// `POST /admin/v1/verify`
///
/// Answers one line of JSON for each step and the report as the last; with `Accept: application/json` the report alone.
pub(crate) async fn verify(call: &Call<'_>, body: Incoming) -> Reply {
    call.known_parameters([])?;
    // Without a body everything is compared and nothing repaired.
    let body = optional(call, body).await?;
    let [entity, source, depth, repair, rate] =
        members(&body, ["entity", "source", "depth", "repair", "rate"])?;
    let options = VerifyOptions {
        entity: permitted(call, text("entity", entity)?)?,
        source: text("source", source)?,
        depth: depth_of(depth)?,
        repair: boolean("repair", repair)?,
        rate: rate_of(rate)?,
    };
    known_source(call.engine(), options.source.as_deref())?;
    if request::accepts(&call.parts.headers, "application/json") {
        let report = call.operator().verify(&options, &|_| {}).await?;
        return reply::json(
            StatusCode::OK,
            &json!({ "agrees": report.agrees(), "report": report }),
        );
    }
    let (sender, receiver) = mpsc::channel(PROGRESS_LINES_MAX);
    let engine = call.operator();
    call.engine().runtime().spawn(async move { verify_in_lines(&engine, &options, sender).await });
    let lines = ReceiverStream::new(receiver).map(Bytes::from);
    let mut response = hyper::Response::new(Body::Stream(Box::pin(lines)));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, ndjson);
    Ok(response)
}

fn depth_of(depth: Option<&Json>) -> Result<Depth> {
    let Some(depth) = depth else { return Ok(Depth::default()) };
    Depth::deserialize(depth).map_err(|_| {
        Error::invalid("depth is not one of ledger, observed, deep").with("depth", depth)
    })
}

fn rate_of(rate: Option<&Json>) -> Result<Option<u32>> {
    let Some(given) = rate.filter(|rate| !rate.is_null()) else { return Ok(None) };
    match given.as_u64().and_then(|rate| u32::try_from(rate).ok()).filter(|rate| *rate > 0) {
        Some(rate) => Ok(Some(rate)),
        None => {
            Err(Error::invalid("rate is not a number of records a second above 0")
                .with("rate", given))
        }
    }
}

/// Verifies for as long as somebody reads the lines.
async fn verify_in_lines(engine: &Engine, options: &VerifyOptions, sender: mpsc::Sender<String>) {
    let progress = |progress: Progress| {
        // A line that finds no room is superseded by the next one anyway.
        let _ = sender.try_send(line("progress", &progress));
    };
    let report = tokio::select! {
        report = engine.verify(options, &progress) => report,
        () = sender.closed() => return,
    };
    let last = match report {
        Ok(report) => format!("{}\n", json!({ "agrees": report.agrees(), "report": report })),
        Err(error) => line("error", &Failure::from(error).to_json(None)),
    };
    // Nobody is left to be told if this fails.
    let _ = sender.send(last).await;
}

fn line(name: &str, value: &impl Serialize) -> String {
    format!("{}\n", json!({ name: value }))
}

/// `POST /admin/v1/backfill`
pub(crate) async fn backfill(call: &Call<'_>, body: Incoming) -> Reply {
    call.known_parameters([])?;
    let body = call.json(body, &[JSON_TYPE]).await?;
    let [entity, source] = members(&body, ["entity", "source"])?;
    let entity = needed("entity", permitted(call, text("entity", entity)?)?)?;
    let source = needed("source", text("source", source)?)?;
    known_source(call.engine(), Some(&source))?;
    call.operator().backfill(&entity, &source).await?;
    reply::json(
        StatusCode::ACCEPTED,
        &json!({ "entity": entity, "source": source, "state": "backfilling" }),
    )
}

/// `POST /admin/v1/sources/{source}/pause`
pub(crate) async fn pause_source(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    // A source is one for all entities.
    permitted(call, None)?;
    let paused = call.operator().pause_source(&call.second).await?;
    reply::json(StatusCode::OK, &json!({ "source": call.second, "paused": paused }))
}

/// `POST /admin/v1/sources/{source}/resume`
pub(crate) async fn resume_source(call: &Call<'_>) -> Reply {
    call.known_parameters([])?;
    permitted(call, None)?;
    let was_paused = call.operator().resume_source(&call.second).await?;
    reply::json(StatusCode::OK, &json!({ "source": call.second, "was_paused": was_paused }))
}

/// `POST /admin/v1/sources/{source}/promote`
///
/// The configuration file is whoever asks's to change: the next start moves the truth to where it says.
pub(crate) async fn promote_source(call: &Call<'_>, body: Incoming) -> Reply {
    call.known_parameters([])?;
    // Others may keep what they write with it atomically.
    of_every_entity(call)?;
    let body = call.json(body, &[JSON_TYPE]).await?;
    let [entity] = members(&body, ["entity"])?;
    let entity = needed("entity", permitted(call, text("entity", entity)?)?)?;
    let source: Arc<str> = (&*call.second).into();
    known_source(call.engine(), Some(&source))?;
    // To its end, also if the caller goes away.
    let (sender, promoted) = oneshot::channel();
    let (engine, of) = (call.operator(), Arc::clone(&entity));
    call.engine().runtime().spawn(async move {
        drop(sender.send(engine.promote(&of, &source).await));
    });
    let promoted = promoted.await.map_err(|_| Error::internal("a move was ended"))?;
    let changes = promoted.map_err(not_reloaded)?;
    reply::json(
        StatusCode::OK,
        &json!({ "entity": entity, "truth": call.second, "changes": changes }),
    )
}

/// `GET /admin/v1/dead-letters`
pub(crate) async fn dead_letters(call: &Call<'_>) -> Reply {
    let [entity, source] = call.known_parameters(["entity", "source"])?;
    let mut letters = call.engine().dead_letters().await?;
    let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|w| w == name);
    letters.retain(|l| {
        is(&entity, &l.entity) && is(&source, &l.source) && call.principal.covers(&l.entity)
    });
    reply::json(StatusCode::OK, &json!({ "items": letters }))
}

/// `GET /admin/v1/conflicts?entity=product&key=1&limit=100`
pub(crate) async fn conflicts(call: &Call<'_>) -> Reply {
    let [entity, key, limit] = call.known_parameters(["entity", "key", "limit"])?;
    if key.is_some() && entity.is_none() {
        return Err(Error::invalid("a key needs its entity").with("parameter", "entity").into());
    }
    let limit = match limit.as_deref().map(str::parse::<usize>) {
        None => CONFLICTS_DEFAULT,
        Some(Ok(limit)) if (1..=1000).contains(&limit) => limit,
        Some(_) => {
            let error = Error::invalid("limit is not a number from 1 to 1000");
            return Err(error.with("parameter", "limit").into());
        }
    };
    let mut found = call.engine().conflicts(entity.as_deref(), key.as_deref(), limit).await?;
    found.retain(|conflict| call.principal.covers(&conflict.entity));
    reply::json(StatusCode::OK, &json!({ "items": found }))
}

/// `POST /admin/v1/dead-letters/replay`
pub(crate) async fn replay(call: &Call<'_>, body: Incoming) -> Reply {
    let letters = chosen(call, body).await?;
    let mut accepted = 0;
    for letter in &letters {
        accepted += u64::from(call.operator().replay(letter).await?);
    }
    let refused = letters.len() as u64 - accepted;
    reply::json(StatusCode::OK, &json!({ "accepted": accepted, "refused": refused }))
}

/// `POST /admin/v1/dead-letters/discard`
pub(crate) async fn discard(call: &Call<'_>, body: Incoming) -> Reply {
    let letters = chosen(call, body).await?;
    for letter in &letters {
        call.operator().discard(letter).await?;
    }
    reply::json(StatusCode::OK, &json!({ "discarded": letters.len() }))
}

/// The dead letters of an entity in a source: that of a refused write, those of a key, or all of them.
async fn chosen(call: &Call<'_>, body: Incoming) -> Result<Vec<DeadLetter>, Failure> {
    call.known_parameters([])?;
    let body = call.json(body, &[JSON_TYPE]).await?;
    let [entity, source, key, write] = members(&body, ["entity", "source", "key", "write"])?;
    let entity = needed("entity", permitted(call, text("entity", entity)?)?)?;
    let source = needed("source", text("source", source)?)?;
    let (key, write) = (text("key", key)?, text("write", write)?);
    let is_write = |letter: &DeadLetter, id: &str| {
        letter.write.as_ref().is_some_and(|w| w.accepted.id.to_string() == id)
    };
    let mut letters = call.engine().dead_letters().await?;
    letters.retain(|l| {
        l.entity == entity
            && l.source == source
            && key.as_ref().is_none_or(|k| l.key == **k)
            && write.as_ref().is_none_or(|id| is_write(l, id))
    });
    if letters.is_empty() {
        let error = Error::new(ErrorKind::NotFound, "there is no such dead letter");
        return Err(error.of(&entity).at(&source).into());
    }
    Ok(letters)
}

/// The named members of an object; others are refused.
/// The body, which may be left out.
pub(crate) async fn optional(call: &Call<'_>, body: Incoming) -> Result<Json, Failure> {
    if body.is_end_stream() { Ok(json!({})) } else { call.json(body, &[JSON_TYPE]).await }
}

/// Refuses tokens that do not cover every entity.
pub(crate) fn of_every_entity(call: &Call<'_>) -> Result<()> {
    permitted(call, None).map(drop)
}

pub(crate) fn members<'a, const N: usize>(
    body: &'a Json,
    names: [&str; N],
) -> Result<[Option<&'a Json>; N]> {
    let Json::Object(map) = body else { return Err(Error::invalid("the body is a JSON object")) };
    if let Some(name) = map.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(Error::invalid("is not known")
            .with("field", name)
            .hint(format!("known are {}", names.join(", "))));
    }
    Ok(names.map(|name| map.get(name)))
}

pub(crate) fn text(name: &'static str, json: Option<&Json>) -> Result<Option<Arc<str>>> {
    match json {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.as_str().into())),
        Some(_) => Err(Error::invalid("is text").with("field", name)),
    }
}

fn boolean(name: &'static str, json: Option<&Json>) -> Result<bool> {
    match json {
        None => Ok(false),
        Some(Json::Bool(value)) => Ok(*value),
        Some(json) => flag(name, json.as_str().or(Some("neither"))),
    }
}

fn needed(name: &'static str, value: Option<Arc<str>>) -> Result<Arc<str>> {
    value.ok_or_else(|| Error::invalid("is required").with("field", name))
}

/// An entity that exists and that the caller may operate; only who covers all of them may leave it open.
fn permitted(call: &Call<'_>, entity: Option<Arc<str>>) -> Result<Option<Arc<str>>> {
    let Some(name) = entity else {
        let denied =
            || Error::new(ErrorKind::PermissionDenied, "the token does not cover every entity");
        return if call.principal.covers_all() {
            Ok(None)
        } else {
            Err(denied().hint("name the entity"))
        };
    };
    call.principal.require(Access::Admin, Some(&name))?;
    call.engine().entity(&name)?;
    Ok(Some(name))
}

fn known_source(engine: &Engine, name: Option<&str>) -> Result<()> {
    let declaration = engine.declaration();
    let sources = &declaration.sources;
    let Some(name) = name.filter(|name| !sources.contains_key(*name)) else { return Ok(()) };
    let error = Error::new(ErrorKind::NotFound, "there is no source with this name").at(name);
    Err(match unisono::core::spelling::closest(name, sources.keys().map(AsRef::as_ref)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    })
}

/// The declaration without anything secret.
fn redacted(declaration: &Declaration) -> Json {
    let registry = Registry::builtin();
    let kind_of = |source: &str| registry.find(&declaration.sources.get(source)?.kind);
    let sources = declaration.sources.iter().map(|(name, source)| {
        let specs = kind_of(name).map(|kind| kind.options());
        let options = redacted_options(specs, &source.options);
        let json = json!({ "kind": source.kind, "required": source.required, "region": source.region, "options": options });
        (name.to_string(), json)
    });
    let of_entity = |source: &str, role: Role, options: &Options| {
        let specs = kind_of(source).map(|kind: &dyn SourceKind| kind.entity_options(role));
        redacted_options(specs, options)
    };
    let entities = declaration.entities.iter().map(|(name, declared)| {
        let entity = &declared.entity;
        let fields = entity.fields().iter().map(|f| (f.name.to_string(), json!(f.ty.to_string())));
        let followers: Vec<Json> = declared
            .followers
            .iter()
            .map(|f| {
                let options = of_entity(&f.source, Role::Follower, &f.options);
                json!({ "source": f.source, "place": f.place, "where": f.filter.as_ref().map(|r| r.text()), "options": options })
            })
            .collect();
        let cache = declared.cache.as_ref().map(|c| {
            let options = of_entity(&c.source, Role::Cache, &c.options);
            json!({ "source": c.source, "ttl_s": c.ttl.as_secs_f64(), "negative_ttl_s": c.negative_ttl.as_secs_f64(), "where": c.filter.as_ref().map(|r| r.text()), "options": options })
        });
        let truth_options = of_entity(&declared.truth, Role::Truth, &declared.truth_options);
        let json = json!({
            "key": entity.key_field().name, "truth": declared.truth, "table": declared.table, "options": truth_options, "cache": cache,
            "followers": followers, "fields": fields.collect::<Map<_, _>>(),
        });
        (name.to_string(), json)
    });
    let log = &declaration.log;
    json!({
        "region": declaration.region,
        "sources": sources.collect::<Map<_, _>>(),
        "entities": entities.collect::<Map<_, _>>(),
        "log": {
            "retention_s": log.retention.as_secs(), "changes_max": log.changes_max, "outcomes_s": log.outcomes.as_secs(),
        },
    })
}

/// Options without what is secret. Of a kind that does not come with Unisono it is not known which texts are: none is
/// shown.
fn redacted_options(specs: Option<&[OptionSpec]>, options: &Options) -> Json {
    let shown = |name: &str| {
        let spec = specs.and_then(|all| all.iter().find(|o| o.name == name));
        spec.is_some_and(|o| o.ty != OptionType::Secret)
    };
    // An address is not meant to stand in an option that is shown; if it does, it may carry a password.
    let text = |text: &String| match text.contains('@') {
        true => json!("(not shown)"),
        false => json!(text),
    };
    let redacted = |(name, value): (&String, &OptionValue)| {
        let value = match value {
            OptionValue::Text(one) if shown(name) => text(one),
            OptionValue::List(all) if shown(name) => all.iter().map(text).collect(),
            OptionValue::Text(_) | OptionValue::List(_) => json!("(not shown)"),
            OptionValue::Integer(n) => json!(n),
            OptionValue::Boolean(b) => json!(b),
            OptionValue::Duration(d) => json!(format!("{d:?}")),
        };
        (name.clone(), value)
    };
    Json::Object(options.0.iter().map(redacted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono::policy::declaration::SourceDeclaration;

    const fn option(name: &'static str, ty: OptionType) -> OptionSpec {
        OptionSpec { name, ty, default: None, optional: true, doc: "For tests." }
    }

    #[test]
    fn shown_options_hold_no_secret() {
        const SPECS: &[OptionSpec] = &[
            option("url", OptionType::Secret),
            option("path", OptionType::Path),
            option("nodes", OptionType::List),
            option("size", OptionType::Integer { min: 0, max: 9 }),
        ];
        let text = |text: &str| OptionValue::Text(text.into());
        let nodes = ["a:1", "redis://me:secret@b"].map(str::to_owned).to_vec();
        let options = Options(
            [
                ("url".into(), text("postgres://me:secret@host/db")),
                ("path".into(), text("data/main.db")),
                ("nodes".into(), OptionValue::List(nodes)),
                ("size".into(), OptionValue::Integer(7)),
                ("token".into(), text("secret")),
            ]
            .into(),
        );
        let hidden = "(not shown)";
        assert_eq!(
            redacted_options(Some(SPECS), &options),
            json!({ "url": hidden, "path": "data/main.db", "nodes": ["a:1", hidden], "size": 7, "token": hidden })
        );
        assert_eq!(
            redacted_options(None, &options),
            json!({ "url": hidden, "path": hidden, "nodes": hidden, "size": 7, "token": hidden })
        );
    }

    #[test]
    fn a_shown_configuration_knows_the_options_of_its_kinds() {
        let options = Options([("path".into(), OptionValue::Text("main.db".into()))].into());
        let source =
            SourceDeclaration { kind: "sqlite".into(), options, required: true, region: None };
        let declaration =
            Declaration { sources: [("main".into(), source)].into(), ..Declaration::default() };
        let expected = json!({ "main": { "kind": "sqlite", "required": true, "region": null, "options": { "path": "main.db" } } });
        assert_eq!(redacted(&declaration)["sources"], expected);
    }

    #[test]
    fn members_that_are_not_known_are_refused() {
        assert!(members(&json!({"entity": "a"}), ["entity"]).is_ok());
        for body in [json!([]), json!({"entty": "a"})] {
            assert!(members(&body, ["entity"]).is_err());
        }
        assert!(boolean("repair", Some(&json!(1))).is_err());
        assert!(boolean("repair", Some(&json!(true))).unwrap());
    }
}
