//! The thread that reads a file ahead: it unpacks, splits and parses, so that the target is never kept waiting.

use std::collections::HashSet;

use tokio::sync::mpsc;
use unisono::core::{Error, ErrorKind, Key, Result};

use super::Refusal;
use super::lines::{Line, Lines};
use crate::target::{Parser, Prepared};

/// The most lines of one batch.
const BATCH_LINES: usize = 512;
/// About how many bytes of text one batch holds.
const BATCH_BYTES: usize = 2 << 20;
/// Batches read ahead of those under way.
const READ_AHEAD: usize = 2;

/// Records that are stored together, and the lines among them that are refused already.
pub(crate) struct Batch {
    /// The last line that it covers.
    pub(crate) last_line: u64,
    /// Line number and record, in order.
    pub(crate) records: Vec<(u64, Prepared)>,
    /// The keys of its records, as far as they are known here.
    pub(crate) keys: HashSet<Key>,
    /// Lines that are no records.
    pub(crate) refusals: Vec<Refusal>,
}

/// Starts the thread. It passes over the first lines, and ends with the file or with the receiver.
pub(crate) fn start(
    mut lines: Lines,
    skip: u64,
    parser: Parser,
) -> Result<mpsc::Receiver<Result<Batch>>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    // A thread of its own and no task: standard input may block it for ever, which must not hold up the end.
    let read = move || {
        let mut skipped = lines.skip(skip);
        loop {
            let batch =
                std::mem::replace(&mut skipped, Ok(())).and_then(|()| next(&mut lines, &parser));
            let (batch, last) = match batch {
                Ok(Some(batch)) => (Ok(batch), false),
                Ok(None) => return,
                Err(error) => (Err(error), true),
            };
            if sender.blocking_send(batch).is_err() || last {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("import-reader".into()).spawn(read);
    thread
        .map_err(|e| Error::new(ErrorKind::Unavailable, "no thread can be started").caused_by(e))?;
    Ok(receiver)
}

fn next(lines: &mut Lines, parser: &Parser) -> Result<Option<Batch>> {
    let texts = lines.batch(BATCH_LINES, BATCH_BYTES)?;
    let Some(last) = texts.last() else { return Ok(None) };
    let mut batch = Batch {
        last_line: last.number,
        records: Vec::with_capacity(texts.len()),
        keys: HashSet::with_capacity(texts.len()),
        refusals: Vec::new(),
    };
    for Line { number, text } in texts {
        let too_long = || {
            Error::new(ErrorKind::LimitExceeded, "the line is too long")
                .with("bytes_max", Line::BYTES_MAX)
        };
        match text.ok_or_else(too_long).and_then(|text| parser(&text)) {
            Ok(record) => {
                if let Prepared::Write(write) = &record {
                    batch.keys.insert(write.key.clone());
                }
                batch.records.push((number, record));
            }
            Err(reason) => batch.refusals.push(Refusal { line: number, reason }),
        }
    }
    Ok(Some(batch))
}
