//! [`Events`]: changes of a log from a server's event stream.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::Value as Json;
use unisono::core::{Error, ErrorKind, LogName, Position, Result, Token};

use super::remote::failure;

/// How long a page waits for its first change.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// An open stream and its place in the log.
pub(crate) struct Events {
    response: Response,
    log: String,
    name: LogName,
    at: Position,
    parser: Parser,
}

impl Events {
    /// Around the answer to a request for the changes after a position.
    pub(crate) fn new(response: Response, log: &str, after: Position) -> Self {
        Events {
            response,
            log: log.to_owned(),
            name: name(log),
            at: after,
            parser: Parser::default(),
        }
    }

    /// Whether the next change of the stream is the one after a position of a log.
    pub(crate) fn is_at(&self, log: &str, after: Position) -> bool {
        self.log == log && self.at == after
    }

    /// The next changes, at most `max`: those up to a position, or, without one, those that come together after a
    /// wait for the first.
    pub(crate) async fn take(&mut self, max: usize, until: Option<Position>) -> Result<Vec<Json>> {
        let mut changes = Vec::new();
        while changes.len() < max && until.is_none_or(|until| self.at < until) {
            if let Some(event) = self.parser.next()? {
                self.at = self.at.max(event.seen.position(&self.name));
                changes.extend(event.change);
                continue;
            }
            if until.is_none() && !changes.is_empty() {
                break;
            }
            match tokio::time::timeout(FIRST_WAIT, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => self.parser.feed(&bytes),
                Ok(Ok(None)) => return Err(ended()),
                Ok(Err(e)) => return Err(ended().caused_by(e)),
                Err(_) if until.is_none() => break,
                // A server that has the changes sends them, or at least a sign of life.
                Err(_) => {}
            }
        }
        Ok(changes)
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the server ended the stream of changes")
        .hint("begin again with --after and the last position shown")
}

/// Takes an event stream apart: events are lines up to an empty one, of which only `data` and `event` matter here.
#[derive(Default)]
struct Parser {
    rest: Vec<u8>,
    lines: VecDeque<String>,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let mut start = 0;
        for (n, byte) in self.rest.iter().enumerate() {
            if *byte == b'\n' {
                let line = self.rest.get(start..n).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                self.lines.push_back(String::from_utf8_lossy(line).into_owned());
                start = n + 1;
            }
        }
        self.rest.drain(..start);
    }

    /// The next complete event.
    fn next(&mut self) -> Result<Option<Event>> {
        let Some(end) = self.lines.iter().position(String::is_empty) else { return Ok(None) };
        let (mut data, mut kind, mut seen) = (String::new(), String::new(), Token::default());
        for line in self.lines.drain(..=end) {
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "data" => data.push_str(value),
                "event" => value.clone_into(&mut kind),
                "id" => seen = value.parse()?,
                _ => {}
            }
        }
        if data.is_empty() {
            return Ok(Some(Event { seen, change: None }));
        }
        let data: Json = serde_json::from_str(&data)
            .map_err(|e| Error::internal("a change is not valid JSON").caused_by(e))?;
        if kind == "error" {
            return Err(failure(StatusCode::INTERNAL_SERVER_ERROR, &data));
        }
        Ok(Some(Event { seen, change: Some(data) }))
    }
}

/// One event: a change, or only a sign of life, and what has been seen with it.
struct Event {
    seen: Token,
    change: Option<Json>,
}

/// The name of a log from its text.
fn name(log: &str) -> LogName {
    let (truth, partition) = match log.split_once('.') {
        Some((truth, partition)) => (truth, partition.parse().unwrap_or(0)),
        None => (log, 0),
    };
    LogName { truth: truth.into(), partition }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let stream = ": heartbeat\nid: main:7\n\nid: main:8\nevent: put\ndata: {\"key\":\"a\"}\n\n\
                      id: main:9\r\nevent: delete\r\ndata: {\"key\":\r\ndata: \"b\"}\r\n\r\ndata: {";
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for chunk in stream.as_bytes().chunks(size) {
                parser.feed(chunk);
                while let Some(event) = parser.next().unwrap() {
                    let key = event.change.map(|change| change["key"].as_str().unwrap().to_owned());
                    found.push((event.seen.position(&name("main")).as_u64(), key));
                }
            }
            let expected = [(7, None), (8, Some("a".to_owned())), (9, Some("b".to_owned()))];
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_failure_of_the_stream_is_told() {
        let mut parser = Parser::default();
        parser.feed(b"event: error\ndata: {\"code\":\"log_truncated\",\"detail\":\"too old\"}\n\n");
        assert_eq!(parser.next().err().unwrap().kind(), ErrorKind::LogTruncated);
    }
}
