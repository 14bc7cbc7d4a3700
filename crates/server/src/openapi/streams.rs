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
    let text = json!({ "type": "string" });
    let in_path = |name: &str, description: &str| json!({ "name": name, "in": "path", "required": true, "schema": text, "description": description });
    let (ty, stream) = (
        in_path("type", "A declared type of streams."),
        in_path("stream", "The name of the stream."),
    );
    let of_type = json!([ty]);
    let of_stream = json!([ty, stream]);
    let operation = |id: &str, summary: &str, parameters: Vec<Json>, answers: Json| json!({ "operationId": id, "tags": ["streams"], "summary": summary, "parameters": parameters, "responses": answers });
    let direction = query_parameter(
        "direction",
        json!({ "enum": ["forward", "backward"] }),
        "The oldest event first, or the newest.",
    );
    let limit = query_parameter(
        "limit",
        json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }),
        "The most events.",
    );
    let after = query_parameter(
        "after",
        reference("position"),
        "Behind this position; backward before it.",
    );
    let kind = query_parameter("type", text.clone(), "Only events of this type.");
    let tag = query_parameter("tag", text.clone(), "Only events with this tag.");
    let fresh = || parameters_of(&["token", "prefer"]).as_array().cloned().unwrap_or_default();
    let with = |given: Vec<Json>| given.into_iter().chain(fresh()).collect::<Vec<_>>();
    let page = json!({ "type": "object", "properties": {
        "items": { "type": "array", "items": reference("event") },
        "next": { "description": "Send it as `from` or `after` to get the next page.", "type": ["string", "integer", "null"] } } });
    let limits = json!({ "type": "object", "properties": {
        "max_count": { "type": ["integer", "null"] }, "max_age_seconds": { "type": ["integer", "null"] } } });
    let followed = json!({ "200": { "description": "Events; the id of each is where to go on from.", "content": {
        "text/event-stream": { "itemSchema": reference("event") } } }, "default": problem() });
    let done = json!({ "204": { "description": "Done." }, "default": problem() });
    let places = json!({ "type": "object", "properties": {
        "revision": { "type": "integer" }, "position": reference("position"), "replayed": { "type": "boolean" },
        "events": { "type": "array", "items": { "type": "object" } } } });
    let from = query_parameter("from", json!({ "type": "integer" }), "From this revision on.");
    let mut append = operation(
        "append",
        "Append events to the end of a stream",
        parameters_of(&["idempotency_key", "prefer"]).as_array().cloned().unwrap_or_default(),
        answers("201", "Where the events are.", &places),
    );
    append["requestBody"] = body(&reference("append"));
    let mut set = operation(
        "limit_stream",
        "Set how much of a stream is given and kept",
        Vec::new(),
        answers("200", "As set.", &limits),
    );
    set["requestBody"] = body(&limits);
    let subscribe = vec![
        after.clone(),
        kind.clone(),
        tag.clone(),
        query_parameter("stream", text, "Only events of this stream."),
        query_parameter("now", json!({ "type": "boolean" }), "Begin with what comes from now on."),
    ];
    for (path, item) in [
        (
            "/v1/streams/{type}",
            json!({ "parameters": of_type,
            "get": operation("list_events", "All events of a type of streams, in order", with(vec![after, direction.clone(), kind, tag, limit.clone()]), answers("200", "A page of events.", &page)) }),
        ),
        (
            "/v1/streams/{type}/_subscribe",
            json!({ "parameters": of_type,
            "get": operation("subscribe", "Follow events as server-sent events", subscribe, followed) }),
        ),
        (
            "/v1/streams/{type}/{stream}",
            json!({ "parameters": of_stream,
            "get": operation("read_stream", "Read a stream", with(vec![from, direction, limit]), answers("200", "A page of the stream.", &page)),
            "post": append,
            "delete": operation("delete_stream", "Close a stream for good and remove its events", Vec::new(), done.clone()) }),
        ),
        (
            "/v1/streams/{type}/{stream}/_archive",
            json!({ "parameters": of_stream,
            "post": operation("archive_stream", "Close a stream whose events stay", Vec::new(), done) }),
        ),
        (
            "/v1/streams/{type}/{stream}/_metadata",
            json!({ "parameters": of_stream,
            "get": operation("stream_limits", "How much of a stream is given and kept", Vec::new(), answers("200", "As set.", &limits)),
            "put": set }),
        ),
    ] {
        paths.insert(path.to_owned(), item);
    }
}
