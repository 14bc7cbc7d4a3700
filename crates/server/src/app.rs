//! [`App`]: what the server serves; and what all of its requests share.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value as Json;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use unisono::config::RouteDeclaration;
use unisono::core::{Context, Entity, Error, Result};
use unisono::engine::Engine;

use crate::auth::{Authenticator, Principal};
use crate::meters::Meters;
use crate::options::{Limits, Options};
use crate::pages::Readiness;
use crate::problem::Failure;
use crate::{body, docs, openapi, request, uri};

/// What the server serves. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The engine behind all of it.
    pub engine: Engine,
    /// What the service is called in its documentation.
    pub name: Arc<str>,
    /// Version of the program.
    pub version: Arc<str>,
    /// Renders the process's metrics; `/metrics` has nothing to show without.
    pub metrics: Option<PrometheusHandle>,
    /// Reads the configuration again, for `/admin/v1/reload`, which is not supported without.
    pub reload: Option<Reload>,
}

/// Reads the configuration again and has it take effect, or with `true` only tells what that would change; answers the
/// changes. It is done in the name of whom the token is of, if there are tokens. `invalid_config` is told to the caller as it is, caused by
/// [`Problems`](unisono::config::Problems) if the file has some.
pub type Reload =
    Arc<dyn Fn(bool, Option<Arc<str>>) -> BoxFuture<'static, Result<Vec<String>>> + Send + Sync>;

/// What the server is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It serves.
    Serving,
    /// Running requests finish, further ones are not taken.
    Draining,
    /// Every connection ends now.
    Ended,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) app: App,
    pub(crate) limits: Limits,
    pub(crate) auth: Authenticator,
    pub(crate) routes: Vec<RouteDeclaration>,
    pub(crate) meters: Meters,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) requests: Semaphore,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) readiness: Readiness,
    pub(crate) openapi: Bytes,
    pub(crate) docs: Bytes,
}

impl Shared {
    pub(crate) fn new(options: &Options, app: App, phase: watch::Receiver<Phase>) -> Self {
        let entities: Vec<Arc<Entity>> = app
            .engine
            .declaration()
            .entities
            .values()
            .map(|e| Arc::clone(&e.entity))
            .filter(|e| !e.is_system())
            .collect();
        let routes = &options.routes;
        let openapi = openapi::document(&app.name, &app.version, &entities, routes).to_string();
        let docs = docs::page(&app.name, &app.version, &entities, routes);
        Shared {
            limits: options.limits.clone(),
            auth: Authenticator::new(&options.tokens),
            routes: options.routes.clone(),
            meters: Meters::new(),
            phase,
            requests: Semaphore::new(options.limits.requests),
            streams: Arc::new(Semaphore::new(options.limits.streams)),
            readiness: Readiness::default(),
            openapi: openapi.into(),
            docs: docs.into(),
            app,
        }
    }
}

/// One request on its way through a handler.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) parts: &'a Parts,
    pub(crate) principal: &'a Arc<Principal>,
    pub(crate) started: Instant,
    /// The declared route that the path is below, if it is below one.
    pub(crate) route: Option<&'a RouteDeclaration>,
    /// The entity, or the code of an error page.
    pub(crate) first: Cow<'a, str>,
    /// The key, or the name of a source.
    pub(crate) second: Cow<'a, str>,
}

impl Call<'_> {
    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.app.engine
    }

    /// The engine in the hands of the caller, for what the audit trail names somebody for.
    pub(crate) fn operator(&self) -> Engine {
        self.engine().acting_for(self.principal.name().cloned())
    }

    /// The entity that the path names.
    pub(crate) fn entity(&self) -> Result<&Arc<Entity>> {
        self.engine().entity(&self.first)
    }

    /// Whether the answer is to be wrapped and name its source.
    pub(crate) fn is_wrapped(&self) -> bool {
        self.route.is_some_and(|route| route.envelope)
    }

    /// What the headers demand.
    pub(crate) fn context(&self) -> Result<Context> {
        request::context(&self.parts.headers, self.principal, self.shared.limits.request_timeout)
    }

    /// What the headers demand of a write with this body.
    pub(crate) fn write_context(&self, body: &Json) -> Result<Context> {
        let mut context = self.context()?;
        context.idempotency_key = request::idempotency_key(&self.parts.headers, self.principal)?;
        if context.idempotency_key.is_some() {
            context.fingerprint = Some(request::fingerprint(self.parts, body));
        }
        Ok(context)
    }

    /// The parameters of the query string.
    pub(crate) fn parameters(&self) -> Result<Vec<(String, String)>> {
        uri::parameters(self.parts.uri.query().unwrap_or_default())
    }

    /// The parameters, of which only these names are allowed, each once.
    pub(crate) fn known_parameters<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[Option<String>; N]> {
        let mut values = [const { None }; N];
        let Some(query) = self.parts.uri.query() else { return Ok(values) };
        for (name, value) in uri::parameters(query)? {
            let slot =
                names.iter().zip(&mut values).find(|(n, _)| **n == name).map(|(_, slot)| slot);
            match slot {
                Some(slot @ None) => *slot = Some(value),
                Some(Some(_)) => {
                    return Err(
                        Error::invalid("a parameter is given twice").with("parameter", name)
                    );
                }
                None => return Err(unknown_parameter(&name, &names)),
            }
        }
        Ok(values)
    }

    /// Whether `meta=true` is asked for; no other parameter is allowed.
    pub(crate) fn only_meta(&self) -> Result<bool> {
        let [meta] = self.known_parameters(["meta"])?;
        flag("meta", meta.as_deref())
    }

    /// The body as JSON of one of the media types given.
    pub(crate) async fn json(
        &self,
        body: Incoming,
        types: &[&'static str],
    ) -> Result<Json, Failure> {
        let limits = &self.shared.limits;
        body::json(&self.parts.headers, body, types, limits.body_bytes, limits.body_timeout).await
    }
}

/// The value of a parameter that is true or false; false if absent.
pub(crate) fn flag(name: &'static str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("false") => Ok(false),
        Some("true" | "") => Ok(true),
        Some(_) => Err(Error::invalid("a parameter is true or false").with("parameter", name)),
    }
}

fn unknown_parameter(name: &str, known: &[&str]) -> Error {
    let hint = match unisono::core::spelling::closest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "this path takes no parameters".to_owned(),
        None => format!("known are {}", known.join(", ")),
    };
    let name: String = name.chars().take(40).collect();
    Error::invalid("a parameter is not known").with("parameter", name).hint(hint)
}
