//! Groups and totals: SQL selects the rows, core's [`Grouping`] does the arithmetic that all sources share.

use rusqlite::params_from_iter;
use unisono_core::query::aggregate::Grouping;
use unisono_core::query::{Aggregate, Groups};
use unisono_core::{Record, Result, Value};

use crate::client::Session;
use crate::codec::decode;
use crate::error::translate;
use crate::query::filter::Conditions;
use crate::query::page::run;
use crate::table::Table;

/// The groups of an aggregate. Only the columns that it names are read.
pub(crate) fn aggregate(session: &Session, table: &Table, aggregate: &Aggregate) -> Result<Groups> {
    let mut fields: Vec<usize> = (aggregate.group_by.iter())
        .chain(aggregate.metrics.iter().filter_map(|(_, metric)| metric.path()))
        .map(|path| path.field)
        .chain(aggregate.unnest)
        .collect();
    fields.sort_unstable();
    fields.dedup();
    let columns: Vec<_> =
        fields.iter().filter_map(|f| Some((*f, table.columns.get(*f)?))).collect();
    let names: String = columns.iter().map(|(_, column)| format!("{}, ", column.name)).collect();
    let mut conditions = Conditions::new(table);
    let condition = conditions.filter(&aggregate.filter);
    // Something stands at the end so that there is a column even when only records are counted.
    let sql = format!("SELECT {names}NULL FROM {} WHERE {condition}", table.name);
    let mut grouping = Grouping::new(&table.entity, aggregate);
    run(session, conditions, |parameters| {
        let mut statement = session.connection.prepare_cached(&sql).map_err(translate)?;
        let mut rows = statement.query(params_from_iter(parameters)).map_err(translate)?;
        let mut record = Record::new(vec![Value::Null; table.columns.len()]);
        while let Some(row) = rows.next().map_err(translate)? {
            for (n, (field, column)) in columns.iter().enumerate() {
                let value = decode(column.form, &column.ty, row.get_ref(n).map_err(translate)?)?;
                if let Some(place) = record.values_mut().get_mut(*field) {
                    *place = value;
                }
            }
            grouping.add(&record)?;
        }
        Ok(())
    })?;
    grouping.finish()
}
