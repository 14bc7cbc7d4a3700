//! One page of a query: order, place after a cursor, the loop that decides rows, and facets.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use unisono_core::query::aggregate::canonical;
use unisono_core::query::ast::Facet;
use unisono_core::query::{Cursor, Filter, Hit, Order, Page, Query, Step, eval};
use unisono_core::value::Ordered;
use unisono_core::{Error, Result, Stored, Value};

use crate::dialect::{Condition, Dialect, Rows, Statement};
use crate::filter::{bind, compile, fields};

/// The most rows of one statement whose rows are decided one by one.
const ROWS_MAX: usize = 4096;

/// The page of a query, without a search.
pub async fn page<D: Dialect>(
    dialect: &D,
    query: &Query,
    rows: &mut dyn Rows<D::Parameter>,
) -> Result<Page> {
    let mut page = match criteria(dialect, query)? {
        Some(order) => ordered(dialect, query, &order, rows).await?,
        None => sorted_here(dialect, query, rows).await?,
    };
    for field in &query.facets {
        page.facets.push(facet(dialect, &query.filter, *field, rows).await?);
    }
    Ok(page)
}

struct Criterion<'a> {
    order: &'a Order,
    column: String,
}

/// The order by columns, the key at the end; `None` if the engine does not order like [`Value::order`].
fn criteria<'a, D: Dialect>(dialect: &D, query: &'a Query) -> Result<Option<Vec<Criterion<'a>>>> {
    let entity = dialect.entity();
    let mut criteria = Vec::with_capacity(query.order.len());
    for order in &query.order {
        if order.path.step != Step::Whole || !order.path.ty(entity).is_scalar() {
            return Err(Error::invalid("only a single value of the record can be ordered by")
                .of(entity.name())
                .with("field", order.path.to_text(entity)));
        }
        let Some(column) = dialect.comparable(order.path.field) else { return Ok(None) };
        criteria.push(Criterion { order, column: column.into_owned() });
    }
    Ok(dialect.comparable(entity.key_index()).is_some().then_some(criteria))
}

/// Reads in the order of the query until the page is full.
async fn ordered<D: Dialect>(
    dialect: &D,
    query: &Query,
    order: &[Criterion<'_>],
    rows: &mut dyn Rows<D::Parameter>,
) -> Result<Page> {
    let wanted = query.limit.saturating_add(1);
    let mut found: Vec<Stored> = Vec::new();
    let mut place = query.cursor.clone();
    let mut size = wanted;
    'reading: loop {
        let mut end = true;
        let mut last = None;
        for part in Part::of(order, place.as_ref()) {
            let asked = size.max(wanted - found.len());
            let (statement, narrowed) =
                select(dialect, query, order, place.as_ref(), *part, asked)?;
            let read = rows.records(statement).await?;
            end = read.len() < asked;
            last = read.last().cloned().or(last);
            let matching =
                |s: &Stored| !narrowed || eval::matches(dialect.entity(), &query.filter, &s.record);
            found.extend(read.into_iter().filter(matching));
            if found.len() >= wanted {
                break 'reading;
            }
            if !end {
                break;
            }
        }
        let Some(last) = last.filter(|_| !end) else { break };
        place = Some(Cursor::after(dialect.entity(), query, &last, None));
        size = (size * 4).clamp(wanted, ROWS_MAX.max(wanted));
    }
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let last = found.last().filter(|_| more);
    let next = last.map(|last| Cursor::after(dialect.entity(), query, last, None));
    let hit = |stored| Hit { stored, score: None, highlights: BTreeMap::new() };
    Ok(Page { hits: found.into_iter().map(hit).collect(), next, facets: Vec::new() })
}

/// Reads every record that can match, and puts them in order here.
async fn sorted_here<D: Dialect>(
    dialect: &D,
    query: &Query,
    rows: &mut dyn Rows<D::Parameter>,
) -> Result<Page> {
    let mut parameters = Vec::new();
    let condition = compile(dialect, &query.filter, &mut parameters);
    let sql = format!("SELECT {} FROM {} WHERE {}", whole(dialect), dialect.table(), condition.sql);
    let records = rows.records(Statement { sql, parameters }).await?;
    let without_facets = Query { facets: Vec::new(), ..query.clone() };
    eval::page(dialect.entity(), &without_facets, records.iter())
}

/// An index can begin at a value, but not at "a value or null": a descending page that ends in nulls is two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    Nulls,
}

