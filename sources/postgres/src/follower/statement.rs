//! The one statement that takes in a batch: rows, tombstones and checkpoint, each only if it is newer.

use tokio_postgres::types::Type;
use unisono_core::source::{Advance, Batch, Checkpoint};
use unisono_core::{Change, Error, ErrorKind, Operation, Result};

use crate::codec::{Form, encode_key, key_text};
use crate::parameter::Parameter;
use crate::table::Table;

fn checkpoint_text(checkpoint: &Checkpoint) -> Result<String> {
    serde_json::to_string(checkpoint)
        .map_err(|e| Error::internal("the checkpoint cannot be encoded").caused_by(e))
}

/// One change, ready to be sent.
pub(super) struct Item<'a> {
    /// Its index in the batch.
    pub(super) at: usize,
    change: &'a Change,
    /// The record's values; none for a deletion.
    row: Option<Vec<Option<Vec<u8>>>>,
}

impl<'a> Item<'a> {
    /// From a change; fails for one whose values do not fit.
    pub(super) fn of(table: &Table, at: usize, change: &'a Change) -> Result<Self> {
        if (change.operation == Operation::Put) != change.image.is_some() {
            return Err(Error::new(ErrorKind::Corrupt, "the change has no image, or one too many")
                .with("key", &change.key));
        }
        let row = change.image.as_ref().map(|record| table.encode(record)).transpose();
        Ok(Item { at, change, row: row.map_err(|e| e.with("key", &change.key))? })
    }
}

/// The one statement of a batch. It answers whether the checkpoint is where it must be, the checkpoint, and the indexes
/// of the items that are not stale; null if none is stale, which is quicker to find.
pub(super) fn statement(
    table: &Table,
    batch: &Batch,
    items: &[Item<'_>],
    settled: bool,
) -> Result<(String, Vec<Parameter>)> {
    let (schema, entity) = (&table.schema, table.entity.name());
    let mut parameters = Vec::new();
    let from =
        batch.advance.as_ref().and_then(|a| a.from.as_ref()).map(checkpoint_text).transpose()?;
    parameters.push(Parameter::new(Type::TEXT, from.map(String::into_bytes)));
    parameters.push(Parameter::new(Type::BOOL, Some(vec![u8::from(batch.advance.is_some())])));
    let place =
        format!("(SELECT checkpoint FROM {schema}.unisono_checkpoints WHERE entity = '{entity}')");
    let mut parts = vec![format!(
        "here AS (SELECT (NOT $2 OR {place} IS NOT DISTINCT FROM $1) AS held, {place} AS checkpoint, \
         EXISTS (SELECT FROM {schema}.unisono_tombstones WHERE entity = '{entity}') AS deletes)"
    )];
    let (puts, cuts): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.row.is_some());
    // A copy of the truth is written over an equal version, too, which repairs it.
    let newer = if batch.copied { ">=" } else { ">" };
    let (mut counts, mut fresh) = (Vec::new(), Vec::new());
    if !puts.is_empty() {
        parts.extend(put_parts(table, &puts, newer, &mut parameters));
        counts.push("(SELECT count(*) FROM put)");
        fresh.push("SELECT at FROM put JOIN puts USING (key)");
    }
    if !cuts.is_empty() {
        parts.extend(cut_parts(table, &cuts, newer, &mut parameters));
        counts.push("(SELECT count(*) FROM cuts)");
        fresh.push("SELECT at FROM cuts");
    }
    if let Some(advance) = batch.advance.as_ref().filter(|_| settled) {
        parts.push(advance_part(table, advance, &mut parameters)?);
        parts.extend(forget_part(table, advance, !cuts.is_empty(), &mut parameters));
    }
    let fresh = match fresh.is_empty() {
        true => "NULL::bigint[]".to_owned(),
        false => {
            // No batch has so many items that their number could be wrong.
            parameters.push(Parameter::integer(i64::try_from(items.len()).unwrap_or(i64::MAX)));
            format!(
                "CASE WHEN {} = ${} THEN NULL ELSE ARRAY({}) END",
                counts.join(" + "),
                parameters.len(),
                fresh.join(" UNION ALL ")
            )
        }
    };
    let sql =
        format!("WITH {} SELECT here.held, here.checkpoint, {fresh} FROM here", parts.join(", "));
    Ok((sql, parameters))
}

