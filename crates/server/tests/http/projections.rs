//! Projections over HTTP: their rows as they change, and their versions.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::changes::Events;
use crate::harness::{Running, start};

const SHELF: &str = "/v1/projections/shelf";

async fn put(server: &Running, id: &str, status: &str, stock: i64) -> String {
    let body = json!({"name": id, "status": status, "stock": stock});
    let path = format!("/v1/product/{id}");
    let answer = server.send(server.request("PUT", &path).json(&body)).await;
    assert!(answer.status.is_success(), "{}", answer.text);
    answer.header("unisono-token").to_owned()
}

#[tokio::test]
async fn rows_are_followed_and_followed_on_from_the_last_id() {
    let server = start(|_| {}).await;
    let token = put(&server, "a", "new", 3).await;
    let path = format!("{SHELF}/_changes");
    let mut live = Events::open(&server, &path, None).await;
    // Among the rows that there were, or the first that came.
    let (anew, row) = (live.next().await, live.next().await);
    assert_eq!(anew.name, "anew");
    assert_eq!(row.data, json!({"status": "new", "products": 1, "stock": 3}));
    assert_eq!((anew.id.as_str(), row.id.as_str()), ("", token.as_str()));
    put(&server, "b", "used", 4).await;
    let used = live.next().await;
    assert_eq!((used.name.as_str(), &used.data["status"]), ("row", &json!("used")));
    put(&server, "b", "new", 4).await;
    let (both, gone) = (live.next().await, live.next().await);
    assert_eq!((&both.data["products"], both.id.as_str()), (&json!(2), ""));
    assert_eq!((gone.name.as_str(), gone.data), ("gone", json!({"status": "used"})));
    assert_eq!(gone.id, "main:3");

    let mut again = Events::open(&server, &path, Some(&used.id)).await;
    let (first, last) = (again.next().await, again.next().await);
    assert_eq!((first.data, last.id), (both.data, gone.id), "nothing twice, nothing left out");
    let ahead = server.get(&format!("{path}?after=999")).await;
    assert_eq!(ahead.status, 400, "{}", ahead.text);
    assert_eq!(server.get("/v1/projections/product/_changes").await.status, 404);
}

#[tokio::test]
async fn a_projection_is_rebuilt_gone_back_from_and_discarded() {
    let server = start(|_| {}).await;
    put(&server, "a", "new", 3).await;
    let path = "/admin/v1/projections";
    let listed = server.get(path).await;
    assert_eq!(
        (&listed.json["items"][0]["name"], &listed.json["items"][0]["version"]),
        (&json!("shelf"), &json!(1))
    );
    let none = server.post(&format!("{path}/shelf/back"), json!(null)).await;
    assert_eq!((none.status.as_u16(), &none.json["code"]), (404, &json!("not_found")));
    let begun = server.post(&format!("{path}/shelf/rebuild"), json!(null)).await;
    assert_eq!((begun.status.as_u16(), &begun.json["beside"]["state"]), (202, &json!("building")));
    let swapped = until(&server, |shelf| shelf["version"] == 2).await;
    assert_eq!(swapped["beside"], json!({"version": 1, "state": "former"}));
    assert_eq!(
        (&swapped["targets"][0]["rows"], &swapped["targets"][0]["live"]),
        (&json!(1), &json!(true))
    );
    let token = put(&server, "b", "new", 4).await;
    let read = server.request("GET", &format!("{SHELF}/new")).header("unisono-token", token);
    assert_eq!(server.send(read).await.json["products"], 2);
    let back = server.post(&format!("{path}/shelf/back"), json!(null)).await;
    assert_eq!((back.status.as_u16(), &back.json["version"]), (200, &json!(1)));
    let discarded = server.post(&format!("{path}/shelf/discard"), json!(null)).await;
    assert_eq!(discarded.status, 202, "{}", discarded.text);
    until(&server, |shelf| shelf["beside"].is_null()).await;
    assert_eq!(server.get(&format!("{path}/none")).await.status, 404);
}

async fn until(server: &Running, is: impl Fn(&Json) -> bool) -> Json {
    let settled = async {
        loop {
            let found = server.get("/admin/v1/projections/shelf").await.json;
            if is(&found) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), settled).await.unwrap()
}
