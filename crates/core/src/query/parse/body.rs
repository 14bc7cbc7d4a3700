//! The JSON form: the bodies of `_query` and `_aggregate`.

use serde_json::{Map, Value as Json};

use super::names;
use super::operand::{self, OPERATORS, Op, Operand, Test};
use crate::entity::{Entity, FieldType};
use crate::error::{Error, Result};
use crate::query::aggregate::{Aggregate, AggregateOrder, Metric};
use crate::query::ast::{Filter, Path, Query, Step};
use crate::query::cursor::Cursor;

const QUERY: [&str; 8] =
    ["where", "search", "order", "limit", "cursor", "fields", "highlight", "facets"];
const AGGREGATE: [&str; 6] = ["where", "unnest", "group_by", "metrics", "order", "limit"];
const METRICS: [&str; 5] = ["count", "sum", "min", "max", "avg"];

pub(super) fn query(entity: &Entity, body: &Json) -> Result<Query> {
    let body = object(body, &QUERY)?;
    let mut query = Query::all();
    let mut cursor = None;
    for (name, json) in body {
        let wrong = |e: Error| in_parameter(e, name);
        match name.as_str() {
            "where" => query.filter = filter(entity, json)?,
            "search" => {
                let text = text(json).map_err(wrong)?;
                super::check_search(entity, text).map_err(wrong)?;
                query.search = Some(text.to_owned());
            }
            "order" => {
                query.order =
                    names::order(entity, texts(json).map_err(wrong)?.into_iter()).map_err(wrong)?
            }
            "limit" => query.limit = super::check_limit(json.as_u64(), Query::LIMIT_MAX)?,
            "cursor" => cursor = Some(text(json).map_err(wrong)?),
            "fields" => {
                let names = texts(json).map_err(wrong)?;
                query.fields = Some(names::fields(entity, names.into_iter()).map_err(wrong)?);
            }
            "highlight" => {
                let flag =
                    json.as_bool().ok_or_else(|| Error::invalid("is neither true nor false"));
                query.highlight = flag.map_err(wrong)?;
            }
            _ => {
                query.facets =
                    names::facets(entity, texts(json).map_err(wrong)?.into_iter()).map_err(wrong)?
            }
        }
    }
    // Last, because a cursor belongs to all of the query.
    query.cursor = cursor.map(|text| Cursor::decode(entity, &query, text)).transpose()?;
    Ok(query)
}

pub(super) fn filter(entity: &Entity, body: &Json) -> Result<Filter> {
    let filter = nested(entity, body, 1)?;
    super::check_limits(&filter, body.to_string().len())?;
    Ok(filter)
}

fn nested(entity: &Entity, body: &Json, depth: usize) -> Result<Filter> {
    if depth > Query::FILTER_DEPTH_MAX {
        return Err(Error::invalid("the filter is nested too deeply")
            .with("parameter", "where")
            .with("limit", Query::FILTER_DEPTH_MAX));
    }
    let Json::Object(members) = body else {
        return Err(Error::invalid("a filter is a JSON object").with("parameter", "where"));
    };
    let connective =
        members.iter().next().filter(|(name, _)| matches!(name.as_str(), "and" | "or" | "not"));
    let Some((name, inner)) = connective else {
        return if members.is_empty() { Ok(Filter::All) } else { test(entity, members) };
    };
    if members.len() > 1 {
        return Err(Error::invalid("stands beside other members")
            .with("parameter", name)
            .hint("join the conditions in one `and`"));
    }
    if name == "not" {
        return Ok(Filter::Not(Box::new(nested(entity, inner, depth + 1)?)));
    }
    let filters = match inner {
        Json::Array(filters) if !filters.is_empty() => filters,
        _ => {
            return Err(
                Error::invalid("takes a list of one or more filters").with("parameter", name)
            );
        }
    };
    let filters = filters.iter().map(|f| nested(entity, f, depth + 1)).collect::<Result<_>>()?;
    Ok(if name == "and" { Filter::And(filters) } else { Filter::Or(filters) })
}

