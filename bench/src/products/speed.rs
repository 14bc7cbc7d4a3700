//! Rates and 99th percentiles, all sides in turns.

use super::load::Seen;
use super::stand::{Kind, Side, Stand};
use super::work::What;
use crate::report::{Report, rate, time};
use crate::{Plan, Result};

/// What is done before a side is measured.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// Everything that will be asked for is in the cache.
    Fill,
    /// Nothing is.
    Clear,
}

struct Measure {
    name: &'static str,
    connections: usize,
    what: What,
    before: Before,
    /// Wanted of the ratio to the Rust service.
    wanted: &'static str,
    /// Wanted of the ratio to the Node service.
    of_node: Option<&'static str>,
}

const fn measure(
    name: &'static str,
    what: What,
    before: Before,
    wanted: &'static str,
    of_node: Option<&'static str>,
) -> Measure {
    Measure { name, connections: 32, what, before, wanted, of_node }
}

const OVER_REDIS: [Measure; 7] = [
    measure("GET, hit in Redis", What::Warm, Before::Fill, "at least 0.95x", Some("at least 5x")),
    measure(
        "GET, order lines from an empty cache",
        What::Bought,
        Before::Clear,
        "",
        Some("at least 5x"),
    ),
    measure("GET, each a miss", What::Each, Before::Clear, "at least 0.9x", None),
    measure("95 % GET, 5 % PUT", What::Mixed, Before::Fill, "at least 1.5x", None),
    measure("PUT", What::Put, Before::Nothing, "at least 1.5x", Some("at least 2.5x")),
    Measure {
        connections: 1,
        ..measure("PUT, 1 connection", What::Put, Before::Nothing, "at least 0.9x", None)
    },
    measure("list of 50", What::List(50), Before::Nothing, "at least 1x", Some("at least 2.5x")),
];

const IN_PROCESS: [Measure; 4] = [
    measure("GET, hit in the process", What::Warm, Before::Fill, "at least 0.9x", None),
    measure(
        "GET, order lines from an empty cache, in the process",
        What::Bought,
        Before::Clear,
        "",
        None,
    ),
    measure("GET, each a miss, in the process", What::Each, Before::Clear, "", None),
    measure("95 % GET, 5 % PUT, in the process", What::Mixed, Before::Fill, "", None),
];

/// With the cache in Redis: against `a` and `c`.
pub(super) async fn over_redis(stand: &Stand, plan: &Plan, report: &mut Report) -> Result<()> {
    let measures = wanted(&OVER_REDIS, plan);
    if measures.is_empty() {
        return Ok(());
    }
    let mut sides = started(stand, &[Kind::Ours, Kind::A, Kind::C]).await?;
    for measure in measures {
        let seen = rounds(stand, &mut sides, measure, plan).await?;
        tell(report, measure, &seen, "a");
    }
    memory(report, &sides, "cache in Redis", "a")
}

/// With the cache in the process: against `b`.
pub(super) async fn in_process(stand: &Stand, plan: &Plan, report: &mut Report) -> Result<()> {
    let measures = wanted(&IN_PROCESS, plan);
    if measures.is_empty() {
        return Ok(());
    }
    let mut sides = started(stand, &[Kind::OursNear, Kind::B]).await?;
    for measure in measures {
        let seen = rounds(stand, &mut sides, measure, plan).await?;
        tell(report, measure, &seen, "b");
    }
    memory(report, &sides, "cache in the process", "b")
}

fn wanted<'m>(measures: &'m [Measure], plan: &Plan) -> Vec<&'m Measure> {
    measures.iter().filter(|m| m.name.contains(&plan.only)).collect()
}

async fn started(stand: &Stand, kinds: &[Kind]) -> Result<Vec<Side>> {
    let mut sides = Vec::new();
    for kind in kinds {
        sides.extend(stand.start(*kind, 0).await?);
    }
    Ok(sides)
}

/// What each side did in each round.
async fn rounds(
    stand: &Stand,
    sides: &mut [Side],
    measure: &Measure,
    plan: &Plan,
) -> Result<Vec<Vec<Seen>>> {
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        let mut round = Vec::new();
        for side in sides.iter_mut() {
            match measure.before {
                Before::Nothing => {}
                Before::Clear => stand.clear(side).await?,
                Before::Fill => {
                    // All of it, however long that takes.
                    stand.load(side, 32, plan.time * 100, What::Fill).await?;
                }
            }
            round.push(stand.load(side, measure.connections, plan.time, measure.what).await?);
        }
        rounds.push(round);
    }
    Ok(rounds)
}

/// The first side against the second and, if it ran and was asked for, the third.
fn tell(report: &mut Report, measure: &Measure, rounds: &[Vec<Seen>], letter: &str) {
    let pairs = |other: usize, of: fn(&Seen) -> f64| -> Vec<(f64, f64)> {
        let pair = |round: &Vec<Seen>| Some((of(round.first()?), of(round.get(other)?)));
        rounds.iter().filter_map(pair).collect()
    };
    let name = measure.name;
    report.pair(&format!("{name}, vs {letter}"), &pairs(1, |s| s.per_second), rate, measure.wanted);
    report.pair(&format!("{name}, p99, vs {letter}"), &pairs(1, |s| s.p99), time, "at most 1x");
    let node = pairs(2, |s| s.per_second);
    if let Some(wanted) = measure.of_node.filter(|_| !node.is_empty()) {
        report.pair(&format!("{name}, vs c"), &node, rate, wanted);
    }
}

fn memory(report: &mut Report, sides: &[Side], what: &str, letter: &str) -> Result<()> {
    let most = |n: usize| -> Result<String> {
        let side = sides.get(n).ok_or("no such side")?;
        Ok(format!("{:.0} MB", side.server.memory()?.1))
    };
    report.beside(&format!("peak memory, {what}, vs {letter}"), most(0)?, most(1)?, "under 80 MB");
    Ok(())
}
