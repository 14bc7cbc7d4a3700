//! Metrics of requests, with every handle resolved once so that counting costs no lookup.

use std::sync::OnceLock;
use std::time::Duration;

use hyper::StatusCode;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::route::{ROUTES, Route};

/// The statuses that the server answers with; any other counts as the last.
const STATUSES: [u16; 27] = [
    200, 201, 202, 204, 207, 304, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 414, 415, 421,
    422, 429, 431, 500, 501, 503, 504, 0,
];

/// Counters and histograms of all routes.
pub(crate) struct Meters {
    routes: Vec<RouteMeters>,
    nowhere: RouteMeters,
    /// Connections that are open.
    pub(crate) connections: Gauge,
    /// Connections turned away at the limit.
    pub(crate) turned_away: Counter,
}

struct RouteMeters {
    template: &'static str,
    method: &'static str,
    seconds: Histogram,
    answers: [OnceLock<Counter>; STATUSES.len()],
}

impl RouteMeters {
    fn new(template: &'static str, method: &'static str) -> Self {
        RouteMeters {
            template,
            method,
            seconds: histogram!("unisono_http_request_seconds", "route" => template, "method" => method),
            answers: [const { OnceLock::new() }; STATUSES.len()],
        }
    }

    fn record(&self, status: StatusCode, elapsed: Duration) {
        let index =
            STATUSES.iter().position(|s| *s == status.as_u16()).unwrap_or(STATUSES.len() - 1);
        if let (Some(slot), Some(known)) = (self.answers.get(index), STATUSES.get(index)) {
            let resolve = || {
                counter!("unisono_http_requests_total", "route" => self.template, "method" => self.method,
                    "status" => known.to_string())
            };
            slot.get_or_init(resolve).increment(1);
        }
        self.seconds.record(elapsed.as_secs_f64());
    }
}

impl Meters {
    pub(crate) fn new() -> Self {
        metrics::describe_counter!(
            "unisono_http_requests_total",
            "Requests answered, by route and status."
        );
        metrics::describe_histogram!(
            "unisono_http_request_seconds",
            "Time from headers to answer."
        );
        metrics::describe_gauge!("unisono_http_connections", "Open connections.");
        metrics::describe_counter!(
            "unisono_http_connections_refused_total",
            "Connections turned away because too many were open."
        );
        let of = |r: &Route| RouteMeters::new(r.place.template(), r.method);
        Meters {
            routes: ROUTES.iter().map(of).collect(),
            nowhere: RouteMeters::new("none", "none"),
            connections: gauge!("unisono_http_connections"),
            turned_away: counter!("unisono_http_connections_refused_total"),
        }
    }

    /// Counts one answer of a route, by its index in [`ROUTES`].
    pub(crate) fn record(&self, route: Option<usize>, status: StatusCode, elapsed: Duration) {
        route.and_then(|n| self.routes.get(n)).unwrap_or(&self.nowhere).record(status, elapsed);
    }
}
