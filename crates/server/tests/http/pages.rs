//! Health, documentation, error pages, and operation.

use serde_json::{Value as Json, json};
use unisono::core::ErrorKind;

use crate::harness::start;

#[tokio::test]
async fn health_tells_whether_to_send_requests() {
    let mut server = start(|_| {}).await;
    assert_eq!(server.get("/health/live").await.json, json!({"status": "live"}));
    let ready = server.get("/health/ready").await;
    assert_eq!(ready.status, 200, "{}", ready.text);
    server.begin_stop();
    server.stopped().await;
}

#[tokio::test]
async fn pages_are_for_people_and_safe_to_look_at() {
    let server = start(|_| {}).await;
    let html =
        |path: &str| server.send(server.request("GET", path).header("accept", "text/html,*/*"));
    for path in ["/", "/docs", "/errors", "/errors/version_conflict"] {
        let page = html(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.header("content-type").starts_with("text/html"), "{path}");
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert!(page.text.contains("</html>") && !page.text.contains("<script"), "{path}");
    }
    assert!(server.get("/docs").await.text.contains("decimal(12,2)"));
    assert_eq!(
        server.get("/docs/style.css").await.header("content-type"),
        "text/css; charset=utf-8"
    );
    assert_eq!(server.get("/").await.json["docs"], "/docs");
    for kind in ErrorKind::ALL {
        let page = server.get(&format!("/errors/{}", kind.code())).await;
        assert!(page.header("content-type").starts_with("text/markdown"));
        assert!(page.text.starts_with(&format!("# {}", kind.code())));
    }
    let openapi = server.get("/openapi.json").await.json;
    assert_eq!((&openapi["openapi"], &openapi["info"]["title"]), (&json!("3.1.0"), &json!("Shop")));
    let schema = &openapi["components"]["schemas"]["product"]["properties"];
    assert_eq!(schema["status"]["enum"], json!(["new", "used", null]));
}

#[tokio::test]
async fn operation_shows_verifies_and_explains() {
    let server = start(|_| {}).await;
    for key in ["a", "b", "c"] {
        server.product(key).await;
    }
    let token = server.engine.head_token().await.unwrap();
    server.engine.wait_applied(&token, std::time::Duration::from_secs(20)).await.unwrap();

    let status = server.get("/admin/v1/status").await.json;
    assert_eq!((&status["name"], &status["logs"][0]["head"]), (&json!("Shop"), &json!("3")));
    let config = server.get("/admin/v1/config").await.json;
    assert_eq!(config["entities"]["product"]["truth"], "main");
    let explained = server.get("/admin/v1/explain?entity=product&key=a").await.json;
    assert!(!explained["lines"].as_array().unwrap().is_empty());

    let lines = server.post("/admin/v1/verify", json!({"entity": "product"})).await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let last: Json = serde_json::from_str(lines.text.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["agrees"], &last["report"]["comparisons"][0]["records"]),
        (&json!(true), &json!(3)),
        "{last}"
    );
    let request = server.request("POST", "/admin/v1/verify").header("accept", "application/json");
    assert_eq!(server.send(request).await.json["agrees"], true);

    let backfill =
        server.post("/admin/v1/backfill", json!({"entity": "product", "source": "copy"})).await;
    assert_eq!(backfill.status, 202, "{}", backfill.text);
    assert_eq!(server.get("/admin/v1/dead-letters").await.json, json!({"items": []}));
}
