//! The configuration of a running server: changed from outside, or told why not.

use serde_json::json;

use crate::harness::{CONFIGURATION, start};

#[tokio::test]
async fn a_server_takes_in_what_its_file_says_now_and_tells_what_changed() {
    let server = start(|_| {}).await;
    let reload = |query: &'static str| {
        server.send(server.request("POST", &format!("/admin/v1/reload{query}")))
    };
    assert_eq!(reload("").await.json, json!({"applied": true, "changes": []}));

    let changed =
        format!("{CONFIGURATION}\n[entities.product.write]\nstrategy = \"write_through\"\n");
    *server.file.lock().unwrap() = changed.replace("flush_after = \"1h\"", "flush_after = \"2h\"");
    let changes = json!([
        "entities.product.write.strategy: write_around -> write_through",
        "entities.signal.write.flush_after: 1h -> 2h",
    ]);
    let planned = reload("?dry_run=true").await;
    assert_eq!(planned.json, json!({"applied": false, "changes": changes}));
    let done = reload("?dry_run=false").await;
    assert_eq!(done.json, json!({"applied": true, "changes": changes}), "the plan changed nothing");
    server.product("a").await;
    let read = server.send(server.request("GET", "/v1/product/a")).await;
    assert_eq!(read.header("unisono-served-by"), "cache", "it was written through");
    assert_eq!(reload("").await.json["changes"], json!([]));
    let unknown = reload("?dryrun=true").await;
    assert_eq!(unknown.problem(), (400, "invalid_input".into()));
}

#[tokio::test]
async fn what_cannot_be_taken_in_is_named_and_keeps_the_rest_out() {
    let server = start(|_| {}).await;
    let reload = |query: &'static str| {
        server.send(server.request("POST", &format!("/admin/v1/reload{query}")))
    };
    let changed = CONFIGURATION
        .replace("page = \"string\"", "page = \"text\"")
        .replace("127.0.0.1:0", "127.0.0.1:1")
        .replace("[entities.product.cache]", "[entities.product.cache]\nttl = \"1s\"");
    (*server.file.lock().unwrap()).clone_from(&changed);
    for query in ["", "?dry_run=true"] {
        let refused = reload(query).await;
        assert_eq!(refused.problem(), (422, "invalid_config".into()));
        assert_eq!(refused.json["context"]["restart"], "entities.visit.fields, server.listen");
        assert_eq!(refused.json["hint"], "restart to change it");
    }
    let config = server.get("/admin/v1/config").await.json;
    assert_eq!(config["entities"]["product"]["cache"]["ttl_s"], 60.0);

    // All problems at their lines, as `unisono check` has them.
    *server.file.lock().unwrap() = changed.replace("ttl = \"1s\"", "ttl = \"soon\"").replace(
        "truth = \"main\"\n[entities.visit.fields]",
        "truth = \"mian\"\n[entities.visit.fields]",
    );
    let refused = reload("").await;
    assert_eq!(refused.problem(), (422, "invalid_config".into()));
    // Warnings, of which sources in memory have some, are among them.
    let mut problems = refused.json["problems"].as_array().unwrap().clone();
    problems.retain(|problem| problem["severity"] == "error");
    let line = |n: usize| {
        let text = problems[n]["text"].as_str().unwrap().to_owned();
        (text, problems[n]["line"].is_u64(), problems[n]["hint"].clone())
    };
    assert_eq!(problems.len(), 2, "{}", refused.text);
    assert_eq!(line(0), ("ttl = \"soon\"".to_owned(), true, json!(null)));
    assert_eq!(line(1), ("truth = \"mian\"".to_owned(), true, json!("did you mean `main`?")));
}
