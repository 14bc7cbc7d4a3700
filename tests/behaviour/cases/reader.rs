//! Questions: by key, by filter, by words, in groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join;
use serde_json::json;
use unisono_core::query::{
    Aggregate, AggregateOrder, Comparison, Filter, Metric, Order, Path, Query, Step, eval,
};
use unisono_core::source::{Advance, Checkpoint};
use unisono_core::write::Action;
use unisono_core::{ErrorKind, Position, Record, Role, Stored, Value};
use unisono_testkit::Sample;

use crate::cases::cases;
use crate::fixture::{Feed, Fixture, Stop, Verdict, check, check_eq, must_fail, unit, write};

cases! {
    "get-1" get_answers_each_key "one answer per key, in the order of the keys";
    "get-2" get_is_one_snapshot "records of one call are of one snapshot, while writes go on";
    "get-2-position" get_names_its_position "the position covers what was read, and a backfill has none";
    "query-1" query_filters_and_orders "filters and orders as the reference does";
    "query-2" pages_visit_each_once "following the cursor visits each record once, in every order";
    "count-1" count_agrees "counts as the reference does";
    "aggregate-1" aggregate_agrees "groups and totals as the reference does";
    "search-1" search_finds_words "words, prefixes and phrases find the same as the reference";
    "search-2" search_shows_why "hits by relevance have scores, highlights and facets, on every page";
    "unsupported" unsupported_is_said "what the kind does not answer fails with unsupported";
}

async fn get_answers_each_key(fixture: &Fixture) -> Verdict {
    let entity = Sample::product();
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let records: Vec<_> = (0..20).map(Sample::product_record).collect();
        let opened = fixture.holding(role, &entity, &records).await?;
        let asked = ["p7", "nowhere", "p3", "p7", "P3", "p19"];
        let keys: Vec<_> = asked.iter().map(|t| Sample::key(t)).collect();
        let found = opened.reader()?.get(&entity, &keys).await?.value;
        let found: Vec<_> = found.iter().map(|s| s.as_ref().map(|s| s.key.to_string())).collect();
        let some = |text: &str| Some(text.to_owned());
        let expected = [some("p7"), None, some("p3"), some("p7"), None, some("p19")];
        check_eq!(found, expected, "as {}", role.as_str());
        check_eq!(opened.reader()?.get(&entity, &[]).await?.value.len(), 0, "no keys, no answers");
    }
    Ok(())
}

