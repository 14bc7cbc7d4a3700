//! [`Lines`]: JSON Lines from a file or standard input, plain or gzip, in batches of bounded size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use unisono::core::{Error, ErrorKind, Result};

/// One line that holds something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Its text without the line end; `None` if it is longer than [`Line::BYTES_MAX`].
    pub(crate) text: Option<Vec<u8>>,
}

impl Line {
    /// The longest line in bytes.
    pub(crate) const BYTES_MAX: usize = 16 << 20;
}

/// Reads lines. Gzip is recognised by its first bytes, also when several gzip files follow each other.
pub(crate) struct Lines {
    input: Box<dyn BufRead + Send>,
    read: Arc<AtomicU64>,
    number: u64,
    buffer: Vec<u8>,
    failed: Option<Error>,
}

const BUFFER_BYTES: usize = 256 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];

impl Lines {
    /// From a file, or from standard input if the path is `-`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Lines::new(io::stdin());
        }
        let file = File::open(path).map_err(|e| unreadable(path, e))?;
        Lines::new(file)
    }

    /// From any stream of bytes.
    pub(crate) fn new(input: impl Read + Send + 'static) -> Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted { input, read: Arc::clone(&read) };
        let mut raw = BufReader::with_capacity(BUFFER_BYTES, counted);
        let gzip = raw.fill_buf().map_err(broken)?.starts_with(&GZIP);
        let input: Box<dyn BufRead + Send> = if gzip {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw)))
        } else {
            Box::new(raw)
        };
        Ok(Lines { input, read, number: 0, buffer: Vec::new(), failed: None })
    }

    /// How many bytes have been read from the file, as stored.
    pub(crate) fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    /// Passes over the first lines, those already imported.
    pub(crate) fn skip(&mut self, lines: u64) -> Result<()> {
        while self.number < lines && self.read_line()?.is_some() {}
        Ok(())
    }

    /// The next lines that hold something, at most `lines_max` and about `bytes_max`, but at least one; none at the end.
    /// A failure comes after the lines before it.
    pub(crate) fn batch(&mut self, lines_max: usize, bytes_max: usize) -> Result<Vec<Line>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < lines_max && bytes < bytes_max {
            let text = match self.read_line() {
                Ok(Some(text)) => text,
                Ok(None) => break,
                Err(error) if batch.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            };
            let blank = text.as_ref().is_some_and(|text| text.trim_ascii().is_empty());
            if !blank {
                bytes += text.as_ref().map_or(0, Vec::len);
                batch.push(Line { number: self.number, text });
            }
        }
        Ok(batch)
    }

    /// The next line without its end; the inner `None` for one that is too long, which is passed over.
    fn read_line(&mut self) -> Result<Option<Option<Vec<u8>>>> {
        self.buffer.clear();
        let limit = Line::BYTES_MAX as u64 + 1;
        let mut limited = (&mut self.input).take(limit);
        let length = limited.read_until(b'\n', &mut self.buffer).map_err(broken)?;
        if length == 0 {
            return Ok(None);
        }
        self.number += 1;
        let complete = self.buffer.ends_with(b"\n");
        if !complete && length as u64 == limit {
            self.input.skip_until(b'\n').map_err(broken)?;
            return Ok(Some(None));
        }
        let mut text = self.buffer.as_slice();
        text = text.strip_suffix(b"\n").unwrap_or(text);
        text = text.strip_suffix(b"\r").unwrap_or(text);
        if self.number == 1 {
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        }
        Ok(Some(Some(text.to_vec())))
    }
}

/// Counts what passes through, for the progress bar.
struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// A file named on the command line that cannot be opened.
pub(crate) fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::invalid("the file cannot be opened").with("file", path.display()).caused_by(error)
}

fn broken(error: io::Error) -> Error {
    let message = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the file ends in the middle of its compressed data",
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => "the file is not valid gzip",
        _ => "the file cannot be read",
    };
    Error::new(ErrorKind::InvalidInput, message).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn all(bytes: Vec<u8>) -> Result<Vec<(u64, String)>> {
        let mut lines = Lines::new(io::Cursor::new(bytes))?;
        let mut found = Vec::new();
        loop {
            let batch = lines.batch(2, 1 << 20)?;
            if batch.is_empty() {
                return Ok(found);
            }
            assert!(batch.len() <= 2);
            for line in batch {
                found.push((line.number, String::from_utf8(line.text.unwrap()).unwrap()));
            }
        }
    }

    #[test]
    fn lines_keep_their_numbers_past_blanks_and_any_line_end() {
        let text = b"\xef\xbb\xbf{\"a\":1}\n\n  \r\n{\"b\":2}\r\n{\"c\":3}";
        let expected =
            [(1, "{\"a\":1}".to_owned()), (4, "{\"b\":2}".to_owned()), (5, "{\"c\":3}".to_owned())];
        assert_eq!(all(text.to_vec()).unwrap(), expected);
        assert_eq!(all(gzip(text)).unwrap(), expected);
    }

    #[test]
    fn gzip_files_can_follow_each_other() {
        let joined = [gzip(b"1\n"), gzip(b"2\n")].concat();
        assert_eq!(all(joined).unwrap(), [(1, "1".to_owned()), (2, "2".to_owned())]);
    }

    #[test]
    fn an_empty_file_has_no_lines() {
        assert_eq!(all(Vec::new()).unwrap(), []);
    }

    #[test]
    fn a_cut_gzip_file_is_an_error_and_not_a_short_file() {
        let text: String =
            (0..20_000u32).map(|n| format!("{}\n", n.wrapping_mul(2_654_435_761))).collect();
        let mut cut = gzip(text.as_bytes());
        cut.truncate(cut.len() / 2);
        let mut lines = Lines::new(io::Cursor::new(cut)).unwrap();
        let before = lines.batch(100_000, 1 << 30).unwrap();
        assert!(before.len() > 1000, "the lines before the cut are read");
        let error = lines.batch(100_000, 1 << 30).unwrap_err();
        assert_eq!(error.message(), "the file ends in the middle of its compressed data");
    }

    #[test]
    fn lines_already_imported_are_passed_over() {
        let mut lines = Lines::new(io::Cursor::new(b"1\n2\n\n4\n".to_vec())).unwrap();
        lines.skip(2).unwrap();
        let batch = lines.batch(10, 1 << 20).unwrap();
        assert_eq!(batch, [Line { number: 4, text: Some(b"4".to_vec()) }]);
    }

    #[test]
    fn a_line_that_is_too_long_is_named_and_does_not_hide_the_next() {
        let mut bytes = vec![b'x'; Line::BYTES_MAX + 10];
        bytes.extend_from_slice(b"\n2\n");
        let mut lines = Lines::new(io::Cursor::new(bytes)).unwrap();
        let batch = lines.batch(10, 1 << 30).unwrap();
        let two = Line { number: 2, text: Some(b"2".to_vec()) };
        assert_eq!(batch, [Line { number: 1, text: None }, two]);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes() {
        let mut lines = Lines::new(io::Cursor::new(b"aaaa\nbbbb\ncccc\n".to_vec())).unwrap();
        assert_eq!(lines.batch(10, 5).unwrap().len(), 2);
        assert_eq!(lines.batch(10, 5).unwrap().len(), 1);
    }
}
