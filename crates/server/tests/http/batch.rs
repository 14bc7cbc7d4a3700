//! Many writes at once.

use serde_json::json;

use crate::harness::start;

#[tokio::test]
async fn each_operation_is_answered_for_itself() {
    let server = start(|_| {}).await;
    server.product("a").await;
    let body = json!({"operations": [
        {"put": {"id": "b", "name": "table"}},
        {"patch": {"id": "a", "stock": 5}, "if_match": "\"v1\""},
        {"patch": {"id": "a", "stock": 6}, "if_match": "\"v1\""},
        {"put": {"id": "c"}},
        {"delete": "nobody"},
        {"delete": "b"},
    ]});
    let answer = server.post("/v1/product/_batch", body).await;
    assert_eq!(answer.status, 207, "{}", answer.text);
    let items = answer.json["items"].as_array().unwrap();
    let statuses: Vec<_> = items.iter().map(|i| i["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 200, 412, 400, 404, 204], "{}", answer.text);
    assert_eq!((&items[0]["key"], &items[0]["version"]), (&json!("b"), &json!("2")));
    assert_eq!(items[2]["error"]["code"], "version_conflict");
    assert_eq!(answer.json["token"], answer.header("unisono-token"));
    let all_well =
        server.post("/v1/product/_batch", json!({"operations": [{"delete": "a"}]})).await;
    assert_eq!(all_well.status, 200);
    let none = server.post("/v1/product/_batch", json!({"operations": []})).await;
    assert_eq!((none.status.as_u16(), &none.json["items"]), (200, &json!([])));
}

#[tokio::test]
async fn an_atomic_batch_takes_place_as_a_whole_or_not_at_all() {
    let server = start(|_| {}).await;
    let count = || async { server.get("/v1/product/_count").await.json["count"].clone() };
    let bad = json!({"atomic": true, "operations": [
        {"put": {"id": "a", "name": "x"}},
        {"put": {"id": "b", "name": "y"}, "if_match": "*"},
    ]});
    let refused = server.post("/v1/product/_batch", bad).await;
    assert_eq!(refused.problem(), (412, "version_conflict".into()));
    assert_eq!((&refused.json["committed"], &refused.json["index"]), (&json!("no"), &json!(1)));
    let malformed =
        json!({"atomic": true, "operations": [{"put": {"id": "a", "name": "x"}}, {"put": {}}]});
    let malformed = server.post("/v1/product/_batch", malformed).await;
    assert_eq!(
        (malformed.problem(), &malformed.json["index"]),
        ((400, "invalid_input".into()), &json!(1))
    );
    assert_eq!(count().await, 0);

    let good = json!({"atomic": true, "operations": [
        {"put": {"id": "a", "name": "x"}},
        {"patch": {"id": "a", "stock": 2}},
        {"put": {"id": "b", "name": "y"}},
    ]});
    let send = || {
        let request = server.request("POST", "/v1/product/_batch").header("idempotency-key", "k");
        server.send(request.json(&good))
    };
    let (first, second) = (send().await, send().await);
    assert_eq!(
        (first.status.as_u16(), first.header("idempotency-replayed")),
        (200, ""),
        "{}",
        first.text
    );
    assert_eq!((second.status.as_u16(), second.header("idempotency-replayed")), (200, "true"));
    assert_eq!(first.json, second.json);
    assert_eq!(first.json["token"], "main:3");
    assert_eq!(count().await, 2);
}

#[tokio::test]
async fn an_idempotency_key_needs_an_atomic_batch() {
    let server = start(|_| {}).await;
    let request = server.request("POST", "/v1/product/_batch").header("idempotency-key", "k");
    let answer = server.send(request.json(&json!({"operations": []}))).await;
    assert_eq!(answer.problem(), (400, "invalid_input".into()));
}
