//! Counts, and groups and totals: SQL selects the rows, core's [`Grouping`] does the arithmetic that all sources share.

use unisono_core::query::aggregate::Grouping;
use unisono_core::query::{Aggregate, Filter, Groups, eval};
use unisono_core::{Record, Result};

use crate::dialect::{Dialect, Each, Rows, Statement};
use crate::filter::{compile, fields};
use crate::page::some;

/// How many records match.
pub async fn count<D: Dialect>(
    dialect: &D,
    filter: &Filter,
    rows: &mut dyn Rows<D::Parameter>,
) -> Result<u64> {
    let mut parameters = Vec::new();
    let condition = compile(dialect, filter, &mut parameters);
    if !condition.narrowed {
        let sql = format!("SELECT count(*) FROM {} WHERE {}", dialect.table(), condition.sql);
        return rows.number(Statement { sql, parameters }).await;
    }
    let mut number = 0;
    let mut each = |_: &Record| {
        number += 1;
        Ok(())
    };
    matching(dialect, filter, Vec::new(), rows, &mut each).await?;
    Ok(number)
}

/// The groups of an aggregate. Only the columns that it names are read.
pub async fn aggregate<D: Dialect>(
    dialect: &D,
    aggregate: &Aggregate,
    rows: &mut dyn Rows<D::Parameter>,
) -> Result<Groups> {
    let named = (aggregate.group_by.iter())
        .chain(aggregate.metrics.iter().filter_map(|(_, metric)| metric.path()))
        .map(|path| path.field)
        .chain(aggregate.unnest);
    let mut grouping = Grouping::new(dialect.entity(), aggregate);
    let mut each = |record: &Record| grouping.add(record);
    matching(dialect, &aggregate.filter, named.collect(), rows, &mut each).await?;
    grouping.finish()
}

/// Gives `each` the named fields of every record that satisfies a filter.
async fn matching<D: Dialect>(
    dialect: &D,
    filter: &Filter,
    mut named: Vec<usize>,
    rows: &mut dyn Rows<D::Parameter>,
    each: &mut Each<'_>,
) -> Result<()> {
    let mut parameters = Vec::new();
    let condition = compile(dialect, filter, &mut parameters);
    if condition.narrowed {
        fields(filter, &mut named);
    }
    named.sort_unstable();
    named.dedup();
    let sql = format!(
        "SELECT {} FROM {} WHERE {}",
        some(dialect, &named),
        dialect.table(),
        condition.sql
    );
    let entity = dialect.entity();
    let mut decided = |record: &Record| match condition.narrowed {
        true if !eval::matches(entity, filter, record) => Ok(()),
        _ => each(record),
    };
    rows.parts(Statement { sql, parameters }, &named, &mut decided).await
}
