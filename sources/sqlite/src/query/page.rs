//! One page of a query: order, place after a cursor, and facets.

use std::collections::BTreeMap;

use rusqlite::params_from_iter;
use rusqlite::types::Value as Sql;
use unisono_core::query::aggregate::canonical;
use unisono_core::query::ast::Facet;
use unisono_core::query::{Cursor, Filter, Hit, Page, Query, Step};
use unisono_core::{Error, Result};

use crate::client::Session;
use crate::codec::{Form, comparable, decode, encode_key, owned};
use crate::error::translate;
use crate::query::filter::Conditions;
use crate::table::{Column, Table};

/// The page of a query.
pub(crate) fn page(session: &Session, table: &Table, query: &Query) -> Result<Page> {
    let order = criteria(table, query)?;
    let mut conditions = Conditions::new(table);
    let condition = conditions.filter(&query.filter);
    let places = match &query.cursor {
        Some(cursor) => after(&mut conditions, table, &order, cursor)?,
        None => vec!["1".to_owned()],
    };
    let order: String = order.iter().map(Criterion::sql).collect();
    let (selected, name, key) = (&table.selected, &table.name, table.key_column());
    let mut records = run(session, conditions, |parameters| {
        let mut records = Vec::new();
        for place in places {
            let missing = query.limit.saturating_add(1) - records.len();
            let sql = format!(
                "SELECT {selected} FROM {name} WHERE {condition} AND {place} ORDER BY {order}{key} LIMIT {missing}"
            );
            let mut statement = session.connection.prepare_cached(&sql).map_err(translate)?;
            // A place need not name all parameters of the cursor, which come last.
            let named = statement.parameter_count();
            for (n, value) in parameters.iter().enumerate().take(named) {
                statement.raw_bind_parameter(n + 1, value).map_err(translate)?;
            }
            records.extend(table.collect(&mut statement, missing)?);
        }
        Ok(records)
    })?;
    let more = records.len() > query.limit;
    records.truncate(query.limit);
    let last = records.last().filter(|_| more);
    let next = last.map(|last| Cursor::after(&table.entity, query, last, None));
    let facets = query.facets.iter().map(|field| facet(session, table, &query.filter, *field));
    Ok(Page {
        facets: facets.collect::<Result<_>>()?,
        next,
        hits: (records.into_iter())
            .map(|stored| Hit { stored, score: None, highlights: BTreeMap::new() })
            .collect(),
    })
}

/// How many records satisfy a filter.
pub(crate) fn count(session: &Session, table: &Table, filter: &Filter) -> Result<u64> {
    let mut conditions = Conditions::new(table);
    let sql = format!("SELECT count(*) FROM {} WHERE {}", table.name, conditions.filter(filter));
    let count: i64 = run(session, conditions, |parameters| {
        let mut statement = session.connection.prepare_cached(&sql).map_err(translate)?;
        statement.query_row(params_from_iter(parameters), |row| row.get(0)).map_err(translate)
    })?;
    Ok(count.unsigned_abs())
}

/// Runs a statement whose tests are those of the conditions.
pub(super) fn run<T>(
    session: &Session,
    conditions: Conditions<'_>,
    statement: impl FnOnce(Vec<Sql>) -> Result<T>,
) -> Result<T> {
    session.tests.set(conditions.tests);
    statement(conditions.parameters).map_err(|error| session.tests.failure().unwrap_or(error))
}

struct Criterion<'a> {
    column: &'a Column,
    descending: bool,
}

impl Criterion<'_> {
    /// SQLite too takes null for less than every value.
    fn sql(&self) -> String {
        format!("{}{}, ", self.column.name, if self.descending { " DESC" } else { "" })
    }
}

