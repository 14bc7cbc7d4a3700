//! Durable single-record writes against a program by hand with a connection for each caller.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use unisono::Unisono;

use crate::engines::{Engine, mysql, open, postgres};
use crate::report::{Report, quantile, rate, time};
use crate::writes::write;
use crate::{Plan, Result};

const ENTITY: &str = r#"
[entities.product]
key = "id"
truth = "main"
[entities.product.fields]
id = "string"
name = { type = "string", required = true }
price = "decimal(12,2)"
stock = "integer"
"#;

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    postgres_commits(plan, report, folder.path()).await?;
    mysql_commits(plan, report, folder.path()).await
}

async fn opened(engine: &Engine, kind: &str, data: &Path) -> Result<Arc<Unisono>> {
    let ours = open(&(engine.section("main", kind) + ENTITY), data).await?;
    for n in 0..6400 {
        write(&ours, n).await?;
    }
    Ok(Arc::new(ours))
}

async fn postgres_commits(plan: &Plan, report: &mut Report, data: &Path) -> Result<()> {
    let hand = Arc::new(Engine::new("postgres")?);
    postgres::prepare_commits(&hand).await?;
    let ours = opened(&Engine::new("postgres")?, "postgres", data).await?;
    for (callers, wanted) in [(1, 0.95), (2, 0.9), (4, 0.9), (8, 1.2), (32, 2.0), (64, 3.0)] {
        let (mut rounds, mut tails) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            let (base, base_times) = postgres::commits(&hand, callers, plan.time).await?;
            let (rate, times) = callers_write(&ours, callers, plan.time).await?;
            rounds.push((rate, base));
            tails.push((p99(&times), p99(&base_times)));
        }
        let what = format!("PostgreSQL durable writes, {callers} callers");
        report.pair(&what, &rounds, rate, &format!("at least {wanted}x"));
        if callers == 32 {
            report.pair("PostgreSQL durable writes, 32 callers, p99", &tails, time, "at most 0.5x");
        }
    }
    Ok(())
}

async fn mysql_commits(plan: &Plan, report: &mut Report, data: &Path) -> Result<()> {
    let hand = Arc::new(Engine::new("mysql")?);
    mysql::prepare_commits(&hand).await?;
    let ours = opened(&Engine::new("mysql")?, "mysql", data).await?;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        let base = mysql::commits(&hand, 32, plan.time).await?;
        rounds.push((callers_write(&ours, 32, plan.time).await?.0, base));
    }
    report.pair("MariaDB durable writes, 32 callers", &rounds, rate, "at least 3x");
    Ok(())
}

fn p99(times: &[Duration]) -> f64 {
    quantile(&times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(), 0.99)
}

async fn callers_write(
    ours: &Arc<Unisono>,
    callers: usize,
    time: Duration,
) -> Result<(f64, Vec<Duration>)> {
    let began = Instant::now();
    let tasks = (0..callers).map(|caller| {
        let ours = Arc::clone(ours);
        tokio::spawn(async move {
            let (mut n, mut times) = (0_u64, Vec::new());
            while began.elapsed() < time {
                let started = Instant::now();
                write(&ours, caller as u64 * 100 + n % 100).await?;
                times.push(started.elapsed());
                n += 1;
            }
            Ok::<_, crate::Error>(times)
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await??);
    }
    Ok((all.len() as f64 / began.elapsed().as_secs_f64(), all))
}