impl Part {
    fn of(order: &[Criterion<'_>], place: Option<&Cursor>) -> &'static [Part] {
        let first = place.and_then(|cursor| cursor.values.first()).zip(order.first());
        match first {
            Some((value, criterion)) if criterion.order.descending && !value.is_null() => {
                &[Part::All, Part::Nulls]
            }
            _ => &[Part::All],
        }
    }
}

fn select<D: Dialect>(
    dialect: &D,
    query: &Query,
    order: &[Criterion<'_>],
    place: Option<&Cursor>,
    part: Part,
    limit: usize,
) -> Result<(Statement<D::Parameter>, bool)> {
    let mut parameters = Vec::new();
    let Condition { sql: condition, narrowed } = compile(dialect, &query.filter, &mut parameters);
    let place = match (place, part, order.first()) {
        (None, ..) => "TRUE".to_owned(),
        (Some(_), Part::Nulls, Some(first)) => format!("{} IS NULL", first.column),
        (Some(cursor), ..) => after(dialect, order, cursor, &mut parameters)?,
    };
    let by: String =
        order.iter().map(|c| dialect.order(&c.column, c.order.descending) + ", ").collect();
    let key = key(dialect);
    let sql = format!(
        "SELECT {} FROM {} WHERE {condition} AND {place} ORDER BY {by}{key} LIMIT {limit}",
        whole(dialect),
        dialect.table(),
    );
    Ok((Statement { sql, parameters }, narrowed))
}

/// The records after a cursor: later by the first criterion, or equal there and later by the next, and so on to the
/// key. Where the first is descending, records that are null there are left out.
fn after<D: Dialect>(
    dialect: &D,
    order: &[Criterion<'_>],
    cursor: &Cursor,
    parameters: &mut Vec<D::Parameter>,
) -> Result<String> {
    let wrong =
        || Error::invalid("the cursor does not belong to this query").of(dialect.entity().name());
    if cursor.values.len() != order.len() {
        return Err(wrong());
    }
    let mut mark = |field: usize, value: &Value| -> Result<String> {
        let parameter = dialect.parameter(field, value).ok_or_else(wrong)?;
        Ok(bind(dialect, parameters, parameter))
    };
    let criteria: Vec<_> = order.iter().zip(&cursor.values).collect();
    let mut bound = String::new();
    if let Some((first, value)) = criteria.first().filter(|(_, value)| !value.is_null()) {
        // Says nothing more, but is what an index can begin at.
        let sign = if first.order.descending { "<=" } else { ">=" };
        bound = format!("{} {sign} {} AND ", first.column, mark(first.order.path.field, value)?);
    }
    let mut alternatives = Vec::with_capacity(order.len() + 1);
    for n in 0..=criteria.len() {
        let mut alternative = String::new();
        for (criterion, value) in criteria.iter().take(n) {
            alternative += &match value.is_null() {
                true => format!("{} IS NULL AND ", criterion.column),
                false => {
                    let mark = mark(criterion.order.path.field, value)?;
                    format!("{} = {mark} AND ", criterion.column)
                }
            };
        }
        let Some((Criterion { order, column }, value)) = criteria.get(n) else {
            let entity = dialect.entity();
            let mark = mark(entity.key_index(), &cursor.key.to_value())?;
            alternatives.push(format!("({alternative}{} > {mark})", key(dialect)));
            break;
        };
        let later = match (value.is_null(), order.descending) {
            (false, false) => format!("{column} > {}", mark(order.path.field, value)?),
            (false, true) if n == 0 => format!("{column} < {}", mark(order.path.field, value)?),
            (false, true) => {
                format!("({column} < {} OR {column} IS NULL)", mark(order.path.field, value)?)
            }
            (true, false) => format!("{column} IS NOT NULL"),
            (true, true) => "FALSE".to_owned(),
        };
        alternatives.push(format!("({alternative}{later})"));
    }
    Ok(format!("{bound}({})", alternatives.join(" OR ")))
}

/// Every field in order, then the version.
fn whole<D: Dialect>(dialect: &D) -> String {
    let all: Vec<_> = (0..dialect.entity().fields().len()).collect();
    some(dialect, &all)
}

/// The given fields in order, then the version.
pub(crate) fn some<D: Dialect>(dialect: &D, fields: &[usize]) -> String {
    let columns: String = fields.iter().map(|f| format!("{}, ", dialect.selected(*f))).collect();
    columns + dialect.version()
}

fn key<D: Dialect>(dialect: &D) -> String {
    let index = dialect.entity().key_index();
    dialect.comparable(index).map_or_else(|| dialect.selected(index).to_owned(), Into::into)
}

/// The most frequent values of a field among all records that satisfy a filter.
async fn facet<D: Dialect>(
    dialect: &D,
    filter: &Filter,
    field: usize,
    rows: &mut dyn Rows<D::Parameter>,
) -> Result<Facet> {
    let entity = dialect.entity();
    if !entity.fields().get(field).is_some_and(|f| f.ty.is_scalar()) {
        return Err(
            Error::invalid("only a single value of the record can be a facet").of(entity.name())
        );
    }
    let mut parameters = Vec::new();
    let condition = compile(dialect, filter, &mut parameters);
    let (table, selected) = (dialect.table(), dialect.selected(field));
    if let Some(column) = dialect.comparable(field).filter(|_| !condition.narrowed) {
        let sql = format!(
            "SELECT {selected}, count(*) FROM {table} WHERE {} AND {selected} IS NOT NULL \
             GROUP BY {selected}, {column} ORDER BY 2 DESC, {column} LIMIT {}",
            condition.sql,
            Query::FACET_VALUES
        );
        let counted = rows.numbers(Statement { sql, parameters }, field).await?;
        return Ok(counted.into_iter().map(|(value, n)| (canonical(&value), n)).collect());
    }
    let mut read = vec![field];
    fields(filter, &mut read);
    read.sort_unstable();
    read.dedup();
    let sql = format!("SELECT {} FROM {table} WHERE {}", some(dialect, &read), condition.sql);
    let mut counts: BTreeMap<Ordered, u64> = BTreeMap::new();
    let mut count = |record: &unisono_core::Record| {
        let value = record.values().get(field).unwrap_or(&Value::Null);
        if !value.is_null() && eval::matches(entity, filter, record) {
            *counts.entry(Ordered(canonical(value))).or_default() += 1;
        }
        Ok(())
    };
    rows.parts(Statement { sql, parameters }, &read, &mut count).await?;
    let mut facet: Facet = counts.into_iter().map(|(value, count)| (value.0, count)).collect();
    facet.sort_by_key(|(_, count)| Reverse(*count));
    facet.truncate(Query::FACET_VALUES);
    Ok(facet)
}
