//! The URL form: one parameter for each test, and the reserved parameters.

use super::names;
use super::operand::{self, Op, Operand, Test};
use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::query::ast::{Filter, Path, Query};
use crate::query::cursor::Cursor;

const RESERVED: [&str; 7] = ["q", "order", "limit", "cursor", "fields", "highlight", "facets"];

/// The operators as they are written in a URL.
const OPERATORS: [&str; 13] = [
    "eq", "ne", "lt", "lte", "gt", "gte", "in", "between", "like", "prefix", "contains", "is",
    "not",
];

pub(super) fn query(entity: &Entity, parameters: &[(String, String)]) -> Result<Query> {
    let mut query = Query::all();
    let mut cursor = None;
    let mut filter_bytes = 0;
    let mut seen: Vec<&str> = Vec::new();
    for (name, text) in parameters {
        if !RESERVED.contains(&name.as_str()) {
            query.filter = query.filter.and(test(entity, name, text)?);
            filter_bytes += name.len() + text.len();
            // Here already, so that a long list of parameters is not parsed in vain.
            super::check_limits(&query.filter, filter_bytes)?;
            continue;
        }
        if seen.contains(&name.as_str()) {
            return Err(Error::invalid("is given twice").with("parameter", name));
        }
        seen.push(name);
        if name == "cursor" {
            cursor = Some(text);
        } else {
            reserved(entity, &mut query, name, text).map_err(|e| in_parameter(e, name))?;
        }
    }
    // Last, because a cursor belongs to all of the query.
    query.cursor = cursor.map(|text| Cursor::decode(entity, &query, text)).transpose()?;
    Ok(query)
}

fn reserved(entity: &Entity, query: &mut Query, name: &str, text: &str) -> Result<()> {
    match name {
        "q" => {
            super::check_search(entity, text)?;
            query.search = Some(text.to_owned());
        }
        "order" => query.order = names::order(entity, text.split(','))?,
        "limit" => query.limit = super::check_limit(text.parse().ok(), Query::LIMIT_MAX)?,
        "fields" => query.fields = Some(names::fields(entity, text.split(','))?),
        "highlight" => {
            query.highlight = text.parse().map_err(|_| {
                Error::invalid("is neither true nor false").with("value", super::clip(text))
            })?;
        }
        _ => query.facets = names::facets(entity, text.split(','))?,
    }
    Ok(())
}

fn in_parameter(error: Error, name: &str) -> Error {
    if error.detail("parameter").is_some() { error } else { error.with("parameter", name) }
}

/// A test: `amount=gt.100`, `status=not.in.(paid,sent)`, `note=is.null`.
fn test(entity: &Entity, name: &str, text: &str) -> Result<Filter> {
    let head = name.split('.').next().unwrap_or(name);
    if entity.index_of(head).is_none() {
        let known = RESERVED.into_iter().chain(entity.fields().iter().map(|f| f.name.as_ref()));
        return Err(names::unknown_parameter(name, known));
    }
    let path = names::path(entity, name)?;
    operator(entity, path, name, text).map_err(|e| {
        if e.detail("field").is_some() { e } else { e.with("field", super::clip(name)) }
    })
}

fn operator(entity: &Entity, path: Path, name: &str, text: &str) -> Result<Filter> {
    if let Some(rest) = text.strip_prefix("not.") {
        return match rest.strip_prefix("not.") {
            Some(_) => Err(Error::invalid("`not` is given twice")),
            None => Ok(Filter::Not(Box::new(operator(entity, path, name, rest)?))),
        };
    }
    let Some((op, operand)) = text.split_once('.') else {
        return Err(no_operator(name, text));
    };
    match op {
        "is" => is(path, operand),
        "in" | "between" => {
            let items = list(operand)?;
            let operands = items.iter().map(|item| Operand::Text(item)).collect();
            let test = if op == "in" { Test::In(operands) } else { Test::Between(operands) };
            operand::filter(entity, path, test)
        }
        _ => match Op::parse(op) {
            Some(op) => operand::filter(entity, path, Test::One(op, Operand::Text(operand))),
            None if op.bytes().all(|b| b.is_ascii_lowercase()) => {
                Err(operand::unknown_operator(op, OPERATORS))
            }
            None => Err(no_operator(name, text)),
        },
    }
}

fn no_operator(name: &str, text: &str) -> Error {
    Error::invalid("has no operator").hint(format!("write `{name}=eq.{}`", super::clip(text)))
}

fn is(path: Path, what: &str) -> Result<Filter> {
    match what {
        "null" => Ok(Filter::IsNull(path)),
        "not_null" => Ok(Filter::Not(Box::new(Filter::IsNull(path)))),
        _ => {
            Err(Error::invalid("`is` takes `null` or `not_null`").with("value", super::clip(what)))
        }
    }
}

/// The elements of `(a,b,"c,d")`. Within quotation marks `\` makes the next character literal.
fn list(text: &str) -> Result<Vec<String>> {
    let wrong = || Error::invalid("is not a list").hint("write it as `(a,b,\"c,d\")`");
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).ok_or_else(wrong)?;
    let mut items = Vec::new();
    if inner.is_empty() {
        return Ok(items);
    }
    let mut rest = inner;
    loop {
        let (item, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted).ok_or_else(wrong)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        items.push(item);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(items),
            None => return Err(wrong()),
        }
    }
}

/// The text up to the closing quotation mark, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut item = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((item, chars.as_str())),
            '\\' => item.push(chars.next()?),
            c => item.push(c),
        }
    }
}
