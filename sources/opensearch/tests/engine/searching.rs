//! Searching: honest positions over several processes, and questions that take many requests.

use reqwest::Method;
use serde_json::{Value as Json, json};
use unisono_core::query::{
    Aggregate, Comparison, Filter, Like, Metric, Order, Path, Query, Step, eval,
};
use unisono_core::{Position, Value};
use unisono_testkit::Sample;

use crate::server::Server;

#[tokio::test]
async fn a_position_is_never_ahead_of_what_is_found() {
    let server = Server::new();
    // The engine makes nothing visible by itself.
    let mut writing = server.follow(&Sample::product()).await;
    let entity = writing.entity.clone();
    server.ask(Method::PUT, "product/_settings", json!({"index.refresh_interval": "-1"})).await;
    let other = server.follow(&entity).await;
    for n in 0..5 {
        let change = writing.changes.put(&entity, Sample::product_record(n));
        // First the data alone, then the checkpoint alone, as with several lanes.
        assert_eq!(writing.apply(&[change]).await, ["applied"]);
        if n % 2 == 0 {
            // This makes it visible to all, so that every other time the other process is on its own.
            let own = writing.reader().count(&entity, &Filter::All, None).await.unwrap();
            assert_eq!(own.value, u64::from(n) + 1, "the process that wrote sees it");
            assert_eq!(own.position.as_u64(), u64::from(n), "the checkpoint has not moved");
        }
        let found = other.reader().count(&entity, &Filter::All, None).await.unwrap();
        assert!(found.value >= found.position.as_u64(), "{found:?}");
        let head = writing.changes.head();
        writing.advance(&[], head).await;
        let found = other.reader().count(&entity, &Filter::All, None).await.unwrap();
        assert_eq!((found.value, found.position), (u64::from(n) + 1, head));
    }
    server.wipe().await;
}

#[tokio::test]
async fn questions_over_many_records_are_answered_whole() {
    const RECORDS: u32 = 2_345;
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    let changes: Vec<_> =
        (0..RECORDS).map(|n| followed.changes.put(&entity, Sample::product_record(n))).collect();
    followed.advance(&changes, Position::new(u64::from(RECORDS)).unwrap()).await;
    let page = followed.auditor().scan(&entity, None, 2_000).await.unwrap().value;
    assert_eq!((page.records.len(), page.end), (2_000, false));
    let last = page.records.last().map(|stored| stored.key.clone());
    let page = followed.auditor().scan(&entity, last.as_ref(), 2_000).await.unwrap().value;
    assert_eq!((page.records.len(), page.end), (RECORDS as usize - 2_000, true));
    // Below a json field only the records decide.
    let colour = Path { field: 7, step: Step::Json(vec!["colour".to_owned()]) };
    let blue = Value::Json(json!("blue"));
    let filter = Filter::Compare(colour, Comparison::Eq, blue);
    let found = followed.reader().count(&entity, &filter, None).await.unwrap();
    assert_eq!(found.value, u64::from(RECORDS) / 3);
    let total = Aggregate {
        filter,
        unnest: None,
        group_by: vec![],
        metrics: vec![("stock".into(), Metric::Sum(Path::whole(4)))],
        order: vec![],
        limit: 1,
    };
    let found = followed.reader().aggregate(&entity, &total).await.unwrap().value;
    let expected: i64 = (0..RECORDS).filter(|n| n % 3 == 2).map(|n| i64::from(n % 7) - 1).sum();
    assert_eq!(found.groups[0].metrics, [Value::Integer(expected)]);
    // More groups than the engine gives at once.
    let group_by = vec![Path::whole(0)];
    let groups = Aggregate {
        filter: Filter::All,
        group_by,
        metrics: vec![("n".into(), Metric::Count)],
        ..total
    };
    let found = followed.reader().aggregate(&entity, &groups).await.unwrap().value;
    assert_eq!(found.total_groups, u64::from(RECORDS));
    // Nothing is left open in the engine.
    let open = server.ask_all(Method::GET, "/_nodes/stats/indices/search", Json::Null).await;
    let node = open["nodes"].as_object().and_then(|nodes| nodes.values().next()).unwrap();
    let current = &node["indices"]["search"]["point_in_time_current"];
    assert!(current.is_null() || *current == json!(0), "points in time are left open: {current}");
    server.wipe().await;
}

