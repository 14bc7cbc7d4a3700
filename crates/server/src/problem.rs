//! Failures as RFC 9457 problems: one table from kind to status, one shape for every failure.

use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{HeaderMap, StatusCode};
use serde_json::{Map, Value as Json, json};
use unisono::core::{Effect, Error, ErrorKind, Retry};
use unisono::policy::retry::retry;

use crate::reply::{self, Response};
use crate::request::UNISONO_TOKEN;

/// A failure on its way to the caller: the error, and what HTTP adds to it.
#[derive(Debug)]
pub(crate) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    error: Error,
    status: StatusCode,
    headers: HeaderMap,
    members: Map<String, Json>,
    /// Whether details go to the log alone.
    hidden: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = status(error.kind());
        let hidden = is_hidden(error.kind());
        let (headers, members) = (HeaderMap::new(), Map::new());
        Failure(Box::new(Inner { error, status, headers, members, hidden }))
    }
}

impl Failure {
    /// A failure for which HTTP has a status of its own.
    pub(crate) fn with_status(status: StatusCode, error: Error) -> Self {
        let mut failure = Failure::from(error);
        failure.0.status = status;
        failure
    }

    /// Tells the caller everything, who may look inside.
    #[must_use]
    pub(crate) fn shown(mut self) -> Self {
        self.0.hidden = false;
        self
    }

    /// Whether its details go to the log alone.
    pub(crate) fn is_hidden(&self) -> bool {
        self.0.hidden
    }

    /// Adds a header to the answer.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Adds headers to the answer.
    #[must_use]
    pub(crate) fn headers(mut self, headers: HeaderMap) -> Self {
        self.0.headers.extend(headers);
        self
    }

    /// Adds a member to the problem.
    #[must_use]
    pub(crate) fn member(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What went wrong.
    pub(crate) fn error(&self) -> &Error {
        &self.0.error
    }

    /// The problem as JSON; `trace` names the request in the server's log.
    pub(crate) fn to_json(&self, trace: Option<&str>) -> Json {
        let error = &self.0.error;
        let hidden = self.0.hidden;
        let mut map = Map::new();
        let mut set = |name: &str, value: Json| map.insert(name.to_owned(), value);
        set("type", format!("/errors/{}", error.kind().code()).into());
        set("title", error.kind().summary().into());
        set("status", self.0.status.as_u16().into());
        set("detail", if hidden { HIDDEN_DETAIL.into() } else { detail(error).into() });
        set("code", error.kind().code().into());
        let again = retry(error);
        set("retryable", (again != Retry::Never).into());
        if let Retry::After(pause) = again {
            set("retry_after_ms", (pause.as_millis() as u64).into());
        }
        set("committed", committed(error.effect_on_data()).into());
        if let Some(source) = error.source_name() {
            set("source", source.into());
        }
        if let Some(entity) = error.entity() {
            set("entity", entity.into());
        }
        if !hidden {
            if let Some(errors) = field_errors(error) {
                set("errors", errors);
            }
            if let Some(hint) = error.hint_text() {
                set("hint", hint.into());
            }
            for name in SOURCES {
                if let Some(sources) = error.detail(name).map(sources) {
                    set(name, sources);
                }
            }
            let apart = |name: &str| matches!(name, "field" | "in") || SOURCES.contains(&name);
            let shown = |name: &str| !apart(name) && !is_inside(error.kind());
            let context: Map<String, Json> = error
                .context()
                .iter()
                .filter(|(name, _)| shown(name))
                .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
                .collect();
            if !context.is_empty() {
                set("context", context.into());
            }
        }
        if let Some(trace) = trace {
            set("trace", trace.into());
        }
        map.extend(self.0.members.clone());
        Json::Object(map)
    }

    /// The answer for the caller.
    pub(crate) fn into_response(self, trace: Option<&str>) -> Response {
        const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
        let body = self.to_json(trace).to_string();
        let mut response = reply::bytes(self.0.status, PROBLEM, body);
        let headers = response.headers_mut();
        if let Retry::After(pause) = retry(&self.0.error) {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(pause)));
        }
        if self.0.error.kind() == ErrorKind::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"unisono\""));
        }
        if let Some(token) = self.0.error.detail("token").map(HeaderValue::from_str)
            && let (Ok(token), Effect::Committed) = (token, self.0.error.effect_on_data())
        {
            headers.insert(UNISONO_TOKEN, token);
        }
        headers.extend(self.0.headers);
        debug_assert!(headers.contains_key(CONTENT_TYPE));
        response
    }
}

