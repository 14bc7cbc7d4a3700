//! From a request to its answer: bounds, access, the handler, and one place that turns failures into problems.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HOST};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, StatusCode};
use tokio::time::Instant;
use unisono::config::Access;
use unisono::core::stream::entity_name;
use unisono::core::{Effect, Error, ErrorKind};

use crate::app::{Call, Shared};
use crate::problem::Failure;
use crate::reply::{self, Reply, Response};
use crate::route::{self, Endpoint, Place, ROUTES};
use crate::{
    admin, archive, batch, changes, pages, projections, query, record, request, streams, uri,
};

/// What the engine's own deadlines get on top before the server gives up on a request.
const GRACE: Duration = Duration::from_secs(5);

/// Answers a request; every failure becomes a problem.
pub(crate) async fn handle(shared: &Arc<Shared>, request: Request<Incoming>) -> Response {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let mut route = None;
    // Pinned where it is: the future of all handlers together is large, and moving it costs as much as a small answer.
    let answer = caught(pin!(answer(shared, &parts, body, started, &mut route))).await;
    let response = match answer {
        Ok(response) => response,
        Err(failure) => refuse(shared, &parts, failure),
    };
    let elapsed = started.elapsed();
    shared.meters.record(route, response.status(), elapsed);
    tracing::debug!(method = %parts.method, path = parts.uri.path(), status = response.status().as_u16(),
        ?elapsed, "answered");
    response
}

/// A bug that ends a handler is an answer like any other failure, and not a connection that breaks off.
async fn caught(answer: impl Future<Output = Reply>) -> Reply {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
        Err(Error::internal("a request ended by a panic").effect(Effect::Unknown).into())
    })
}

async fn answer(
    shared: &Arc<Shared>,
    parts: &Parts,
    body: Incoming,
    started: Instant,
    route: &mut Option<usize>,
) -> Reply {
    check_bounds(shared, parts)?;
    let path = parts.uri.path();
    let (target, declared) = match route::target(path) {
        Some(target) => (target, None),
        None => route::declared(&shared.routes, path)
            .map(|(target, route)| (target, Some(route)))
            .ok_or_else(|| route::nowhere(path))?,
    };
    if parts.method == hyper::Method::OPTIONS {
        return options(target.place);
    }
    let index = *route.insert(route::find(target.place, parts.method.as_str())?);
    let Some(found) = ROUTES.get(index) else { return Err(route::nowhere(path)) };
    let health = matches!(found.endpoint, Endpoint::Live | Endpoint::Ready);
    let _permit = if health {
        None
    } else {
        Some(shared.requests.try_acquire().map_err(|_| busy("requests"))?)
    };
    if !health {
        check_host(shared, &parts.headers, parts.uri.host())?;
    }
    let first = uri::decode(target.first)?;
    let principal = match found.access {
        None => shared.auth.anybody(),
        Some(access) => {
            let principal =
                shared.auth.principal(&parts.headers, shared.app.engine.runtime().now())?;
            let events = target.place.is_of_streams().then(|| entity_name(&first));
            let entity = events.as_deref().unwrap_or(&first);
            principal.require(access, (!entity.is_empty()).then_some(entity))?;
            principal
        }
    };
    let second = uri::decode(target.second)?;
    let call = Call { shared, parts, principal, started, route: declared, first, second };
    let handler = pin!(run(&call, found.endpoint, body));
    if is_long(found.endpoint) {
        return handler.await;
    }
    let limit = shared.limits.body_timeout + shared.limits.request_timeout + GRACE;
    match tokio::time::timeout(limit, handler).await {
        Ok(reply) => reply,
        Err(_) => {
            let effect = match found.access {
                Some(Access::Write) => Effect::Unknown,
                _ => Effect::None,
            };
            Err(Error::new(ErrorKind::Timeout, "the request took too long").effect(effect).into())
        }
    }
}

