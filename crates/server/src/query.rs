//! Many records: lists and searches, counts, groups and totals.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Incoming;
use serde_json::{Map, Value as Json, json};
use unisono::core::json::value_to_json;
use unisono::core::query::{Aggregate, Groups, Hit, Metric, Page, Query, parse};
use unisono::core::{Entity, Error, FieldType, Result};
use unisono::engine::Answer;

use crate::app::{Call, flag};
use crate::body::JSON_TYPE;
use crate::record::{beside, describe, served_by};
use crate::reply::{self, HeaderWriter, JSON, Reply};

/// `GET /v1/{entity}`
pub(crate) async fn list(call: &Call<'_>) -> Reply {
    let entity = call.entity()?;
    let (meta, parameters) = split_meta(call.parameters()?)?;
    let query = parse::url(entity, &parameters)?;
    answer(call, entity, &query, meta).await
}

/// `QUERY /v1/{entity}` and `POST /v1/{entity}/_query`
pub(crate) async fn query(call: &Call<'_>, body: Incoming) -> Reply {
    let entity = call.entity()?;
    let meta = call.only_meta()?;
    let query = parse::query(entity, &call.json(body, &[JSON_TYPE]).await?)?;
    answer(call, entity, &query, meta).await
}

async fn answer(call: &Call<'_>, entity: &Arc<Entity>, query: &Query, meta: bool) -> Reply {
    let answer = call.engine().query(&call.context()?, entity, query).await?;
    let shape = Shape { meta, envelope: call.is_wrapped() };
    let mut response = reply::bytes(StatusCode::OK, JSON, page(entity, query, &answer, shape));
    describe(&mut HeaderWriter::new(), response.headers_mut(), &answer, call.started);
    Ok(response)
}

/// `GET` and `POST /v1/{entity}/_count`
pub(crate) async fn count(call: &Call<'_>, body: Incoming) -> Reply {
    let entity = call.entity()?;
    let query =
        if call.parts.method == hyper::Method::GET || call.parts.method == hyper::Method::HEAD {
            let parameters = call.parameters()?;
            only_filters(parameters.iter().map(|(name, _)| name.as_str()))?;
            parse::url(entity, &parameters)?
        } else {
            call.known_parameters([])?;
            let body = call.json(body, &[JSON_TYPE]).await?;
            only_filters(body.as_object().into_iter().flat_map(Map::keys).map(String::as_str))?;
            parse::query(entity, &body)?
        };
    let context = call.context()?;
    let answer =
        call.engine().count(&context, entity, &query.filter, query.search.as_deref()).await?;
    let mut response = reply::json(StatusCode::OK, &json!({ "count": answer.value }))?;
    describe(&mut HeaderWriter::new(), response.headers_mut(), &answer, call.started);
    Ok(response)
}

/// `POST /v1/{entity}/_aggregate`
pub(crate) async fn aggregate(call: &Call<'_>, body: Incoming) -> Reply {
    let entity = call.entity()?;
    call.known_parameters([])?;
    let aggregate = parse::aggregate(entity, &call.json(body, &[JSON_TYPE]).await?)?;
    let answer = call.engine().aggregate(&call.context()?, entity, &aggregate).await?;
    let mut response = reply::json(StatusCode::OK, &groups(entity, &aggregate, &answer.value))?;
    describe(&mut HeaderWriter::new(), response.headers_mut(), &answer, call.started);
    Ok(response)
}

/// Takes `meta` out of the parameters. A test of a field with that name has an operator: `meta=eq.true`.
fn split_meta(mut parameters: Vec<(String, String)>) -> Result<(bool, Vec<(String, String)>)> {
    let is_meta = |(name, value): &(String, String)| name == "meta" && !value.contains('.');
    let Some(index) = parameters.iter().position(is_meta) else { return Ok((false, parameters)) };
    let (_, value) = parameters.remove(index);
    if parameters.iter().any(is_meta) {
        return Err(Error::invalid("a parameter is given twice").with("parameter", "meta"));
    }
    Ok((flag("meta", Some(&value))?, parameters))
}

/// A count has no pages, order or projection; asking for them is a mistake.
fn only_filters<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<()> {
    const PAGES: [&str; 6] = ["limit", "cursor", "order", "fields", "highlight", "facets"];
    match names.find(|name| PAGES.contains(name)) {
        None => Ok(()),
        Some(name) => {
            Err(Error::invalid("a count takes filters and a search only").with("parameter", name))
        }
    }
}

