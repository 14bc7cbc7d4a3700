//! Removes one guard of the engine at a time and sees whether the simulator notices; of what two truths that follow each
//! other do, whether their worlds do.
//!
//! ```text
//! cargo run -p unisono-tests --bin mutations -- [--list] [--seeds N] [NAME …]
//! ```
//!
//! Works on a copy of the crates below `target/mutations`, which is kept so that only what changes is built again. Each
//! mutation names its text exactly; text that is not there once is an error, so the table cannot rot. A guard whose
//! removal goes unnoticed fails the run: either the simulator is too weak, or the guard is not needed.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

mod table;
mod workshop;

use std::process::ExitCode;

use table::{MUTATIONS, Mutation, Trial};
use workshop::{Verdict, Workshop};

/// Seeds that a mutation may survive before it counts as unnoticed.
const SEEDS_DEFAULT: u64 = 3000;

struct Arguments {
    list: bool,
    seeds: u64,
    names: Vec<String>,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Arguments { list: false, seeds: SEEDS_DEFAULT, names: Vec::new() };
        while let Some(word) = given.next() {
            match word.as_str() {
                "--list" => arguments.list = true,
                "--seeds" => {
                    let number = given.next().and_then(|n| n.parse().ok());
                    arguments.seeds = number.ok_or("--seeds needs a number")?;
                }
                name if MUTATIONS.iter().any(|m| m.name == name) => {
                    arguments.names.push(word);
                }
                _ => return Err(format!("there is no mutation {word}; see --list")),
            }
        }
        Ok(arguments)
    }

    fn chosen(&self) -> impl Iterator<Item = &'static Mutation> {
        let all = self.names.is_empty();
        MUTATIONS.iter().filter(move |m| all || self.names.iter().any(|n| n == m.name))
    }
}

fn main() -> ExitCode {
    let done = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| {
        if arguments.list {
            for mutation in MUTATIONS {
                println!("{:<40} {}", mutation.name, mutation.file);
            }
            return Ok(true);
        }
        run(&arguments)
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            println!("{message}");
            ExitCode::from(2)
        }
    }
}

/// Tries the chosen mutations; answers whether every one was caught that has to be.
fn run(arguments: &Arguments) -> Result<bool, String> {
    let workshop = Workshop::open()?;
    for mutation in MUTATIONS {
        workshop.mutated(mutation)?;
    }
    println!("building and running without any mutation");
    for by in [Trial::Simulation, Trial::TwoTruths] {
        if !arguments.chosen().any(|mutation| mutation.by == by) {
            continue;
        }
        match workshop.try_out(by, arguments.seeds)? {
            Verdict::Passed => {}
            other => return Err(format!("{by:?} fails without any mutation: {other}")),
        }
    }
    let mut missed = 0;
    for mutation in arguments.chosen() {
        let verdict = workshop.with(mutation, arguments.seeds)?;
        let caught = !matches!(verdict, Verdict::Passed);
        let note = match (caught, mutation.redundant) {
            (false, Some(reason)) => format!("not caught, as expected: {reason}"),
            (false, None) => {
                missed += 1;
                format!("NOT CAUGHT in {} seeds", arguments.seeds)
            }
            (true, Some(_)) => format!("{verdict} (said to be redundant: correct the table)"),
            (true, None) => verdict.to_string(),
        };
        println!("{:<40} {note}", mutation.name);
    }
    println!("{missed} not caught");
    Ok(missed == 0)
}