async fn get_is_one_snapshot(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    let entity = Sample::product();
    let opened = fixture.open(Role::Truth, &[&entity]).await?;
    let both = |n: i64| {
        let put = |id: &str| {
            let record = Sample::record(&entity, &json!({"id": id, "name": "x", "stock": n}));
            write(&entity, &Sample::key(id), Action::Put(record))
        };
        unit(vec![put("a"), put("z")])
    };
    opened.commit(vec![both(0)]).await?;
    let writing = async {
        for n in 1..60 {
            opened.commit(vec![both(n)]).await?;
            tokio::task::yield_now().await;
        }
        Ok::<_, Stop>(())
    };
    let reading = async {
        let keys = [Sample::key("a"), Sample::key("z")];
        for _ in 0..200 {
            let found = opened.reader()?.get(&entity, &keys).await?;
            let stock: BTreeSet<_> = found
                .value
                .iter()
                .flatten()
                .map(|s| format!("{:?}", s.record.values()[4]))
                .collect();
            check_eq!(stock.len(), 1, "two records of one transaction differ");
            let newest = found.value.iter().flatten().map(|s| s.version).max();
            check!(
                newest == Some(found.position),
                "position {} for version {newest:?}",
                found.position
            );
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    let (wrote, read) = join(writing, reading).await;
    wrote.and(read)
}

async fn get_names_its_position(fixture: &Fixture) -> Verdict {
    let entity = Sample::product();
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let records: Vec<_> = (0..3).map(Sample::product_record).collect();
        let opened = fixture.holding(role, &entity, &records).await?;
        let position = |opened: &crate::fixture::Opened| {
            let reader = opened.reader();
            let entity = Arc::clone(&entity);
            async move {
                Ok::<_, Stop>(reader?.get(&entity, &[Sample::key("p1")]).await?.position.as_u64())
            }
        };
        check_eq!(position(&opened).await?, 3, "position of a read as {}", role.as_str());
        if role == Role::Truth {
            let opened = fixture.reopen(opened, role, &[&entity]).await?;
            check_eq!(position(&opened).await?, 3, "position after reopening");
            continue;
        }
        let mut feed = Feed::new(&entity);
        feed.checkpoint = opened.follower()?.checkpoint(&entity).await?;
        let to = Checkpoint { backfill: Some("p1".into()), ..feed.at(Position::new(9)?) };
        let advance = Advance { from: feed.checkpoint.clone(), to };
        let batch = unisono_core::source::Batch { advance: Some(advance), ..feed.batch(&[]) };
        opened.follower()?.apply(batch).await?;
        check_eq!(
            position(&opened).await?,
            0,
            "a source that is being backfilled holds nothing for certain"
        );
    }
    Ok(())
}

/// Records of the sample with nulls and ties.
fn records() -> Vec<Record> {
    let entity = Sample::product();
    let mut all: Vec<_> = (0..40).map(Sample::product_record).collect();
    for n in 0..4 {
        all.push(Sample::record(&entity, &json!({"id": format!("n{n}"), "name": "nothing"})));
    }
    all
}

fn stored() -> Result<Vec<Stored>, Stop> {
    let entity = Sample::product();
    let mut all = Vec::new();
    for (n, record) in records().into_iter().enumerate() {
        all.push(Stored::new(
            entity.key_of(&record)?,
            Position::new(n as u64 + 1)?,
            Arc::new(record),
        ));
    }
    Ok(all)
}

fn filters() -> Vec<Filter> {
    let compare = |field, comparison, value| Filter::Compare(Path::whole(field), comparison, value);
    let (name, price, stock, active, tags) = (1, 3, 4, 5, 6);
    let text = |t: &str| Value::String(t.to_owned());
    let json = |value| Value::Json(value);
    let below = |step: &str| Path { field: 7, step: Step::Json(vec![step.to_owned()]) };
    let price_value = Value::Decimal(unisono_core::Decimal::new(1212, 2));
    vec![
        Filter::All,
        compare(stock, Comparison::Gt, Value::Integer(2)),
        compare(stock, Comparison::Ne, Value::Integer(2)),
        Filter::Not(Box::new(compare(stock, Comparison::Eq, Value::Integer(2)))),
        compare(price, Comparison::Lte, price_value.clone()),
        compare(active, Comparison::Eq, Value::Boolean(true)),
        Filter::IsNull(Path::whole(stock)),
        Filter::In(Path::whole(stock), vec![Value::Integer(0), Value::Integer(5)]),
        Filter::Between(Path::whole(stock), Value::Integer(1), Value::Integer(3)),
        Filter::Prefix(Path::whole(name), "red".to_owned()),
        Filter::Like(Path::whole(name), unisono_core::query::Like("%lamp _".to_owned())),
        Filter::Contains(Path::whole(name), text("lamp 1")),
        Filter::Contains(Path::whole(tags), text("green")),
        Filter::Compare(below("colour"), Comparison::Eq, json(json!("blue"))),
        Filter::Compare(below("size"), Comparison::Gte, json(json!(3))),
        Filter::Or(vec![
            compare(stock, Comparison::Lt, Value::Integer(0)),
            Filter::And(vec![
                Filter::Contains(Path::whole(tags), text("red")),
                Filter::Not(Box::new(compare(price, Comparison::Gt, price_value))),
            ]),
        ]),
    ]
}

fn orders() -> Vec<Vec<Order>> {
    let by = |field, descending| Order { path: Path::whole(field), descending };
    vec![
        vec![],
        vec![by(3, false)],
        vec![by(4, true), by(1, false)],
        vec![by(5, false), by(3, true)],
        vec![by(0, true)],
    ]
}

async fn query_filters_and_orders(fixture: &Fixture) -> Verdict {
    fixture.needs_that(fixture.capability().query.filter, "filters")?;
    let (entity, all) = (Sample::product(), stored()?);
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.holding(role, &entity, &records()).await?;
        for filter in filters() {
            for order in orders() {
                let query = Query { filter: filter.clone(), order, limit: 25, ..Query::all() };
                let expected = eval::page(&entity, &query, all.iter())?;
                let found = opened.reader()?.query(&entity, &query).await?;
                check_eq!(found.value, expected, "{query:?} as {}", role.as_str());
                check_eq!(
                    found.position.as_u64(),
                    all.len() as u64,
                    "position as {}",
                    role.as_str()
                );
            }
        }
    }
    Ok(())
}

