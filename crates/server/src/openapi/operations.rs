//! The paths of the description, their parameters and headers.

use serde_json::{Map, Value as Json, json};
use unisono::config::RouteDeclaration;
use unisono::core::Entity;
use unisono::core::query::Query;

use super::reference;

/// Everything that can be done with the records of one entity.
pub(super) fn of_entity(paths: &mut Map<String, Json>, entity: &Entity) {
    let base = Base { path: &format!("/v1/{}", entity.name()), at: "", envelope: false };
    collection(paths, entity, &base);
    one_record(paths, entity, &base);
    history(paths, entity);
    questions(paths, entity);
    let name = entity.name().as_ref();
    let operation = |id: &str, summary: String, extra: Json| operation(name, id, summary, extra);
    let patch = reference(&format!("{name}_patch"));
    paths.insert(format!("/v1/{name}/_batch"), batch(name, &reference(name), &patch, &operation));
}

/// What can be done at a declared route.
pub(super) fn of_route(paths: &mut Map<String, Json>, entity: &Entity, route: &RouteDeclaration) {
    let base = Base { path: &route.path, at: &route.path, envelope: route.envelope };
    collection(paths, entity, &base);
    one_record(paths, entity, &base);
}

/// A path below which the records of an entity are.
struct Base<'a> {
    path: &'a str,
    /// What makes the ids of its operations different from those of other paths.
    at: &'a str,
    envelope: bool,
}

impl Base<'_> {
    fn id(&self, id: &str) -> String {
        format!("{id}{}", self.at)
    }

    /// How a record comes as an answer.
    fn answered(&self, record: &Json) -> Json {
        match self.envelope {
            true => json!({ "type": "object", "required": ["source", "data"],
                "properties": { "source": served_by(), "data": record } }),
            false => record.clone(),
        }
    }

    /// How a page of records comes as an answer.
    fn listed(&self, record: &Json) -> Json {
        let mut list = list_of(record);
        if self.envelope {
            list["required"] = json!(["source", "data", "next"]);
            if let Some(properties) = list["properties"].as_object_mut() {
                let items = properties.remove("items").unwrap_or_default();
                properties.insert("source".into(), served_by());
                properties.insert("data".into(), items);
            }
        }
        list
    }
}

/// The word for what answered.
fn served_by() -> Json {
    json!({ "type": "string", "enum": ["cache", "replica", "primary", "follower", "journal"], "description": "What answered." })
}

fn operation(name: &str, id: &str, summary: String, extra: Json) -> Json {
    let mut operation =
        json!({ "operationId": format!("{name}_{id}"), "tags": [name], "summary": summary });
    merge(&mut operation, extra);
    operation
}

/// A page of records.
fn list_of(record: &Json) -> Json {
    json!({
        "type": "object", "required": ["items", "next"],
        "properties": {
            "items": { "type": "array", "items": record },
            "next": { "type": ["string", "null"], "description": "Send it as `cursor` to get the next page." },
            "facets": { "type": "object" },
        },
    })
}

fn key_parameter(entity: &Entity) -> Json {
    let mut key = json!({ "name": "key", "in": "path", "required": true, "description": "The record's key.",
        "schema": super::type_schema(&entity.key_field().ty) });
    key["description"] = json!(format!(
        "The record's `{}`. A first underscore is written `%5F`.",
        entity.key_field().name
    ));
    key
}

fn collection(paths: &mut Map<String, Json>, entity: &Entity, base: &Base<'_>) {
    let name = entity.name().as_ref();
    let record = reference(name);
    let (list, list_parameters) = (base.listed(&record), list_parameters(entity));
    let answered = base.answered(&record);
    paths.insert(base.path.to_owned(), json!({
        "get": operation(name, &base.id("list"), format!("Find `{name}` records"), json!({
            "parameters": list_parameters, "responses": answers("200", "A page of records.", &list) })),
        "post": operation(name, &base.id("create"), format!("Create a `{name}`"), json!({
            "parameters": parameters_of(&["meta", "idempotency_key", "prefer"]), "requestBody": body(&record),
            "responses": or_accepted(answers("201", "The record, with its key.", &answered)) })),
    }));
}

