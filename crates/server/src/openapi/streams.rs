//! The paths of streams of events in the description.

use serde_json::{Map, Value as Json, json};
use unisono::engine::stream::{AppendCondition, Appending};

use super::operations::{answers, body, parameters_of, problem, query_parameter};
use super::reference;

/// The schemas of events.
pub(super) fn schemas() -> [(&'static str, Json); 3] {
    let text = json!({ "type": "string" });
    let words = json!({ "type": "array", "items": text });
    let event = json!({
        "type": "object", "required": ["type"], "additionalProperties": false,
        "properties": {
            "type": text, "data": {}, "id": text, "metadata": { "type": "object" }, "tags": words,
            "time": { "type": "string", "format": "date-time" },
            "schema_version": { "type": "integer", "minimum": 1, "default": 1 },
        },
        "examples": [{ "type": "placed", "data": { "total": "12.50" }, "tags": ["user:7"] }],
    });
    let appending = json!({
        "type": "object", "required": ["events"], "additionalProperties": false,
        "properties": {
            "events": { "type": "array", "items": reference("new_event"), "minItems": 1, "maxItems": Appending::EVENTS_MAX },
            "expected_revision": { "description": "The revision of the last event, or a word.", "default": "any",
                "anyOf": [{ "type": "integer", "minimum": 0 }, { "enum": ["any", "none", "exists"] }] },
            "condition": { "type": "object", "required": ["any_of"], "additionalProperties": false,
                "description": "Refuses the append if an event like one of these has come after a position.",
                "properties": {
                    "any_of": { "type": "array", "minItems": 1, "maxItems": AppendCondition::ITEMS_MAX, "items": {
                        "type": "object", "required": ["tags"], "properties": { "tags": words, "types": words } } },
                    "after": reference("position"),
                } },
        },
    });
    let stored = json!({
        "type": "object",
        "properties": {
            "stream": text, "revision": { "type": "integer" }, "position": reference("position"), "id": text,
            "type": text, "data": {}, "metadata": { "type": "object" }, "tags": words,
            "time": { "type": "string", "format": "date-time" }, "schema_version": { "type": "integer" },
        },
    });
    [("new_event", event), ("append", appending), ("event", stored)]
}

/// What can be done with streams.
pub(super) fn paths(paths: &mut Map<String, Json>) {
    let ty = in_path("type", "A declared type of streams.");
    let stream = in_path("stream", "The name of the stream.");
    let of_type = of_types().map(|item| (item, json!([ty])));
    let of_stream = of_streams().into_iter().chain([archiving()]);
    let of_stream = of_stream.map(|item| (item, json!([ty, stream])));
    for ((path, mut item), parameters) in of_type.into_iter().chain(of_stream) {
        item["parameters"] = parameters;
        paths.insert(path.to_owned(), item);
    }
}

fn in_path(name: &str, description: &str) -> Json {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" }, "description": description })
}

fn operation(id: &str, summary: &str, parameters: Vec<Json>, answers: Json) -> Json {
    json!({ "operationId": id, "tags": ["streams"], "summary": summary, "parameters": parameters, "responses": answers })
}

/// What a read takes beside its own parameters.
fn with(given: Vec<Json>) -> Vec<Json> {
    let fresh = parameters_of(&["token", "prefer"]);
    given.into_iter().chain(fresh.as_array().cloned().unwrap_or_default()).collect()
}

fn direction_and_limit() -> [Json; 2] {
    let direction = json!({ "enum": ["forward", "backward"] });
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 });
    [
        query_parameter("direction", direction, "The oldest event first, or the newest."),
        query_parameter("limit", limit, "The most events."),
    ]
}

fn page(description: &str) -> Json {
    let page = json!({ "type": "object", "properties": {
        "items": { "type": "array", "items": reference("event") },
        "next": { "description": "Send it as `from` or `after` to get the next page.", "type": ["string", "integer", "null"] } } });
    answers("200", description, &page)
}

fn of_types() -> [(&'static str, Json); 2] {
    let text = json!({ "type": "string" });
    let after = query_parameter(
        "after",
        reference("position"),
        "Behind this position; backward before it.",
    );
    let kind = query_parameter("type", text.clone(), "Only events of this type.");
    let tag = query_parameter("tag", text.clone(), "Only events with this tag.");
    let [direction, limit] = direction_and_limit();
    let followed = json!({ "200": { "description": "Events; the id of each is where to go on from.", "content": {
        "text/event-stream": { "itemSchema": reference("event") } } }, "default": problem() });
    let subscribe = vec![
        after.clone(),
        kind.clone(),
        tag.clone(),
        query_parameter("stream", text, "Only events of this stream."),
        query_parameter("now", json!({ "type": "boolean" }), "Begin with what comes from now on."),
    ];
    let list = with(vec![after, direction, kind, tag, limit]);
    let summary = "All events of a type of streams, in order";
    let listing = operation("list_events", summary, list, page("A page of events."));
    let following =
        operation("subscribe", "Follow events as server-sent events", subscribe, followed);
    [
        ("/v1/streams/{type}", json!({ "get": listing })),
        ("/v1/streams/{type}/_subscribe", json!({ "get": following })),
    ]
}

fn done() -> Json {
    json!({ "204": { "description": "Done." }, "default": problem() })
}

fn of_streams() -> [(&'static str, Json); 2] {
    let limits = json!({ "type": "object", "properties": {
        "max_count": { "type": ["integer", "null"] }, "max_age_seconds": { "type": ["integer", "null"] } } });
    let places = json!({ "type": "object", "properties": {
        "revision": { "type": "integer" }, "position": reference("position"), "replayed": { "type": "boolean" },
        "events": { "type": "array", "items": { "type": "object" } } } });
    let mut append = operation(
        "append",
        "Append events to the end of a stream",
        parameters_of(&["idempotency_key", "prefer"]).as_array().cloned().unwrap_or_default(),
        answers("201", "Where the events are.", &places),
    );
    append["requestBody"] = body(&reference("append"));
    let set = || answers("200", "As set.", &limits);
    let summary = "Set how much of a stream is given and kept";
    let mut limit = operation("limit_stream", summary, Vec::new(), set());
    limit["requestBody"] = body(&limits);
    let summary = "How much of a stream is given and kept";
    let limited = operation("stream_limits", summary, Vec::new(), set());
    let from = query_parameter("from", json!({ "type": "integer" }), "From this revision on.");
    let [direction, at_most] = direction_and_limit();
    let read = with(vec![from, direction, at_most]);
    let read = operation("read_stream", "Read a stream", read, page("A page of the stream."));
    let summary = "Close a stream for good and remove its events";
    let delete = operation("delete_stream", summary, Vec::new(), done());
    [
        ("/v1/streams/{type}/{stream}", json!({ "get": read, "post": append, "delete": delete })),
        ("/v1/streams/{type}/{stream}/_metadata", json!({ "get": limited, "put": limit })),
    ]
}

fn archiving() -> (&'static str, Json) {
    let summary = "Close a stream whose events stay";
    let archive = operation("archive_stream", summary, Vec::new(), done());
    ("/v1/streams/{type}/{stream}/_archive", json!({ "post": archive }))
}