/// Writes records: `puts` are those that no deletion outdates, `put` the keys of those that no row outdates either.
fn put_parts(
    table: &Table,
    puts: &[&Item<'_>],
    newer: &str,
    parameters: &mut Vec<Parameter>,
) -> [String; 2] {
    let from = bind_items(table, parameters, puts);
    let mut names = String::new();
    for (n, column) in table.columns.iter().enumerate() {
        let values: Vec<_> = puts.iter().map(|i| row_value(i, n)).collect();
        parameters.push(Parameter::array(&column.form.wire(), &values));
        names += &format!(", ${}", parameters.len());
    }
    let values: String = (0..table.columns.len()).map(|n| format!(", c{n}")).collect();
    let puts = format!(
        "puts AS (SELECT i.* FROM here, unnest({from}{names}) AS i(at, key, name, version{values}) \
         WHERE here.held AND (NOT here.deletes OR {}))",
        is_after_deletion(table, newer)
    );
    [puts, format!("put AS ({})", upsert(table, newer))]
}

/// Deletes records: `cuts` are those that nothing outdates.
fn cut_parts(
    table: &Table,
    cuts: &[&Item<'_>],
    newer: &str,
    parameters: &mut Vec<Parameter>,
) -> [String; 3] {
    let from = bind_items(table, parameters, cuts);
    let Table { schema, name, .. } = table;
    let cuts = format!(
        "cuts AS (SELECT i.* FROM here, unnest({from}) AS i(at, key, name, version) WHERE here.held AND {} AND {})",
        is_after_row(table, newer),
        is_after_deletion(table, newer)
    );
    let cut =
        format!("cut AS (DELETE FROM {name} WHERE {} IN (SELECT key FROM cuts))", table.key());
    let grave = format!(
        "grave AS (INSERT INTO {schema}.unisono_tombstones (entity, key, version) SELECT '{}', name, version FROM cuts \
         ON CONFLICT (entity, key) DO UPDATE SET version = excluded.version)",
        table.entity.name()
    );
    [cuts, cut, grave]
}

/// Binds index, key, key as text and version of items; answers the marks.
fn bind_items(table: &Table, parameters: &mut Vec<Parameter>, items: &[&Item<'_>]) -> String {
    let key_type = Form::of(table.key_type()).wire();
    let of =
        |f: &dyn Fn(&Item<'_>) -> Vec<u8>| items.iter().map(|i| Some(f(i))).collect::<Vec<_>>();
    let first = parameters.len() + 1;
    parameters.push(Parameter::array(&Type::INT8, &of(&|i| (i.at as i64).to_be_bytes().to_vec())));
    parameters.push(Parameter::array(&key_type, &of(&|i| encode_key(&i.change.key))));
    parameters.push(Parameter::array(&Type::TEXT, &of(&|i| key_text(&i.change.key).into_bytes())));
    let version = |i: &Item<'_>| i.change.position.as_i64().to_be_bytes().to_vec();
    parameters.push(Parameter::array(&Type::INT8, &of(&version)));
    format!("${first}, ${}, ${}, ${}", first + 1, first + 2, first + 3)
}

fn row_value(item: &Item<'_>, field: usize) -> Option<Vec<u8>> {
    item.row.as_ref().and_then(|row| row.get(field)).cloned().flatten()
}

/// Whether the row is not as new as the item `i`.
fn is_after_row(table: &Table, newer: &str) -> String {
    let (name, key) = (&table.name, table.key());
    format!(
        "i.version {newer} coalesce((SELECT t.unisono_version FROM {name} t WHERE t.{key} = i.key), -1)"
    )
}

/// Whether no tombstone is as new as the item `i`.
fn is_after_deletion(table: &Table, newer: &str) -> String {
    let Table { schema, entity, .. } = table;
    format!(
        "i.version {newer} coalesce((SELECT g.version FROM {schema}.unisono_tombstones g \
         WHERE g.entity = '{}' AND g.key = i.name), -1)",
        entity.name()
    )
}

/// Writes the rows of `puts` that are not as new, and answers their keys.
fn upsert(table: &Table, newer: &str) -> String {
    let columns: String = table.columns.iter().map(|c| format!("{}, ", c.name)).collect();
    let values: String = table
        .columns
        .iter()
        .enumerate()
        .map(|(n, c)| c.stored(&format!("puts.c{n}")) + ", ")
        .collect();
    format!(
        "INSERT INTO {} AS held ({columns}unisono_version) OVERRIDING SYSTEM VALUE SELECT {values}puts.version FROM puts {} \
         WHERE excluded.unisono_version {newer} held.unisono_version RETURNING held.{} AS key",
        table.name,
        table.on_conflict(),
        table.key()
    )
}

fn advance_part(
    table: &Table,
    advance: &Advance,
    parameters: &mut Vec<Parameter>,
) -> Result<String> {
    parameters.push(Parameter::text(&checkpoint_text(&advance.to)?));
    Ok(format!(
        "advanced AS (INSERT INTO {}.unisono_checkpoints (entity, checkpoint) SELECT '{}', ${} FROM here WHERE held \
         ON CONFLICT (entity) DO UPDATE SET checkpoint = excluded.checkpoint)",
        table.schema,
        table.entity.name(),
        parameters.len()
    ))
}

/// Forgets deletions that the checkpoint has left behind, but for those of this batch: everything up to there is
/// never sent again. While the first copy is made, records that were read before a deletion may still be under way.
fn forget_part(
    table: &Table,
    advance: &Advance,
    has_cuts: bool,
    parameters: &mut Vec<Parameter>,
) -> Option<String> {
    let passed = advance.from.as_ref().filter(|from| from.backfill.is_none())?;
    parameters.push(Parameter::integer(passed.position.as_i64()));
    let spared = if has_cuts { " AND g.key NOT IN (SELECT name FROM cuts)" } else { "" };
    Some(format!(
        "forgotten AS (DELETE FROM {}.unisono_tombstones g USING here WHERE held AND g.entity = '{}' AND g.version <= ${}{spared})",
        table.schema,
        table.entity.name(),
        parameters.len()
    ))
}
