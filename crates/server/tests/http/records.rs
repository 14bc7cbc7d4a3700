//! One record and many: conditions, tokens, preferences, idempotency, lists.

use serde_json::{Value as Json, json};

use crate::harness::start;

#[tokio::test]
async fn a_record_is_created_read_changed_and_removed() {
    let server = start(|_| {}).await;
    let created = server.put("/v1/product/a", json!({"name": "chair", "price": "9.50"})).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let record = json!({"id": "a", "name": "chair", "price": "9.50", "stock": 0, "status": "new", "code": null, "tags": null});
    assert_eq!(created.json, record, "defaults are applied and the key is filled in");
    assert_eq!(created.header("etag"), "\"v1\"");
    assert_eq!(created.header("unisono-token"), "main:1");
    assert_eq!(created.header("unisono-source"), "main; role=truth");

    let read =
        server.send(server.request("GET", "/v1/product/a").header("unisono-token", "main:1")).await;
    assert_eq!((read.status.as_u16(), &read.json), (200, &record));
    assert_eq!(read.header("etag"), "\"v1\"");
    assert_eq!(read.header("content-type"), "application/json");
    for name in ["unisono-token", "unisono-source", "cache-status", "server-timing", "age"] {
        assert!(!read.header(name).is_empty(), "{name}");
    }

    assert_eq!(server.put("/v1/product/a", json!({"id": "a", "name": "table"})).await.status, 200);
    let patch = server
        .request("PATCH", "/v1/product/a")
        .header("content-type", "application/merge-patch+json");
    let patched = server.send(patch.body(r#"{"stock": 3}"#)).await;
    assert_eq!(
        (patched.status.as_u16(), &patched.json["stock"], &patched.json["name"]),
        (200, &json!(3), &json!("table"))
    );

    let deleted = server.send(server.request("DELETE", "/v1/product/a")).await;
    assert_eq!((deleted.status.as_u16(), deleted.header("unisono-token")), (204, "main:4"));
    let gone =
        server.send(server.request("GET", "/v1/product/a").header("unisono-token", "main:4")).await;
    assert_eq!(gone.problem(), (404, "not_found".into()));
    assert!(!gone.header("unisono-source").is_empty(), "an absence names its source too");

    let history = server.get("/v1/product/a/_history?limit=3").await;
    let operations: Vec<_> = history.json["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["operation"].as_str().unwrap())
        .collect();
    assert_eq!(operations, ["delete", "put", "put"]);
    assert_eq!(history.json["next"], "2");
    let rest = server.get("/v1/product/a/_history?limit=3&before=2").await;
    assert_eq!(rest.json["items"][0]["record"]["name"], "chair");
    assert_eq!(rest.json["next"], json!(null));
}

#[tokio::test]
async fn a_post_makes_a_key_and_says_where_the_record_is() {
    let server = start(|_| {}).await;
    let created = server.post("/v1/product", json!({"name": "chair"})).await;
    assert_eq!(created.status, 201);
    let place = created.header("location");
    assert_eq!(place, format!("/v1/product/{}", created.json["id"].as_str().unwrap()));
    assert_eq!(server.get(place).await.json["name"], "chair");
    let odd = server.post("/v1/product", json!({"id": "_a/b ä", "name": "chair"})).await;
    assert_eq!(server.get(odd.header("location")).await.json["id"], "_a/b ä");
    let again = server.post("/v1/product", json!({"id": "_a/b ä", "name": "chair"})).await;
    assert_eq!(again.problem(), (409, "already_exists".into()));
}

#[tokio::test]
async fn conditions_decide_whether_a_write_takes_place() {
    let server = start(|_| {}).await;
    let put = |name: &'static str, value: &'static str| {
        server.send(
            server.request("PUT", "/v1/product/a").header(name, value).json(&json!({"name": "x"})),
        )
    };
    assert_eq!(put("if-match", "*").await.problem(), (412, "version_conflict".into()));
    assert_eq!(put("if-match", "\"v1\"").await.problem(), (412, "version_conflict".into()));
    assert_eq!(put("if-none-match", "*").await.status, 201);
    assert_eq!(put("if-none-match", "*").await.problem(), (412, "version_conflict".into()));
    assert_eq!(put("if-match", "\"v1\"").await.status, 200);
    let conflict = put("if-match", "\"v1\"").await;
    assert_eq!(conflict.problem(), (412, "version_conflict".into()));
    assert_eq!(
        (&conflict.json["context"]["actual"], &conflict.json["committed"]),
        (&json!("2"), &json!("no"))
    );
    assert_eq!(put("if-match", "*").await.status, 200);

    let get = |tag: &'static str| {
        server.send(
            server
                .request("GET", "/v1/product/a")
                .header("unisono-token", "main:3")
                .header("if-none-match", tag),
        )
    };
    let known = get("\"v1\", \"v3\"").await;
    assert_eq!(
        (known.status.as_u16(), known.text.as_str(), known.header("etag")),
        (304, "", "\"v3\"")
    );
    assert_eq!(get("\"v1\"").await.status, 200);
    let delete = server.request("DELETE", "/v1/product/a").header("if-match", "\"v2\"");
    assert_eq!(server.send(delete).await.problem(), (412, "version_conflict".into()));
}

#[tokio::test]
async fn answers_are_as_large_as_the_caller_prefers() {
    let server = start(|_| {}).await;
    let put = server.request("PUT", "/v1/product/a").header("prefer", "return=minimal");
    let minimal = server.send(put.json(&json!({"name": "x"}))).await;
    assert_eq!((minimal.status.as_u16(), minimal.text.as_str()), (201, ""));
    assert_eq!(
        (minimal.header("etag"), minimal.header("preference-applied")),
        ("\"v1\"", "return=minimal")
    );
    let put = server.request("PUT", "/v1/product/a").header("prefer", "return=minimal");
    assert_eq!(server.send(put.json(&json!({"name": "y"}))).await.status, 204);

    let strong =
        server.request("GET", "/v1/product/a?meta=true").header("prefer", "consistency=strong");
    let meta = server.send(strong).await;
    assert_eq!(meta.json["record"]["name"], "y");
    assert_eq!(
        (&meta.json["version"], &meta.json["source"], &meta.json["stale"]),
        (&json!("2"), &json!("main"), &json!(false))
    );
    assert!(meta.json["age"].is_number());

    let head = server.send(server.request("HEAD", "/v1/product/a")).await;
    assert_eq!(
        (head.status.as_u16(), head.text.as_str(), head.header("etag").is_empty()),
        (200, "", false)
    );
    let options = server.send(server.request("OPTIONS", "/v1/product/a")).await;
    assert_eq!(
        (options.status.as_u16(), options.header("allow")),
        (204, "GET, PUT, PATCH, DELETE, HEAD")
    );
}

#[tokio::test]
async fn a_cached_record_says_that_it_is_one() {
    let server = start(|_| {}).await;
    let token = server.product("a").await.header("unisono-token").to_owned();
    let read =
        || server.send(server.request("GET", "/v1/product/a").header("unisono-token", &token));
    let mut statuses = Vec::new();
    // The first reads may find the cache still beginning; it answers once it follows the log.
    for _ in 0..200 {
        let answer = read().await;
        assert_eq!(answer.json["name"], "chair");
        statuses.push(answer.header("cache-status").to_owned());
        if answer.header("cache-status").starts_with("unisono; hit; ttl=") {
            assert_eq!(answer.header("unisono-source"), "fast; role=cache");
            assert_eq!(answer.header("unisono-rule"), "lookup");
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never a hit: {statuses:?}");
}

#[tokio::test]
async fn a_hint_decides_who_answers() {
    let server = start(|_| {}).await;
    server.product("a").await;
    let hinted = |hint| server.send(server.request("GET", "/v1/product/a").header("prefer", hint));
    let critical = hinted("hint=critical").await;
    assert_eq!(critical.header("unisono-source"), "main; role=truth");
    assert_eq!(critical.header("unisono-rule"), "critical");
    assert_eq!(hinted("hint=other").await.header("unisono-rule"), "lookup");
    let bad = hinted("hint=\"two words\"").await;
    assert_eq!((bad.status.as_u16(), &bad.json["code"]), (400, &json!("invalid_input")));
}

#[tokio::test]
async fn records_are_served_at_a_declared_path_in_an_envelope() {
    let server = start(|_| {}).await;
    let made = server.post("/products", json!({"id": "a", "name": "chair"})).await;
    assert_eq!((made.status.as_u16(), made.header("location")), (201, "/products/a"));
    assert_eq!(
        (&made.json["source"], &made.json["data"]["name"]),
        (&json!("primary"), &json!("chair"))
    );
    let read = server.get("/products/a").await;
    assert_eq!(read.json["source"], read.header("unisono-served-by"));
    assert_eq!(read.json["data"], server.get("/v1/product/a").await.json, "the same record");
    let list = server.get("/products?stock=eq.0").await;
    assert_eq!((&list.json["data"][0]["id"], &list.json["next"]), (&json!("a"), &Json::Null));
    let changed = server.put("/products/a", json!({"id": "a", "name": "table"})).await;
    assert_eq!((changed.status.as_u16(), &changed.json["data"]["name"]), (200, &json!("table")));
    let gone = server.send(server.request("DELETE", "/products/a")).await;
    assert_eq!(gone.status.as_u16(), 204);
    let missing = server.get("/products/b").await;
    assert_eq!((missing.status.as_u16(), &missing.json["code"]), (404, &json!("not_found")));
}

#[tokio::test]
async fn a_repeated_request_has_the_effect_of_one() {
    let server = start(|_| {}).await;
    let post = |key: &'static str, name: &'static str| {
        server.send(
            server
                .request("POST", "/v1/product")
                .header("idempotency-key", key)
                .json(&json!({"name": name})),
        )
    };
    let first = post("k1", "chair").await;
    let second = post("k1", "chair").await;
    assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (201, ""));
    assert_eq!((second.status.as_u16(), second.header("idempotency-replayed")), (201, "true"));
    assert_eq!(first.json, second.json, "the key that was made is the same");
    for name in ["location", "etag", "unisono-token"] {
        assert_eq!(first.header(name), second.header(name), "{name}");
    }
    assert_eq!(post("k1", "table").await.problem(), (422, "idempotency_key_reused".into()));
    assert_eq!(post("k2", "chair").await.header("idempotency-replayed"), "");
    assert_eq!(server.get("/v1/product/_count").await.json, json!({"count": 2}));

    let delete = || {
        server.send(
            server.request("DELETE", first.header("location")).header("idempotency-key", "k3"),
        )
    };
    assert_eq!((delete().await.status.as_u16(), delete().await.status.as_u16()), (204, 204));
}

#[tokio::test]
async fn lists_counts_and_groups_answer_from_the_same_records() {
    let server = start(|_| {}).await;
    for (key, name, stock) in [("a", "red chair", 1), ("b", "blue chair", 2), ("c", "table", 3)] {
        let body = json!({"name": name, "stock": stock, "price": "1.50"});
        assert_eq!(server.put(&format!("/v1/product/{key}"), body).await.status, 201);
    }
    let strong = |method: &str, path: &str| {
        server.request(method, path).header("prefer", "consistency=strong")
    };
    let page = server
        .send(strong("GET", "/v1/product?stock=gte.2&order=stock.desc&limit=1&fields=id,stock"))
        .await;
    assert_eq!(page.json["items"], json!([{"id": "c", "stock": 3}]));
    let next = page.json["next"].as_str().unwrap();
    let rest = server
        .send(strong(
            "GET",
            &format!(
                "/v1/product?stock=gte.2&order=stock.desc&limit=1&fields=id,stock&cursor={next}"
            ),
        ))
        .await;
    assert_eq!(rest.json["items"], json!([{"id": "b", "stock": 2}]));

    let query = json!({"where": {"field": "stock", "op": "lt", "value": 3}, "order": ["-stock"]});
    for (method, path) in [("POST", "/v1/product/_query"), ("QUERY", "/v1/product")] {
        let answer = server.send(strong(method, path).json(&query)).await;
        assert_eq!(answer.json["items"][0]["id"], "b", "{method} {}", answer.text);
    }
    let search = server
        .send(strong("GET", "/v1/product?q=chair&highlight=true&facets=status&meta=true"))
        .await;
    assert_eq!(search.json["items"].as_array().unwrap().len(), 2, "{}", search.text);
    let hit = &search.json["items"][0];
    assert!(hit["highlights"]["name"].as_str().unwrap().contains("<mark>chair</mark>"));
    assert_eq!(hit["source"], "main");
    assert_eq!(search.json["facets"]["status"], json!([{"value": "new", "count": 2}]));

    assert_eq!(
        server.send(strong("GET", "/v1/product/_count?stock=gt.1")).await.json,
        json!({"count": 2})
    );
    let count =
        server.send(strong("POST", "/v1/product/_count").json(&json!({"search": "chair"}))).await;
    assert_eq!(count.json, json!({"count": 2}));
    let aggregate =
        json!({"group_by": ["status"], "metrics": {"n": "count", "total": {"sum": "price"}}});
    let groups = server.send(strong("POST", "/v1/product/_aggregate").json(&aggregate)).await;
    assert_eq!(
        groups.json,
        json!({"groups": [{"status": "new", "n": 3, "total": "4.50"}], "total_groups": 1})
    );
}

#[tokio::test]
async fn what_is_written_behind_is_accepted_and_shown_as_pending() {
    let server = start(|_| {}).await;
    let path = "/v1/signal/a";
    let put = server.request("PUT", path).header("idempotency-key", "k").json(&json!({"level": 3}));
    let accepted = server.send(put.try_clone().unwrap()).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let waiting = json!({"key": "a", "state": "pending", "journal": "queue", "sequence": "1"});
    assert_eq!(accepted.json, waiting);
    assert_eq!(accepted.header("unisono-token"), "queue/signal:1");
    assert_eq!(accepted.header("unisono-source"), "queue; role=journal");
    assert_eq!(accepted.header("unisono-served-by"), "journal");
    assert_eq!(accepted.header("etag"), "", "it has no version that could be mistaken");
    let again = server.send(put).await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (202, "true"));

    let token = accepted.header("unisono-token");
    let read = server.send(server.request("GET", path).header("unisono-token", token)).await;
    assert_eq!((read.status.as_u16(), &read.json), (200, &json!({"id": "a", "level": 3})));
    assert_eq!(read.header("etag"), "");
    assert_eq!(read.header("cache-status"), "unisono; fwd=bypass; detail=pending");
    assert_eq!(read.header("unisono-source"), "queue; role=journal");
    let meta = server.send(server.request("GET", &format!("{path}?meta=true"))).await.json;
    assert_eq!((&meta["version"], &meta["pending"]), (&json!(null), &json!(true)));

    let patched = server.request("PATCH", path).json(&json!({"level": 4}));
    assert_eq!(server.send(patched).await.status, 202);
    assert_eq!(server.send(server.request("GET", path)).await.json["level"], 4);
    assert_eq!(server.send(server.request("DELETE", path)).await.status, 202);
    assert_eq!(server.send(server.request("GET", path)).await.problem(), (404, "not_found".into()));
    let made = server.post("/v1/signal", json!({"level": 1})).await;
    let key = made.json["key"].as_str().unwrap();
    assert_eq!(
        (made.status.as_u16(), made.header("location")),
        (202, &*format!("/v1/signal/{key}"))
    );

    let one = json!({"put": {"id": "b", "level": 1}});
    let batch = server.post("/v1/signal/_batch", json!({"operations": [one, one]})).await;
    assert_eq!((batch.status.as_u16(), &batch.json["items"][1]["status"]), (200, &json!(202)));
    let together = json!({"atomic": true, "operations": [one, {"delete": "a"}]});
    let refused = server.post("/v1/signal/_batch", together).await;
    assert_eq!(refused.json["code"], "unsupported", "{}", refused.text);
    let bad = server.put("/v1/signal/c", json!({"level": "high"})).await;
    assert_eq!(bad.problem().0, 400, "what is wrong with any record is told at once");
}