/// How a page is written.
#[derive(Clone, Copy, Default)]
struct Shape {
    /// Whether each record comes with its version, source and age.
    meta: bool,
    /// Whether the page names its source.
    envelope: bool,
}

/// `{"items": […], "next": …}`, or `{"source": …, "data": […], "next": …}`; records taken over as they were serialised.
fn page(entity: &Entity, query: &Query, answer: &Answer<Page>, shape: Shape) -> Vec<u8> {
    let page = &answer.value;
    let mut out = Vec::with_capacity(64 + 256 * page.hits.len());
    if shape.envelope {
        out.extend_from_slice(b"{\"source\":\"");
        out.extend_from_slice(served_by(answer).as_bytes());
        out.extend_from_slice(b"\",\"data\":[");
    } else {
        out.extend_from_slice(b"{\"items\":[");
    }
    for (n, hit) in page.hits.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        item(&mut out, entity, query, answer, hit, shape.meta);
    }
    out.extend_from_slice(b"],\"next\":");
    let next = page.next.as_ref().map(|cursor| cursor.encode(entity, query));
    out.extend_from_slice(json!(next).to_string().as_bytes());
    if !query.facets.is_empty() {
        out.extend_from_slice(b",\"facets\":");
        out.extend_from_slice(facets(entity, query, page).to_string().as_bytes());
    }
    out.push(b'}');
    out
}

fn item(
    out: &mut Vec<u8>,
    entity: &Entity,
    query: &Query,
    answer: &Answer<Page>,
    hit: &Hit,
    meta: bool,
) {
    let record = match &query.fields {
        None => hit.stored.json(entity),
        Some(fields) => projected(entity, fields, hit).to_string().into(),
    };
    if !meta && !query.highlight {
        out.extend_from_slice(&record);
        return;
    }
    let mut about = Map::new();
    if meta {
        about.insert("version".into(), json!(hit.stored.version));
        about.insert("source".into(), json!(answer.source));
        about.insert("age".into(), json!(answer.age.as_secs_f64()));
        about.insert("stale".into(), json!(answer.stale));
    }
    if query.search.is_some() {
        about.insert("score".into(), json!(hit.score));
    }
    if query.highlight {
        about.insert("highlights".into(), json!(hit.highlights));
    }
    out.extend_from_slice(&beside(&record, &Json::Object(about).to_string()));
}

fn projected(entity: &Entity, fields: &[usize], hit: &Hit) -> Json {
    let values = hit.stored.record.values();
    let pairs = fields.iter().filter_map(|n| entity.fields().get(*n).zip(values.get(*n)));
    pairs.map(|(field, value)| (field.name.to_string(), value_to_json(&field.ty, value))).collect()
}

fn facets(entity: &Entity, query: &Query, page: &Page) -> Json {
    let fields = query.facets.iter().filter_map(|n| entity.fields().get(*n));
    let facets = fields.zip(&page.facets).map(|(field, facet)| {
        let values = facet.iter();
        let values: Vec<Json> = values
            .map(|(value, count)| json!({ "value": value_to_json(&field.ty, value), "count": count }))
            .collect();
        (field.name.to_string(), Json::from(values))
    });
    facets.collect()
}

