//! The reference of this service for people: every entity with its fields, its calls and a command to try each.

use std::sync::Arc;

use maud::{DOCTYPE, Markup, html};
use serde_json::{Value as Json, json};
use unisono::config::RouteDeclaration;
use unisono::core::{Entity, Field, FieldType};

use crate::openapi::example;
use crate::uri;

/// The one stylesheet of all pages.
pub(crate) const STYLE: &str = include_str!("style.css");

/// Everything around a page's own content.
pub(crate) fn frame(title: &str, content: Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="stylesheet" href="/docs/style.css";
            }
            body { main { (content) } }
        }
    };
    page.into_string()
}

/// The reference.
pub(crate) fn page(
    name: &str,
    version: &str,
    entities: &[Arc<Entity>],
    routes: &[RouteDeclaration],
) -> String {
    let content = html! {
        h1 { (name) }
        p.lead { "Reference of this service. Unisono " (version) ", " (entities.len())
            @if entities.len() == 1 { " entity." } @else { " entities." } }
        nav {
            @for entity in entities { a href={ "#" (entity.name()) } { (entity.name()) } }
            a href="#changes" { "Changes" }
            a href="#freshness" { "Freshness" }
            a href="#safety" { "Safe writes" }
            a href="#failures" { "Failures" }
            a href="#operation" { "Operation" }
            a href="/openapi.json" { "OpenAPI" }
        }
        p { "Commands assume " code { "U=http://127.0.0.1:3000" } "; where access tokens are declared, add "
            code { "-H \"Authorization: Bearer usn_…\"" } ". Decimals, versions and positions are strings, times are "
            "RFC 3339 in UTC, bytes are base64." }
        @for entity in entities { (entity_section(entity, routes)) }
        (general_sections())
    };
    frame(&format!("{name}: reference"), content)
}

fn entity_section(entity: &Entity, routes: &[RouteDeclaration]) -> Markup {
    let name = entity.name();
    html! {
        h2 id=(name) { (name) }
        (fields_table(entity.fields()))
        @for field in entity.fields() {
            @if let FieldType::Objects(inner) = &field.ty {
                p.note { "Each element of " code { (field.name) } ":" }
                (fields_table(inner))
            }
        }
        @for (title, calls) in calls(entity) {
            h3 { (title) }
            pre { code { @for call in &calls { (call) "\n" } } }
        }
        @for route in routes.iter().filter(|r| r.entity == *name) { (route_section(entity, route)) }
    }
}

/// What a declared route answers, with a command to try it.
fn route_section(entity: &Entity, route: &RouteDeclaration) -> Markup {
    let path = format!("$U{}", route.path);
    let commands = [
        send("POST", &path, &example(entity)),
        format!("curl {}", one(entity, &path)),
        format!("curl '{path}?limit=10'"),
    ];
    html! {
        h3 { "At " code { (route.path) } }
        p.note {
            "The same records by the same calls: " code { "GET" } " and " code { "POST" } " here, " code { "GET" } ", "
            code { "PUT" } ", " code { "PATCH" } " and " code { "DELETE" } " at " code { (route.path) "/{key}" } "."
            @if route.envelope {
                " An answer is " code { "{\"source\": …, \"data\": …}" } ", a page has " code { "next" } " too; the source is "
                code { "cache" } ", " code { "replica" } ", " code { "primary" } " or " code { "follower" } "."
            }
        }
        pre { code { @for command in &commands { (command) "\n" } } }
    }
}

fn fields_table(fields: &[Field]) -> Markup {
    html! {
        table {
            thead { tr { th { "Field" } th { "Type" } th { "Rules" } } }
            tbody { @for field in fields { tr {
                td { code { (field.name) } }
                td { (field.ty) }
                td { (rules(field)) }
            } } }
        }
    }
}

fn rules(field: &Field) -> String {
    let show = |value| unisono::core::json::value_to_json(&field.ty, value).to_string();
    let mut rules = Vec::new();
    for (holds, word) in [
        (field.required, "required"),
        (field.unique, "unique"),
        (field.index, "indexed"),
        (field.search, "searched"),
    ] {
        rules.extend(holds.then(|| word.to_owned()));
    }
    rules.extend(field.default.as_ref().map(|value| format!("{} by default", show(value))));
    if !field.allowed.is_empty() {
        rules.push(format!(
            "one of {}",
            field.allowed.iter().map(show).collect::<Vec<_>>().join(", ")
        ));
    }
    rules.extend(field.max_length.map(|max| format!("at most {max} long")));
    rules.join(", ")
}

