//! Which operation a method and a path mean: one table, from which the paths of the API are made too.

use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderValue};
use unisono::config::{Access, RouteDeclaration};
use unisono::core::{Error, ErrorKind};

use crate::problem::Failure;

/// Every operation of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Root,
    Live,
    Ready,
    Metrics,
    OpenApi,
    Docs,
    Style,
    Errors,
    ErrorPage,
    Changes,
    List,
    Query,
    Create,
    Read,
    Put,
    Patch,
    Delete,
    Count,
    Aggregate,
    Batch,
    History,
    AppendEvents,
    ReadStream,
    ListEvents,
    Subscribe,
    DeleteStream,
    ArchiveStream,
    StreamLimits,
    LimitStream,
    Status,
    Config,
    Reload,
    Explain,
    Verify,
    Backfill,
    PauseSource,
    ResumeSource,
    PromoteSource,
    Erase,
    Backups,
    BackUp,
    ArchiveCheck,
    DeadLetters,
    Conflicts,
    Replay,
    Discard,
    FollowRows,
    Projections,
    Projection,
    RebuildProjection,
    ProjectionBack,
    DiscardProjection,
}

/// A path with its parameters left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Root,
    Live,
    Ready,
    Metrics,
    OpenApi,
    Docs,
    Style,
    Errors,
    ErrorPage,
    Changes,
    Collection,
    QueryOp,
    CountOp,
    AggregateOp,
    BatchOp,
    Record,
    History,
    Streams,
    Subscribe,
    Stream,
    ArchiveOp,
    StreamMetadata,
    Status,
    Config,
    Reload,
    Explain,
    Verify,
    Backfill,
    PauseSource,
    ResumeSource,
    PromoteSource,
    Subject,
    Backups,
    ArchiveCheck,
    DeadLetters,
    Conflicts,
    Replay,
    Discard,
    RowChanges,
    Projections,
    Projection,
    RebuildProjection,
    ProjectionBack,
    DiscardProjection,
}

impl Place {
    /// The path as documentation and metrics write it.
    pub(crate) fn template(self) -> &'static str {
        match self {
            Place::Root => "/",
            Place::Live => "/health/live",
            Place::Ready => "/health/ready",
            Place::Metrics => "/metrics",
            Place::OpenApi => "/openapi.json",
            Place::Docs => "/docs",
            Place::Style => "/docs/style.css",
            Place::Errors => "/errors",
            Place::ErrorPage => "/errors/{code}",
            Place::Changes => "/v1/changes",
            Place::Collection => "/v1/{entity}",
            Place::QueryOp => "/v1/{entity}/_query",
            Place::CountOp => "/v1/{entity}/_count",
            Place::AggregateOp => "/v1/{entity}/_aggregate",
            Place::BatchOp => "/v1/{entity}/_batch",
            Place::Record => "/v1/{entity}/{key}",
            Place::History => "/v1/{entity}/{key}/_history",
            Place::Streams => "/v1/streams/{type}",
            Place::Subscribe => "/v1/streams/{type}/_subscribe",
            Place::Stream => "/v1/streams/{type}/{stream}",
            Place::ArchiveOp => "/v1/streams/{type}/{stream}/_archive",
            Place::StreamMetadata => "/v1/streams/{type}/{stream}/_metadata",
            Place::Status => "/admin/v1/status",
            Place::Config => "/admin/v1/config",
            Place::Reload => "/admin/v1/reload",
            Place::Explain => "/admin/v1/explain",
            Place::Verify => "/admin/v1/verify",
            Place::Backfill => "/admin/v1/backfill",
            Place::PauseSource => "/admin/v1/sources/{source}/pause",
            Place::ResumeSource => "/admin/v1/sources/{source}/resume",
            Place::PromoteSource => "/admin/v1/sources/{source}/promote",
            Place::Subject => "/admin/v1/subjects/{subject}",
            Place::Backups => "/admin/v1/backups",
            Place::ArchiveCheck => "/admin/v1/archive/check",
            Place::DeadLetters => "/admin/v1/dead-letters",
            Place::Conflicts => "/admin/v1/conflicts",
            Place::Replay => "/admin/v1/dead-letters/replay",
            Place::Discard => "/admin/v1/dead-letters/discard",
            Place::RowChanges => "/v1/projections/{projection}/_changes",
            Place::Projections => "/admin/v1/projections",
            Place::Projection => "/admin/v1/projections/{projection}",
            Place::RebuildProjection => "/admin/v1/projections/{projection}/rebuild",
            Place::ProjectionBack => "/admin/v1/projections/{projection}/back",
            Place::DiscardProjection => "/admin/v1/projections/{projection}/discard",
        }
    }

    /// Whether what it names first is a type of streams.
    pub(crate) fn is_of_streams(self) -> bool {
        matches!(
            self,
            Place::Streams
                | Place::Subscribe
                | Place::Stream
                | Place::ArchiveOp
                | Place::StreamMetadata
        )
    }
}