/// `{"groups": [{"status": "paid", "orders": 3}], "total_groups": 1}`
fn groups(entity: &Entity, aggregate: &Aggregate, groups: &Groups) -> Json {
    let metric_type = |metric: &Metric| match metric {
        Metric::Count => FieldType::Integer,
        Metric::Sum(path) | Metric::Min(path) | Metric::Max(path) | Metric::Avg(path) => {
            path.ty(entity).clone()
        }
    };
    let rows = groups.groups.iter().map(|group| {
        let keys = aggregate.group_by.iter().zip(&group.keys);
        let keys =
            keys.map(|(path, value)| (path.to_text(entity), value_to_json(path.ty(entity), value)));
        let metrics = aggregate.metrics.iter().zip(&group.metrics);
        let metrics = metrics.map(|((name, metric), value)| {
            (name.clone(), value_to_json(&metric_type(metric), value))
        });
        keys.chain(metrics).collect::<Json>()
    });
    json!({ "groups": rows.collect::<Vec<_>>(), "total_groups": groups.total_groups })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use unisono::core::query::{Group, Path};
    use unisono::core::{Field, Key, Position, Record, Role, Stored, Token, Value, Version};
    use unisono::engine::CacheStatus;

    fn entity() -> Entity {
        let decimal = FieldType::Decimal { precision: 12, scale: 2 };
        let fields = vec![Field::new("id", FieldType::Integer), Field::new("price", decimal)];
        Entity::new("product", "id", fields).unwrap()
    }

    fn answer() -> Answer<Page> {
        let price = Value::Decimal("1.50".parse().unwrap());
        let record = Arc::new(Record::new(vec![Value::Integer(1), price.clone()]));
        let hit = Hit {
            stored: Stored::new(Key::Integer(1), Version::new(7).unwrap(), record),
            score: Some(0.5),
            highlights: BTreeMap::from([("name".into(), "<mark>x</mark>".into())]),
        };
        Answer {
            value: Page { hits: vec![hit], next: None, facets: vec![vec![(price, 2)]] },
            source: "main".into(),
            role: Role::Truth,
            replica: false,
            position: Position::ZERO,
            token: Token::default(),
            age: Duration::ZERO,
            stale: false,
            cache: CacheStatus::Bypass,
            rule: "lookup".into(),
            failed: Vec::new(),
        }
    }

    fn parsed(query: &Query, meta: bool) -> Json {
        let shape = Shape { meta, envelope: false };
        serde_json::from_slice(&page(&entity(), query, &answer(), shape)).unwrap()
    }

    #[test]
    fn an_envelope_names_the_source_of_a_page() {
        let shape = Shape { meta: false, envelope: true };
        let of = |answer: Answer<Page>| -> Json {
            serde_json::from_slice(&page(&entity(), &Query::all(), &answer, shape)).unwrap()
        };
        let data = json!([{"id": 1, "price": "1.50"}]);
        assert_eq!(of(answer()), json!({"source": "primary", "data": data, "next": null}));
        assert_eq!(of(Answer { replica: true, ..answer() })["source"], "replica");
        assert_eq!(of(Answer { role: Role::Follower, ..answer() })["source"], "follower");
    }

    #[test]
    fn a_page_holds_plain_records_unless_more_is_asked_for() {
        let plain = parsed(&Query::all(), false);
        assert_eq!(plain, json!({"items": [{"id": 1, "price": "1.50"}], "next": null}));
        let cut = parsed(&Query { fields: Some(vec![1]), facets: vec![1], ..Query::all() }, false);
        assert_eq!(cut["items"], json!([{"price": "1.50"}]));
        assert_eq!(cut["facets"], json!({"price": [{"value": "1.50", "count": 2}]}));
        let meta = parsed(&Query::all(), true);
        assert_eq!(meta["items"][0]["version"], "7");
        assert_eq!(meta["items"][0]["record"]["id"], 1);
        let search = Query { search: Some("x".into()), highlight: true, ..Query::all() };
        let hit = json!({"record": {"id": 1, "price": "1.50"}, "score": 0.5, "highlights": {"name": "<mark>x</mark>"}});
        assert_eq!(parsed(&search, false)["items"][0], hit);
    }

    #[test]
    fn groups_are_named_by_their_paths_and_metrics() {
        let aggregate = Aggregate {
            filter: unisono::core::query::Filter::All,
            unnest: None,
            group_by: vec![Path::whole(0)],
            metrics: vec![
                ("n".into(), Metric::Count),
                ("total".into(), Metric::Sum(Path::whole(1))),
            ],
            order: Vec::new(),
            limit: 10,
        };
        let found = Groups {
            groups: vec![Group {
                keys: vec![Value::Integer(1)],
                metrics: vec![Value::Integer(3), Value::Decimal("4.50".parse().unwrap())],
            }],
            total_groups: 1,
        };
        assert_eq!(
            groups(&entity(), &aggregate, &found),
            json!({"groups": [{"id": 1, "n": 3, "total": "4.50"}], "total_groups": 1})
        );
    }

    #[test]
    fn a_count_refuses_pages() {
        assert!(only_filters(["status", "q"].into_iter()).is_ok());
        assert!(only_filters(["status", "limit"].into_iter()).is_err());
    }
}
