//! Bulk requests: many writes by lines of JSON, each conditional on its version, each with an outcome of its own.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use unisono_core::source::Outcome;
use unisono_core::{Change, Error, ErrorKind, Operation, Position, Result};

use crate::client::Client;
use crate::codec;
use crate::error::{self, Cause};
use crate::place::Written;
use crate::schema::{Layout, entrance};

/// About the most bytes of one request; far below what clusters take, and large enough to be fast.
const REQUEST_BYTES: usize = 8 << 20;

/// On what a write depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The document is older.
    Newer,
    /// The document is older or of the same version.
    NotOlder,
    /// The document is as it was read.
    As(Written),
    /// There is no document.
    Absent,
}

/// Gathers writes.
#[derive(Default)]
pub(crate) struct Bulk {
    /// The lines of all writes.
    lines: Vec<u8>,
    /// Where the lines of each write end.
    ends: Vec<usize>,
}

impl Bulk {
    /// Whether nothing was gathered.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a change: the record, or, where one was deleted, a document that remembers it. The engine would forget a
    /// deletion of its own after a while, and whenever it restarts.
    pub(crate) fn add(
        &mut self,
        layout: &Layout,
        change: &Change,
        condition: Condition,
    ) -> Result<()> {
        let start = self.lines.len();
        let (id, version) = (change.key.to_string(), change.position);
        match condition {
            Condition::Newer => self.action("index", &id, &of_version(version, "external")),
            Condition::NotOlder => self.action("index", &id, &of_version(version, "external_gte")),
            Condition::Absent => self.action("create", &id, ""),
            Condition::As(Written { sequence, term }) => {
                let read = format!(",\"if_seq_no\":{sequence},\"if_primary_term\":{term}");
                self.action("index", &id, &read);
            }
        }
        match (change.operation, &change.image) {
            (Operation::Put, Some(record)) => {
                codec::encode(layout, version, record, &mut self.lines)?;
            }
            (Operation::Delete, _) => codec::encode_deletion(version, &mut self.lines),
            (Operation::Put, None) => {
                self.lines.truncate(start);
                return Err(Error::internal("a put without the record's state")
                    .with("key", &change.key)
                    .with("position", version));
            }
        }
        self.lines.push(b'\n');
        self.ends.push(self.lines.len());
        Ok(())
    }

    /// Adds the end of a remembered deletion, unless the record is there again.
    pub(crate) fn forget(&mut self, id: &str, version: Position) {
        self.action("delete", id, &of_version(version, "external_gte"));
        self.ends.push(self.lines.len());
    }

    fn action(&mut self, action: &str, id: &str, condition: &str) {
        let id = serde_json::Value::from(id);
        let line = format!("{{\"{action}\":{{\"_id\":{id}{condition}}}}}\n");
        self.lines.extend(line.into_bytes());
    }

    /// Sends everything; answers what became of each write, in order.
    ///
    /// `Err` means that any part may have been taken in.
    pub(crate) async fn send(self, client: &Client, index: &str) -> Result<Vec<Outcome>> {
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(self.ends.len());
        let (lines, ends) = (Bytes::from(self.lines), self.ends);
        let path = format!(
            "/{}/_bulk?require_alias=true&filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason",
            entrance(index)
        );
        // The next part is on top; a part that the cluster finds too large is halved.
        let mut parts: Vec<Range<usize>> = parts(&ends);
        parts.reverse();
        while let Some(part) = parts.pop() {
            let start = part.start.checked_sub(1).and_then(|n| ends.get(n)).copied().unwrap_or(0);
            let end = ends.get(part.end.saturating_sub(1)).copied().unwrap_or(start);
            let answer = client.write_lines(&path, lines.slice(start..end)).await?;
            if answer.status == 413 {
                let middle = part.start + part.len() / 2;
                if part.len() > 1 {
                    parts.extend([middle..part.end, part.start..middle]);
                } else {
                    outcomes.push(Outcome::Rejected(error::of_status(413, &answer.body)));
                }
                continue;
            }
            let answer: Answer = answer.ok()?.parse()?;
            if answer.items.len() != part.len() {
                return Err(Error::internal("the cluster did not answer every write"));
            }
            for item in answer.items {
                outcomes.push(outcome(item.write)?);
            }
        }
        Ok(outcomes)
    }
}

/// Ranges of writes whose lines fit in one request each, at least one write.
fn parts(ends: &[usize]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut first, mut start) = (0, 0);
    for (n, end) in ends.iter().enumerate() {
        if end - start > REQUEST_BYTES && n > first {
            parts.push(first..n);
            start = ends.get(n - 1).copied().unwrap_or(start);
            first = n;
        }
    }
    if first < ends.len() {
        parts.push(first..ends.len());
    }
    parts
}

fn of_version(version: Position, version_type: &str) -> String {
    format!(",\"version\":{version},\"version_type\":\"{version_type}\"")
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "index", alias = "create", alias = "delete")]
    write: Write,
}

