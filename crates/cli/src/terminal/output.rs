//! [`Output`]: results on standard output, as text and tables for people or as JSON for programs.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{LineStyle, Table, presets};
use serde::Serialize;
use unisono::core::{Error, ErrorKind, Result};

/// Where results go.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Text, or JSON if asked for.
    pub(crate) fn new(json: bool) -> Self {
        Output { json }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// One line of text.
    pub(crate) fn line(self, text: impl Display) -> Result<()> {
        writeln!(io::stdout().lock(), "{text}").map_err(lost)
    }

    /// One value as one line of JSON.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value)
            .map_err(|e| Error::internal("the answer cannot be written as JSON").caused_by(e))?;
        line.push(b'\n');
        io::stdout().lock().write_all(&line).map_err(lost)
    }

    /// One value as JSON over several lines, for people.
    pub(crate) fn pretty(self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| Error::internal("the answer cannot be written as JSON").caused_by(e))?;
        self.line(text)
    }

    /// A table with a heading; nothing at all if there are no rows.
    pub(crate) fn table(self, heading: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
        table(heading, rows).map_or(Ok(()), |table| self.line(table))
    }

    /// Several tables, in place of what the terminal showed before; below it where there is no terminal.
    pub(crate) fn screen(self, tables: impl IntoIterator<Item = Table>) -> Result<()> {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            // Cursor to the top, then clear: ECMA-48.
            write!(out, "\x1b[H\x1b[2J").map_err(lost)?;
        }
        for table in tables {
            writeln!(out, "{table}\n").map_err(lost)?;
        }
        out.flush().map_err(lost)
    }
}

/// A table with a heading; none if there are no rows.
pub(crate) fn table(heading: &[&str], rows: Vec<Vec<String>>) -> Option<Table> {
    if rows.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING.header_separator(LineStyle::none().fill('─')));
    table.set_header(heading);
    table.add_rows(rows);
    Some(table)
}

/// A message beside the results, on standard error. A closed standard error is no reason to stop.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Standard output cannot be written. A reader that has seen enough (`| head`) is not a failure: see [`is_closed_pipe`].
pub(crate) fn lost(error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::BrokenPipe => ErrorKind::Cancelled,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "the output cannot be written").on("output").caused_by(error)
}

/// Whether the command ended because nobody reads its output any more.
pub(crate) fn is_closed_pipe(error: &Error) -> bool {
    error.kind() == ErrorKind::Cancelled && error.operation() == Some("output")
}