fn one_record(paths: &mut Map<String, Json>, entity: &Entity, base: &Base<'_>) {
    let name = entity.name().as_ref();
    let (record, patch) = (reference(name), reference(&format!("{name}_patch")));
    let answered = base.answered(&record);
    let writes = parameters_of(&["meta", "idempotency_key", "prefer", "if_match", "if_none_match"]);
    let key = key_parameter(entity);
    let patch_body = json!({ "required": true, "content": {
        "application/merge-patch+json": { "schema": patch }, "application/json": { "schema": patch } } });
    let mut read_answers = answers("200", "The record.", &answered);
    read_answers["304"] = json!({ "description": "The caller has this version." });
    let mut put_answers = answers("200", "It was replaced.", &answered);
    put_answers["201"] = content("It was created.", &answered);
    let patch_answers = or_accepted(answers("200", "The record.", &answered));
    let gone = json!({ "204": { "description": "It is gone." }, "default": problem() });
    paths.insert(format!("{}/{{key}}", base.path), json!({
        "parameters": [key],
        "get": operation(name, &base.id("get"), format!("Read a `{name}`"), json!({
            "parameters": parameters_of(&["meta", "token", "prefer", "if_none_match"]), "responses": read_answers })),
        "put": operation(name, &base.id("put"), format!("Store a whole `{name}`"), json!({
            "parameters": writes, "requestBody": body(&record), "responses": or_accepted(put_answers) })),
        "patch": operation(name, &base.id("patch"), format!("Change fields of a `{name}`"), json!({
            "parameters": writes, "requestBody": patch_body, "responses": patch_answers })),
        "delete": operation(name, &base.id("delete"), format!("Remove a `{name}`"), json!({
            "parameters": parameters_of(&["idempotency_key", "prefer", "if_match"]),
            "responses": or_accepted(gone) })),
    }));
}

/// Answers of a write, with that of an entity which is written behind.
fn or_accepted(mut answers: Json) -> Json {
    let text = json!({ "type": "string" });
    let waiting = json!({ "type": "object", "required": ["key", "state", "journal", "sequence"], "properties": {
        "key": {}, "state": { "const": "pending" }, "journal": text, "sequence": text } });
    answers["202"] = content(
        "It is acknowledged and waits to be flushed to the truth, which may refuse it.",
        &waiting,
    );
    answers
}

fn history(paths: &mut Map<String, Json>, entity: &Entity) {
    let name = entity.name().as_ref();
    let key = key_parameter(entity);
    let changes = json!({ "type": "object", "properties": {
        "items": { "type": "array", "items": reference("change") },
        "next": { "anyOf": [reference("position"), { "type": "null" }] } } });
    paths.insert(format!("/v1/{name}/{{key}}/_history"), json!({
        "parameters": [key],
        "get": operation(name, "history", format!("The changes of a `{name}`, newest first"), json!({
            "parameters": [query_parameter("limit", json!({ "type": "integer", "minimum": 1, "maximum": 1000 }), "How many."),
                query_parameter("before", reference("position"), "Only changes before this position.")],
            "responses": answers("200", "Changes.", &changes) })),
    }));
}

fn questions(paths: &mut Map<String, Json>, entity: &Entity) {
    let name = entity.name().as_ref();
    let (list, reads) = (list_of(&reference(name)), parameters_of(&["meta", "token", "prefer"]));
    let count = json!({ "type": "object", "properties": { "count": { "type": "integer" } } });
    let groups = json!({ "type": "object", "properties": {
        "groups": { "type": "array", "items": { "type": "object" } }, "total_groups": { "type": "integer" } } });
    let post = |id: &str,
                summary: String,
                input: Json,
                description: &str,
                output: &Json,
                parameters: &Json| {
        json!({
        "post": operation(name, id, summary, json!({ "parameters": parameters, "requestBody": body(&input),
            "responses": answers("200", description, output) })) })
    };
    let (query, aggregate) = (reference("query"), reference("aggregate"));
    paths.insert(
        format!("/v1/{name}/_query"),
        post(
            "query",
            format!("Find `{name}` records by a JSON query"),
            query.clone(),
            "A page of records.",
            &list,
            &reads,
        ),
    );
    let fresh = parameters_of(&["token", "prefer"]);
    let mut counting = post(
        "count_query",
        format!("Count `{name}` records by a JSON query"),
        query,
        "The count.",
        &count,
        &fresh,
    );
    counting["get"] = operation(
        name,
        "count",
        format!("Count `{name}` records"),
        json!({
        "parameters": filter_parameters(entity), "responses": answers("200", "The count.", &count) }),
    );
    paths.insert(format!("/v1/{name}/_count"), counting);
    paths.insert(
        format!("/v1/{name}/_aggregate"),
        post(
            "aggregate",
            format!("Group and total `{name}` records"),
            aggregate,
            "The groups.",
            &groups,
            &fresh,
        ),
    );
}

