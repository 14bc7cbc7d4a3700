//! What is not data: health, metrics, documentation, error pages.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use maud::html;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use unisono::core::{Error, ErrorKind};
use unisono::engine::Engine;
use unisono::engine::status::{DeliveryState, Status};
use unisono::policy::declaration::Declaration;

use crate::app::{Call, Phase, flag};
use crate::docs::{self, STYLE};
use crate::reply::{self, JSON, Reply, TEXT};
use crate::{markdown, request};

/// `GET /`
pub(crate) fn root(call: &Call<'_>) -> Reply {
    let app = &call.shared.app;
    if !request::accepts(&call.parts.headers, "text/html") {
        let links = json!({
            "name": app.name, "version": app.version, "docs": "/docs", "openapi": "/openapi.json",
            "health": "/health/ready", "errors": "/errors",
        });
        return reply::json(StatusCode::OK, &links);
    }
    let body = html! {
        h1 { (app.name) }
        p { "Unisono " (app.version) " is running." }
        ul {
            li { a href="/docs" { "Reference of this service" } }
            li { a href="/openapi.json" { "OpenAPI description" } }
            li { a href="/errors" { "Errors and what to do about them" } }
            li { a href="/health/ready" { "Health" } }
        }
    };
    Ok(reply::page(StatusCode::OK, docs::frame(&app.name, body)))
}

/// `GET /health/live`: the process answers.
pub(crate) fn live(_call: &Call<'_>) -> Reply {
    reply::json(StatusCode::OK, &json!({ "status": "live" }))
}

