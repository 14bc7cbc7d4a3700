//! What happened, as lines while it happens and as a table afterwards.

use std::fmt::{self, Display, Write as _};
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::fault::Fault;
use crate::kinds::Kind;
use crate::scenario::Shown;

/// What failures begin with that a busy machine may be the cause of.
const LATE: &str = "too late: ";

/// A failure by a bound of time.
pub(crate) fn late(what: impl Display) -> String {
    format!("{LATE}{what}")
}

/// The row of the errors at the start.
pub(crate) const REFUSALS: &str = "start errors";
/// The row of a follower that comes and goes.
pub(crate) const ADDED_AGAIN: &str = "added again";

/// What stands before the table in the documents.
const INTRODUCTION: &str = "\
# What happens when a source fails

Eight writers write through the library while one source is broken for some seconds and then mended. `ok` says that no
acknowledged write was lost (compared with the history of every record), no write that was said not to have taken place
did, no write or read failed because of a follower, the other follower kept up, the broken one came to agree with the truth
by itself (`verify`, record by record, without repairs), memory grew by at most 256 MiB, and while it lasted `status`
named the source and what it has, `/health/ready` was degraded (for a truth: failed) and `unisono_delivery_live` was 0:
what should be told lasts until it is, for at most 30 s more. Several kinds are tried at the same time; a scenario that
went over a bound of time is tried once more by itself, and `again` says so.
Behind it: seconds from the end of the fault until everything was settled, at least 1.5 s of which writes went on.

Made by `cargo test -p unisono-tests --features full --test faults -- --write`.
";

/// The outcome of one scenario of one kind.
pub(crate) struct Row {
    pub(crate) column: String,
    pub(crate) scenario: String,
    /// What stands in the table.
    cell: String,
    /// More of it, for whoever watches.
    note: String,
    pub(crate) failure: Option<String>,
}

/// The name of a fault of a truth.
pub(crate) fn of_truth(fault: Fault) -> String {
    format!("truth {}", fault.name())
}

impl Row {
    fn new(column: &str, scenario: &str, cell: String, note: String) -> Self {
        let (column, scenario) = (column.to_owned(), scenario.to_owned());
        Row { column, scenario, cell, note, failure: None }
    }

    pub(crate) fn of(column: &str, scenario: &str, shown: Result<Shown, String>) -> Self {
        match shown {
            Err(failure) => Row::failed(column, scenario, failure),
            Ok(Shown { settled, told, writes, memory }) => {
                let told = told.map_or(String::new(), |told| format!("; {told}"));
                let note = format!("{writes} writes, {memory} MiB more{told}");
                Row::new(column, scenario, format!("ok, {settled:.0} s"), note)
            }
        }
    }

    pub(crate) fn of_refusals(column: &str, refused: Result<Vec<&'static str>, String>) -> Self {
        match refused {
            Err(failure) => Row::failed(column, REFUSALS, failure),
            Ok(names) => {
                Row::new(column, REFUSALS, format!("ok, {}", names.len()), names.join(", "))
            }
        }
    }

    pub(crate) fn without(column: &str, scenario: &str, why: &str) -> Self {
        Row::new(column, scenario, "n/a".to_owned(), why.to_owned())
    }

    /// Whether it failed by a bound of time alone.
    pub(crate) fn is_late(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.contains(LATE))
    }

    /// What a second attempt showed, with what had failed the first one.
    pub(crate) fn again(self, first: &Row) -> Self {
        let failure = first.failure.as_deref().unwrap_or_default();
        let line = failure.lines().next().unwrap_or_default();
        let note = format!("{}; at first: {line} ", self.note);
        Row { cell: format!("{}, again", self.cell), note, ..self }
    }

    pub(crate) fn is_of(&self, other: &Row) -> bool {
        (&self.column, &self.scenario) == (&other.column, &other.scenario)
    }

    pub(crate) fn failed(column: &str, scenario: &str, failure: String) -> Self {
        let row = Row::new(column, scenario, "FAILED".to_owned(), String::new());
        Row { failure: Some(failure), ..row }
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} {:<9} {}", self.scenario, self.cell, self.note)?;
        match &self.failure {
            Some(failure) => write!(f, "{failure}"),
            None => Ok(()),
        }
    }
}

/// Keeps rows for another process.
pub(crate) fn save(path: &Path, rows: &[Row]) -> Result<(), String> {
    let rows: Vec<Json> =
        rows.iter().map(|r| json!([r.column, r.scenario, r.cell, r.note, r.failure])).collect();
    std::fs::write(path, Json::from(rows).to_string()).map_err(|e| e.to_string())
}

/// The rows that another process kept.
pub(crate) fn load(path: &Path) -> Result<Vec<Row>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    type Kept = (String, String, String, String, Option<String>);
    let kept: Vec<Kept> = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let row = |(column, scenario, cell, note, failure): Kept| Row {
        column,
        scenario,
        cell,
        note,
        failure,
    };
    Ok(kept.into_iter().map(row).collect())
}

/// Scenarios × kinds, in Markdown, with what is not tried and why.
pub(crate) fn table(kinds: &[&'static Kind], rows: &[Row]) -> String {
    let mut scenarios: Vec<(String, &str)> =
        Fault::ALL.iter().map(|f| (f.name().to_owned(), f.meaning())).collect();
    scenarios.push((Fault::Stuck.name().to_owned(), Fault::Stuck.meaning()));
    scenarios.push((ADDED_AGAIN.to_owned(), "a follower added, removed and added again by configuration, with a first copy, while writes go on"));
    scenarios.extend(Fault::OF_TRUTH.iter().map(|f| (of_truth(*f), "the same, of the truth")));
    scenarios.push((REFUSALS.to_owned(), "what cannot work at the start: one clear error that names the source and the remedy, and the rest starts"));
    let mut text = String::from("| what is broken |");
    let mut line = String::from("|---|");
    for kind in kinds {
        let _ = write!(text, " {} |", kind.column);
        line += "---|";
    }
    let _ = writeln!(text, "\n{line}");
    for (name, _) in &scenarios {
        let cell = |kind: &&Kind| {
            let row = rows.iter().find(|r| r.column == kind.column && r.scenario == *name);
            row.map_or_else(|| "-".to_owned(), |r| r.cell.clone())
        };
        let cells: Vec<String> = kinds.iter().map(cell).collect();
        if cells.iter().any(|c| c != "-") {
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
    }
    text += "\n";
    for (name, meaning) in &scenarios {
        let _ = writeln!(text, "* {name}: {meaning}.");
    }
    text += "\n";
    for row in rows.iter().filter(|r| r.cell == "n/a") {
        let _ = writeln!(text, "`n/a` {}, {}: {}.  ", row.column, row.scenario, row.note);
    }
    for row in rows.iter().filter(|r| r.scenario == REFUSALS && r.failure.is_none()) {
        let _ = writeln!(text, "Start errors of {}: {}.  ", row.column, row.note);
    }
    text
}

pub(crate) fn write(path: &Path, table: &str) -> Result<(), String> {
    std::fs::write(path, format!("{INTRODUCTION}\n{table}"))
        .map_err(|e| format!("{}: {e}", path.display()))
}
