//! The products service as a good Rust programmer writes it by hand: axum, PostgreSQL with a replica, cache-aside in
//! Redis (`a`), and the same with a cache in the process in front (`b`). It promises no consistency: what a lagging
//! replica answers stays cached until its time to live ends.
//!
//! `node/` is the same service in Express (`c`). All three are told by the environment where the engines are.

mod cache;
mod store;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use cache::Cache;
use store::{Product, Store};

/// Which of the two it is, and what both keep open.
struct Service {
    store: Store,
    cache: Cache,
}

/// A variable that says where an engine is.
fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|e| format!("{name}: {e}").into())
}

/// Serves until it is killed: `a` or `b`, then the address.
pub(crate) fn serve(given: &mut dyn Iterator<Item = String>) -> Result<()> {
    let in_process = given.next().ok_or("serve-baseline needs a or b")? == "b";
    let address: SocketAddr = given.next().ok_or("serve-baseline needs an address")?.parse()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let service = Arc::new(Service {
            store: Store::open().await?,
            cache: Cache::open(in_process).await?,
        });
        let router = Router::new()
            .route("/products", get(list).post(create))
            .route("/products/{id}", get(read).put(update).delete(remove))
            .with_state(service);
        let listener = tokio::net::TcpListener::bind(address).await?;
        axum::serve(listener, router).await?;
        Ok(())
    })
}

/// What went wrong, as a status: nothing more is promised.
struct Failure(Error);

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}

type Answer = std::result::Result<Response, Failure>;

fn body(source: &'static str, json: Bytes) -> Response {
    (
        [
            (header::CONTENT_TYPE, "application/json"),
            (header::HeaderName::from_static("x-source"), source),
        ],
        json,
    )
        .into_response()
}

async fn read(State(service): State<Arc<Service>>, Path(id): Path<String>) -> Answer {
    if let Some(json) = service.cache.get(&id).await {
        return Ok(body("cache", json));
    }
    let (found, source) = service.store.get(&id).await?;
    let Some(product) = found else { return Ok(StatusCode::NOT_FOUND.into_response()) };
    let json = Bytes::from(serde_json::to_vec(&product)?);
    service.cache.put(&id, json.clone()).await;
    Ok(body(source, json))
}

#[derive(Deserialize)]
struct Page {
    limit: Option<i64>,
}

#[derive(Serialize)]
struct Items {
    items: Vec<Product>,
}

async fn list(State(service): State<Arc<Service>>, Query(page): Query<Page>) -> Answer {
    let (items, source) = service.store.list(page.limit.unwrap_or(50).clamp(1, 1000)).await?;
    Ok(body(source, serde_json::to_vec(&Items { items })?.into()))
}

async fn create(State(service): State<Arc<Service>>, Json(product): Json<Product>) -> Answer {
    service.store.insert(&product).await?;
    Ok((StatusCode::CREATED, Json(product)).into_response())
}

async fn update(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    Json(product): Json<Product>,
) -> Answer {
    if !service.store.update(&id, &product).await? {
        return Ok(StatusCode::NOT_FOUND.into_response());
    }
    service.cache.remove(&id).await;
    Ok(body("primary", serde_json::to_vec(&product)?.into()))
}

async fn remove(State(service): State<Arc<Service>>, Path(id): Path<String>) -> Answer {
    service.store.delete(&id).await?;
    service.cache.remove(&id).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}
