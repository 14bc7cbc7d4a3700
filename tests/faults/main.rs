//! Faults on real servers: each kind of source is killed, paused, cut off, filled up, wiped, restored and locked out
//! under load, and must come back by itself while nobody else notices.
//!
//! ```text
//! cargo test -p unisono-tests --features full --test faults -- [--only KIND] [--fault NAME] [--seed N] [--write]
//! ```
//!
//! It starts servers of its own by the scripts of `engines/`, at ports of their own and on small disks (tmpfs, which
//! needs root), and ends them. Each kind runs in a process of its own, a few at the same time (`--parallel N`).
//! `--write` writes the results of a whole run to `docs/faults.md`.
#![expect(
    clippy::print_stdout,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "it reports, a writer fails by panicking, and everything happens in real time"
)]

#[path = "../behaviour/engines/mod.rs"]
mod engines;
mod fault;
mod kinds;
mod observer;
mod refusals;
mod report;
mod scenario;
mod site;
mod stubs;
mod workload;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;

use fault::Fault;
use kinds::Kind;
use report::Row;
use scenario::Role;
use site::Site;

/// The longest that one scenario may take.
const SCENARIO_MAX: Duration = Duration::from_secs(300);

struct Arguments {
    only: Vec<String>,
    fault: Option<String>,
    seed: u64,
    write: bool,
    parallel: usize,
    /// Where a process of one kind leaves its rows for the one that started it.
    rows: Option<PathBuf>,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let seed = rand::rng().random();
        let mut arguments = Arguments {
            only: Vec::new(),
            fault: None,
            seed,
            write: false,
            parallel: 4,
            rows: None,
        };
        while let Some(word) = given.next() {
            let mut value = || given.next().ok_or(format!("{word} needs a value"));
            let number = |text: String| text.parse().map_err(|_| format!("{text} is no number"));
            match word.as_str() {
                "--only" => arguments.only.push(value()?),
                "--fault" => arguments.fault = Some(value()?),
                "--seed" => arguments.seed = number(value()?)?,
                "--parallel" => arguments.parallel = number(value()?)?.max(1) as usize,
                "--rows" => arguments.rows = Some(value()?.into()),
                "--write" => arguments.write = true,
                // What cargo passes to every test program means nothing here.
                "--nocapture" | "--quiet" | "-q" | "--test-threads=1" => {}
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        match arguments.only.iter().find(|name| !kinds::ALL.iter().any(|k| k.column == **name)) {
            Some(unknown) => Err(format!("there is no kind {unknown}")),
            None => Ok(arguments),
        }
    }

    fn wants(&self, kind: &Kind) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == kind.column)
    }

    fn wants_fault(&self, name: &str) -> bool {
        self.fault.as_ref().is_none_or(|wanted| wanted == name)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            println!("{error}");
            return ExitCode::from(2);
        }
    };
    let began = tokio::time::Instant::now();
    let kinds: Vec<&'static Kind> = kinds::ALL.iter().filter(|k| arguments.wants(k)).collect();
    let rows = match kinds.as_slice() {
        [kind] => one(kind, &arguments),
        several => many(several, &arguments),
    };
    if let Some(path) = &arguments.rows {
        return match report::save(path, &rows) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let table = report::table(&kinds, &rows);
    println!("\n{table}");
    println!("{:.0} s, seed {}", began.elapsed().as_secs_f64(), arguments.seed);
    if arguments.write
        && let Err(error) = report::write(&site::repository().join("docs/faults.md"), &table)
    {
        println!("{error}");
        return ExitCode::FAILURE;
    }
    // Once more at the end, where one looks first.
    let failed: Vec<&Row> = rows.iter().filter(|r| r.failure.is_some()).collect();
    failed.iter().for_each(|row| println!("{:<10} {row}", row.column));
    if !failed.is_empty() || rows.is_empty() {
        println!("{} of {} failed", failed.len(), rows.len());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Each kind in a process of its own, so that memory is that of one scenario.
fn many(kinds: &[&'static Kind], arguments: &Arguments) -> Vec<Row> {
    let waiting: Mutex<VecDeque<&Kind>> = Mutex::new(kinds.iter().copied().collect());
    let found = Mutex::new(Vec::new());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..arguments.parallel {
            scope.spawn(|| {
                while let Some(kind) = next() {
                    let rows = in_a_process(kind, arguments.fault.as_deref(), arguments)
                        .unwrap_or_else(|error| vec![Row::failed(kind.column, "process", error)]);
                    found.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
                }
            });
        }
    });
    let mut rows: Vec<Row> = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    // Bounds of time are those of a machine that has nothing else to do.
    for row in rows.iter_mut().filter(|row| row.is_late()) {
        let Some(kind) = kinds.iter().find(|kind| kind.column == row.column) else { continue };
        println!("{:<10} {row}\n{:<10} it is tried once more by itself", row.column, row.column);
        let again = in_a_process(kind, Some(&row.scenario), arguments);
        if let Some(again) = again.ok().and_then(|rows| rows.into_iter().find(|r| r.is_of(row))) {
            *row = again.again(row);
        }
    }
    rows
}

fn in_a_process(
    kind: &Kind,
    fault: Option<&str>,
    arguments: &Arguments,
) -> Result<Vec<Row>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let rows = folder.path().join("rows");
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command.args(["--only", kind.column, "--seed", &arguments.seed.to_string(), "--rows"]);
    command.arg(&rows);
    if let Some(fault) = fault {
        command.args(["--fault", fault]);
    }
    let status = command.status().map_err(|e| e.to_string())?;
    report::load(Path::new(&rows)).map_err(|e| format!("it ended with {status}: {e}"))
}

