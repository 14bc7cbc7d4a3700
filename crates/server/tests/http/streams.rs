//! Streams of events over HTTP.

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value as Json, json};

use crate::changes::Events;
use crate::harness::{Answer, Running, start};

const CLOUD: &str = "application/cloudevents+json";
const CLOUDS: &str = "application/cloudevents-batch+json";

async fn append(server: &Running, stream: &str, body: Json) -> Answer {
    server.post(&format!("/v1/streams/order/{stream}"), body).await
}

fn placed(n: u64) -> Json {
    json!({"type": "placed", "data": {"n": n}, "tags": [format!("user:{}", n % 2)]})
}

#[tokio::test]
async fn events_are_appended_at_the_expected_revision_and_read_back() {
    let server = start(|_| {}).await;
    let first = append(
        &server,
        "o1",
        json!({"events": [placed(1), placed(2)], "expected_revision": "none"}),
    )
    .await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(
        (&first.json["revision"], first.json["events"].as_array().unwrap().len()),
        (&json!(2), 2)
    );
    assert!(first.header("unisono-token").starts_with("main:"));
    let late = append(&server, "o1", json!({"events": [placed(3)], "expected_revision": 1})).await;
    assert_eq!((late.status.as_u16(), &late.json["code"]), (412, &json!("version_conflict")));
    assert_eq!(late.json["context"]["actual"], "2");
    assert!(
        late.json["hint"].as_str().is_some_and(|h| h.contains("actual revision")),
        "{}",
        late.text
    );
    assert_eq!(
        append(&server, "o1", json!({"events": [placed(3)], "expected_revision": 2})).await.status,
        201
    );

    let page = server.get("/v1/streams/order/o1?limit=2").await;
    assert_eq!(page.json["items"][1]["data"], json!({"n": 2}));
    assert_eq!(page.json["next"], 3);
    assert!(
        page.header("unisono-source").starts_with("main; role=truth"),
        "{page:?}",
        page = page.headers
    );
    let rest = server.get("/v1/streams/order/o1?from=3").await;
    assert_eq!(
        (rest.json["items"].as_array().unwrap().len(), &rest.json["next"]),
        (1, &Json::Null)
    );
    let newest = server.get("/v1/streams/order/o1?direction=backward&limit=1").await;
    assert_eq!(
        (&newest.json["items"][0]["revision"], &newest.json["next"]),
        (&json!(3), &json!(2))
    );
    let tagged = server.get("/v1/streams/order?tag=user:1").await;
    assert_eq!(tagged.json["items"].as_array().unwrap().len(), 2);
    let bare = server.get("/v1/order_events?stream=eq.o1").await;
    assert_eq!(
        bare.json["items"].as_array().unwrap().len(),
        3,
        "the record interface may read them"
    );
    let refused = server.put("/v1/order_events/x", json!({})).await;
    assert!(refused.status.is_client_error() || refused.status == 501, "{}", refused.text);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_its_place() {
    let server = start(|_| {}).await;
    for (path, body, status, code) in [
        ("/v1/streams/order/o", json!({"events": []}), 400, "invalid_input"),
        ("/v1/streams/order/o", json!({"events": [{"data": 1}]}), 400, "invalid_input"),
        (
            "/v1/streams/order/o",
            json!({"events": [placed(1)], "expected_revision": "soon"}),
            400,
            "invalid_input",
        ),
        (
            "/v1/streams/order/o",
            json!({"events": [placed(1)], "condition": {"any_of": [{}]}}),
            400,
            "invalid_input",
        ),
        ("/v1/streams/order/a%2Fb", json!({"events": [placed(1)]}), 400, "invalid_input"),
        ("/v1/streams/nope/o", json!({"events": [placed(1)]}), 404, "not_found"),
    ] {
        let answer = server.post(path, body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json["code"]),
            (status, &json!(code)),
            "{body}"
        );
    }
    for (path, status) in [
        ("/v1/streams/order/none", 404),
        ("/v1/streams/nope", 404),
        ("/v1/streams/order/o?from=x", 400),
        ("/v1/streams/order/o?limit=0", 400),
        ("/v1/streams/order?direction=up", 400),
    ] {
        assert_eq!(server.get(path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_repeated_append_is_told_to_be_one() {
    let server = start(|_| {}).await;
    let send = async |n| {
        let request = server.request("POST", "/v1/streams/order/o").header("idempotency-key", "k");
        server.send(request.json(&json!({"events": [placed(n)]}))).await
    };
    let (first, again, other) = (send(1).await, send(1).await, send(2).await);
    assert_eq!(
        (first.status.as_u16(), again.status.as_u16(), other.status.as_u16()),
        (201, 200, 422)
    );
    assert_eq!(again.json["events"], first.json["events"]);
    assert_eq!(
        (again.header("idempotency-replayed"), &again.json["replayed"]),
        ("true", &json!(true))
    );
    assert_eq!(other.json["code"], "idempotency_key_reused");
}

#[tokio::test]
async fn cloud_events_are_taken_and_given() {
    let server = start(|_| {}).await;
    let event = |id: &str| {
        json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "placed", "correlationid": "c1",
            "time": "2026-01-02T03:04:05Z", "data": {"n": 1}})
    };
    let send = async |media: &'static str, body: Json| {
        let request = server.request("POST", "/v1/streams/order/o").body(body.to_string());
        server.send(request.header(CONTENT_TYPE, media)).await.status.as_u16()
    };
    assert_eq!(send(CLOUD, event("e1")).await, 201);
    assert_eq!(send(CLOUDS, json!([event("e2"), event("e3")])).await, 201);
    assert_eq!(send(CLOUDS, json!([event("e2"), event("e3")])).await, 200, "the same ids again");
    assert_eq!(send(CLOUD, json!({"type": "placed"})).await, 400);
    let read = server.request("GET", "/v1/streams/order/o").header(ACCEPT, CLOUDS);
    let read = server.send(read).await;
    assert_eq!(read.header("content-type"), CLOUDS);
    let given = &read.json[2];
    assert_eq!(
        (&given["id"], &given["subject"], &given["sequence"]),
        (&json!("e3"), &json!("o"), &json!("3"))
    );
    assert_eq!(
        (&given["source"], &given["correlationid"]),
        (&json!("/v1/streams/order"), &json!("c1"))
    );
    let plain = server.get("/v1/streams/order/o").await;
    assert_eq!(plain.json["items"][0]["metadata"]["correlation"], "c1");
}

#[tokio::test]
async fn events_are_followed_and_followed_on_from_the_last_id() {
    let server = start(|_| {}).await;
    append(&server, "a", json!({"events": [placed(1), placed(2)]})).await;
    let mut events = Events::open(&server, "/v1/streams/order/_subscribe", None).await;
    let (first, second) = (events.next().await, events.next().await);
    assert_eq!(
        (first.name.as_str(), &first.data["revision"], &second.data["revision"]),
        ("placed", &json!(1), &json!(2))
    );
    append(&server, "b", json!({"events": [placed(3)]})).await;
    let third = events.next().await;
    assert_eq!((&third.data["stream"], &third.data["position"]), (&json!("b"), &json!(third.id)));
    let mut again = Events::open(&server, "/v1/streams/order/_subscribe", Some(&second.id)).await;
    assert_eq!(again.next().await.id, third.id, "nothing twice, nothing left out");
    let mut one = Events::open(&server, "/v1/streams/order/_subscribe?stream=b", None).await;
    assert_eq!(one.next().await.id, third.id);
    let listed = server.request("GET", "/v1/streams/order/b").header(ACCEPT, "text/event-stream");
    assert_eq!(listed.send().await.unwrap().headers()[CONTENT_TYPE], "text/event-stream");
}

#[tokio::test]
async fn streams_are_archived_limited_and_deleted() {
    let server = start(|_| {}).await;
    for stream in ["a", "b", "c"] {
        append(&server, stream, json!({"events": [placed(1), placed(2), placed(3)]})).await;
    }
    assert_eq!(server.post("/v1/streams/order/a/_archive", json!(null)).await.status, 204);
    assert_eq!(append(&server, "a", json!({"events": [placed(4)]})).await.status, 410);
    assert_eq!(server.get("/v1/streams/order/a").await.json["archived"], true);
    assert_eq!(server.send(server.request("DELETE", "/v1/streams/order/b")).await.status, 204);
    let gone = server.get("/v1/streams/order/b").await;
    assert_eq!((gone.status.as_u16(), &gone.json["code"]), (410, &json!("stream_closed")));
    assert_eq!(
        server.get(gone.json["type"].as_str().unwrap()).await.status,
        200,
        "the error has a page"
    );
    let limits = json!({"max_count": 2, "max_age_seconds": null});
    assert_eq!(server.put("/v1/streams/order/c/_metadata", limits.clone()).await.json, limits);
    assert_eq!(server.get("/v1/streams/order/c/_metadata").await.json, limits);
    assert_eq!(server.get("/v1/streams/order/c").await.json["items"][0]["revision"], 2);
    assert_eq!(
        server.put("/v1/streams/order/c/_metadata", json!({"max_count": 0})).await.status,
        400
    );
}
