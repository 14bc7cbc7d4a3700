//! What can be done with projections beyond reading their rows.

use serde_json::{Map, Value as Json, json};

use super::operations::{guarded, problem, query_parameter};

/// Following rows, and the versions of projections.
pub(super) fn of_projections(paths: &mut Map<String, Json>) {
    paths.insert("/v1/projections/{projection}/_changes".to_owned(), row_changes());
    let one = |mut item: Json| {
        item["parameters"] = json!([projection()]);
        item
    };
    for (path, item) in [
        (
            "/admin/v1/projections",
            guarded("get", "projections", "Projections and how their versions are doing", None),
        ),
        (
            "/admin/v1/projections/{projection}",
            one(guarded("get", "projection", "One projection", None)),
        ),
        (
            "/admin/v1/projections/{projection}/rebuild",
            one(guarded(
                "post",
                "rebuild_projection",
                "Make a version beside the one that answers; it takes its place when it equals a fold of the truth",
                None,
            )),
        ),
        (
            "/admin/v1/projections/{projection}/back",
            one(guarded(
                "post",
                "projection_back",
                "Have the version before the last swap answer again",
                None,
            )),
        ),
        (
            "/admin/v1/projections/{projection}/discard",
            one(guarded(
                "post",
                "discard_projection",
                "Discard the version that does not answer",
                None,
            )),
        ),
    ] {
        paths.insert(path.to_owned(), item);
    }
}

fn projection() -> Json {
    json!({ "name": "projection", "in": "path", "required": true, "description": "Its name.", "schema": { "type": "string" } })
}

fn row_changes() -> Json {
    let text = json!({ "type": "string" });
    json!({ "get": {
        "operationId": "row_changes", "tags": ["changes"], "summary": "Follow the rows of a projection as server-sent events",
        "description": "A client that comes back with `Last-Event-ID` is given what changed since, or all rows again behind an event `anew`.",
        "parameters": [
            projection(),
            query_parameter("after", text.clone(), "A token or position as of which the rows are known; all rows come first if absent."),
            { "name": "Last-Event-ID", "in": "header", "schema": text, "description": "The id of the last event seen." },
        ],
        "responses": {
            "200": { "description": "Events `row` with a row as data, `gone` with the key of one that is no more, and `anew` before all rows.",
                "content": { "text/event-stream": { "itemSchema": { "type": "object" } } } },
            "default": problem(),
        },
    } })
}