/// One line of the table: a method at a place, what it means, and the access that it needs.
pub(crate) struct Route {
    pub(crate) place: Place,
    pub(crate) method: &'static str,
    pub(crate) endpoint: Endpoint,
    /// `None` is open to everybody.
    pub(crate) access: Option<Access>,
}

const fn route(
    place: Place,
    method: &'static str,
    endpoint: Endpoint,
    access: Option<Access>,
) -> Route {
    Route { place, method, endpoint, access }
}

const READ: Option<Access> = Some(Access::Read);
const WRITE: Option<Access> = Some(Access::Write);
const ADMIN: Option<Access> = Some(Access::Admin);

/// All routes; the busiest first.
pub(crate) const ROUTES: &[Route] = &[
    route(Place::Record, "GET", Endpoint::Read, READ),
    route(Place::Record, "PUT", Endpoint::Put, WRITE),
    route(Place::Record, "PATCH", Endpoint::Patch, WRITE),
    route(Place::Record, "DELETE", Endpoint::Delete, WRITE),
    route(Place::Collection, "GET", Endpoint::List, READ),
    route(Place::Collection, "POST", Endpoint::Create, WRITE),
    route(Place::Collection, "QUERY", Endpoint::Query, READ),
    route(Place::QueryOp, "POST", Endpoint::Query, READ),
    route(Place::QueryOp, "QUERY", Endpoint::Query, READ),
    route(Place::CountOp, "GET", Endpoint::Count, READ),
    route(Place::CountOp, "POST", Endpoint::Count, READ),
    route(Place::CountOp, "QUERY", Endpoint::Count, READ),
    route(Place::AggregateOp, "POST", Endpoint::Aggregate, READ),
    route(Place::AggregateOp, "QUERY", Endpoint::Aggregate, READ),
    route(Place::BatchOp, "POST", Endpoint::Batch, WRITE),
    route(Place::History, "GET", Endpoint::History, READ),
    route(Place::Changes, "GET", Endpoint::Changes, READ),
    route(Place::Stream, "POST", Endpoint::AppendEvents, WRITE),
    route(Place::Stream, "GET", Endpoint::ReadStream, READ),
    route(Place::Stream, "DELETE", Endpoint::DeleteStream, WRITE),
    route(Place::Streams, "GET", Endpoint::ListEvents, READ),
    route(Place::Subscribe, "GET", Endpoint::Subscribe, READ),
    route(Place::ArchiveOp, "POST", Endpoint::ArchiveStream, WRITE),
    route(Place::StreamMetadata, "GET", Endpoint::StreamLimits, READ),
    route(Place::StreamMetadata, "PUT", Endpoint::LimitStream, WRITE),
    route(Place::Root, "GET", Endpoint::Root, None),
    route(Place::Live, "GET", Endpoint::Live, None),
    route(Place::Ready, "GET", Endpoint::Ready, None),
    route(Place::Metrics, "GET", Endpoint::Metrics, READ),
    route(Place::OpenApi, "GET", Endpoint::OpenApi, READ),
    route(Place::Docs, "GET", Endpoint::Docs, READ),
    route(Place::Style, "GET", Endpoint::Style, None),
    route(Place::Errors, "GET", Endpoint::Errors, None),
    route(Place::ErrorPage, "GET", Endpoint::ErrorPage, None),
    route(Place::Status, "GET", Endpoint::Status, ADMIN),
    route(Place::Config, "GET", Endpoint::Config, ADMIN),
    route(Place::Reload, "POST", Endpoint::Reload, ADMIN),
    route(Place::Explain, "GET", Endpoint::Explain, ADMIN),
    route(Place::Verify, "POST", Endpoint::Verify, ADMIN),
    route(Place::Backfill, "POST", Endpoint::Backfill, ADMIN),
    route(Place::PauseSource, "POST", Endpoint::PauseSource, ADMIN),
    route(Place::ResumeSource, "POST", Endpoint::ResumeSource, ADMIN),
    route(Place::PromoteSource, "POST", Endpoint::PromoteSource, ADMIN),
    route(Place::Subject, "DELETE", Endpoint::Erase, ADMIN),
    route(Place::Backups, "GET", Endpoint::Backups, ADMIN),
    route(Place::Backups, "POST", Endpoint::BackUp, ADMIN),
    route(Place::ArchiveCheck, "POST", Endpoint::ArchiveCheck, ADMIN),
    route(Place::DeadLetters, "GET", Endpoint::DeadLetters, ADMIN),
    route(Place::Conflicts, "GET", Endpoint::Conflicts, ADMIN),
    route(Place::Replay, "POST", Endpoint::Replay, ADMIN),
    route(Place::Discard, "POST", Endpoint::Discard, ADMIN),
    route(Place::RowChanges, "GET", Endpoint::FollowRows, READ),
    route(Place::Projections, "GET", Endpoint::Projections, ADMIN),
    route(Place::Projection, "GET", Endpoint::Projection, ADMIN),
    route(Place::RebuildProjection, "POST", Endpoint::RebuildProjection, ADMIN),
    route(Place::ProjectionBack, "POST", Endpoint::ProjectionBack, ADMIN),
    route(Place::DiscardProjection, "POST", Endpoint::DiscardProjection, ADMIN),
];