async fn pages_visit_each_once(fixture: &Fixture) -> Verdict {
    fixture.needs_that(fixture.capability().query.filter, "filters")?;
    let (entity, all) = (Sample::product(), stored()?);
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.holding(role, &entity, &records()).await?;
        for order in orders() {
            let mut query = Query { order, limit: 1000, ..Query::all() };
            let expected: Vec<_> = eval::page(&entity, &query, all.iter())?
                .hits
                .into_iter()
                .map(|h| h.stored)
                .collect();
            let mut visited = Vec::new();
            query.limit = 7;
            loop {
                let page = opened.reader()?.query(&entity, &query).await?.value;
                visited.extend(page.hits.into_iter().map(|h| h.stored));
                check!(visited.len() <= expected.len(), "{query:?} visits too many");
                if page.next.is_none() {
                    break;
                }
                query.cursor = page.next;
            }
            check_eq!(visited, expected, "{query:?} as {}", role.as_str());
        }
    }
    Ok(())
}

async fn count_agrees(fixture: &Fixture) -> Verdict {
    fixture.needs_that(fixture.capability().query.aggregate, "aggregates")?;
    let (entity, all) = (Sample::product(), stored()?);
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.holding(role, &entity, &records()).await?;
        for filter in filters() {
            let expected = eval::count(&entity, &filter, None, all.iter())?;
            let found = opened.reader()?.count(&entity, &filter, None).await?.value;
            check_eq!(found, expected, "{filter:?} as {}", role.as_str());
        }
    }
    Ok(())
}

async fn aggregate_agrees(fixture: &Fixture) -> Verdict {
    fixture.needs_that(fixture.capability().query.aggregate, "aggregates")?;
    let entity = Sample::order();
    let mut records = Vec::new();
    for n in 0..30_u32 {
        let items: Vec<_> = (0..n % 4)
            .map(|i| json!({"product_id": format!("p{}", (n + i) % 5), "quantity": i + 1, "amount": format!("{i}.{n:02}")}))
            .collect();
        let status = ["open", "paid", "sent"][n as usize % 3];
        let order = json!({"id": format!("o{n:02}"), "status": status, "total_amount": format!("{n}.50"), "items": items});
        records.push(Sample::record(&entity, &order));
    }
    let mut all = Vec::new();
    for (n, record) in records.iter().enumerate() {
        all.push(Stored::new(
            entity.key_of(record)?,
            Position::new(n as u64 + 1)?,
            Arc::new(record.clone()),
        ));
    }
    let (status, amount, items) = (Path::whole(2), Path::whole(4), 5);
    let part = |n| Path { field: items, step: Step::Each(n) };
    let metrics = |path: &Path| {
        let named = |(n, m): (usize, Metric)| (format!("m{n}"), m);
        let p = || path.clone();
        [Metric::Count, Metric::Sum(p()), Metric::Min(p()), Metric::Max(p()), Metric::Avg(p())]
            .into_iter()
            .enumerate()
            .map(named)
            .collect::<Vec<_>>()
    };
    let base = Aggregate {
        filter: Filter::All,
        unnest: None,
        group_by: vec![],
        metrics: metrics(&amount),
        order: vec![],
        limit: 100,
    };
    let questions = [
        base.clone(),
        Aggregate { group_by: vec![status.clone()], ..base.clone() },
        Aggregate { filter: Filter::IsNull(Path::whole(0)), ..base.clone() },
        Aggregate {
            unnest: Some(items),
            group_by: vec![part(0)],
            metrics: metrics(&part(1)),
            ..base.clone()
        },
        Aggregate {
            unnest: Some(items),
            group_by: vec![part(0), status],
            metrics: metrics(&part(2)),
            order: vec![AggregateOrder::Metric { index: 1, descending: true }],
            limit: 4,
            ..base
        },
    ];
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.holding(role, &entity, &records).await?;
        for question in &questions {
            let expected = eval::aggregate(&entity, question, all.iter())?;
            let found = opened.reader()?.aggregate(&entity, question).await?.value;
            check_eq!(found, expected, "{question:?} as {}", role.as_str());
        }
    }
    Ok(())
}

