//! One suite for every kind of source: kinds × promises, and random questions against the reference evaluator.
//!
//! ```text
//! cargo test -p unisono-tests --test behaviour -- [--only KIND] [--seeds N | --seed X] [--verbose] [WORDS OF CASES]
//! ```
//!
//! A kind that needs a server finds it by `engines/up KIND`. `--write-matrix` writes the results of a whole run to
//! `docs/behaviour.md`.
#![expect(clippy::print_stdout, reason = "the matrix of results is what this program is for")]

mod cases;
mod differential;
mod engines;
mod fixture;
mod kinds;
mod options;

use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use cases::Case;
use fixture::{Fixture, Stop, Verdict};
use kinds::Tested;

/// The longest that one case may take, or one seed of the differential suite.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);
/// How many random schemas the differential suite tries.
const SEEDS_DEFAULT: u64 = 60;
/// What stands before the matrix in the documents.
const INTRODUCTION: &str = "\
# What every kind of source was seen to do

One suite tries to break every promise of the contract (`crates/core/src/source.rs`, `journal.rs`), by its number, on every kind of
source; kinds that need a server are tried on the real one (`engines/`). `ok`: the promise held. `n/a`: the kind does
not play the role, or declares that it cannot do this, so that a configuration which asks for it is refused by `unisono
check`. The `differential` rows ask every kind random questions over random records, and compare each answer with the
reference evaluator (`crates/core/src/query/eval.rs`).

The order of hits by relevance, and their scores, are each engine's own and may differ between kinds. Text search is
therefore compared on which records match, never on their order; an order that the question names is compared exactly.

Made by `cargo test -p unisono-tests --features full --test behaviour -- --write-matrix`.
";

struct Arguments {
    only: Option<String>,
    seeds: Vec<u64>,
    verbose: bool,
    write_matrix: bool,
    words: Vec<String>,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let seeds = (0..SEEDS_DEFAULT).collect();
        let mut arguments =
            Arguments { only: None, seeds, verbose: false, write_matrix: false, words: Vec::new() };
        while let Some(word) = given.next() {
            let mut number = || -> Result<u64, String> {
                let text = given.next().ok_or(format!("{word} needs a number"))?;
                text.parse().map_err(|_| format!("{text} is not a number"))
            };
            match word.as_str() {
                "--only" => arguments.only = Some(given.next().ok_or("--only needs a kind")?),
                "--seeds" => arguments.seeds = (0..number()?).collect(),
                "--seed" => arguments.seeds = vec![number()?],
                "--verbose" => arguments.verbose = true,
                "--write-matrix" => arguments.write_matrix = true,
                // What cargo passes to every test program means nothing here.
                "--nocapture" | "--quiet" | "-q" | "--test-threads=1" => {}
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                _ => arguments.words.push(word),
            }
        }
        if arguments.write_matrix && (arguments.only.is_some() || !arguments.words.is_empty()) {
            return Err("--write-matrix is for a whole run".into());
        }
        Ok(arguments)
    }

    fn wants(&self, id: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|w| id.contains(w.as_str()))
    }
}

/// The results of all kinds so far.
#[derive(Default)]
struct Report {
    verbose: bool,
    kinds: Vec<&'static str>,
    rows: Vec<(&'static str, &'static str, Vec<&'static str>)>,
    passed: usize,
    failed: usize,
}

impl Report {
    fn add(&mut self, id: &'static str, what: &'static str, kind: &'static str, verdict: &Verdict) {
        let cell = match verdict {
            Ok(()) => "ok",
            Err(Stop::NotApplicable(reason)) => {
                if self.verbose {
                    println!("n/a {kind} {id}: {reason}");
                }
                "n/a"
            }
            Err(Stop::Failed(message)) => {
                println!("FAILED {kind} {id}: {what}\n    {message}");
                "FAILED"
            }
        };
        self.passed += usize::from(cell == "ok");
        self.failed += usize::from(cell == "FAILED");
        match self.rows.iter_mut().find(|r| r.0 == id && r.1 == what) {
            Some(row) => row.2.push(cell),
            None => {
                // A case that earlier kinds were not asked for leaves their cells empty.
                let mut cells = vec![""; self.kinds.len() - 1];
                cells.push(cell);
                self.rows.push((id, what, cells));
            }
        }
    }

    fn markdown(&self) -> String {
        let mut text = format!("| promise | what | {} |\n|---|---|", self.kinds.join(" | "));
        text.push_str(&"---|".repeat(self.kinds.len()));
        for (id, what, cells) in &self.rows {
            let _ = write!(text, "\n| `{id}` | {what} | {} |", cells.join(" | "));
        }
        text.push('\n');
        text
    }
}

async fn run_case(kind: &Arc<Tested>, case: &Case) -> Verdict {
    let fixture = Fixture::new(kind)?;
    let verdict = guarded((case.run)(&fixture)).await;
    kind.clean().await;
    verdict
}

/// Turns a panic and a hang into a failed verdict.
pub(crate) async fn guarded(verdict: impl Future<Output = Verdict>) -> Verdict {
    match tokio::time::timeout(CASE_TIMEOUT, AssertUnwindSafe(verdict).catch_unwind()).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(_)) => Err(Stop::Failed("panicked".into())),
        Err(_) => Err(Stop::Failed(format!("took longer than {CASE_TIMEOUT:?}"))),
    }
}

async fn run(arguments: &Arguments) -> Report {
    let mut report = Report { verbose: arguments.verbose, ..Report::default() };
    for kind in kinds::all() {
        if arguments.only.as_deref().is_some_and(|only| only != kind.column) {
            continue;
        }
        let kind = Arc::new(kind);
        report.kinds.push(kind.column);
        for case in cases::all().iter().filter(|c| arguments.wants(c.id)) {
            report.add(case.id, case.what, kind.column, &run_case(&kind, case).await);
        }
        for (id, what, part) in differential::PARTS {
            if arguments.wants(id) {
                let verdict = differential::run(&kind, *part, &arguments.seeds).await;
                report.add(id, what, kind.column, &verdict);
            }
        }
    }
    report
}

fn write(folder: &Path, name: &str, text: &str) -> bool {
    let file = folder.join(name);
    let written = std::fs::write(&file, text);
    if let Err(error) = &written {
        println!("the matrix could not be written to {}: {error}", file.display());
    }
    written.is_ok()
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            println!("{message}");
            return ExitCode::from(64);
        }
    };
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                println!("cannot start: {error}");
                return ExitCode::FAILURE;
            }
        };
    let report = runtime.block_on(run(&arguments));
    let table = report.markdown();
    println!("{table}");
    let mut written =
        write(Path::new(env!("CARGO_TARGET_TMPDIR")), "../behaviour-matrix.md", &table);
    if arguments.write_matrix {
        let text = format!("{INTRODUCTION}\n{table}");
        written &= write(Path::new(env!("CARGO_MANIFEST_DIR")), "../docs/behaviour.md", &text);
    }
    println!("{} passed, {} failed", report.passed, report.failed);
    match report.failed == 0 && !report.rows.is_empty() && written {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