async fn run(call: &Call<'_>, endpoint: Endpoint, body: Incoming) -> Reply {
    match endpoint {
        Endpoint::Read => record::read(call).await,
        Endpoint::Put => record::put(call, body).await,
        Endpoint::Patch => record::patch(call, body).await,
        Endpoint::Delete => record::delete(call).await,
        Endpoint::Create => record::create(call, body).await,
        Endpoint::History => changes::history(call).await,
        Endpoint::List => query::list(call).await,
        Endpoint::Query => query::query(call, body).await,
        Endpoint::Count => query::count(call, body).await,
        Endpoint::Aggregate => query::aggregate(call, body).await,
        Endpoint::Batch => batch::batch(call, body).await,
        Endpoint::Changes => changes::follow(call).await,
        Endpoint::AppendEvents => streams::append(call, body).await,
        Endpoint::ReadStream => streams::read(call).await,
        Endpoint::ListEvents => streams::list(call).await,
        Endpoint::Subscribe => streams::follow(call).await,
        Endpoint::DeleteStream => streams::delete(call).await,
        Endpoint::ArchiveStream => streams::archive(call).await,
        Endpoint::StreamLimits => streams::limits(call).await,
        Endpoint::LimitStream => streams::limit(call, body).await,
        Endpoint::Root => pages::root(call),
        Endpoint::Live => pages::live(call),
        Endpoint::Ready => pages::ready(call).await,
        Endpoint::Metrics => pages::metrics(call).await,
        Endpoint::OpenApi => pages::openapi(call),
        Endpoint::Docs => pages::docs(call),
        Endpoint::Style => pages::style(call),
        Endpoint::Errors => pages::errors(call),
        Endpoint::ErrorPage => pages::error(call),
        Endpoint::Status => admin::status(call).await,
        Endpoint::Config => admin::config(call),
        Endpoint::Reload => admin::reload(call).await,
        Endpoint::Explain => admin::explain(call),
        Endpoint::Verify => admin::verify(call, body).await,
        Endpoint::Backfill => admin::backfill(call, body).await,
        Endpoint::PauseSource => admin::pause_source(call).await,
        Endpoint::ResumeSource => admin::resume_source(call).await,
        Endpoint::PromoteSource => admin::promote_source(call, body).await,
        Endpoint::Erase => archive::erase(call).await,
        Endpoint::Backups => archive::backups(call).await,
        Endpoint::BackUp => archive::back_up(call, body).await,
        Endpoint::ArchiveCheck => archive::check(call, body).await,
        Endpoint::DeadLetters => admin::dead_letters(call).await,
        Endpoint::Conflicts => admin::conflicts(call).await,
        Endpoint::Replay => admin::replay(call, body).await,
        Endpoint::Discard => admin::discard(call, body).await,
        Endpoint::FollowRows => projections::follow(call).await,
        Endpoint::Projections => projections::list(call).await,
        Endpoint::Projection => projections::show(call).await,
        Endpoint::RebuildProjection => projections::rebuild(call).await,
        Endpoint::ProjectionBack => projections::back(call).await,
        Endpoint::DiscardProjection => projections::discard(call).await,
    }
}

/// Whether an operation may take as long as the data is large.
fn is_long(endpoint: Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::Verify
            | Endpoint::Backfill
            | Endpoint::Replay
            | Endpoint::BackUp
            | Endpoint::Erase
            | Endpoint::ArchiveCheck
    )
}

/// The failure of a request for which there is no room.
pub(crate) fn busy(what: &'static str) -> Failure {
    Error::new(ErrorKind::Overloaded, "the server is at its limit").with("limit", what).into()
}

fn check_bounds(shared: &Shared, parts: &Parts) -> Result<(), Failure> {
    let limits = &shared.limits;
    let target = parts.uri.path_and_query().map_or(0, |t| t.as_str().len());
    if target > limits.uri_bytes {
        let error = Error::new(ErrorKind::LimitExceeded, "the target of the request is too long");
        return Err(Failure::with_status(
            StatusCode::URI_TOO_LONG,
            error
                .with("bytes_max", limits.uri_bytes)
                .hint("send the query as the body of POST …/_query"),
        ));
    }
    let headers: usize = parts.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    if headers > limits.header_bytes {
        let error = Error::new(ErrorKind::LimitExceeded, "the headers are too large");
        return Err(Failure::with_status(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            error.with("bytes_max", limits.header_bytes),
        ));
    }
    Ok(())
}

/// Without tokens only this machine may ask, and no web page on it: a page that rebinds its own name to the
/// loopback address still sends that name as the host.
fn check_host(
    shared: &Shared,
    headers: &HeaderMap,
    authority: Option<&str>,
) -> Result<(), Failure> {
    if !shared.auth.is_open() {
        return Ok(());
    }
    let header = headers.get(HOST).and_then(|h| h.to_str().ok());
    let Some(host) = authority.or(header.map(without_port)) else { return Ok(()) };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    if host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.is_loopback()) {
        return Ok(());
    }
    Err(Failure::with_status(
        StatusCode::MISDIRECTED_REQUEST,
        Error::new(ErrorKind::PermissionDenied, "without access tokens only localhost is served")
            .with("host", host.chars().take(80).collect::<String>())
            .hint("ask for http://127.0.0.1, or declare access tokens"),
    ))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn options(place: Place) -> Reply {
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    if let Ok(value) = route::allowed(place).parse() {
        response.headers_mut().insert(ALLOW, value);
    }
    Ok(response)
}

/// Logs what the operator must know and answers with the problem.
fn refuse(shared: &Shared, parts: &Parts, failure: Failure) -> Response {
    let given = request::trace(&parts.headers);
    let mut trace = given.as_deref().map(|t| request::trace_id(t).to_owned());
    let error = failure.error();
    if failure.is_hidden() {
        let id =
            trace.get_or_insert_with(|| shared.app.engine.runtime().uuid().simple().to_string());
        tracing::error!(method = %parts.method, path = parts.uri.path(), trace = %id, error = ?error, "failed");
    } else if failure.status().is_server_error() {
        tracing::warn!(method = %parts.method, path = parts.uri.path(), trace, error = %error, "failed");
    }
    failure.into_response(trace.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_answered_and_says_that_a_write_may_have_happened() {
        let failure = caught(async { panic!("on purpose") }).await.err().unwrap();
        assert_eq!(failure.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(failure.to_json(None)["committed"], "unknown");
    }

    #[test]
    fn a_host_is_told_from_its_port() {
        for (host, name) in [
            ("localhost:3000", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:3000", "[::1]"),
            ("[::1]", "[::1]"),
            ("evil.example:80", "evil.example"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
