use serde_json::json;

use super::*;
use crate::error::ErrorKind;
use crate::fixtures;
use crate::query::aggregate::{AggregateOrder, Metric};
use crate::query::ast::{Comparison, Like, Order, Step};
use crate::query::format;
use crate::value::Value;

fn parse_url(text: &str) -> Result<Query> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs: Vec<_> = pairs
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect();
    url(&fixtures::entity(), &pairs)
}

fn at(name: &str) -> Path {
    path(&fixtures::entity(), name).unwrap()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn tests_are_read_by_the_type_of_their_field() {
    let eq = |name, value| Filter::Compare(at(name), Comparison::Eq, value);
    let not = |filter| Filter::Not(Box::new(filter));
    let decimal = |text: &str| Value::Decimal(text.parse().unwrap());
    for (url, filter) in [
        ("", Filter::All),
        ("status=eq.paid", eq("status", text("paid"))),
        ("status=eq.a.b.c", eq("status", text("a.b.c"))),
        ("status=eq.", eq("status", text(""))),
        ("status=not.eq.not.eq", not(eq("status", text("not.eq")))),
        ("quantity=eq.-7", eq("quantity", Value::Integer(-7))),
        ("amount=gt.100", Filter::Compare(at("amount"), Comparison::Gt, decimal("100.00"))),
        ("paid=lt.true", Filter::Compare(at("paid"), Comparison::Lt, Value::Boolean(true))),
        ("raw=eq.AAH/", eq("raw", Value::Bytes(vec![0, 1, 255]))),
        (
            "day=gte.2026-12-31",
            Filter::Compare(at("day"), Comparison::Gte, Value::Date("2026-12-31".parse().unwrap())),
        ),
        ("status=in.(a)", Filter::In(at("status"), vec![text("a")])),
        (
            "status=in.(a,\"b,c\",\"d\\\"e\\\\\",)",
            Filter::In(at("status"), ["a", "b,c", "d\"e\\", ""].map(text).to_vec()),
        ),
        (
            "quantity=not.in.(1,2)",
            not(Filter::In(at("quantity"), vec![Value::Integer(1), Value::Integer(2)])),
        ),
        (
            "quantity=between.(1,2)",
            Filter::Between(at("quantity"), Value::Integer(1), Value::Integer(2)),
        ),
        ("title=like.a%\\_", Filter::Like(at("title"), Like("a%\\_".to_owned()))),
        ("title=prefix.a.b", Filter::Prefix(at("title"), "a.b".to_owned())),
        ("labels=contains.x", Filter::Contains(at("labels"), text("x"))),
        ("title=contains.x", Filter::Contains(at("title"), text("x"))),
        ("tags.a.b=contains.7", Filter::Contains(at("tags.a.b"), Value::Json(json!(7)))),
        ("items=is.null", Filter::IsNull(at("items"))),
        ("tags.a=eq.true", eq("tags.a", Value::Json(json!(true)))),
        ("tags.a=eq.\"true\"", eq("tags.a", Value::Json(json!("true")))),
        ("tags.a=eq.null", eq("tags.a", Value::Json(json!("null")))),
        ("tags.a=eq.[1]", eq("tags.a", Value::Json(json!("[1]")))),
        (
            "items.quantity=ne.1",
            Filter::Compare(at("items.quantity"), Comparison::Ne, Value::Integer(1)),
        ),
        (
            "quantity=gt.1&quantity=lt.9&status=is.not_null",
            Filter::And(vec![
                Filter::Compare(at("quantity"), Comparison::Gt, Value::Integer(1)),
                Filter::Compare(at("quantity"), Comparison::Lt, Value::Integer(9)),
                not(Filter::IsNull(at("status"))),
            ]),
        ),
    ] {
        let query = parse_url(url).unwrap_or_else(|e| panic!("{url}: {e:?}"));
        assert_eq!(query.filter, filter, "{url}");
        let entity = fixtures::entity();
        let json = format::filter(&entity, &filter);
        assert_eq!(super::filter(&entity, &json).unwrap(), filter, "{json}");
    }
}

#[test]
fn reserved_parameters_are_read() {
    let entity = fixtures::entity();
    let field = |name| entity.index_of(name).unwrap();
    let query = parse_url(
        "q=red shoes&order=amount.desc,-at,status.asc,id&limit=1000&fields=id,title&highlight=true&facets=status,paid",
    );
    let descending = |name, descending| Order { path: Path::whole(field(name)), descending };
    let expected = Query {
        search: Some("red shoes".to_owned()),
        order: vec![
            descending("amount", true),
            descending("at", true),
            descending("status", false),
            descending("id", false),
        ],
        limit: 1000,
        fields: Some(vec![field("id"), field("title")]),
        highlight: true,
        facets: vec![field("status"), field("paid")],
        ..Query::all()
    };
    assert_eq!(query.unwrap(), expected);
    let body = json!({"search": "red shoes", "order": ["-amount", "at.desc", "status", "id.asc"], "limit": 1000,
        "fields": ["id", "title"], "highlight": true, "facets": ["status", "paid"], "where": {}});
    assert_eq!(super::query(&entity, &body).unwrap(), expected);
    assert_eq!(parse_url("").unwrap(), Query::all());
    assert_eq!(super::query(&entity, &json!({})).unwrap(), Query::all());
}

#[test]
fn paths_are_resolved() {
    assert_eq!(at("items.price"), Path { field: 14, step: Step::Each(2) });
    assert_eq!(
        at("tags.a.0.b"),
        Path { field: 12, step: Step::Json(["a", "0", "b"].map(str::to_owned).to_vec()) }
    );
    for name in ["id", "items.price", "tags.a.0.b"] {
        assert_eq!(at(name).to_text(&fixtures::entity()), name);
    }
}

/// Each line: the URL, the detail that must name the place, and a part of the hint (empty: none demanded).
#[test]
fn wrong_urls_are_refused_with_their_place() {
    let pairs = |n| vec!["quantity=gt.1"; n].join("&");
    let long = format!("status=eq.{}", "x".repeat(4096));
    let list = format!("quantity=in.({})", vec!["1"; 201].join(","));
    for (url, detail, value, hint) in [
        ("status=paid", "field", "status", "status=eq.paid"),
        ("status=", "field", "status", "status=eq."),
        ("amount=10.5", "field", "amount", "amount=eq.10.5"),
        ("status=Eq.paid", "field", "status", "status=eq.Eq.paid"),
        ("status=eqq.paid", "field", "status", "`eq`"),
        ("status=starts.paid", "operator", "starts", ""),
        ("status=not.paid", "field", "status", "eq.paid"),
        ("status=not.not.eq.paid", "field", "status", ""),
        ("statsu=eq.paid", "parameter", "statsu", "`status`"),
        ("limt=5", "parameter", "limt", "`limit`"),
        ("xyzzy=1", "parameter", "xyzzy", ""),
        ("=eq.1", "parameter", "", ""),
        ("items.quantty=eq.1", "field", "items.quantty", "`quantity`"),
        ("status.x=eq.1", "field", "status.x", "`status`"),
        ("labels.x=eq.1", "field", "labels.x", "`labels`"),
        ("tags.=eq.1", "field", "tags.", ""),
        ("tags.a..b=eq.1", "field", "tags.a..b", ""),
        ("quantity=eq.x", "field", "quantity", ""),
        ("quantity=eq.1.5", "field", "quantity", ""),
        ("quantity=eq.9223372036854775808", "field", "quantity", ""),
        ("amount=eq.1.005", "field", "amount", ""),
        ("ratio=gt.1e400", "field", "ratio", "finite"),
        ("ratio=gt.NaN", "field", "ratio", ""),
        ("paid=eq.yes", "field", "paid", ""),
        ("day=eq.2026-02-30", "field", "day", ""),
        ("at=gt.2026-01-01", "field", "at", ""),
        ("at=gt.2026-01-01T00:00:00.1234Z", "field", "at", ""),
        ("reference=eq.1", "field", "reference", ""),
        ("raw=eq.*", "field", "raw", "base64"),
        ("labels=eq.x", "field", "labels", "contains"),
        ("items=eq.x", "field", "items", "items.quantity"),
        ("items=contains.x", "field", "items", ""),
        ("quantity=contains.1", "field", "quantity", ""),
        ("quantity=like.1%", "field", "quantity", "text"),
        ("day=prefix.2026", "field", "day", "text"),
        ("labels=like.x%", "field", "labels", "text"),
        ("title=like.a\\", "field", "title", "\\\\"),
        ("quantity=in.1,2", "field", "quantity", "(a,b"),
        ("quantity=in.()", "field", "quantity", ""),
        ("quantity=in.(1,x)", "field", "quantity", ""),
        ("status=in.(\"a)", "field", "status", "(a,b"),
        ("status=in.(\"a\"b)", "field", "status", "(a,b"),
        (&list, "field", "quantity", ""),
        ("quantity=between.(1)", "field", "quantity", ""),
        ("quantity=between.(1,2,3)", "field", "quantity", ""),
        ("status=is.nothing", "field", "status", ""),
        ("order=nope", "parameter", "order", ""),
        ("order=amont.desc", "field", "amont", "`amount`"),
        ("order=amount.down", "parameter", "order", ""),
        ("order=amount,-amount", "parameter", "order", ""),
        ("order=tags", "field", "tags", "single value"),
        ("order=items.quantity", "field", "items.quantity", "single value"),
        ("order=", "parameter", "order", ""),
        ("order=id,title,body,status,quantity,amount,ratio,paid,day", "parameter", "order", ""),
        ("limit=0", "parameter", "limit", ""),
        ("limit=1001", "parameter", "limit", ""),
        ("limit=-1", "parameter", "limit", ""),
        ("limit=x", "parameter", "limit", ""),
        ("limit=5&limit=5", "parameter", "limit", ""),
        ("cursor=x", "parameter", "cursor", "next"),
        ("fields=id,nope", "parameter", "fields", ""),
        ("fields=id,id", "field", "id", ""),
        ("fields=", "parameter", "fields", ""),
        ("fields=items.quantity", "parameter", "fields", ""),
        ("highlight=1", "parameter", "highlight", ""),
        ("facets=tags", "field", "tags", ""),
        ("q=", "parameter", "q", "at least one word"),
        ("q=!!!", "parameter", "q", "at least one word"),
        (&long, "parameter", "where", ""),
        (&pairs(64), "parameter", "where", ""),
    ] {
        let error = parse_url(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        assert_eq!(error.detail(detail), Some(value), "{url}: {error}");
        assert!(error.hint_text().unwrap_or_default().contains(hint), "{url}: {error:?}");
        assert_eq!(error.entity(), Some("order"), "{url}");
    }
    assert!(parse_url(&pairs(63)).is_ok(), "63 tests and the `and` are 64");
}

#[test]
fn wrong_bodies_are_refused_with_their_place() {
    let entity = fixtures::entity();
    let test = |field: &str, op: &str, value: Json| json!({"where": {"field": field, "op": op, "value": value}});
    let nested = |depth| {
        (0..depth).fold(json!({"field": "id", "op": "is_null"}), |inner, _| json!({"not": inner}))
    };
    for (body, detail, value) in [
        (json!([]), "parameter", "body"),
        (json!({"filter": {}}), "parameter", "filter"),
        (json!({"where": []}), "parameter", "where"),
        (json!({"where": {"and": {}}}), "parameter", "and"),
        (json!({"where": {"or": []}}), "parameter", "or"),
        (json!({"where": {"and": [1]}}), "parameter", "where"),
        (json!({"where": {"and": [{}], "or": [{}]}}), "parameter", "and"),
        (json!({"where": {"and": [{}], "field": "id"}}), "parameter", "and"),
        (json!({"where": {"fied": "id"}}), "parameter", "fied"),
        (json!({"where": {"field": "id"}}), "parameter", "op"),
        (json!({"where": {"op": "eq"}}), "parameter", "field"),
        (json!({"where": {"field": "id", "op": "eq"}}), "parameter", "value"),
        (json!({"where": {"field": "id", "op": 1, "value": 1}}), "field", "id"),
        (json!({"where": {"field": 1, "op": "eq", "value": 1}}), "parameter", "field"),
        (json!({"where": {"field": "id", "op": "is_null", "value": "x"}}), "field", "id"),
        (json!({"where": nested(8)}), "parameter", "where"),
        (json!({"where": nested(100)}), "parameter", "where"),
        (test("nope", "eq", json!(1)), "field", "nope"),
        (test("id", "equals", json!("a")), "operator", "equals"),
        (test("id", "is", json!("a")), "operator", "is"),
        (test("id", "eq", json!(null)), "field", "id"),
        (test("quantity", "eq", json!("1")), "field", "quantity"),
        (test("quantity", "in", json!(1)), "field", "quantity"),
        (test("quantity", "in", json!([1, null])), "field", "quantity"),
        (test("quantity", "between", json!([1])), "field", "quantity"),
        (test("title", "like", json!(1)), "field", "title"),
        (test("tags.a", "eq", json!([1])), "field", "tags.a"),
        (test("tags.a", "eq", json!({"x": 1})), "field", "tags.a"),
        (test("tags.a", "contains", json!([1])), "field", "tags.a"),
        (test("labels", "contains", json!(1)), "field", "labels"),
        (json!({"search": 1}), "parameter", "search"),
        (json!({"search": "-"}), "parameter", "search"),
        (json!({"order": "id"}), "parameter", "order"),
        (json!({"order": [1]}), "parameter", "order"),
        (json!({"order": ["nope"]}), "field", "nope"),
        (json!({"limit": "5"}), "parameter", "limit"),
        (json!({"limit": 0}), "parameter", "limit"),
        (json!({"limit": 1.5}), "parameter", "limit"),
        (json!({"limit": -1}), "parameter", "limit"),
        (json!({"cursor": 5}), "parameter", "cursor"),
        (json!({"fields": []}), "parameter", "fields"),
        (json!({"highlight": "true"}), "parameter", "highlight"),
        (json!({"facets": ["labels"]}), "field", "labels"),
    ] {
        let error = query(&entity, &body).expect_err(&body.to_string());
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{body}");
        assert_eq!(error.detail(detail), Some(value), "{body}: {error}");
    }
    assert!(query(&entity, &json!({"where": nested(7)})).is_ok());
}

#[test]
fn an_entity_without_search_fields_cannot_be_searched() {
    use crate::entity::{Field, FieldType};
    let entity = Entity::new("thing", "id", vec![Field::new("id", FieldType::String)]).unwrap();
    let error = query(&entity, &json!({"search": "red"})).unwrap_err();
    assert_eq!((error.detail("parameter"), error.entity()), (Some("search"), Some("thing")));
}

#[test]
fn aggregates_are_read() {
    let entity = fixtures::entity();
    let body = json!({"where": {}, "unnest": "items", "group_by": ["items.product_id", "status"], "limit": 10,
        "metrics": {"sold": {"sum": "items.quantity"}, "orders": "count"}, "order": ["-sold", "status.asc"]});
    let aggregate = super::aggregate(&entity, &body).unwrap();
    assert_eq!(aggregate.unnest, entity.index_of("items"));
    assert_eq!(aggregate.group_by, [at("items.product_id"), at("status")]);
    let metrics = [
        ("orders".to_owned(), Metric::Count),
        ("sold".to_owned(), Metric::Sum(at("items.quantity"))),
    ];
    assert_eq!(aggregate.metrics, metrics);
    let order = [
        AggregateOrder::Metric { index: 1, descending: true },
        AggregateOrder::Group { index: 1, descending: false },
    ];
    assert_eq!((aggregate.order.as_slice(), aggregate.limit), (order.as_slice(), 10));
}

#[test]
fn wrong_aggregates_are_refused_with_their_place() {
    let entity = fixtures::entity();
    let many: serde_json::Map<_, _> = (0..33).map(|n| (format!("m{n}"), json!("count"))).collect();
    for (body, detail, value) in [
        (json!({}), "parameter", "metrics"),
        (json!({"metrics": {}, "having": 1}), "parameter", "having"),
        (json!({"metrics": []}), "parameter", "metrics"),
        (json!({"metrics": many}), "parameter", "metrics"),
        (json!({"metrics": {"": "count"}}), "parameter", "metrics"),
        (json!({"metrics": {"n": "sum"}}), "metric", "n"),
        (json!({"metrics": {"n": {}}}), "metric", "n"),
        (json!({"metrics": {"n": {"sum": "amount", "max": "amount"}}}), "metric", "n"),
        (json!({"metrics": {"n": {"median": "amount"}}}), "operator", "median"),
        (json!({"metrics": {"n": {"sum": 1}}}), "metric", "n"),
        (json!({"metrics": {"n": {"sum": "amuont"}}}), "field", "amuont"),
        (json!({"metrics": {"n": {"sum": "status"}}}), "field", "status"),
        (json!({"metrics": {"n": {"avg": "at"}}}), "field", "at"),
        (json!({"metrics": {"n": {"max": "tags.a"}}}), "field", "tags.a"),
        (json!({"metrics": {"n": {"max": "labels"}}}), "field", "labels"),
        (json!({"metrics": {"n": {"sum": "items.quantity"}}}), "field", "items.quantity"),
        (json!({"group_by": ["items.product_id"]}), "field", "items.product_id"),
        (json!({"group_by": ["tags.a"], "unnest": "items"}), "field", "tags.a"),
        (json!({"group_by": ["tags"]}), "field", "tags"),
        (json!({"group_by": ["status", "status"]}), "parameter", "group_by"),
        (json!({"group_by": "status"}), "parameter", "group_by"),
        (json!({"group_by": ["status"], "metrics": {"status": "count"}}), "parameter", "metrics"),
        (json!({"group_by": ["status"], "unnest": "labels"}), "parameter", "unnest"),
        (json!({"group_by": ["status"], "unnest": "nope"}), "field", "nope"),
        (json!({"group_by": ["status"], "order": ["-n"]}), "parameter", "order"),
        (json!({"group_by": ["status"], "limit": 10_001}), "parameter", "limit"),
        (json!({"group_by": ["status"], "where": {"x": 1}}), "parameter", "x"),
    ] {
        let error = aggregate(&entity, &body).expect_err(&body.to_string());
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{body}");
        assert_eq!(error.detail(detail), Some(value), "{body}: {error}");
        assert_eq!(error.entity(), Some("order"), "{body}");
    }
}