/// What a path names: a place and its parameters, still percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) place: Place,
    /// The entity, or the code of an error page.
    pub(crate) first: &'a str,
    /// The key, the name of a source, or a subject.
    pub(crate) second: &'a str,
}

/// What a path names; `None` if nothing is there.
///
/// Operations begin with an underscore. A record whose key begins with one is reached by `%5F`.
pub(crate) fn target(path: &str) -> Option<Target<'_>> {
    let path = path.strip_prefix('/')?;
    let mut segments = [""; 5];
    let mut count = 0;
    for segment in path.split('/') {
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    let at = |place| Some(Target { place, first: "", second: "" });
    let with = |place, first, second| Some(Target { place, first, second });
    match segments.get(..count)? {
        ["v1", "changes"] => at(Place::Changes),
        ["v1", "streams", ty] if !ty.is_empty() && !ty.starts_with('_') => {
            with(Place::Streams, ty, "")
        }
        ["v1", "streams", ty, "_subscribe"] => with(Place::Subscribe, ty, ""),
        ["v1", "streams", ty, stream] if !stream.is_empty() && !stream.starts_with('_') => {
            with(Place::Stream, ty, stream)
        }
        ["v1", "streams", ty, stream, "_archive"] => with(Place::ArchiveOp, ty, stream),
        ["v1", "streams", ty, stream, "_metadata"] => with(Place::StreamMetadata, ty, stream),
        // The rows of a projection are an entity of its name.
        ["v1", "projections", name] if !name.is_empty() => with(Place::Collection, name, ""),
        ["v1", "projections", name, "_changes"] if !name.is_empty() => {
            with(Place::RowChanges, name, "")
        }
        ["v1", "projections", name, key] if !key.is_empty() && !key.starts_with('_') => {
            with(Place::Record, name, key)
        }
        ["v1", entity] if !entity.is_empty() => with(Place::Collection, entity, ""),
        ["v1", entity, "_query"] => with(Place::QueryOp, entity, ""),
        ["v1", entity, "_count"] => with(Place::CountOp, entity, ""),
        ["v1", entity, "_aggregate"] => with(Place::AggregateOp, entity, ""),
        ["v1", entity, "_batch"] => with(Place::BatchOp, entity, ""),
        ["v1", entity, key] if !key.is_empty() && !key.starts_with('_') => {
            with(Place::Record, entity, key)
        }
        ["v1", entity, key, "_history"] if !key.is_empty() => with(Place::History, entity, key),
        [""] => at(Place::Root),
        ["health", "live"] => at(Place::Live),
        ["health", "ready"] => at(Place::Ready),
        ["metrics"] => at(Place::Metrics),
        ["openapi.json"] => at(Place::OpenApi),
        ["docs"] => at(Place::Docs),
        ["docs", "style.css"] => at(Place::Style),
        ["errors"] => at(Place::Errors),
        ["errors", code] => with(Place::ErrorPage, code, ""),
        ["admin", "v1", rest @ ..] => administered(rest),
        _ => None,
    }
}