fn batch(
    name: &str,
    record: &Json,
    patch: &Json,
    operation: &impl Fn(&str, String, Json) -> Json,
) -> Json {
    let conditions = json!({ "type": "string" });
    let input = json!({
        "type": "object", "required": ["operations"], "additionalProperties": false,
        "properties": {
            "atomic": { "type": "boolean", "default": false, "description": "All together or each for itself." },
            "operations": { "type": "array", "maxItems": 10_000, "items": { "type": "object", "properties": {
                "put": record, "patch": patch, "delete": { "type": ["string", "integer"] },
                "if_match": conditions, "if_none_match": conditions } } },
        },
    });
    let output = json!({ "type": "object", "properties": {
        "items": { "type": "array", "items": { "type": "object", "properties": {
            "status": { "type": "integer" }, "key": { "type": "string" }, "version": reference("position"),
            "error": reference("problem") } } },
        "token": { "type": "string" } } });
    let mut answers = answers("200", "Every operation took place.", &output);
    answers["207"] = content("Some operations failed; each says so.", &output);
    json!({ "post": operation("batch", format!("Write many `{name}` records"), json!({
        "parameters": parameters_of(&["idempotency_key", "prefer"]), "requestBody": body(&input), "responses": answers })) })
}

/// What there is whatever is declared.
pub(super) fn of_service(paths: &mut Map<String, Json>) {
    let open = |id: &str, summary: &str, media: &str| {
        json!({ "get": {
        "operationId": id, "tags": ["operation"], "summary": summary, "security": [],
        "responses": { "200": { "description": summary, "content": { media: {} } }, "default": problem() } } })
    };
    for (path, item) in [
        ("/v1/changes", changes()),
        ("/health/live", open("live", "Whether the process answers", "application/json")),
        (
            "/health/ready",
            open("ready", "Whether requests should be sent here", "application/json"),
        ),
        ("/metrics", guarded("get", "metrics", "Metrics in the Prometheus text format", None)),
        ("/errors/{code}", error_page()),
    ] {
        paths.insert(path.to_owned(), item);
    }
}

/// What operators do.
pub(super) fn of_operators(paths: &mut Map<String, Json>) {
    let text = json!({ "type": "string" });
    let follower = json!({ "entity": text, "source": text });
    let verify = json!({
        "entity": text,
        "source": text,
        "depth": { "enum": ["ledger", "observed", "deep"], "default": "observed" },
        "repair": { "type": "boolean" },
        "rate": { "type": "integer", "minimum": 1, "description": "records repaired a second at most" },
    });
    for (path, item) in [
        ("/admin/v1/status", guarded("get", "status", "How everything is doing", None)),
        ("/admin/v1/config", guarded("get", "config", "What is declared, without secrets", None)),
        ("/admin/v1/reload", reload()),
        ("/admin/v1/explain", guarded("get", "explain", "Where a read would go, and why", None)),
        (
            "/admin/v1/verify",
            guarded("post", "verify", "Compare followers with the truth", Some(verify)),
        ),
        (
            "/admin/v1/backfill",
            guarded("post", "backfill", "Copy an entity into a follower anew", Some(follower)),
        ),
    ] {
        paths.insert(path.to_owned(), item);
    }
    of_repairs(paths);
}

/// What keeps data, and what mends it.
fn of_repairs(paths: &mut Map<String, Json>) {
    let text = json!({ "type": "string" });
    let letter = json!({ "entity": text, "source": text, "key": text });
    for (path, item) in [
        ("/admin/v1/backups", backups()),
        (
            "/admin/v1/archive/check",
            guarded(
                "post",
                "check_archive",
                "Whether the archived logs are as they were written",
                Some(json!({ "truth": text })),
            ),
        ),
        (
            "/admin/v1/sources/{source}/pause",
            of_source(guarded("post", "pause_source", "Leave a source alone", None)),
        ),
        (
            "/admin/v1/sources/{source}/resume",
            of_source(guarded("post", "resume_source", "Go on with a source", None)),
        ),
        ("/admin/v1/subjects/{subject}", subject()),
        (
            "/admin/v1/sources/{source}/promote",
            of_source(guarded(
                "post",
                "promote_source",
                "Move the truth of an entity to a follower that has everything",
                Some(json!({ "entity": text })),
            )),
        ),
        (
            "/admin/v1/dead-letters",
            guarded(
                "get",
                "dead_letters",
                "Changes that a follower refuses, and acknowledged writes that the truth refuses",
                None,
            ),
        ),
        (
            "/admin/v1/conflicts",
            guarded(
                "get",
                "conflicts",
                "Writes that gave way where two truths follow each other",
                None,
            ),
        ),
        (
            "/admin/v1/dead-letters/replay",
            guarded("post", "replay", "Deliver dead letters again", Some(letter.clone())),
        ),
        (
            "/admin/v1/dead-letters/discard",
            guarded("post", "discard", "Forget dead letters", Some(letter)),
        ),
    ] {
        paths.insert(path.to_owned(), item);
    }
}

