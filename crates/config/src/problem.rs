//! [`Problem`]: what is wrong in a configuration, where, and what to do about it.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use unisono_core::spelling::closest;
use unisono_core::{Error, ErrorKind};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but perhaps not as meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// The hint for a name that is not known: the nearest of those that are, or something else if none is near.
pub(crate) fn meant<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    closest(name, known).map_or_else(otherwise, |meant| format!("did you mean `{meant}`?"))
}

/// A place in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file, as it was named by the caller.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The character within the line, counted from 1.
    pub column: usize,
    /// How many characters of the line are meant, at least 1.
    pub length: usize,
    /// The line itself, with asterisks in place of secrets.
    pub text: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The key that it concerns, for example `entities.product.truth`; empty for the file as a whole.
    pub key: String,
    /// Where it is; `None` if the file could not be read.
    #[serde(flatten)]
    pub place: Option<Place>,
}

impl fmt::Display for Problem {
    /// Several lines for a terminal: message, place, the line with carets below it, and the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity.as_str(), self.message)?;
        let width = self.place.as_ref().map_or(1, |p| p.line.to_string().len());
        if let Some(Place { file, line, column, length, text }) = &self.place {
            let carets = "^".repeat(*length);
            write!(
                f,
                "\n{:width$}--> {file}:{line}:{column}\n{:width$} |\n{line} | {text}",
                "", ""
            )?;
            write!(f, "\n{:width$} | {:before$}{carets}", "", "", before = column - 1)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n{:width$} = help: {hint}", "")?;
        }
        Ok(())
    }
}

/// Everything that is wrong, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|p| p.severity == Severity::Error).count()
    }

    /// How many are warnings.
    pub fn warnings(&self) -> usize {
        self.0.len() - self.errors()
    }

    /// As JSON: a list of objects.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl fmt::Display for Problems {
    /// Every problem, then how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            write!(f, "{problem}\n\n")?;
        }
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match (self.errors(), self.warnings()) {
            (errors, 0) => f.write_str(&count(errors, "error")),
            (0, warnings) => f.write_str(&count(warnings, "warning")),
            (errors, warnings) => {
                write!(f, "{}, {}", count(errors, "error"), count(warnings, "warning"))
            }
        }
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for Error {
    /// `invalid_config` with the first error; the full text is the cause.
    fn from(problems: Problems) -> Error {
        let first = problems.0.iter().find(|p| p.severity == Severity::Error);
        let message = first.map_or("the configuration is wrong".to_owned(), |p| p.message.clone());
        let mut error = Error::new(ErrorKind::InvalidConfig, message);
        if let Some(place) = first.and_then(|p| p.place.as_ref()) {
            error =
                error.with("at", format_args!("{}:{}:{}", place.file, place.line, place.column));
        }
        if let Some(hint) = first.and_then(|p| p.hint.clone()) {
            error = error.hint(hint);
        }
        error.caused_by(problems)
    }
}

/// A key with the part of the file that holds it.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) span: Range<usize>,
    pub(crate) key: String,
}

impl Spot {
    pub(crate) fn below(&self, name: &str, span: &Range<usize>) -> Spot {
        let key =
            if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) };
        Spot { span: span.clone(), key }
    }
}

/// Collects problems while a file is read.
pub(crate) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    found: RefCell<Vec<(Range<usize>, Problem)>>,
    secrets: RefCell<Vec<Range<usize>>>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        Report { file, text, found: RefCell::default(), secrets: RefCell::default() }
    }

    pub(crate) fn error(&self, spot: &Spot, message: impl Into<String>) {
        self.add(Severity::Error, spot, message.into(), None);
    }

    pub(crate) fn error_with(
        &self,
        spot: &Spot,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(Severity::Error, spot, message.into(), Some(hint.into()));
    }

    /// An error with a hint if there is one.
    pub(crate) fn error_maybe(
        &self,
        spot: &Spot,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.add(Severity::Error, spot, message.into(), hint);
    }

    pub(crate) fn warning(&self, spot: &Spot, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, spot, message.into(), Some(hint.into()));
    }

    /// Keeps a part of the file from being shown.
    pub(crate) fn hide(&self, span: &Range<usize>) {
        self.secrets.borrow_mut().push(span.clone());
    }

    /// Keeps what is assigned to a name from being shown, in a text that cannot be parsed: the rest of its line.
    pub(crate) fn hide_assigned(&self, name: &str) {
        let mut start = 0;
        for line in self.text.split_inclusive('\n') {
            let ends = line.match_indices(name).map(|(at, _)| at + name.len());
            let mut assigned = ends.filter(|end| line[*end..].trim_start().starts_with('='));
            if let Some(end) = assigned.next() {
                self.hide(&(start + end + 1..start + line.len()));
            }
            start += line.len();
        }
    }

    /// All problems, in the order of the file.
    pub(crate) fn finish(self) -> Problems {
        let mut found = self.found.take();
        found.sort_by_key(|(span, _)| span.start);
        // Only now is it known what must not be shown.
        let placed = |(span, problem)| Problem { place: Some(self.place(&span)), ..problem };
        Problems(found.into_iter().map(placed).collect())
    }

    fn add(&self, severity: Severity, spot: &Spot, message: String, hint: Option<String>) {
        let problem = Problem { severity, message, hint, key: spot.key.clone(), place: None };
        self.found.borrow_mut().push((spot.span.clone(), problem));
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        let line = self.text.get(line_start..).unwrap_or("").lines().next().unwrap_or("");
        let column = before.len() - line_start;
        let end = (span.end.max(before.len()) - line_start).min(line.len());
        let marked = line.get(column..end).unwrap_or("");
        Place {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
            length: marked.chars().count().max(1),
            text: self.shown(line, line_start),
        }
    }

    /// A line without what must not be shown, each character replaced by another so that carets stay below theirs.
    fn shown(&self, line: &str, start: usize) -> String {
        let secrets = self.secrets.borrow();
        let shown = |(at, c): (usize, char)| match c {
            // A tab would put the carets in the wrong place.
            '\t' => ' ',
            '"' | '\'' => c,
            _ if secrets.iter().any(|s| s.contains(&(start + at))) => '*',
            _ => c,
        };
        line.char_indices().map(shown).collect()
    }
}
