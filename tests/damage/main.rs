//! Damage by hand: somebody changes, deletes and adds records of a follower with the engine's own client, and gives some
//! another version. Verification has to find and class every one while writes go on, and nothing else; repair ends clean.
//!
//! ```text
//! engines/up
//! cargo test -p unisono-tests --features full --test damage [-- [--records 20000] [--rate 200] [--only KIND]]
//! ```
//!
//! The truth is PostgreSQL. With `--release` and `--records 1000000 --rate 2000` it measures what the README says.
#![expect(clippy::print_stdout, reason = "the outcome is what this program is for")]
#![expect(clippy::disallowed_methods, reason = "it measures real servers in real time")]

#[path = "../behaviour/engines/mod.rs"]
mod engines;
mod hand;
mod site;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use unisono::Unisono;
use unisono::engine::verify::report::{Comparison, Depth, Divergence, VerifyOptions};
use unisono_core::json::parse_slice;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{Context, Entity, Key};

use hand::Damage;
use site::Site;

type Failed = Box<dyn std::error::Error + Send + Sync>;

const FOLLOWERS: [&str; 6] = ["sqlite", "postgres", "mysql", "redis", "opensearch", "mongodb"];
/// How long a follower may take to have everything.
const CATCH_UP_MAX: Duration = Duration::from_secs(900);