/// `GET /health/ready`: whether requests should be sent here.
///
/// A follower or cache that is down takes nothing else with it, so it degrades the node and does not take it out of
/// service; `?strict=true` makes every reason count.
pub(crate) async fn ready(call: &Call<'_>) -> Reply {
    let [strict] = call.known_parameters(["strict"])?;
    let strict = flag("strict", strict.as_deref())?;
    if *call.shared.phase.borrow() != Phase::Serving {
        return reply::json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "status": "stopping", "reasons": [] }),
        );
    }
    let reasons = call.shared.readiness.look(call.engine()).await;
    let (code, word) = match (reasons.fatal.is_empty(), reasons.degrading.is_empty()) {
        (true, true) => (StatusCode::OK, "ready"),
        (true, false) if !strict => (StatusCode::OK, "degraded"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    let all: Vec<&String> = reasons.fatal.iter().chain(&reasons.degrading).collect();
    reply::json(code, &json!({ "status": word, "reasons": all }))
}

/// What was found at the last look. Anybody may ask for it, so the sources are looked at once a second at most.
#[derive(Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, Arc<Reasons>)>>);

impl Readiness {
    const LIFE: Duration = Duration::from_secs(1);

    async fn look(&self, engine: &Engine) -> Arc<Reasons> {
        let mut last = self.0.lock().await;
        if let Some((when, reasons)) = last.as_ref()
            && when.elapsed() < Self::LIFE
        {
            return Arc::clone(reasons);
        }
        let found = Arc::new(reasons(&engine.status().await, &engine.declaration()));
        *last = Some((Instant::now(), Arc::clone(&found)));
        found
    }
}

/// Why requests should be sent elsewhere.
#[derive(Default)]
struct Reasons {
    /// The node cannot serve.
    fatal: Vec<String>,
    /// The node serves, with something missing.
    degrading: Vec<String>,
}

/// A delivery that achieves nothing for so long although its follower answers is the fault of this node.
const STALL_MAX_SECONDS: f64 = 60.0;

/// Names what is wrong; why it is, and where, is for `GET /admin/v1/status`.
fn reasons(status: &Status, declaration: &Declaration) -> Reasons {
    let is_truth = |name: &str| declaration.entities.values().any(|e| *e.truth == *name);
    let mut reasons = Reasons::default();
    for source in status.sources.iter().filter(|s| s.state != "up") {
        let fatal = is_truth(&source.name);
        let list = if fatal { &mut reasons.fatal } else { &mut reasons.degrading };
        let what = if source.paused.is_some() { "paused" } else { "not up" };
        list.push(format!("source {} is {what}", source.name));
    }
    let is_up = |name: &str| status.sources.iter().any(|s| *s.name == *name && s.state == "up");
    for delivery in &status.deliveries {
        if delivery.stalled_seconds > STALL_MAX_SECONDS && is_up(&delivery.source) {
            let (entity, source) = (&delivery.entity, &delivery.source);
            reasons.fatal.push(format!("delivery of {entity} to {source} makes no progress"));
            continue;
        }
        let what = match delivery.state {
            DeliveryState::Live | DeliveryState::CatchingUp => continue,
            DeliveryState::Starting => "is starting",
            DeliveryState::Backfilling => "makes its first copy",
            DeliveryState::Waiting => "waits for its follower",
            DeliveryState::Stopped => "is stopped",
            DeliveryState::Paused => "is paused",
        };
        let text = format!("delivery of {} to {} {what}", delivery.entity, delivery.source);
        reasons.degrading.push(text);
    }
    for journal in status.journals.iter().filter(|journal| journal.alert) {
        let (entity, seconds) = (&journal.entity, journal.oldest_seconds);
        let waiting = format!("acknowledged writes of {entity} have waited for {seconds:.0} s");
        reasons.degrading.push(waiting);
    }
    reasons
}

/// `GET /metrics`
pub(crate) async fn metrics(call: &Call<'_>) -> Reply {
    const PROMETHEUS: HeaderValue =
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    match &call.shared.app.metrics {
        Some(handle) => {
            call.shared.app.engine.observe().await;
            Ok(reply::bytes(StatusCode::OK, PROMETHEUS, handle.render()))
        }
        None => Err(Error::unsupported("this process keeps no metrics").into()),
    }
}

/// `GET /openapi.json`
pub(crate) fn openapi(call: &Call<'_>) -> Reply {
    Ok(reply::bytes(StatusCode::OK, JSON, call.shared.openapi.clone()))
}

/// `GET /docs`
pub(crate) fn docs(call: &Call<'_>) -> Reply {
    Ok(reply::page(StatusCode::OK, call.shared.docs.clone()))
}

/// `GET /docs/style.css`
pub(crate) fn style(_call: &Call<'_>) -> Reply {
    let mut response =
        reply::bytes(StatusCode::OK, HeaderValue::from_static("text/css; charset=utf-8"), STYLE);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    Ok(response)
}

/// `GET /errors`
pub(crate) fn errors(call: &Call<'_>) -> Reply {
    let app = &call.shared.app;
    if !request::accepts(&call.parts.headers, "text/html") {
        let lines = ErrorKind::ALL.iter().map(|k| format!("{:<26} {}\n", k.code(), k.summary()));
        return Ok(reply::bytes(StatusCode::OK, TEXT, lines.collect::<String>()));
    }
    let body = html! {
        h1 { "Errors" }
        p { "Every failure is an " code { "application/problem+json" } " with one of these codes." }
        table {
            thead { tr { th { "Code" } th { "Status" } th { "Meaning" } } }
            tbody { @for kind in ErrorKind::ALL { tr {
                td { a href={ "/errors/" (kind.code()) } { code { (kind.code()) } } }
                td { (crate::problem::status(*kind).as_u16()) }
                td { (kind.summary()) }
            } } }
        }
    };
    Ok(reply::page(StatusCode::OK, docs::frame(&app.name, body)))
}

/// `GET /errors/{code}`
pub(crate) fn error(call: &Call<'_>) -> Reply {
    const MARKDOWN: HeaderValue = HeaderValue::from_static("text/markdown; charset=utf-8");
    let kind = ErrorKind::ALL.iter().find(|k| k.code() == call.first).ok_or_else(|| {
        let near =
            unisono::core::spelling::closest(&call.first, ErrorKind::ALL.iter().map(|k| k.code()));
        let hint =
            near.map_or("see /errors".to_owned(), |code| format!("did you mean /errors/{code}?"));
        Error::new(ErrorKind::NotFound, "there is no error with this code").hint(hint)
    })?;
    if !request::accepts(&call.parts.headers, "text/html") {
        return Ok(reply::bytes(StatusCode::OK, MARKDOWN, kind.page()));
    }
    let body = html! {
        (markdown::render(kind.page()))
        p { a href="/errors" { "All errors" } }
    };
    Ok(reply::page(StatusCode::OK, docs::frame(&call.shared.app.name, body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono::core::{Position, Timestamp};
    use unisono::engine::status::{DeliveryStatus, SourceStatus};

    fn source(name: &str, state: &str) -> SourceStatus {
        SourceStatus {
            uses: Vec::new(),
            paused: None,
            name: name.into(),
            kind: "memory".into(),
            state: state.into(),
            engine: String::new(),
            bytes: None,
            breaker: "closed",
            load: Vec::new(),
        }
    }

    fn delivery(state: DeliveryState) -> DeliveryStatus {
        DeliveryStatus {
            entity: "product".into(),
            source: "search".into(),
            state,
            position: Position::ZERO,
            lag_changes: 0,
            lag_seconds: 0.0,
            held_changes: 0,
            stalled_seconds: 0.0,
            applied: 0,
            stale: 0,
            folded: 0,
            copied: 0,
            retries: 0,
            batches: 0,
            batch_changes_max: 0,
            lanes: 1,
            last_success: None,
            copy: None,
            split: None,
            verification: Vec::new(),
            dead_letters: 0,
            dead_letter_seconds: 0.0,
            repaired_often: 0,
            last_error: None,
        }
    }

    #[test]
    fn a_truth_that_is_down_or_a_delivery_that_is_stuck_takes_the_node_out_of_service() {
        let entity = unisono::core::Entity::new(
            "product",
            "id",
            vec![unisono::core::Field::new("id", unisono::core::FieldType::String)],
        );
        let declared = unisono::policy::declaration::EntityDeclaration {
            entity: entity.unwrap().into(),
            truth: "main".into(),
            table: None,
            truth_options: unisono::core::kind::Options::default(),
            cache: None,
            followers: Vec::new(),
            read: Default::default(),
            write: Default::default(),
            ack: Default::default(),
            strategy: None,
            adaptive: None,
            projection: None,
            sync: None,
        };
        let declaration = Declaration {
            entities: [("product".into(), declared)].into(),
            ..Declaration::default()
        };
        let status = |main: &str, search: &str, state| Status {
            archives: Vec::new(),
            time: Timestamp::EPOCH,
            sources: vec![source("main", main), source("search", search)],
            logs: Vec::new(),
            deliveries: vec![delivery(state)],
            caches: Vec::new(),
            journals: Vec::new(),
            syncs: Vec::new(),
            sampler: None,
            entities: Vec::new(),
        };
        let counts = |s: &Status| {
            let reasons = reasons(s, &declaration);
            (reasons.fatal.len(), reasons.degrading.len())
        };
        assert_eq!(counts(&status("up", "up", DeliveryState::Live)), (0, 0));
        assert_eq!(counts(&status("up", "down", DeliveryState::Waiting)), (0, 2));
        assert_eq!(counts(&status("down", "up", DeliveryState::CatchingUp)), (1, 0));
        let stuck = |search| {
            let mut status = status("up", search, DeliveryState::Waiting);
            status.deliveries[0].stalled_seconds = 61.0;
            status
        };
        assert_eq!(
            counts(&stuck("up")),
            (1, 0),
            "the follower answers, and this node achieves nothing"
        );
        assert_eq!(counts(&stuck("down")), (0, 2), "another node would do no better");
    }
}