#[tokio::test]
async fn other_programs_read_records_and_search_words() {
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    let changes: Vec<_> =
        (0..6).map(|n| followed.changes.put(&entity, Sample::product_record(n))).collect();
    followed.advance(&changes, Position::new(6).unwrap()).await;
    let query = json!({"query": {"bool": {
        "must": [{"match": {"words.name": "green"}}],
        "filter": [{"range": {"indexed.price": {"gte": 400}}}],
    }}});
    let refresh = Query::all();
    followed.reader().query(&entity, &refresh).await.unwrap();
    let found = server.ask(Method::POST, "product/_search", query).await;
    let hits = found["hits"]["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 1, "{found}");
    assert_eq!(hits[0]["_id"], "p4");
    assert_eq!(hits[0]["_source"]["record"]["price"], "4.04");
    assert_eq!(hits[0]["_source"]["record"]["tags"], json!(["green", "lamp"]));
    server.wipe().await;
}

#[tokio::test]
async fn long_texts_are_compared_whole() {
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    // Beyond the engine's 32766 bytes for one term, and different only at the end.
    let start = "k".repeat(40_000);
    let names = ["end", "begin", "", "e"].map(|end| format!("{start}{end}"));
    let records = names
        .iter()
        .enumerate()
        .map(|(n, name)| Sample::record(&entity, &json!({"id": format!("p{n}"), "name": name})));
    let changes: Vec<_> = records.map(|record| followed.changes.put(&entity, record)).collect();
    followed.advance(&changes, Position::new(4).unwrap()).await;
    let all: Vec<_> = followed.auditor().scan(&entity, None, 10).await.unwrap().value.records;
    assert_eq!(all.len(), 4);
    let (name, text) = (Path::whole(1), |text: &str| Value::String(text.to_owned()));
    let short = || Value::String("k".to_owned());
    let compare = |comparison, value| Filter::Compare(name.clone(), comparison, value);
    let filters = [
        (Filter::Contains(name.clone(), text("end")), 1),
        (Filter::Like(name.clone(), Like("k%in".to_owned())), 1),
        (Filter::Like(name.clone(), Like("%_e%".to_owned())), 3),
        (Filter::Prefix(name.clone(), format!("{start}e")), 2),
        (Filter::In(name.clone(), vec![text(&names[0]), text(&names[2])]), 2),
        (Filter::Between(name.clone(), text(&names[1]), text(&names[3])), 2),
        (compare(Comparison::Eq, text(&names[2])), 1),
        (compare(Comparison::Ne, text(&names[2])), 3),
        (compare(Comparison::Gt, text(&names[1])), 2),
        (compare(Comparison::Gt, short()), 4),
        (compare(Comparison::Lte, short()), 0),
    ];
    for (n, (filter, found)) in filters.into_iter().enumerate() {
        assert_eq!(eval::count(&entity, &filter, None, all.iter()).unwrap(), found, "{n}");
        let count = followed.reader().count(&entity, &filter, None).await.unwrap().value;
        assert_eq!(count, found, "filter {n}");
    }
    for descending in [false, true] {
        let order = vec![Order { path: name.clone(), descending }];
        let query = Query { order, limit: 3, ..Query::all() };
        let page = followed.reader().query(&entity, &query).await.unwrap().value;
        assert_eq!(page, eval::page(&entity, &query, all.iter()).unwrap());
        let query = Query { cursor: page.next, ..query };
        let page = followed.reader().query(&entity, &query).await.unwrap().value;
        assert_eq!(page, eval::page(&entity, &query, all.iter()).unwrap());
    }
    server.wipe().await;
}