pub(super) fn guarded(method: &str, id: &str, summary: &str, input: Option<Json>) -> Json {
    let mut operation = json!({ "operationId": id, "tags": ["operation"], "summary": summary,
        "responses": answers("200", summary, &json!({ "type": "object" })) });
    if let Some(input) = input {
        operation["requestBody"] = body(&json!({ "type": "object", "properties": input }));
    }
    json!({ method: operation })
}

fn subject() -> Json {
    let summary = "Erase a person: destroy the keys to everything personal about a subject";
    let mut item = guarded("delete", "erase_subject", summary, None);
    item["parameters"] = json!([{ "name": "subject", "in": "path", "required": true,
        "description": "Whom it is about, as records say it.", "schema": { "type": "string" } }]);
    item
}

fn backups() -> Json {
    let of_truth =
        body(&json!({ "type": "object", "properties": { "truth": { "type": "string" } } }));
    let answer = |summary: &str| answers("200", summary, &json!({ "type": "object" }));
    json!({
        "get": { "operationId": "backups", "tags": ["operation"], "summary": "The backups that there are",
            "responses": answer("The backups, the oldest of each truth first") },
        "post": { "operationId": "back_up", "tags": ["operation"], "summary": "Make a backup of each truth, or of one",
            "requestBody": of_truth, "responses": answer("The backups that were made") },
    })
}

fn changes() -> Json {
    let text = json!({ "type": "string" });
    json!({ "get": {
        "operationId": "changes", "tags": ["changes"], "summary": "Follow the log as server-sent events",
        "description": "The id of each event is a token; a client that comes back with `Last-Event-ID` misses nothing.",
        "parameters": [
            query_parameter("entity", text.clone(), "Only these entities, separated by commas."),
            query_parameter("log", text.clone(), "Only this log."),
            query_parameter("after", text.clone(), "A token or position to begin after; from now on if absent."),
            { "name": "Last-Event-ID", "in": "header", "schema": text, "description": "The id of the last event seen." },
        ],
        "responses": {
            "200": { "description": "Events `put` and `delete` with a change as data.", "content": {
                "text/event-stream": { "itemSchema": reference("change") } } },
            "410": content("The log does not reach back that far.", &reference("problem")),
            "default": problem(),
        },
    } })
}

fn reload() -> Json {
    let text = json!({ "type": "string" });
    let dry_run = json!({ "type": "boolean", "default": false });
    let done = json!({ "type": "object", "required": ["applied", "changes"], "properties": {
        "applied": { "type": "boolean" }, "changes": { "type": "array", "items": text } } });
    let mut answers = answers("200", "What changed, or would change.", &done);
    answers["422"] = content(
        "Nothing was changed: `problems` says what is wrong in the file and where, or the context what needs a restart.",
        &reference("problem"),
    );
    json!({ "post": { "operationId": "reload", "tags": ["operation"],
        "summary": "Read the configuration again; all of it takes effect, or nothing",
        "parameters": [query_parameter("dry_run", dry_run, "Only tell what would change.")], "responses": answers } })
}

fn of_source(mut item: Json) -> Json {
    let name =
        json!({ "name": "source", "in": "path", "required": true, "schema": { "type": "string" } });
    merge(&mut item, json!({ "parameters": [name] }));
    item
}

fn error_page() -> Json {
    json!({
        "parameters": [{ "name": "code", "in": "path", "required": true, "schema": { "type": "string" } }],
        "get": { "operationId": "error", "tags": ["operation"], "summary": "What an error means and what to do", "security": [],
            "responses": { "200": { "description": "The page.", "content": { "text/html": {}, "text/markdown": {} } },
                "default": problem() } },
    })
}

