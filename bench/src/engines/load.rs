//! The first load of a follower: all products, against the engine's own client in a loop without versions.

use std::time::{Duration, Instant};

use serde_json::Value as Json;
use unisono::Unisono;
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Context, json};

use crate::data::lines;
use crate::engines::{Engine, caught_up, configuration, mongodb, mysql, open, opensearch};
use crate::engines::{postgres, redis, sqlite_truth};
use crate::report::{Report, rate};
use crate::{Plan, Result};

const DEADLINE: Duration = Duration::from_secs(300);

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let records = products(plan)?;
    let folder = tempfile::tempdir()?;
    let truth = open(&configuration(&sqlite_truth(), &[]), folder.path()).await?;
    write_all(&truth, &records).await?;
    truth.close().await?;
    for kind in ["redis", "postgres", "mysql", "mongodb", "opensearch"] {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds.min(3) {
            let by_hand = by_hand(kind, &records).await?;
            let engine = Engine::new(kind)?;
            let text = configuration(&sqlite_truth(), &[("follower", kind, &engine)]);
            let began = Instant::now();
            let ours = open(&text, folder.path()).await?;
            caught_up(&ours, DEADLINE).await?;
            let took = began.elapsed();
            ours.close().await?;
            if kind == "redis" {
                redis::clean(&engine, &records).await?;
            }
            rounds.push((
                records.len() as f64 / took.as_secs_f64(),
                records.len() as f64 / by_hand.as_secs_f64(),
            ));
        }
        let wanted = if kind == "opensearch" { "at least 0.7x" } else { "at least 0.8x" };
        report.pair(&format!("first load of {kind}, products"), &rounds, rate, wanted);
    }
    Ok(())
}

async fn by_hand(kind: &str, records: &[Json]) -> Result<Duration> {
    let engine = Engine::new(kind)?;
    match kind {
        "redis" => redis::load(&engine, records).await,
        "postgres" => postgres::load(&engine, records).await,
        "mysql" => mysql::load(&engine, records).await,
        "mongodb" => mongodb::load(&engine, records).await,
        _ => opensearch::load(&engine, records).await,
    }
}

/// All products of the full data.
pub(crate) fn products(plan: &Plan) -> Result<Vec<Json>> {
    let file = plan.data.join("products.jsonl.gz");
    lines(&file)?.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// Writes every record to the truth.
pub(crate) async fn write_all(ours: &Unisono, records: &[Json]) -> Result<()> {
    for some in records.chunks(5_000) {
        let writes = some.iter().map(|record| put(ours, record)).collect::<Result<Vec<_>>>()?;
        for written in ours.engine().write_each(&Context::default(), writes).await {
            written?;
        }
    }
    Ok(())
}

/// The write that puts a record.
pub(crate) fn put(ours: &Unisono, record: &Json) -> Result<Write> {
    let entity = ours.engine().entity("product")?;
    let record = json::parse(entity, record)?;
    let key = entity.key_of(&record)?;
    Ok(Write {
        entity: entity.clone(),
        key,
        action: Action::Put(record),
        condition: Condition::None,
    })
}