/// Commands by purpose, each as it can be pasted into a shell.
fn calls(entity: &Entity) -> Vec<(&'static str, Vec<String>)> {
    let path = format!("$U/v1/{}", entity.name());
    let record = example(entity);
    let key = entity.key_field().name.as_ref();
    let one = one(entity, &path);
    let mut patch = record.clone();
    if let Json::Object(map) = &mut patch {
        let first = map.keys().find(|name| *name != key).cloned();
        map.retain(|name, _| Some(name) == first.as_ref());
    }
    let mut find = vec![format!("curl '{path}?limit=10'")];
    let field = entity.fields().iter().find(|f| f.name.as_ref() != key && f.ty.is_scalar());
    if let Some(field) = field {
        let value = record.get(field.name.as_ref()).cloned().unwrap_or_default();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        find.push(format!(
            "curl '{path}?{}=eq.{}&order={}.desc'",
            field.name,
            uri::encode(&text),
            field.name
        ));
        let body =
            json!({ "where": { "field": field.name, "op": "eq", "value": value }, "limit": 10 });
        find.push(send("POST", &format!("{path}/_query"), &body));
    }
    if entity.search_fields().next().is_some() {
        find.push(format!("curl '{path}?q=words&highlight=true'"));
    }
    find.push(format!("curl {path}/_count"));
    let mut metrics = json!({ "records": "count" });
    if let Some(number) =
        entity.fields().iter().find(|f| f.ty.is_number() && f.name.as_ref() != key)
    {
        metrics["total"] = json!({ "sum": number.name });
    }
    let operations = json!({ "atomic": true, "operations": [{ "put": record }] });
    vec![
        ("Read", vec![format!("curl {one}"), format!("curl '{one}?meta=true'")]),
        (
            "Write",
            vec![
                send("POST", &path, &record),
                send("PUT", &one, &record),
                send("PATCH", &one, &patch),
                format!("curl -X DELETE {one}"),
            ],
        ),
        ("Find and count", find),
        (
            "Group and total",
            vec![send("POST", &format!("{path}/_aggregate"), &json!({ "metrics": metrics }))],
        ),
        ("Many at once", vec![send("POST", &format!("{path}/_batch"), &operations)]),
        ("Audit trail", vec![format!("curl {one}/_history")]),
    ]
}

/// The path of the example record.
fn one(entity: &Entity, path: &str) -> String {
    let record = example(entity);
    let key = record.get(entity.key_field().name.as_ref());
    let text = key.map(|k| k.as_str().map_or_else(|| k.to_string(), str::to_owned));
    format!("{path}/{}", uri::encode(&text.unwrap_or_default()))
}

/// A command that sends a body.
fn send(method: &str, url: &str, body: &Json) -> String {
    format!("curl -X {method} {url} -H 'Content-Type: application/json' \\\n  -d '{}'", shell(body))
}

/// JSON within single quotes of a shell.
fn shell(body: &Json) -> String {
    body.to_string().replace('\'', "'\\''")
}

fn general_sections() -> Markup {
    html! {
        h2 id="changes" { "Changes" }
        p { "The change log as server-sent events, for everything that wants to follow along. A client that comes back with "
            code { "Last-Event-ID" } " misses nothing; a place that the log no longer reaches is answered with 410 and "
            code { "oldest" } "." }
        pre { code { "curl -N $U/v1/changes\ncurl -N '$U/v1/changes?entity=product,order&after=main:17'\n" } }
        p { "The rows of a projection as they change, all of them first: " code { "GET /v1/projections/{projection}/_changes" } "." }
        h2 id="freshness" { "Freshness" }
        p { "Every write answers with a " code { "Unisono-Token" } ". A read that sends it back sees at least that write, from "
            "whichever source answers. Every read says which source that was (" code { "Unisono-Source" } ", in one word "
            code { "Unisono-Served-By" } "), how old the "
            "answer is (" code { "Age" } "), and what the cache did (" code { "Cache-Status" } ")." }
        table {
            thead { tr { th { "Prefer" } th { "Meaning" } } }
            tbody {
                tr { td { code { "consistency=eventual" } } td { "any healthy source" } }
                tr { td { code { "consistency=session" } } td { "at least the token sent; this is the default" } }
                tr { td { code { "consistency=strong" } } td { "the truth itself" } }
                tr { td { code { "hint=critical" } } td { "the truth alone, unless declared rules say otherwise" } }
                tr { td { code { "fallback=none" } } td { "no other source when the preferred one fails" } }
                tr { td { code { "wait=5" } } td { "give up after so many seconds" } }
                tr { td { code { "return=minimal" } } td { "no record in the answer to a write" } }
            }
        }
        h2 id="safety" { "Safe writes" }
        ul {
            li { code { "If-Match: \"v17\"" } " writes only over the version that was read; 412 otherwise." }
            li { code { "If-None-Match: *" } " writes only where no record is." }
            li { code { "Idempotency-Key: …" } " makes a repeated request have the effect of one; the repetition is "
                "answered with " code { "Idempotency-Replayed: true" } "." }
        }
        h2 id="failures" { "Failures" }
        p { "A failure is an " code { "application/problem+json" } ": its " code { "code" } " says what happened, "
            code { "committed" } " whether the write took place, " code { "retryable" } " whether to try again. "
            a href="/errors" { "All codes" } "." }
        h2 id="operation" { "Operation" }
        table {
            thead { tr { th { "Call" } th { "Answers" } } }
            tbody {
                @for (method, path, what) in OPERATION {
                    tr { td { span.method { (method) } code { (path) } } td { (what) } }
                }
            }
        }
    }
}

