//! Durable writes against code by hand that commits one SQLite transaction for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use unisono::Unisono;
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Context, json};

use crate::alternative::ByHand;
use crate::data::product_json;
use crate::places::{Server, configuration, embedded};
use crate::report::{Report, rate};
use crate::{Plan, Result, load};

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let by_hand = Arc::new(ByHand::open(&folder.path().join("hand.db"))?);
    let ours = Arc::new(embedded(&configuration(&folder.path().join("library"), &[])).await?);
    let served = tempfile::tempdir()?;
    let server = Server::unisono(served.path(), &[])?;
    // Both files get their write-ahead log to full size first: while it grows, each sync is many times slower.
    callers(&ours, 64, Duration::from_secs(3)).await?;
    hand(&by_hand, 64, Duration::from_secs(3)).await?;
    let (mut many, mut http, mut one) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let base = hand(&by_hand, 64, plan.time).await?;
        many.push((callers(&ours, 64, plan.time).await?, base));
        let put = |c: usize, n: u64| {
            let number = c as u64 * 100 + n % 100;
            load::put(&format!("/v1/product/p{number}"), &product_json(number))
        };
        http.push((load::run(server.address, 64, plan.time, put).await?.per_second, base));
        let base = hand(&by_hand, 1, plan.time).await?;
        one.push((callers(&ours, 1, plan.time).await?, base));
    }
    report.pair("durable writes, library, 64 callers", &many, rate, "at least 25x");
    report.pair("durable writes, HTTP, 64 connections", &http, rate, "at least 10x");
    report.pair("durable writes, library, 1 caller", &one, rate, "at least 0.9x");
    Ok(())
}

async fn hand(by_hand: &Arc<ByHand>, callers: usize, time: Duration) -> Result<f64> {
    let by_hand = Arc::clone(by_hand);
    tokio::task::spawn_blocking(move || by_hand.run(callers, time)).await?
}

/// Writes from `callers` tasks for some time; answers writes per second.
async fn callers(ours: &Arc<Unisono>, callers: usize, time: Duration) -> Result<f64> {
    let began = Instant::now();
    let tasks = (0..callers).map(|caller| {
        let ours = Arc::clone(ours);
        tokio::spawn(async move {
            let mut n = 0;
            while began.elapsed() < time {
                write(&ours, caller as u64 * 100 + n % 100).await?;
                n += 1;
            }
            Ok::<u64, Box<dyn std::error::Error + Send + Sync>>(n)
        })
    });
    let mut total = 0;
    for done in futures::future::join_all(tasks.collect::<Vec<_>>()).await {
        total += done??;
    }
    Ok(total as f64 / began.elapsed().as_secs_f64())
}

/// Writes one product.
pub(crate) async fn write(ours: &Unisono, n: u64) -> Result<unisono::engine::Written> {
    let entity = ours.engine().entity("product")?;
    let record = json::parse_slice(entity, product_json(n).as_bytes())?;
    let key = entity.key_of(&record)?;
    let write = Write {
        entity: Arc::clone(entity),
        key,
        action: Action::Put(record),
        condition: Condition::None,
    };
    Ok(ours.engine().write(&Context::default(), vec![write]).await?)
}
