//! Who may do what.

use reqwest::RequestBuilder;
use serde_json::json;
use sha2::{Digest, Sha256};
use unisono::config::{Access, TokenDeclaration};
use unisono::core::{ErrorKind, Timestamp};
use unisono_server::{App, Options, Server};

use crate::harness::{Running, start};

fn token(name: &str, access: Access, entities: &[&str]) -> TokenDeclaration {
    TokenDeclaration {
        name: name.into(),
        hash: Sha256::digest(format!("usn_{name}")).into(),
        expires: None,
        entities: entities.iter().map(|e| (*e).into()).collect(),
        access,
    }
}

async fn guarded() -> Running {
    start(|options| {
        let mut old = token("old", Access::Admin, &["*"]);
        old.expires = Some(Timestamp::EPOCH);
        options.tokens = vec![
            token("reader", Access::Read, &["pro*"]),
            token("writer", Access::Write, &["*"]),
            token("admin", Access::Admin, &["*"]),
            token("keeper", Access::Admin, &["visit"]),
            old,
        ];
    })
    .await
}

fn by(request: RequestBuilder, name: &str) -> RequestBuilder {
    if name.is_empty() { request } else { request.bearer_auth(format!("usn_{name}")) }
}

#[tokio::test]
async fn each_token_opens_what_it_is_for() {
    let server = guarded().await;
    let visit = json!({"page": "x"});
    for (who, method, path, status) in [
        ("", "GET", "/v1/product/a", 401),
        ("nobody", "GET", "/v1/product/a", 401),
        ("old", "GET", "/v1/product/a", 401),
        ("", "GET", "/metrics", 401),
        ("", "GET", "/docs", 401),
        ("", "GET", "/openapi.json", 401),
        ("", "GET", "/admin/v1/status", 401),
        ("", "GET", "/health/live", 200),
        ("", "GET", "/health/ready", 200),
        ("", "GET", "/errors/unauthenticated", 200),
        ("", "GET", "/", 200),
        ("reader", "GET", "/docs", 200),
        ("reader", "GET", "/v1/product/_count", 200),
        ("reader", "GET", "/v1/visit/_count", 403),
        ("reader", "GET", "/v1/nothing/_count", 403),
        ("reader", "GET", "/v1/changes?entity=visit", 403),
        ("reader", "PUT", "/v1/product/a", 403),
        ("reader", "GET", "/admin/v1/status", 403),
        ("writer", "PUT", "/v1/visit/1", 201),
        ("writer", "POST", "/admin/v1/verify", 403),
        ("writer", "POST", "/admin/v1/reload", 403),
        ("keeper", "POST", "/admin/v1/reload", 403),
        ("admin", "POST", "/admin/v1/reload", 200),
        ("admin", "GET", "/admin/v1/status", 200),
        ("keeper", "POST", "/admin/v1/verify", 403),
        ("keeper", "GET", "/v1/visit/1", 200),
    ] {
        let mut request = by(server.request(method, path), who);
        if method == "PUT" {
            request = request.json(&visit);
        }
        let answer = server.send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{who} {method} {path}: {}", answer.text);
        if status == 401 {
            assert!(answer.header("www-authenticate").starts_with("Bearer "));
        }
    }
    let history = by(server.request("GET", "/v1/visit/1/_history"), "writer");
    assert_eq!(
        server.send(history).await.json["items"][0]["actor"],
        "writer",
        "the log knows who it was"
    );
}

#[tokio::test]
async fn nobody_meets_the_idempotency_keys_of_another() {
    let server = guarded().await;
    let post = |who: &'static str, id: i64| {
        let request = server.request("POST", "/v1/visit").header("idempotency-key", "k");
        server.send(by(request, who).json(&json!({"id": id})))
    };
    assert_eq!(post("writer", 1).await.status, 201);
    assert_eq!(post("admin", 2).await.status, 201);
    assert_eq!(post("writer", 3).await.problem(), (422, "idempotency_key_reused".into()));
}

#[tokio::test]
async fn without_tokens_only_this_machine_is_served_under_its_own_name() {
    let server = start(|_| {}).await;
    let rebound = server.request("GET", "/v1/product/a").header("host", "evil.example");
    assert_eq!(server.send(rebound).await.problem(), (421, "permission_denied".into()));
    let named = server.request("GET", "/v1/product/_count").header("host", "localhost:3000");
    assert_eq!(server.send(named).await.status, 200);
    let app = App {
        engine: server.engine.clone(),
        name: "x".into(),
        version: "1".into(),
        metrics: None,
        reload: None,
    };
    let public = Options { listen: "0.0.0.0:0".parse().unwrap(), ..Options::default() };
    let refused = Server::bind(public, app).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
}