const OPERATION: &[(&str, &str, &str)] = &[
    ("GET", "/health/live", "whether the process answers"),
    (
        "GET",
        "/health/ready",
        "whether requests should be sent here; ?strict=true counts followers and caches too",
    ),
    ("GET", "/metrics", "metrics in the Prometheus text format"),
    ("GET", "/admin/v1/status", "sources, logs, deliveries and caches"),
    ("GET", "/admin/v1/config", "what is declared, without secrets"),
    (
        "POST",
        "/admin/v1/reload",
        "read the configuration again: all of it takes effect, or nothing; ?dry_run=true only tells what would change",
    ),
    ("GET", "/admin/v1/explain?entity=…&key=…", "where a read would go, and why"),
    (
        "POST",
        "/admin/v1/verify",
        "compare followers with the truth: {\"entity\", \"source\", \"depth\", \"repair\", \"rate\"}",
    ),
    ("POST", "/admin/v1/backfill", "copy an entity into a follower anew: {\"entity\", \"source\"}"),
    (
        "POST",
        "/admin/v1/sources/{source}/pause",
        "leave a source alone: nothing is delivered to it, and it is not asked, until …/resume",
    ),
    ("GET", "/admin/v1/projections", "projections, and how their versions are doing"),
    (
        "POST",
        "/admin/v1/projections/{projection}/rebuild",
        "make a version beside the one that answers, which takes its place when it is equal to a fold of the truth; …/back goes back, …/discard discards what does not answer",
    ),
    ("GET", "/admin/v1/dead-letters", "changes that a follower refuses"),
    (
        "GET",
        "/admin/v1/conflicts?entity=…&key=…",
        "writes that gave way where two truths follow each other",
    ),
    (
        "POST",
        "/admin/v1/dead-letters/replay",
        "deliver them again: {\"entity\", \"source\", \"key\"}",
    ),
    ("POST", "/admin/v1/dead-letters/discard", "forget them: {\"entity\", \"source\", \"key\"}"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use unisono::core::Value;

    #[test]
    fn the_reference_shows_every_field_and_escapes_what_it_shows() {
        let default = Some(Value::String("<script>'".into()));
        let fields = vec![
            Field::new("id", FieldType::String),
            Field { default, search: true, ..Field::new("name", FieldType::String) },
            Field::new("price", FieldType::Decimal { precision: 12, scale: 2 }),
        ];
        let entity = Arc::new(Entity::new("product", "id", fields).unwrap());
        let route =
            RouteDeclaration { path: "/products".into(), entity: "product".into(), envelope: true };
        let html = page("<Shop>", "1", &[entity], &[route]);
        for part in [
            "&lt;Shop&gt;",
            "decimal(12,2)",
            "id=\"product\"",
            "?q=words",
            "/v1/product/42",
            "$U/products/42",
            "replica",
        ] {
            assert!(html.contains(part), "{part}");
        }
        assert!(!html.contains("<script") && !html.contains("style=") && !html.contains("onclick"));
    }

    #[test]
    fn a_command_survives_quotes_in_values() {
        assert_eq!(shell(&json!("it's")), "\"it'\\''s\"");
    }
}