/// What a path names below `/admin/v1`.
fn administered<'a>(rest: &[&'a str]) -> Option<Target<'a>> {
    let at = |place| Some(Target { place, first: "", second: "" });
    let with = |place, first, second| Some(Target { place, first, second });
    match *rest {
        ["status"] => at(Place::Status),
        ["config"] => at(Place::Config),
        ["reload"] => at(Place::Reload),
        ["explain"] => at(Place::Explain),
        ["verify"] => at(Place::Verify),
        ["backfill"] => at(Place::Backfill),
        ["sources", name, "promote"] => with(Place::PromoteSource, "", name),
        ["sources", name, "pause"] => with(Place::PauseSource, "", name),
        ["sources", name, "resume"] => with(Place::ResumeSource, "", name),
        ["subjects", name] if !name.is_empty() => with(Place::Subject, "", name),
        ["backups"] => at(Place::Backups),
        ["archive", "check"] => at(Place::ArchiveCheck),
        ["dead-letters"] => at(Place::DeadLetters),
        ["conflicts"] => at(Place::Conflicts),
        ["dead-letters", "replay"] => at(Place::Replay),
        ["dead-letters", "discard"] => at(Place::Discard),
        ["projections"] => at(Place::Projections),
        ["projections", name, ref rest @ ..] if !name.is_empty() => match rest {
            [] => with(Place::Projection, name, ""),
            ["rebuild"] => with(Place::RebuildProjection, name, ""),
            ["back"] => with(Place::ProjectionBack, name, ""),
            ["discard"] => with(Place::DiscardProjection, name, ""),
            _ => None,
        },
        _ => None,
    }
}

/// What a path names below one of the declared routes, and that route; `None` if it is below none of them.
///
/// Declared routes have no path in common with each other or with [`ROUTES`].
pub(crate) fn declared<'a>(
    routes: &'a [RouteDeclaration],
    path: &'a str,
) -> Option<(Target<'a>, &'a RouteDeclaration)> {
    routes.iter().find_map(|route| {
        let rest = path.strip_prefix(&*route.path)?;
        let first = &*route.entity;
        let target = match rest.strip_prefix('/') {
            None if rest.is_empty() => Target { place: Place::Collection, first, second: "" },
            Some(key) if !key.is_empty() && !key.starts_with('_') && !key.contains('/') => {
                Target { place: Place::Record, first, second: key }
            }
            _ => return None,
        };
        Some((target, route))
    })
}

/// The index in [`ROUTES`] of a method at a place, or why there is none. `HEAD` means `GET`.
pub(crate) fn find(place: Place, method: &str) -> Result<usize, Failure> {
    let wanted = if method == "HEAD" { "GET" } else { method };
    let found = ROUTES.iter().position(|r| r.place == place && r.method == wanted);
    found.ok_or_else(|| {
        let error = Error::invalid("this method is not allowed here")
            .with("method", method.chars().take(20).collect::<String>())
            .hint(format!("allowed are {}", allowed(place)));
        let failure = Failure::with_status(StatusCode::METHOD_NOT_ALLOWED, error);
        match HeaderValue::from_str(&allowed(place)) {
            Ok(value) => failure.header(ALLOW, value),
            Err(_) => failure,
        }
    })
}