struct Plan {
    records: u64,
    rate: u64,
    only: Option<String>,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(Failed::from).and_then(|runtime| runtime.block_on(run()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn plan() -> Result<Plan, Failed> {
    let mut plan = Plan { records: 20_000, rate: 200, only: None };
    let mut given = std::env::args().skip(1);
    while let Some(word) = given.next() {
        let value = given.next().ok_or(format!("{word} needs a value"))?;
        match word.as_str() {
            "--records" => plan.records = value.parse()?,
            "--rate" => plan.rate = value.parse()?,
            "--only" => plan.only = Some(value),
            _ => return Err(format!("unknown option {word}").into()),
        }
    }
    Ok(plan)
}

async fn run() -> Result<(), Failed> {
    let plan = plan()?;
    println!(
        "{} records, {} writes a second meanwhile; the truth is PostgreSQL",
        plan.records, plan.rate
    );
    println!("follower    equal      ledger     damaged    under load deep            repair");
    let mut failed = Vec::new();
    for kind in FOLLOWERS {
        if plan.only.as_deref().is_some_and(|only| only != kind) {
            continue;
        }
        let site = Site::new(kind)?;
        let outcome = follower(&plan, &site).await;
        site.wipe().await?;
        match outcome {
            Ok(line) => println!("{kind:11} {line}"),
            Err(error) => {
                println!("{kind:11} FAILED: {error:?}");
                failed.push(kind);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// One kind of follower, from an empty one to a repaired one.
async fn follower(plan: &Plan, site: &Site) -> Result<String, Failed> {
    let unisono = site.open().await?;
    let entity = Arc::clone(unisono.engine().entity("item")?);
    load(&unisono, &entity, plan.records).await?;
    let outcome = judged(plan, site, &unisono, &entity).await;
    unisono.close().await?;
    outcome
}

async fn judged(
    plan: &Plan,
    site: &Site,
    unisono: &Unisono,
    entity: &Arc<Entity>,
) -> Result<String, Failed> {
    let equal = verify(unisono, Depth::Observed, false).await?;
    expect(&equal.0, &BTreeMap::new())?;
    let ledger = verify(unisono, Depth::Ledger, false).await?;
    expect(&ledger.0, &BTreeMap::new())?;

    let damage = Damage::of(plan.records);
    site.damage(&damage).await?;
    // What was changed without its version is seen by nothing but a look at the data.
    let mut visible = damage.classes();
    visible.retain(|_, class| *class != Divergence::Corrupt);
    let damaged = verify(unisono, Depth::Observed, false).await?;
    expect(&damaged.0, &visible)?;

    let writes = tokio::spawn(keep_writing(
        unisono.engine().clone(),
        Arc::clone(entity),
        plan.rate,
        damage.clone(),
    ));
    let under_load = verify(unisono, Depth::Observed, false).await;
    let deep = verify(unisono, Depth::Deep, false).await;
    writes.abort();
    let (under_load, deep) = (under_load?, deep?);
    expect(&under_load.0, &visible)?;
    expect(&deep.0, &damage.classes())?;

    let began = Instant::now();
    for depth in [Depth::Observed, Depth::Deep] {
        let (mended, _) = verify(unisono, depth, true).await?;
        if !mended.agrees() {
            return Err(format!("not everything was repaired: {mended:?}").into());
        }
    }
    let repair = began.elapsed();
    let (left, _) = verify(unisono, Depth::Deep, false).await?;
    expect(&left, &BTreeMap::new())?;
    let rate = deep.0.records as f64 / deep.1.as_secs_f64();
    Ok(format!(
        "{:7.0} ms {:7.1} ms {:7.0} ms {:7.0} ms {:9.0} rec/s {:7.2} s",
        millis(equal.1),
        millis(ledger.1),
        millis(damaged.1),
        millis(under_load.1),
        rate,
        repair.as_secs_f64()
    ))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

async fn verify(
    unisono: &Unisono,
    depth: Depth,
    repair: bool,
) -> Result<(Comparison, Duration), Failed> {
    let options = VerifyOptions { depth, repair, ..VerifyOptions::default() };
    let began = Instant::now();
    let report = unisono.engine().verify(&options, &|_| {}).await?;
    let took = began.elapsed();
    let comparison = report.comparisons.into_iter().next().ok_or("nothing was compared")?;
    Ok((comparison, took))
}

/// Exactly this was found.
fn expect(comparison: &Comparison, expected: &BTreeMap<String, Divergence>) -> Result<(), Failed> {
    let found: BTreeMap<_, _> =
        comparison.differences.iter().map(|d| (d.key.clone(), d.class)).collect();
    if comparison.error.is_none() && found == *expected {
        return Ok(());
    }
    let missed: Vec<_> =
        expected.iter().filter(|(key, class)| found.get(*key) != Some(class)).collect();
    let false_ones: Vec<_> =
        found.iter().filter(|(key, class)| expected.get(*key) != Some(class)).collect();
    Err(format!(
        "{:?}: {:?}; missed {missed:?}, found {false_ones:?}",
        comparison.depth, comparison.error
    )
    .into())
}

fn write(entity: &Arc<Entity>, n: u64, name: &str) -> Result<Write, Failed> {
    let id = hand::id(n);
    let json = serde_json::json!({"id": id, "name": name, "amount": format!("{n}.50"), "stock": n});
    Ok(Write {
        entity: Arc::clone(entity),
        key: Key::from_text(&id)?,
        action: Action::Put(parse_slice(entity, json.to_string().as_bytes())?),
        condition: Condition::None,
    })
}

async fn load(unisono: &Unisono, entity: &Arc<Entity>, records: u64) -> Result<(), Failed> {
    let numbers: Vec<u64> = (0..records).collect();
    for some in numbers.chunks(5_000) {
        let writes =
            some.iter().map(|n| write(entity, *n, "as it was")).collect::<Result<Vec<_>, _>>()?;
        for written in unisono.engine().write_each(&Context::default(), writes).await {
            written?;
        }
    }
    let deadline = Instant::now() + CATCH_UP_MAX;
    while unisono.engine().status().await.deliveries.iter().any(|d| d.lag_changes > 0) {
        if Instant::now() > deadline {
            return Err("the follower does not catch up".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Changes records that are not damaged, until it is ended.
async fn keep_writing(
    engine: unisono::engine::Engine,
    entity: Arc<Entity>,
    rate: u64,
    damage: Damage,
) {
    const STEPS: u64 = 20;
    let mut step = tokio::time::interval(Duration::from_millis(1_000 / STEPS));
    let mut n = 0;
    loop {
        step.tick().await;
        let numbers = (0..rate / STEPS).map(|k| damage.untouched(n + k));
        let writes: Vec<_> =
            numbers.filter_map(|n| write(&entity, n, "as it is now").ok()).collect();
        n += rate / STEPS;
        engine.write_each(&Context::default(), writes).await;
    }
}