/// `{"field": "amount", "op": "gt", "value": "100"}`
fn test(entity: &Entity, members: &Map<String, Json>) -> Result<Filter> {
    let known = ["field", "op", "value"];
    if let Some(name) = members.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(names::unknown_parameter(name, known.into_iter().chain(["and", "or", "not"])));
    }
    let part = |name: &'static str| {
        let text = members.get(name).and_then(Json::as_str);
        text.ok_or_else(|| Error::invalid("is missing, or is not text").with("parameter", name))
    };
    let (field, op) = (part("field")?, part("op"));
    let in_field = |e: Error| {
        if e.detail("field").is_some() { e } else { e.with("field", super::clip(field)) }
    };
    let path = names::path(entity, field)?;
    let op = op.map_err(in_field)?;
    let value = || {
        members.get("value").ok_or_else(|| Error::invalid("is missing").with("parameter", "value"))
    };
    let test = match op {
        "is_null" => return is_null(path, members.get("value")).map_err(in_field),
        "in" | "between" => {
            let Json::Array(items) = value().map_err(in_field)? else {
                return Err(in_field(
                    Error::invalid("takes a list of values").with("operator", op),
                ));
            };
            let operands = items.iter().map(Operand::Json).collect();
            if op == "in" { Test::In(operands) } else { Test::Between(operands) }
        }
        _ => {
            let found = Op::parse(op).ok_or_else(|| operand::unknown_operator(op, OPERATORS));
            Test::One(found.map_err(in_field)?, Operand::Json(value().map_err(in_field)?))
        }
    };
    operand::filter(entity, path, test).map_err(in_field)
}

fn is_null(path: Path, value: Option<&Json>) -> Result<Filter> {
    match value {
        None | Some(Json::Bool(true)) => Ok(Filter::IsNull(path)),
        Some(Json::Bool(false)) => Ok(Filter::Not(Box::new(Filter::IsNull(path)))),
        Some(_) => Err(Error::invalid("`is_null` takes true or false")),
    }
}

pub(super) fn aggregate(entity: &Entity, body: &Json) -> Result<Aggregate> {
    let body = object(body, &AGGREGATE)?;
    let member = |name: &str| body.get(name);
    let filter = member("where").map_or(Ok(Filter::All), |json| filter(entity, json))?;
    let unnest = member("unnest").map(|json| unnest(entity, json)).transpose();
    let unnest = unnest.map_err(|e| in_parameter(e, "unnest"))?;
    let group_by = member("group_by").map_or(Ok(Vec::new()), |json| group_by(entity, unnest, json));
    let group_by = group_by.map_err(|e| in_parameter(e, "group_by"))?;
    let metrics = member("metrics").map_or(Ok(Vec::new()), |json| metrics(entity, unnest, json));
    let metrics = metrics.map_err(|e| in_parameter(e, "metrics"))?;
    if group_by.is_empty() && metrics.is_empty() {
        return Err(Error::invalid("asks for nothing")
            .with("parameter", "metrics")
            .hint("give `group_by`, `metrics` such as {\"orders\": \"count\"}, or both"));
    }
    let groups: Vec<_> = group_by.iter().map(|path| path.to_text(entity)).collect();
    if let Some((name, _)) = metrics.iter().find(|(name, _)| groups.contains(name)) {
        return Err(Error::invalid("a metric has the name of a group")
            .with("parameter", "metrics")
            .with("field", name));
    }
    let order = member("order").map_or(Ok(Vec::new()), |json| order(&groups, &metrics, json));
    let order = order.map_err(|e| in_parameter(e, "order"))?;
    let limit = match member("limit") {
        None => Aggregate::LIMIT_DEFAULT,
        Some(json) => super::check_limit(json.as_u64(), Aggregate::LIMIT_MAX)?,
    };
    Ok(Aggregate { filter, unnest, group_by, metrics, order, limit })
}

fn unnest(entity: &Entity, json: &Json) -> Result<usize> {
    let name = text(json)?;
    let field = names::index(entity, name)?;
    match &entity.fields()[field].ty {
        FieldType::Objects(_) => Ok(field),
        ty => Err(Error::invalid(format!("a field of type {ty} has no lines"))
            .with("field", name)
            .hint("unnest a list of objects")),
    }
}

fn group_by(entity: &Entity, unnest: Option<usize>, json: &Json) -> Result<Vec<Path>> {
    let names = texts(json)?;
    if names.len() > Aggregate::GROUP_BY_MAX {
        return Err(Error::invalid("has too many paths").with("limit", Aggregate::GROUP_BY_MAX));
    }
    let mut paths = Vec::with_capacity(names.len());
    for name in names {
        let path = names::path(entity, name)?;
        if !(unnest.is_none() && matches!(path.step, Step::Json(_))) {
            check_line(entity, unnest, &path)?;
        }
        if paths.contains(&path) {
            return Err(Error::invalid("is named twice").with("field", name));
        }
        paths.push(path);
    }
    Ok(paths)
}