/// What only the stand-in for MongoDB says, and then to everything: a collection that is dropped while it is written breaks
/// its file now and then. MongoDB answers errors with a code.
const STAND_IN_BROKEN: &str = "missing field `code`";

/// What is tried with a kind.
enum Step {
    Refusals,
    Broken(Fault, Role),
    AddedAgain,
}

impl Step {
    fn all(kind: &Kind) -> impl Iterator<Item = Step> {
        let of_truth = Fault::OF_TRUTH.into_iter().filter(|_| kind.truth);
        let refusals = kind.server.iter().map(|_| Step::Refusals);
        // What fails then is the same code for every kind, and takes a minute to be seen.
        let stuck = (kind.column == "sqlite").then_some(Fault::Stuck);
        let of_follower = Fault::ALL.into_iter().chain(stuck);
        refusals
            .chain(of_follower.map(|fault| Step::Broken(fault, Role::Follower)))
            .chain([Step::AddedAgain])
            .chain(of_truth.map(|fault| Step::Broken(fault, Role::Truth)))
    }

    fn name(&self) -> String {
        match self {
            Step::Refusals => report::REFUSALS.to_owned(),
            Step::Broken(fault, Role::Truth) => report::of_truth(*fault),
            Step::Broken(fault, _) => fault.name().to_owned(),
            Step::AddedAgain => report::ADDED_AGAIN.to_owned(),
        }
    }

    fn run(&self, site: &Site, seed: u64) -> Row {
        let (column, name) = (site.kind.column, self.name());
        match *self {
            Step::Refusals => Row::of_refusals(column, within(refusals::all(site))),
            Step::Broken(Fault::Restored, _) if site.kind.server.is_none() => {
                Row::of(column, &name, within(scenario::restored_at_rest(site, seed)))
            }
            Step::Broken(fault, role) => {
                Row::of(column, &name, within(scenario::broken(site, fault, role, seed)))
            }
            Step::AddedAgain => Row::of(column, &name, within(scenario::added_again(site, seed))),
        }
    }
}

/// Every scenario of a kind, one after another.
fn one(kind: &'static Kind, arguments: &Arguments) -> Vec<Row> {
    // The clients of some drivers insist on one; a second one would be refused, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut rows = Vec::new();
    let mut show = |row: Row| {
        println!("{:<10} {row}", kind.column);
        rows.push(row);
    };
    if let Err(error) = within(unisono_testkit::proxy::check()) {
        show(Row::failed(kind.column, "proxy", error));
    }
    let mut site = None;
    for step in Step::all(kind) {
        let name = step.name();
        if !arguments.wants_fault(&name) {
            continue;
        }
        if let Some((_, why)) = kind.without.iter().find(|(without, _)| *without == name) {
            show(Row::without(kind.column, &name, why));
            continue;
        }
        let mut attempt = || match site.take().map_or_else(|| Site::start(kind), Ok) {
            Ok(at) => {
                let row = step.run(&at, arguments.seed);
                // What a failure has left may break what comes next.
                site = Some(at).filter(|_| row.failure.is_none());
                row
            }
            Err(error) => {
                let failure = report::late(format_args!("it does not start: {error}"));
                Row::failed(kind.column, &name, failure)
            }
        };
        let mut row = attempt();
        if row.failure.as_ref().is_some_and(|failure| failure.contains(STAND_IN_BROKEN)) {
            println!(
                "{:<10} {name}: the server for tests broke by itself; tried again",
                kind.column
            );
            row = attempt();
        }
        show(row);
    }
    rows
}

/// Runs a scenario to its end, in a runtime of its own, so that nothing of it stays.
fn within<T>(scenario: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let ended = runtime.block_on(async { tokio::time::timeout(SCENARIO_MAX, scenario).await });
    runtime.shutdown_timeout(Duration::from_secs(5));
    ended
        .unwrap_or_else(|_| Err(report::late(format_args!("it took longer than {SCENARIO_MAX:?}"))))
}