/// The HTTP status of each kind.
pub(crate) fn status(kind: ErrorKind) -> StatusCode {
    use ErrorKind::*;
    match kind {
        InvalidInput => StatusCode::BAD_REQUEST,
        Unauthenticated => StatusCode::UNAUTHORIZED,
        PermissionDenied => StatusCode::FORBIDDEN,
        NotFound => StatusCode::NOT_FOUND,
        AlreadyExists | SchemaMismatch | IdempotencyKeyInFlight => StatusCode::CONFLICT,
        StreamClosed | LogTruncated => StatusCode::GONE,
        VersionConflict => StatusCode::PRECONDITION_FAILED,
        LimitExceeded => StatusCode::PAYLOAD_TOO_LARGE,
        ConstraintViolated | IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        RateLimited => StatusCode::TOO_MANY_REQUESTS,
        InvalidConfig | CheckpointMoved | Diverged | Corrupt | Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        Unsupported => StatusCode::NOT_IMPLEMENTED,
        Overloaded | Unavailable | NotPrimary | Fenced | TooStale | QuorumNotReached
        | Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Timeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The word for `committed`.
pub(crate) fn committed(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "no",
        Effect::Committed => "yes",
        Effect::Unknown => "unknown",
    }
}

/// Details that are names of sources: of those that have a write, and of those that do not.
const SOURCES: [&str; 2] = ["acknowledged", "pending"];

fn sources(names: &str) -> Json {
    names.split(", ").filter(|name| !name.is_empty()).collect::<Vec<_>>().into()
}

const HIDDEN_DETAIL: &str =
    "Something is wrong inside the server; its log has the details under this trace.";

/// Whether an error of this kind could tell how the inside looks; such details go to the log alone.
fn is_hidden(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Internal | ErrorKind::Corrupt | ErrorKind::InvalidConfig)
}

/// Whether the details of an error of this kind are addresses, paths and the like of a source.
fn is_inside(kind: ErrorKind) -> bool {
    use ErrorKind::*;
    matches!(kind, Unavailable | NotPrimary | Fenced | CheckpointMoved)
}

/// The dotted name of the field that an error is about.
fn field(error: &Error) -> Option<String> {
    let name = error.detail("field")?;
    Some(match error.detail("in") {
        Some(outer) => format!("{outer}.{name}"),
        None => name.to_owned(),
    })
}

fn detail(error: &Error) -> String {
    match field(error) {
        Some(field) => format!("{field}: {}", error.message()),
        None => error.message().to_owned(),
    }
}

fn field_errors(error: &Error) -> Option<Json> {
    let name = field(error)?;
    let pointer = format!("#/{}", name.replace('~', "~0").replace('/', "~1").replace('.', "/"));
    Some(json!([{ "pointer": pointer, "field": name, "message": error.message() }]))
}

/// Seconds, rounded up to at least one, for `Retry-After`.
fn whole_seconds(pause: Duration) -> u64 {
    (pause.as_millis() as u64).div_ceil(1000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_tells_what_where_and_what_to_do() {
        let error = Error::invalid("is required")
            .of("product")
            .with("field", "price")
            .with("in", "items")
            .hint("give it a value");
        let json = Failure::from(error).to_json(Some("abc"));
        assert_eq!(
            json,
            json!({
                "type": "/errors/invalid_input", "title": "The request itself is wrong.", "status": 400,
                "detail": "items.price: is required", "code": "invalid_input", "retryable": false,
                "committed": "no", "entity": "product", "hint": "give it a value", "trace": "abc",
                "errors": [{"pointer": "#/items/price", "field": "items.price", "message": "is required"}],
            })
        );
    }

    #[test]
    fn internal_failures_show_nothing_from_inside() {
        let error = Error::internal("secret path /var/x")
            .with("sql", "SELECT secret")
            .caused_by("secret cause");
        let json = Failure::from(error.hint("secret hint")).to_json(None).to_string();
        assert!(!json.contains("secret"), "{json}");
    }

    #[test]
    fn a_source_that_is_down_is_named_without_its_address() {
        let error = Error::new(ErrorKind::Unavailable, "cannot connect")
            .at("main")
            .with("address", "10.0.0.1");
        let json = Failure::from(error.caused_by("10.0.0.1 refused")).to_json(None);
        assert_eq!(json["source"], "main");
        assert!(!json.to_string().contains("10.0.0.1"), "{json}");
    }

    #[test]
    fn a_pause_is_told_in_seconds_and_milliseconds() {
        let error = Error::new(ErrorKind::Overloaded, "busy")
            .retry(Retry::After(Duration::from_millis(1500)));
        let failure = Failure::from(error);
        assert_eq!(failure.to_json(None)["retry_after_ms"], 1500);
        assert_eq!(failure.into_response(None).headers()[RETRY_AFTER], "2");
    }

    #[test]
    fn a_committed_write_says_so() {
        let error = Error::new(ErrorKind::QuorumNotReached, "1 of 3").effect(Effect::Committed);
        let error = error.with("acknowledged", "main").with("pending", "search, redis");
        let failure = Failure::from(error.with("token", "main:17"));
        let json = failure.to_json(None);
        assert_eq!((&json["committed"], &json["status"]), (&json!("yes"), &json!(503)));
        assert_eq!(json["acknowledged"], json!(["main"]));
        assert_eq!(json["pending"], json!(["search", "redis"]));
        assert_eq!(failure.into_response(None).headers()[UNISONO_TOKEN], "main:17");
    }

    #[test]
    fn every_kind_has_a_status_that_is_an_error() {
        for kind in ErrorKind::ALL {
            assert!(status(*kind).as_u16() >= 400, "{}", kind.code());
        }
    }
}
