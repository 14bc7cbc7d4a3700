//! Requests that are wrong, each with the status and code that it gets. Nothing of them is written.

use serde_json::json;

use crate::harness::{Running, start};

/// Method, path, headers, body, and the status and code of the answer.
type Case = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    u16,
    &'static str,
);

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const NONE: &[(&str, &str)] = &[];

const CASES: &[Case] = &[
    // Paths and methods.
    ("GET", "/nothing", NONE, "", 404, "not_found"),
    ("GET", "/v1", NONE, "", 404, "not_found"),
    ("GET", "/v1/product/a/b", NONE, "", 404, "not_found"),
    ("GET", "/v1/product/_nothing", NONE, "", 404, "not_found"),
    ("GET", "/v1/prodct/a", NONE, "", 404, "not_found"),
    ("GET", "/v1/product/nobody", NONE, "", 404, "not_found"),
    ("DELETE", "/v1/product/nobody", NONE, "", 404, "not_found"),
    ("PATCH", "/v1/product/nobody", JSON, "{}", 404, "not_found"),
    ("POST", "/v1/product/a", JSON, "{}", 405, "invalid_input"),
    ("DELETE", "/v1/product", NONE, "", 405, "invalid_input"),
    ("BREW", "/v1/product/a", NONE, "", 405, "invalid_input"),
    ("GET", "/v1/product/%zz", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product/%ff", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/visit/abc", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/visit/99999999999999999999", NONE, "", 400, "invalid_input"),
    // Parameters.
    ("GET", "/v1/product/a?mata=true", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product/a?meta=maybe", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product/a?meta=true&meta=true", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product?colour=eq.red", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product?stock=above.3", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product?stock=gt.many", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product?limit=0", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product?limit=1001", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product?cursor=bogus", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product?order=tags.desc", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product/_count?limit=3", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product/a/_history?limit=0", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/product/a/_history?before=x", NONE, "", 400, "invalid_input"),
    // Headers.
    ("GET", "/v1/product/a", &[("prefer", "consistency=maximal")], "", 400, "invalid_input"),
    ("GET", "/v1/product/a", &[("prefer", "wait=soon")], "", 400, "invalid_input"),
    ("GET", "/v1/product/a", &[("prefer", "fallback=all")], "", 400, "invalid_input"),
    ("GET", "/v1/product/a", &[("unisono-token", "bogus")], "", 400, "invalid_input"),
    ("GET", "/v1/product/a", &[("if-none-match", "v1")], "", 400, "invalid_input"),
    ("DELETE", "/v1/product/a", &[("if-match", "17")], "", 400, "invalid_input"),
    ("DELETE", "/v1/product/a", &[("if-none-match", "\"v1\"")], "", 400, "invalid_input"),
    (
        "DELETE",
        "/v1/product/a",
        &[("if-match", "*"), ("if-none-match", "*")],
        "",
        400,
        "invalid_input",
    ),
    ("DELETE", "/v1/product/a", &[("idempotency-key", "has space")], "", 400, "invalid_input"),
    ("DELETE", "/v1/product/a", &[("idempotency-key", "")], "", 400, "invalid_input"),
    // Bodies.
    ("PUT", "/v1/product/a", NONE, r#"{"name": "x"}"#, 415, "invalid_input"),
    (
        "PUT",
        "/v1/product/a",
        &[("content-type", "text/plain")],
        r#"{"name": "x"}"#,
        415,
        "invalid_input",
    ),
    (
        "PUT",
        "/v1/product/a",
        &[("content-type", "application/merge-patch+json")],
        "{}",
        415,
        "invalid_input",
    ),
    (
        "PUT",
        "/v1/product/a",
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
        "{}",
        415,
        "invalid_input",
    ),
    ("PUT", "/v1/product/a", JSON, "", 400, "invalid_input"),
    ("PUT", "/v1/product/a", JSON, "{", 400, "invalid_input"),
    ("PUT", "/v1/product/a", JSON, "[1]", 400, "invalid_input"),
    ("PUT", "/v1/product/a", JSON, "{}", 400, "invalid_input"),
    ("PUT", "/v1/product/a", JSON, r#"{"name": null}"#, 400, "invalid_input"),
    ("PUT", "/v1/product/a", JSON, r#"{"name": 3}"#, 400, "invalid_input"),
    ("PUT", "/v1/product/a", JSON, r#"{"name": "x", "colour": "red"}"#, 400, "invalid_input"),
    ("PUT", "/v1/product/a", JSON, r#"{"name": "x", "price": "1.234"}"#, 400, "invalid_input"),
    ("PUT", "/v1/product/a", JSON, r#"{"name": "x", "stock": 1.5}"#, 400, "invalid_input"),
    ("PUT", "/v1/product/a", JSON, r#"{"name": "x", "status": "broken"}"#, 400, "invalid_input"),
    ("PUT", "/v1/product/a", JSON, r#"{"id": "b", "name": "x"}"#, 400, "invalid_input"),
    ("POST", "/v1/visit", JSON, r#"{"page": "x"}"#, 400, "invalid_input"),
    (
        "POST",
        "/v1/product",
        &[("content-type", "application/json"), ("if-match", "*")],
        r#"{"name": "x"}"#,
        400,
        "invalid_input",
    ),
    ("POST", "/v1/product/_query", JSON, r#"{"were": {}}"#, 400, "invalid_input"),
    (
        "POST",
        "/v1/product/_query",
        JSON,
        r#"{"where": {"field": "colour", "op": "eq", "value": 1}}"#,
        400,
        "invalid_input",
    ),
    (
        "POST",
        "/v1/product/_aggregate",
        JSON,
        r#"{"metrics": {"x": {"sum": "name"}}}"#,
        400,
        "invalid_input",
    ),
    ("POST", "/v1/product/_batch", JSON, r#"{"operations": 1}"#, 400, "invalid_input"),
    // Operation and pages.
    ("GET", "/v1/changes?entity=prodct", NONE, "", 404, "not_found"),
    ("GET", "/v1/changes?after=bogus", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/changes?after=99", NONE, "", 400, "invalid_input"),
    ("GET", "/v1/changes?log=other", NONE, "", 404, "not_found"),
    ("POST", "/admin/v1/verify", JSON, r#"{"entity": "prodct"}"#, 404, "not_found"),
    ("POST", "/admin/v1/verify", JSON, r#"{"fix": true}"#, 400, "invalid_input"),
    ("POST", "/admin/v1/backfill", JSON, r#"{"entity": "product"}"#, 400, "invalid_input"),
    (
        "POST",
        "/admin/v1/backfill",
        JSON,
        r#"{"entity": "product", "source": "copi"}"#,
        404,
        "not_found",
    ),
    (
        "POST",
        "/admin/v1/dead-letters/replay",
        JSON,
        r#"{"entity": "product", "source": "copy"}"#,
        404,
        "not_found",
    ),
    ("GET", "/admin/v1/explain", NONE, "", 400, "invalid_input"),
    ("GET", "/errors/not_fond", NONE, "", 404, "not_found"),
    ("GET", "/metrics", NONE, "", 501, "unsupported"),
];

async fn send(server: &Running, case: &Case) -> (u16, String) {
    let (method, path, headers, body, ..) = case;
    let mut request = server.request(method, path);
    for (name, value) in *headers {
        request = request.header(*name, *value);
    }
    if !body.is_empty() {
        request = request.body(*body);
    }
    server.send(request).await.problem()
}

#[tokio::test]
async fn each_mistake_has_its_answer_and_changes_nothing() {
    let server = start(|_| {}).await;
    for case in CASES {
        let (method, path, headers, body, status, code) = case;
        let want = (*status, (*code).to_owned());
        assert_eq!(send(&server, case).await, want, "{method} {path} {headers:?} {body}");
    }
    assert_eq!(server.get("/v1/product/_count").await.json, json!({"count": 0}));
}

#[tokio::test]
async fn a_mistake_is_explained_where_it_is() {
    let server = start(|_| {}).await;
    let wrong = server.put("/v1/product/a", json!({"name": "x", "price": "1.234"})).await;
    assert_eq!(wrong.json["errors"][0]["pointer"], "#/price", "{}", wrong.text);
    assert_eq!(wrong.json["entity"], "product");
    let near = server.get("/v1/prodct/a").await;
    assert!(near.json["hint"].as_str().unwrap().contains("product"), "{}", near.text);
    let typo = server.get("/v1/product/a?mta=true").await;
    assert!(typo.json["hint"].as_str().unwrap().contains("meta"), "{}", typo.text);
    let page = server.get(wrong.json["type"].as_str().unwrap()).await;
    assert!(page.text.starts_with("# invalid_input"), "the type of a problem leads to its page");
    let traced = server.request("GET", "/v1/product/zz");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = server.send(traced.header("traceparent", trace)).await;
    assert_eq!(traced.json["trace"], "0af7651916cd43dd8448eb211c80319c");
}

#[tokio::test]
async fn a_second_record_with_a_unique_value_is_refused_with_its_field() {
    let server = start(|_| {}).await;
    let body = json!({"name": "x", "code": "c1"});
    assert_eq!(server.put("/v1/product/a", body.clone()).await.status, 201);
    let refused = server.put("/v1/product/b", body).await;
    assert_eq!(refused.problem(), (422, "constraint_violated".into()));
    assert_eq!(refused.json["errors"][0]["field"], "code", "{}", refused.text);
}
