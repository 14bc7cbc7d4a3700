//! From the answer to a write until a follower shows it.

use std::time::{Duration, Instant};

use unisono::core::query::parse;
use unisono::core::{Consistency, Context, ErrorKind};
use unisono::engine::Engine;

use crate::places::{configuration, embedded};
use crate::report::{Report, middle, time};
use crate::writes::write;
use crate::{Plan, Result};

const WRITES: u64 = 200;

pub(crate) async fn run(_plan: &Plan, report: &mut Report) -> Result<()> {
    let mut memory = Vec::new();
    let folder = tempfile::tempdir()?;
    let ours = embedded(&configuration(folder.path(), &["copy"])).await?;
    for n in 0..WRITES {
        let written = write(&ours, n).await?;
        let began = Instant::now();
        ours.engine().wait_applied(&written.token, Duration::from_secs(5)).await?;
        memory.push(began.elapsed());
    }
    report.single("commit to visible, memory follower, p50", time(middle(&memory)), "under 5 ms");
    ours.close().await?;

    let mut search = Vec::new();
    let folder = tempfile::tempdir()?;
    let ours = embedded(&configuration(folder.path(), &["search"])).await?;
    for n in 0..WRITES {
        write(&ours, n).await?;
        let began = Instant::now();
        while !found(ours.engine(), n).await? {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        search.push(began.elapsed());
    }
    report.single("commit to visible, tantivy search, p50", time(middle(&search)), "under 200 ms");
    ours.close().await?;
    Ok(())
}

/// Whether a search finds the product with this number.
async fn found(engine: &Engine, n: u64) -> Result<bool> {
    let entity = engine.entity("product")?;
    let query = parse::query(
        entity,
        &serde_json::json!({"search": format!("number {n}"), "where": {"field": "id", "op": "eq", "value": format!("p{n}")}}),
    )?;
    let context = Context { consistency: Consistency::Eventual, ..Context::default() };
    match engine.query(&context, entity, &query).await {
        Ok(answer) => Ok(!answer.value.hits.is_empty()),
        // Until its first copy is finished, a follower does not answer.
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(false),
        Err(error) => Err(error.into()),
    }
}
