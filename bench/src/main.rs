//! Side-by-side measurements: `cargo run --release -p unisono-bench [-- PART…] [--rounds N] [--seconds S] [--data DIR]
//! [--only TEXT]`.
//!
//! Each comparison alternates both sides for several rounds in one run and reports medians and the ratio with its
//! range, because machines are shared and noisy. Parts: `reads`, `writes`, `visible`, `search`, `import`, `idle`; all
//! if none is named; with `--features full` also those over real engines (`engines/up` first): `load`, `latency`,
//! `carry`, `commits`, `events` (beside the program in `bench/baseline/cqrs-es`, which is built first), `memory`,
//! `strategies` (each strategy of replication, and `adaptive` over a minute in which a follower is slow for a while),
//! `broken` (two minutes for each service with 3 seconds), `products`, of which `--only` takes the measures whose names
//! contain a text. The table is also written to `target/bench/results.md`, the ratios drawn in `ratios.svg`,
//! `strategies` in `strategies.svg` and `adaptive.svg`.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod alternative;
#[cfg(feature = "full")]
#[path = "../baseline/mod.rs"]
mod baseline;
mod data;
#[cfg(feature = "full")]
mod engines;
mod import;
mod load;
mod places;
#[cfg(feature = "full")]
mod plot;
#[cfg(feature = "full")]
mod products;
mod reads;
mod report;
mod visible;
mod writes;

use std::path::PathBuf;
use std::time::Duration;

use report::Report;

/// Errors end the run: a measurement that could not be made is not reported.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// How long and how often everything is measured.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) time: Duration,
    /// Folder with the full `products.jsonl.gz` and `orders.jsonl.gz`.
    pub(crate) data: PathBuf,
    /// Part of the names of what is measured of `products`.
    #[cfg_attr(
        not(feature = "full"),
        expect(dead_code, reason = "`products` is over real engines")
    )]
    pub(crate) only: String,
}

/// Every part that can be asked for.
const PARTS: [&str; 15] = [
    "reads",
    "writes",
    "visible",
    "idle",
    "import",
    "search",
    "load",
    "latency",
    "carry",
    "commits",
    "events",
    "memory",
    "strategies",
    "products",
    "broken",
];

/// The same as that of the program, so that what is compared with it has no other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let mut given = std::env::args().skip(1);
    let first = given.next();
    if first.as_deref() == Some("serve-bare") {
        return alternative::serve_bare(&mut given);
    }
    #[cfg(feature = "full")]
    if first.as_deref() == Some("serve-baseline") {
        return baseline::serve(&mut given);
    }
    let mut plan = Plan {
        rounds: 5,
        time: Duration::from_secs(3),
        data: PathBuf::from("../shared/data"),
        only: String::new(),
    };
    let mut parts = Vec::new();
    let mut words = first.into_iter().chain(given);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--rounds" => plan.rounds = value()?.parse()?,
            "--seconds" => plan.time = Duration::from_secs_f64(value()?.parse()?),
            "--data" => plan.data = PathBuf::from(value()?),
            "--only" => plan.only = value()?,
            part if PARTS.contains(&part) => parts.push(part.to_owned()),
            unknown => {
                return Err(
                    format!("there is no part {unknown}; there are {}", PARTS.join(", ")).into()
                );
            }
        }
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut report = Report::default();
    runtime.block_on(measure(&plan, &parts, &mut report))?;
    report.write(&PathBuf::from("target/bench"))
}

async fn measure(plan: &Plan, parts: &[String], report: &mut Report) -> Result<()> {
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|p| p == part);
    if wanted("reads") {
        reads::run(plan, report).await?;
    }
    if wanted("writes") {
        writes::run(plan, report).await?;
    }
    if wanted("visible") {
        visible::run(plan, report).await?;
    }
    if wanted("idle") {
        places::idle(report).await?;
    }
    if wanted("import") || wanted("search") {
        import::run(plan, report).await?;
    }
    #[cfg(feature = "full")]
    {
        engines::run(plan, &wanted, report).await?;
        if wanted("products") {
            products::run(plan, report).await?;
        }
        if wanted("broken") {
            products::broken(plan, report).await?;
        }
    }
    Ok(())
}