fn criteria<'a>(table: &'a Table, query: &Query) -> Result<Vec<Criterion<'a>>> {
    let column = |path: &unisono_core::query::Path| {
        let column = table
            .columns
            .get(path.field)
            .filter(|c| path.step == Step::Whole && c.form != Form::Json);
        column.ok_or_else(|| {
            Error::invalid("only a single value of the record can be ordered by")
                .of(table.entity.name())
                .with("field", path.to_text(&table.entity))
        })
    };
    let criterion = |order: &unisono_core::query::Order| {
        Ok(Criterion { column: column(&order.path)?, descending: order.descending })
    };
    query.order.iter().map(criterion).collect()
}

/// The records after a cursor: later by the first criterion, or equal there and later by the next, and so on to the key.
///
/// The answer is one or two conditions whose records follow each other: an index can begin at one value, not at a value
/// or null.
fn after(
    conditions: &mut Conditions<'_>,
    table: &Table,
    order: &[Criterion<'_>],
    cursor: &Cursor,
) -> Result<Vec<String>> {
    let wrong =
        || Error::invalid("the cursor does not belong to this query").of(table.entity.name());
    if cursor.values.len() != order.len() {
        return Err(wrong());
    }
    let mut alternatives = Vec::with_capacity(order.len() + 1);
    let mut equal = String::new();
    let mut bound = String::new();
    let mut nulls = None;
    for (n, (criterion, value)) in order.iter().zip(&cursor.values).enumerate() {
        let name = &criterion.column.name;
        let mark = match value {
            value if value.is_null() => None,
            value => {
                let encoded = comparable(criterion.column.form, &criterion.column.ty, value)
                    .ok_or_else(wrong)?;
                Some(conditions.bind(encoded))
            }
        };
        let later = match (&mark, criterion.descending) {
            (Some(mark), false) => format!("{name} > {mark}"),
            (Some(mark), true) => format!("({name} < {mark} OR {name} IS NULL)"),
            (None, false) => format!("{name} IS NOT NULL"),
            (None, true) => "0".to_owned(),
        };
        alternatives.push(format!("({equal}{later})"));
        if let (0, Some(mark)) = (n, &mark) {
            // Says nothing more, but is what an index can begin at.
            bound =
                format!("{name} {} {mark} AND ", if criterion.descending { "<=" } else { ">=" });
            nulls = criterion.descending.then(|| format!("{name} IS NULL"));
        }
        equal += &match mark {
            Some(mark) => format!("{name} = {mark} AND "),
            None => format!("{name} IS NULL AND "),
        };
    }
    let key = conditions.bind(owned(encode_key(&cursor.key)));
    alternatives.push(format!("({equal}{} > {key})", table.key_column()));
    let values = format!("{bound}({})", alternatives.join(" OR "));
    Ok(std::iter::once(values).chain(nulls).collect())
}

/// The most frequent values of a field among all records that satisfy a filter.
fn facet(session: &Session, table: &Table, filter: &Filter, field: usize) -> Result<Facet> {
    let Some(column) = table.columns.get(field).filter(|c| c.form != Form::Json) else {
        return Err(Error::invalid("only a single value of the record can be a facet")
            .of(table.entity.name()));
    };
    let mut conditions = Conditions::new(table);
    let condition = conditions.filter(filter);
    let name = &column.name;
    let sql = format!(
        "SELECT {name}, count(*) FROM {} WHERE ({condition}) AND {name} IS NOT NULL \
         GROUP BY {name} ORDER BY 2 DESC, 1 LIMIT {}",
        table.name,
        Query::FACET_VALUES
    );
    run(session, conditions, |parameters| {
        let mut statement = session.connection.prepare_cached(&sql).map_err(translate)?;
        let mut rows = statement.query(params_from_iter(parameters)).map_err(translate)?;
        let mut facet = Facet::new();
        while let Some(row) = rows.next().map_err(translate)? {
            let value = decode(column.form, &column.ty, row.get_ref(0).map_err(translate)?)?;
            let count: i64 = row.get(1).map_err(translate)?;
            facet.push((canonical(&value), count.unsigned_abs()));
        }
        Ok(facet)
    })
}