/// The parameters that are referred to by name.
pub(super) fn parameters() -> Json {
    let header = |name: &str, description: &str| {
        json!({
        "name": name, "in": "header", "description": description, "schema": { "type": "string" } })
    };
    json!({
        "meta": query_parameter("meta", json!({ "type": "boolean", "default": false }),
            "Wrap each record with its version, source and age."),
        "token": header("Unisono-Token", "The answer contains at least what this token has seen."),
        "prefer": header("Prefer", "`consistency=eventual|session|strong`, `wait=<seconds>`, `ack=truth|all|<number>|\"<followers>\"` for which sources must have a write before it is answered, `quorum=<number>` for the newest answer of so many sources, `fallback=none`, `hint=<word>` for the rules that decide who answers (`critical`: the truth alone), `return=minimal`."),
        "if_match": header("If-Match", "The version that the record must have: `\"v17\"`, or `*`."),
        "if_none_match": header("If-None-Match", "`*`: the record must not be there. For reads: the versions at hand."),
        "idempotency_key": header("Idempotency-Key", "1 to 255 visible characters; the repeated request has the effect of one."),
    })
}

/// The headers of answers.
pub(super) fn headers() -> Json {
    let header =
        |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "ETag": header("The record's version: `\"v17\"`."),
        "Unisono-Token": header("Send it with later reads to never see anything older."),
        "Unisono-Source": header("The source that answered, and its role."),
        "Unisono-Served-By": header("What sort of source that was: `cache`, `replica`, `primary`, `follower` or `journal`."),
        "Unisono-Ack": header("What the answer to a write waited for, if not for the truth alone: `all`, a number of sources, or names of followers."),
        "Unisono-Rule": header("The rule that decided whom to ask."),
        "Unisono-Fallback": header("The sources that were asked before and could not answer."),
        "Unisono-Stale": header("`true` if newer data may exist that the source has not taken in."),
        "Cache-Status": header("What the cache did (RFC 9211)."),
    })
}

fn list_parameters(entity: &Entity) -> Json {
    let text = json!({ "type": "string" });
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": Query::LIMIT_MAX, "default": Query::LIMIT_DEFAULT });
    let mut all = filter_parameters(entity);
    if let Json::Array(list) = &mut all {
        list.push(query_parameter(
            "order",
            text.clone(),
            "Fields, each with `.asc` or `.desc`, separated by commas.",
        ));
        list.push(query_parameter("limit", limit, "How many records."));
        list.push(query_parameter("cursor", text.clone(), "`next` of the page before."));
        list.push(query_parameter(
            "fields",
            text.clone(),
            "Only these fields, separated by commas.",
        ));
        list.push(query_parameter(
            "facets",
            text,
            "Fields whose most frequent values are counted.",
        ));
        list.push(query_parameter(
            "highlight",
            json!({ "type": "boolean" }),
            "Show where a search matches.",
        ));
        list.push(json!({ "$ref": "#/components/parameters/meta" }));
    }
    all
}

fn filter_parameters(entity: &Entity) -> Json {
    let text = json!({ "type": "string" });
    let fields = entity.fields().iter().map(|f| {
        query_parameter(
            &f.name,
            text.clone(),
            "A test such as `eq.paid`, `gt.100`, `in.(a,b)` or `is.null`.",
        )
    });
    let search =
        entity.search_fields().next().map(|_| query_parameter("q", text.clone(), "Words to find."));
    let fresh = parameters_of(&["token", "prefer"]);
    fields.chain(search).chain(fresh.as_array().cloned().unwrap_or_default()).collect()
}

pub(super) fn query_parameter(name: &str, schema: Json, description: &str) -> Json {
    json!({ "name": name, "in": "query", "schema": schema, "description": description })
}

pub(super) fn parameters_of(names: &[&str]) -> Json {
    names.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })).collect()
}

pub(super) fn body(schema: &Json) -> Json {
    json!({ "required": true, "content": { "application/json": { "schema": schema } } })
}

fn content(description: &str, schema: &Json) -> Json {
    let names = [
        "ETag",
        "Unisono-Token",
        "Unisono-Source",
        "Unisono-Served-By",
        "Unisono-Ack",
        "Unisono-Rule",
        "Unisono-Fallback",
        "Unisono-Stale",
        "Cache-Status",
    ];
    let headers: Map<String, Json> = names
        .map(|n| (n.to_owned(), json!({ "$ref": format!("#/components/headers/{n}") })))
        .into_iter()
        .collect();
    json!({ "description": description, "headers": headers, "content": { "application/json": { "schema": schema } } })
}

pub(super) fn answers(status: &str, description: &str, schema: &Json) -> Json {
    json!({ status: content(description, schema), "default": problem() })
}

pub(super) fn problem() -> Json {
    json!({ "$ref": "#/components/responses/problem" })
}

fn merge(target: &mut Json, extra: Json) {
    if let (Json::Object(target), Json::Object(extra)) = (target, extra) {
        target.extend(extra);
    }
}