/// The methods of a place, as in `Allow`.
pub(crate) fn allowed(place: Place) -> String {
    let mut methods: Vec<&str> =
        ROUTES.iter().filter(|r| r.place == place).map(|r| r.method).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.join(", ")
}

/// The answer for a path that leads nowhere.
pub(crate) fn nowhere(path: &str) -> Failure {
    Error::new(ErrorKind::NotFound, "there is nothing at this path")
        .with("path", path.chars().take(100).collect::<String>())
        .hint("see /docs for what there is")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Option<(Place, &str, &str)> {
        target(path).map(|t| (t.place, t.first, t.second))
    }

    #[test]
    fn paths_name_places() {
        assert_eq!(place("/v1/product/a%2Fb"), Some((Place::Record, "product", "a%2Fb")));
        assert_eq!(place("/v1/product/_count"), Some((Place::CountOp, "product", "")));
        assert_eq!(place("/v1/product/%5Fcount"), Some((Place::Record, "product", "%5Fcount")));
        assert_eq!(place("/v1/product/_x/_history"), Some((Place::History, "product", "_x")));
        assert_eq!(place("/v1/changes"), Some((Place::Changes, "", "")));
        assert_eq!(place("/"), Some((Place::Root, "", "")));
        assert_eq!(place("/errors/not_found"), Some((Place::ErrorPage, "not_found", "")));
        for nothing in [
            "",
            "/v1",
            "/v1/",
            "/v1/a/",
            "/v1/a/_x",
            "/v1/a/b/c",
            "/v1/a/b/c/d/e/f",
            "//",
            "/v2/a",
            "*",
        ] {
            assert_eq!(place(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_place_knows_its_methods() {
        assert!(find(Place::Record, "HEAD").is_ok());
        let failure = find(Place::Record, "POST").unwrap_err();
        assert_eq!(failure.status(), StatusCode::METHOD_NOT_ALLOWED);
        let response = failure.into_response(None);
        assert_eq!(response.headers()[ALLOW], "GET, PUT, PATCH, DELETE, HEAD");
    }

    #[test]
    fn an_entity_cannot_have_the_name_of_a_path() {
        let template = |r: &Route| {
            let rest = r.place.template().strip_prefix("/v1/").unwrap_or("{");
            rest.split('/').next().unwrap_or("{")
        };
        let mut taken: Vec<_> = ROUTES.iter().map(template).filter(|t| !t.contains('{')).collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken, unisono::config::ENTITIES_RESERVED);
    }

    #[test]
    fn a_declared_route_has_a_collection_and_its_records() {
        let route = |path: &str| RouteDeclaration {
            path: path.into(),
            entity: "product".into(),
            envelope: false,
        };
        let routes = [route("/products"), route("/shop/v1/p")];
        let found = |path| {
            let (target, route) = declared(&routes, path)?;
            Some((target.place, target.first, target.second, &*route.path))
        };
        let record = |key, path| Some((Place::Record, "product", key, path));
        assert_eq!(found("/products"), Some((Place::Collection, "product", "", "/products")));
        assert_eq!(found("/products/a%2Fb"), record("a%2Fb", "/products"));
        assert_eq!(found("/shop/v1/p/1"), record("1", "/shop/v1/p"));
        for nothing in
            ["/products/", "/products/_x", "/products/a/b", "/productsx", "/shop/v1", "/"]
        {
            assert_eq!(found(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_declared_route_cannot_begin_like_a_path_of_the_server() {
        for route in ROUTES {
            let first = route.place.template().split('/').nth(1).unwrap_or_default();
            let reserved = unisono::config::PATHS_RESERVED.contains(&first);
            assert!(reserved || first.is_empty(), "{first}");
        }
    }

    #[test]
    fn every_route_is_reached_by_its_own_template() {
        for route in ROUTES {
            let template = route.place.template();
            let path = template
                .replace("{entity}", "thing")
                .replace("{key}", "1")
                .replace("{type}", "order")
                .replace("{stream}", "1")
                .replace("{projection}", "sales")
                .replace("{code}", "timeout");
            assert_eq!(target(&path).map(|t| t.place), Some(route.place), "{template}");
        }
    }
}