const SEARCHES: &[&str] = &[
    "lamp",
    "LAMP",
    "red lamp",
    "gre*",
    "\"lamp for desk\"",
    "\"desk lamp\"",
    "lamp 7",
    "nothing",
    "absent",
];

async fn search_finds_words(fixture: &Fixture) -> Verdict {
    fixture.needs_that(fixture.capability().query.search, "search")?;
    let (entity, all) = (Sample::product(), stored()?);
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.holding(role, &entity, &records()).await?;
        for text in SEARCHES {
            for filter in
                [Filter::All, Filter::Compare(Path::whole(4), Comparison::Gt, Value::Integer(1))]
            {
                let query =
                    Query { search: Some((*text).into()), filter, limit: 1000, ..Query::all() };
                let keys = |page: unisono_core::query::Page| -> BTreeSet<_> {
                    page.hits.into_iter().map(|h| h.stored.key).collect()
                };
                let expected = keys(eval::page(&entity, &query, all.iter())?);
                let found = keys(opened.reader()?.query(&entity, &query).await?.value);
                check_eq!(found, expected, "{query:?} as {}", role.as_str());
            }
        }
        let nothing = Query { search: Some("!?".into()), ..Query::all() };
        must_fail(
            opened.reader()?.query(&entity, &nothing).await,
            ErrorKind::InvalidInput,
            "a search without words",
        )?;
    }
    Ok(())
}

async fn search_shows_why(fixture: &Fixture) -> Verdict {
    fixture.needs_that(fixture.capability().query.search, "search")?;
    let (entity, all) = (Sample::product(), stored()?);
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.holding(role, &entity, &records()).await?;
        let search = Some("red lamp".to_owned());
        let mut query =
            Query { search, limit: 4, highlight: true, facets: vec![4, 5], ..Query::all() };
        let expected = eval::page(&entity, &Query { limit: 1000, ..query.clone() }, all.iter())?;
        let (mut visited, mut last) = (BTreeSet::new(), f32::INFINITY);
        loop {
            let page = opened.reader()?.query(&entity, &query).await?.value;
            check_eq!(page.facets, expected.facets, "facets");
            for hit in &page.hits {
                let Some(score) = hit.score else {
                    return Err(Stop::Failed("a hit by relevance has no score".into()));
                };
                check!(score.total_cmp(&last).is_le(), "scores rise");
                last = score;
                check!(
                    hit.highlights.values().any(|h| h.contains("<mark>")),
                    "no highlight: {hit:?}"
                );
                check!(
                    visited.insert(hit.stored.key.clone()),
                    "{} is visited twice",
                    hit.stored.key
                );
            }
            if page.next.is_none() {
                break;
            }
            query.cursor = page.next;
        }
        let expected: BTreeSet<_> = expected.hits.into_iter().map(|h| h.stored.key).collect();
        check_eq!(visited, expected, "pages by relevance");
    }
    Ok(())
}

async fn unsupported_is_said(fixture: &Fixture) -> Verdict {
    let can = fixture.capability().query;
    fixture.needs_that(
        !(can.filter && can.aggregate && can.search),
        "something that it does not answer",
    )?;
    let entity = Sample::product();
    for role in fixture.holding_roles() {
        let fixture = Fixture::new(&fixture.kind)?;
        let opened = fixture.holding(role, &entity, &[Sample::product_record(1)]).await?;
        let reader = opened.reader()?;
        if !can.filter {
            must_fail(reader.query(&entity, &Query::all()).await, ErrorKind::Unsupported, "query")?;
        }
        if !can.aggregate {
            must_fail(
                reader.count(&entity, &Filter::All, None).await,
                ErrorKind::Unsupported,
                "count",
            )?;
        }
        if !can.search {
            let query = Query { search: Some("lamp".into()), ..Query::all() };
            must_fail(reader.query(&entity, &query).await, ErrorKind::Unsupported, "search")?;
        }
    }
    Ok(())
}
