//! Outlets, handlers, snapshots and processes as an application meets them.
#![cfg(all(feature = "memory", feature = "sqlite"))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod handlers;
mod killed;
mod linked;
mod processes;
mod receiver;
mod snapshots;
mod webhooks;

use std::time::Duration;

/// Waits until a condition holds, for as long as a slow machine takes.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(120), waited).await;
    waited.unwrap_or_else(|_| panic!("it never came to be that {what}"));
}