#[derive(Deserialize)]
struct Write {
    status: u16,
    #[serde(default)]
    error: Option<Cause>,
}

fn outcome(write: Write) -> Result<Outcome> {
    let cause = write.error.unwrap_or_default();
    Ok(match write.status {
        ..300 => Outcome::Applied,
        409 => Outcome::Stale,
        // A deletion that is forgotten twice.
        404 if cause.name.is_empty() => Outcome::Stale,
        404 => return Err(error::missing()),
        400 => Outcome::Rejected(rejected(&cause)),
        status => Outcome::Retry(error::of_cause(status, &cause)),
    })
}

fn rejected(cause: &Cause) -> Error {
    let e = Error::new(ErrorKind::InvalidInput, "the index does not take the record");
    cause.put(e).hint("look at the reason; a record that was changed is tried again")
}

#[cfg(test)]
mod tests {
    use unisono_testkit::{Changes, Sample};

    use super::*;

    #[test]
    fn requests_are_cut_by_bytes_and_hold_at_least_one_write() {
        assert!(parts(&[]).is_empty());
        let ends = [10, REQUEST_BYTES, REQUEST_BYTES + 5, 3 * REQUEST_BYTES, 3 * REQUEST_BYTES + 1];
        assert_eq!(parts(&ends), [0..2, 2..3, 3..4, 4..5]);
    }

    #[test]
    fn lines_name_key_and_version() {
        let entity = Sample::product();
        let (layout, mut changes) = (Layout::new(&entity), Changes::new());
        let delete = changes.delete(&entity, &Sample::key("a\"\n"));
        let read = Condition::As(Written { sequence: 7, term: 2 });
        let mut bulk = Bulk::default();
        for condition in [Condition::Newer, Condition::NotOlder, Condition::Absent, read] {
            bulk.add(&layout, &delete, condition).unwrap();
        }
        bulk.forget("b", Position::MAX);
        let lines = String::from_utf8(bulk.lines).unwrap();
        let deletion = r#"{"version":1,"deleted":true}"#;
        let expected = [
            r#"{"index":{"_id":"a\"\n","version":1,"version_type":"external"}}"#,
            deletion,
            r#"{"index":{"_id":"a\"\n","version":1,"version_type":"external_gte"}}"#,
            deletion,
            r#"{"create":{"_id":"a\"\n"}}"#,
            deletion,
            r#"{"index":{"_id":"a\"\n","if_seq_no":7,"if_primary_term":2}}"#,
            deletion,
            r#"{"delete":{"_id":"b","version":9223372036854775807,"version_type":"external_gte"}}"#,
        ];
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_put_without_a_record_adds_nothing() {
        let entity = Sample::product();
        let (layout, mut changes) = (Layout::new(&entity), Changes::new());
        let mut broken = changes.put(&entity, Sample::product_record(1)).as_ref().clone();
        broken.image = None;
        let mut bulk = Bulk::default();
        assert!(bulk.add(&layout, &broken, Condition::Newer).is_err());
        assert!(bulk.is_empty() && bulk.lines.is_empty());
    }

    #[test]
    fn each_status_has_its_outcome() {
        let of = |status, name: &str| {
            let error = (!name.is_empty()).then(|| Cause { name: name.into(), reason: None });
            outcome(Write { status, error })
        };
        assert!(matches!(of(201, ""), Ok(Outcome::Applied)));
        assert!(matches!(of(409, "version_conflict_engine_exception"), Ok(Outcome::Stale)));
        assert!(matches!(of(400, "mapper_parsing_exception"), Ok(Outcome::Rejected(_))));
        for (status, name) in [
            (429, "es_rejected_execution_exception"),
            (503, "unavailable_shards_exception"),
            (403, "cluster_block_exception"),
            (403, "security_exception"),
        ] {
            assert!(matches!(of(status, name), Ok(Outcome::Retry(_))), "{name}");
        }
        assert!(of(404, "index_not_found_exception").is_err(), "the index is gone");
    }

    /// The request is taken and each write refused: a record that waits for a right is not one that the index refuses.
    #[test]
    fn a_write_without_the_right_to_it_is_tried_again_and_says_which() {
        for reason in [
            "no permissions for [indices:data/write/bulk[s]] and User [name=app, backend_roles=[], requestedTenant=null]",
            "action [indices:data/write/bulk[s]] is unauthorized for user [app] with effective roles [viewer] on \
             indices [shop-product-1], this action is granted by the index privileges [create_doc,create,delete,index,write,all]",
        ] {
            let body = format!(
                r#"{{"errors":true,"items":[{{"index":{{"status":403,"error":{{"type":"security_exception","reason":"{reason}"}}}}}}]}}"#
            );
            let answer: Answer = serde_json::from_str(&body).unwrap();
            let write = answer.items.into_iter().next().unwrap().write;
            let Ok(Outcome::Retry(e)) = outcome(write) else { panic!("{reason}") };
            assert!(e.hint_text().is_some_and(|h| h.contains("grant")), "{e:?}");
            assert_eq!(e.detail("reason"), Some(reason));
        }
    }
}
