//! The whole engine in virtual time, from a seed: clients, faults, lives of the process, and judges of P1 to P5.
//!
//! ```text
//! cargo test -p unisono-tests --test simulation -- [--seeds N] [--from S] [--seed X [--trace]] [--first]
//! ```
//!
//! A failing seed is printed with the command that replays it; `--trace` tells its whole course, `--first` stops at the
//! first failure. The same seed takes the same course, which is itself checked on some of the seeds.
#![expect(clippy::print_stdout, reason = "the result is what this program is for")]

mod acknowledged;
mod adaptive;
mod checkers;
mod coverage;
mod disks;
mod faults;
mod faulty;
mod follower;
mod history;
mod judge;
mod operator;
mod reads;
mod shape;
mod workload;
mod world;

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use coverage::Coverage;

const SEEDS_DEFAULT: u64 = 2000;
const FAILURES_SHOWN: usize = 5;
/// A run of so many seeds must have met everything that it is to meet.
const SEEDS_FOR_COVERAGE: u64 = 500;
/// Every so many seeds one is run twice, to see it take the same course.
const TWICE_EVERY: u64 = 50;

thread_local! {
    /// The panic of the world that this thread runs, in whichever task it was.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

struct Arguments {
    from: u64,
    seeds: u64,
    trace: bool,
    first: bool,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Arguments { from: 0, seeds: SEEDS_DEFAULT, trace: false, first: false };
        while let Some(word) = given.next() {
            let mut number = || -> Result<u64, String> {
                let text = given.next().ok_or(format!("{word} needs a number"))?;
                text.parse().map_err(|_| format!("{text} is not a number"))
            };
            match word.as_str() {
                "--seeds" => arguments.seeds = number()?,
                "--from" => arguments.from = number()?,
                "--seed" => (arguments.from, arguments.seeds) = (number()?, 1),
                "--trace" => arguments.trace = true,
                "--first" => arguments.first = true,
                // What cargo passes to every test program means nothing here.
                "--nocapture" | "--quiet" | "-q" => {}
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        Ok(arguments)
    }
}

/// What a run over many seeds has seen.
#[derive(Default)]
struct Tally {
    calls: u64,
    coverage: Coverage,
    failures: Vec<(u64, String)>,
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            println!("{message}");
            return ExitCode::from(2);
        }
    };
    std::panic::set_hook(Box::new(|panic| {
        PANIC.with_borrow_mut(|told| told.get_or_insert(panic.to_string()).truncate(500));
    }));
    let end = arguments.from.saturating_add(arguments.seeds);
    println!("simulation: seeds {} to {}", arguments.from, end.saturating_sub(1));
    let next = AtomicU64::new(arguments.from);
    let tally = Mutex::new(Tally::default());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(arguments.seeds.max(1)) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if !one(seed, &arguments, &tally) && arguments.first {
                        next.store(end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    report(&arguments, tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Runs one seed; answers whether it passed.
fn one(seed: u64, arguments: &Arguments, tally: &Mutex<Tally>) -> bool {
    let run = |traced| {
        PANIC.set(None);
        let outcome = std::panic::catch_unwind(|| world::run(seed, traced));
        match PANIC.take() {
            Some(panic) => Err(panic),
            None => outcome.unwrap_or_else(|_| Err("a panic without a word".to_owned())),
        }
    };
    let outcome = run(arguments.trace);
    let again = seed.is_multiple_of(TWICE_EVERY).then(|| run(false));
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let result = match (outcome, again) {
        (Err(message), _) => Err(message),
        (Ok(first), Some(Ok(second))) if first.course != second.course => {
            Err(format!("the seed took two courses, of {} and {} calls", first.calls, second.calls))
        }
        (Ok(outcome), _) => {
            tally.calls += outcome.calls;
            tally.coverage.merge(&outcome.coverage);
            outcome.result
        }
    };
    let passed = result.is_ok();
    tally.failures.extend(result.err().map(|message| (seed, message)));
    passed
}

fn report(arguments: &Arguments, mut tally: Tally) -> ExitCode {
    tally.failures.sort();
    let Tally { calls, coverage, failures } = tally;
    for (seed, message) in failures.iter().take(FAILURES_SHOWN) {
        println!("FAILED seed {seed}: {message}");
        println!(
            "    replay: cargo test -p unisono-tests --test simulation -- --seed {seed} --trace"
        );
    }
    let mut never = Vec::new();
    for (name, count) in coverage.counts() {
        println!("{count:>10}  {name}");
        never.extend((count == 0).then_some(name));
    }
    println!("{calls:>10}  calls to sources");
    let seeds = arguments.seeds;
    println!("{} passed, {} failed", seeds - failures.len() as u64, failures.len());
    let met_all = never.is_empty() || seeds < SEEDS_FOR_COVERAGE || arguments.first;
    if !met_all {
        println!("never met: {}", never.join(", "));
    }
    if failures.is_empty() && met_all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
