//! The API `products` over PostgreSQL with a replica and Redis, against the same service by hand: `a` in Rust, `b`
//! with a cache in the process, `c` in Node. Needs `engines/up postgres redis`, `cargo build --release --features full`
//! and, for `c`, npm.
//!
//! All sides talk to the same servers with TLS, hold the same products, and are asked by the same load for the same
//! keys: those of real order lines.

mod broken;
mod fresh;
mod load;
mod redis;
mod speed;
mod stand;
mod work;

use crate::engines::Engine;
use crate::report::Report;
use crate::{Plan, Result};
use stand::Stand;

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let stand = Stand::new(plan, Engine::new("redis")?, None).await?;
    // As a cache is run. The server is set up as a journal must be, which syncs its file before each answer.
    stand.sync_redis("everysec").await?;
    let measured = measure(&stand, plan, report).await;
    // The engines are left as they were found, whatever happened.
    stand.clean().await?;
    stand.sync_redis("always").await?;
    measured
}

/// The same services, three nodes of each, while the engines break.
pub(crate) async fn broken(plan: &Plan, report: &mut Report) -> Result<()> {
    broken::run(plan, report).await
}

async fn measure(stand: &Stand, plan: &Plan, report: &mut Report) -> Result<()> {
    speed::over_redis(stand, plan, report).await?;
    speed::in_process(stand, plan, report).await?;
    if fresh::COLD_KEY.contains(&plan.only) {
        fresh::one_cold_key(stand, report).await?;
    }
    if fresh::BEHIND_A_REPLICA.contains(&plan.only) {
        fresh::behind_a_replica(stand, plan, report).await?;
    }
    Ok(())
}
