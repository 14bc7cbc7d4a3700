//! The whole engine in virtual time, from a seed: clients, faults, lives of the process, and judges of P1 to P4.
//!
//! ```text
//! cargo test -p unisono-tests --test simulation -- [--seeds N] [--from S] [--seed X]
//! ```
//!
//! A failing seed is printed with the command that replays it. The same seed takes the same course.
#![expect(clippy::print_stdout, reason = "the result is what this program is for")]

mod checkers;
mod faults;
mod history;
mod workload;
mod world;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS_DEFAULT: u64 = 2000;
const FAILURES_SHOWN: usize = 5;

struct Arguments {
    from: u64,
    seeds: u64,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Arguments { from: 0, seeds: SEEDS_DEFAULT };
        while let Some(word) = given.next() {
            let mut number = || -> Result<u64, String> {
                let text = given.next().ok_or(format!("{word} needs a number"))?;
                text.parse().map_err(|_| format!("{text} is not a number"))
            };
            match word.as_str() {
                "--seeds" => arguments.seeds = number()?,
                "--from" => arguments.from = number()?,
                "--seed" => (arguments.from, arguments.seeds) = (number()?, 1),
                // What cargo passes to every test program means nothing here.
                "--nocapture" | "--quiet" | "-q" => {}
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        Ok(arguments)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            println!("{message}");
            return ExitCode::from(2);
        }
    };
    println!("simulation: seeds {} to {}", arguments.from, arguments.from + arguments.seeds - 1);
    let next = AtomicU64::new(arguments.from);
    let calls = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism()
        .map_or(1, |n| n.get())
        .min(arguments.seeds.max(1) as usize);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.from + arguments.seeds {
                        return;
                    }
                    let result = std::panic::catch_unwind(|| world::run(seed));
                    match result.unwrap_or_else(|_| Err("the engine panicked".to_owned())) {
                        Ok(n) => drop(calls.fetch_add(n, Ordering::Relaxed)),
                        Err(message) => {
                            failures.lock().unwrap_or_else(|e| e.into_inner()).push((seed, message))
                        }
                    }
                }
            });
        }
    });
    report(&arguments, calls.into_inner(), failures.into_inner().unwrap_or_else(|e| e.into_inner()))
}

fn report(arguments: &Arguments, calls: u64, mut failures: Vec<(u64, String)>) -> ExitCode {
    failures.sort();
    for (seed, message) in failures.iter().take(FAILURES_SHOWN) {
        println!("FAILED seed {seed}: {message}");
        println!("    replay: cargo test -p unisono-tests --test simulation -- --seed {seed}");
    }
    println!("{calls} calls to sources under faults");
    println!("{} passed, {} failed", arguments.seeds - failures.len() as u64, failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