/// A path that has one value for each record, or for each line when unnesting.
fn check_line(entity: &Entity, unnest: Option<usize>, path: &Path) -> Result<()> {
    let wrong = |hint: String| {
        Err(Error::invalid("has not one value for each record or line")
            .with("field", path.to_text(entity))
            .hint(hint))
    };
    match &path.step {
        Step::Each(_) if unnest != Some(path.field) => {
            wrong(format!("add \"unnest\": \"{}\"", entity.fields()[path.field].name))
        }
        Step::Json(_) => {
            wrong("JSON members can only be grouped by, and not together with `unnest`".to_owned())
        }
        _ if !path.ty(entity).is_scalar() => {
            wrong("use a field that holds a single value".to_owned())
        }
        _ => Ok(()),
    }
}

fn metrics(entity: &Entity, unnest: Option<usize>, json: &Json) -> Result<Vec<(String, Metric)>> {
    let Json::Object(members) = json else {
        return Err(Error::invalid("is not an object such as {\"orders\": \"count\"}"));
    };
    if members.len() > Aggregate::METRICS_MAX {
        return Err(Error::invalid("has too many metrics").with("limit", Aggregate::METRICS_MAX));
    }
    let named = members.iter().map(|(name, json)| {
        if name.is_empty() || name.len() > 64 || name.starts_with('-') {
            return Err(Error::invalid(
                "a metric's name has 1 to 64 bytes and does not start with -",
            ));
        }
        let metric = metric(entity, unnest, json).map_err(|e| e.with("metric", name))?;
        Ok((name.clone(), metric))
    });
    named.collect()
}

/// `"count"` or `{"sum": "items.quantity"}`
fn metric(entity: &Entity, unnest: Option<usize>, json: &Json) -> Result<Metric> {
    if json == "count" {
        return Ok(Metric::Count);
    }
    let wrong =
        || Error::invalid("is neither \"count\" nor an object such as {\"sum\": \"amount\"}");
    let members = json.as_object().filter(|members| members.len() == 1).ok_or_else(wrong)?;
    let (function, path) = members.iter().next().ok_or_else(wrong)?;
    if !METRICS[1..].contains(&function.as_str()) {
        return Err(operand::unknown_operator(function, METRICS)
            .hint("metrics are count, sum, min, max and avg"));
    }
    let path = names::path(entity, text(path)?)?;
    check_line(entity, unnest, &path)?;
    let ty = path.ty(entity);
    if matches!(function.as_str(), "sum" | "avg") && !ty.is_number() {
        return Err(Error::invalid(format!("values of type {ty} cannot be added up"))
            .with("field", path.to_text(entity)));
    }
    Ok(match function.as_str() {
        "sum" => Metric::Sum(path),
        "min" => Metric::Min(path),
        "max" => Metric::Max(path),
        _ => Metric::Avg(path),
    })
}

fn order(
    groups: &[String],
    metrics: &[(String, Metric)],
    json: &Json,
) -> Result<Vec<AggregateOrder>> {
    let named = |name: &str, descending| {
        let metric = metrics.iter().position(|(metric, _)| metric == name);
        let group = groups.iter().position(|group| group == name);
        let metric = metric.map(|index| AggregateOrder::Metric { index, descending });
        metric.or(group.map(|index| AggregateOrder::Group { index, descending }))
    };
    let criterion = |text: &str| {
        // As it stands first, because the name of a group can end in `.desc` itself.
        let (name, descending) = names::direction(text);
        named(text, false).or_else(|| named(name, descending)).ok_or_else(|| {
            Error::invalid("is neither a metric nor a group").with("field", super::clip(name))
        })
    };
    let order = texts(json)?.into_iter().map(criterion).collect::<Result<Vec<_>>>()?;
    if order.len() > Query::ORDER_MAX {
        return Err(Error::invalid("has too many sort criteria").with("limit", Query::ORDER_MAX));
    }
    Ok(order)
}

/// The members of a body, all of them known.
fn object<'a>(body: &'a Json, known: &[&'static str]) -> Result<&'a Map<String, Json>> {
    let Json::Object(members) = body else {
        return Err(Error::invalid("the body is not a JSON object").with("parameter", "body"));
    };
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(names::unknown_parameter(name, known.iter().copied())),
        None => Ok(members),
    }
}

fn text(json: &Json) -> Result<&str> {
    json.as_str().ok_or_else(|| Error::invalid("is not text"))
}

fn texts(json: &Json) -> Result<Vec<&str>> {
    let items = json.as_array().ok_or_else(|| Error::invalid("is not a list of texts"))?;
    items.iter().map(text).collect()
}

fn in_parameter(error: Error, name: &str) -> Error {
    if error.detail("parameter").is_some() { error } else { error.with("parameter", name) }
}
