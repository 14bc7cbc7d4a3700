//! The quick way of a first copy: rows go into the table by `COPY`, at half of the server's work.
//!
//! `COPY` knows no condition, but it takes in all rows or none: one whose key is there already, whatever its version,
//! makes the transaction fail, and then the batch goes the way of all others. What else could outdate a row is a
//! deletion that is remembered; where there is any, the batch goes that way too. The lock is that of every batch, so
//! that no deletion comes in between.

use std::pin::pin;
use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes};
use futures::SinkExt;
use futures::future::{try_join, try_join3};
use tokio_postgres::CopyInSink;
use unisono_core::source::Batch;
use unisono_core::{Error, Position, Record, Result};

use super::lock_for;
use crate::codec::push;
use crate::error::Failed;
use crate::parameter::cell;
use crate::session::{Session, Use};
use crate::table::{Shape, Table};

/// What a binary copy begins with: signature, flags, and the length of what could follow.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with, in the place of a number of fields.
const END: i16 = -1;
/// The length of null.
const NULL: i32 = -1;

/// The rows of a batch for [`load`]; none if it cannot go that way, or hardly would succeed.
pub(super) fn rows(table: &Table, batch: &Batch) -> Option<Bytes> {
    let is_first_copy = table.is_filled_anew.load(Ordering::Relaxed)
        && batch.may_be_first_copy()
        // The values are in the form of their declared types, and nothing converts them on their way.
        && table.columns.iter().all(|column| column.shape == Shape::Own);
    if !is_first_copy {
        return None;
    }
    let mut out = HEAD.to_vec();
    for change in &batch.changes {
        // A record that the table cannot hold is refused by itself, the other way.
        push_row(table, change.image.as_ref()?, change.position, &mut out).ok()?;
    }
    out.put_i16(END);
    Some(out.into())
}

/// Appends a row: the fields in order, then the version.
fn push_row(table: &Table, record: &Record, version: Position, out: &mut Vec<u8>) -> Result<()> {
    let too_much = |_| Error::internal("a row has too many fields, or too long ones");
    out.put_i16(i16::try_from(table.columns.len() + 1).map_err(too_much)?);
    for (column, value) in table.columns.iter().zip(record.values()) {
        let start = out.len();
        out.put_i32(NULL);
        if push(&column.ty, value, out)? {
            let length = i32::try_from(out.len() - start - 4).map_err(too_much)?;
            // The place of the length is there since it was null.
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
    out.put_i32(8);
    out.put_i64(version.as_i64());
    Ok(())
}

/// Copies rows into the table; answers whether it did. On a failure nothing was done, unless the connection was lost at
/// the commit, and the session is of no further use: of a copy that was refused before it began the driver loses count
/// of the answers.
pub(super) async fn load(
    session: &Session,
    table: &Table,
    batch: &Batch,
    rows: &Bytes,
) -> Result<bool, Failed> {
    if !session.is_prepared() {
        return Ok(false);
    }
    let names: String = table.columns.iter().map(|c| format!("{}, ", c.name)).collect();
    let copy = format!("COPY {} ({names}unisono_version) FROM STDIN (FORMAT binary)", table.name);
    let deletes = format!(
        "SELECT EXISTS (SELECT FROM {}.unisono_tombstones WHERE entity = '{}')",
        table.schema,
        table.entity.name()
    );
    let begin = format!("BEGIN; {}", lock_for(table, batch));
    let (found, copying) = if session.is_pipelining() {
        try_join(session.prepare(&copy, &[]), session.prepare(&deletes, &[])).await?;
        let found = session.rows(Use::Often, &deletes, &[]);
        let ((), found, copying) =
            try_join3(session.run(&begin), found, session.copy_in(&copy)).await?;
        (found, copying)
    } else {
        session.run(&begin).await?;
        (session.rows(Use::Often, &deletes, &[]).await?, session.copy_in(&copy).await?)
    };
    let row = found.first().ok_or_else(|| Error::internal("the statement has no answer"))?;
    if cell(row, 0)? != Some(&[0]) {
        drop(copying);
        session.run("ROLLBACK").await?;
        return Ok(false);
    }
    let copied = send(copying, rows.clone());
    match session.is_pipelining() {
        // What is sent behind a statement that fails has no effect, as the transaction has failed.
        true => drop(try_join(copied, session.run("COMMIT")).await?),
        false => {
            copied.await?;
            session.run("COMMIT").await?;
        }
    }
    Ok(true)
}

async fn send(copying: CopyInSink<Bytes>, rows: Bytes) -> Result<(), Failed> {
    let mut copying = pin!(copying);
    copying.send(rows).await?;
    copying.finish().await?;
    Ok(())
}
