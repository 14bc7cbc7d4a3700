use std::collections::BTreeMap;

use unisono_core::json;

use super::*;
use crate::rule::Expression;
use unisono_core::{Decimal, Position};

fn orders() -> Arc<Entity> {
    let price = FieldType::Decimal { precision: 12, scale: 2 };
    let lines = [
        Field::new("product_id", FieldType::String),
        Field::new("quantity", FieldType::Integer),
        Field::new("price", price),
    ];
    let fields = vec![
        Field::new("id", FieldType::String),
        Field::new("user", FieldType::String),
        Field::new("status", FieldType::String),
        Field::new("at", FieldType::Timestamp { precision: 6 }),
        Field::new("lines", FieldType::Objects(lines.into())),
        Field::new("data", FieldType::Json),
    ];
    Arc::new(Entity::new("orders", "id", fields).unwrap())
}

fn sales(from: &Arc<Entity>) -> Projection {
    let each = Arc::new(Expression::compile(from, None, "record.lines").unwrap());
    let value = |text: &str| Expression::compile(from, Some(&each), text).unwrap();
    let field = |name: &str, function, text: &str| DeclaredValue {
        name: name.into(),
        function,
        value: (!text.is_empty()).then(|| value(text)),
        filter: None,
        ty: None,
    };
    let declared = Declared {
        filter: None,
        key: vec![DeclaredKey { name: "product_id".into(), value: value("item.product_id") }],
        fields: vec![
            field("lines", Function::Count, ""),
            field("sold", Function::Sum, "item.quantity"),
            field("money", Function::Sum, "item.quantity * item.price"),
            field("mean", Function::Avg, "item.price"),
            field("cheapest", Function::Min, "item.price"),
            field("dearest", Function::Max, "item.price"),
            field("last", Function::Latest, "record.user"),
            field("buyers", Function::Distinct, "record.user"),
        ],
        each: Some(Arc::clone(&each)),
    };
    declared.compile("sales", from).unwrap()
}

fn order(from: &Entity, user: &str, lines: &[(&str, i64, &str)]) -> Record {
    let lines: Vec<_> = lines
        .iter()
        .map(|(p, q, price)| serde_json::json!({"product_id": p, "quantity": q, "price": price}))
        .collect();
    json::parse(from, &serde_json::json!({"id": "o", "user": user, "lines": lines})).unwrap()
}

fn position(n: u64) -> Position {
    Position::new(n).unwrap()
}

fn row(projection: &Projection, group: &Group) -> serde_json::Value {
    let record = projection.row(&Key::from_text("p").unwrap(), group).unwrap();
    json::to_json(&projection.rows, &record)
}

#[test]
fn a_record_contributes_to_each_of_its_groups_and_takes_it_back_exactly() {
    let from = orders();
    let sales = sales(&from);
    let one = order(&from, "kim", &[("p", 2, "10.00"), ("q", 1, "5.00"), ("p", 1, "12.50")]);
    let two = order(&from, "ann", &[("p", 4, "0.10")]);
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    let mut fold = |record: &Record, version: u64, adds: bool| {
        for (n, (key, c)) in sales.contributions(record).unwrap().iter().enumerate() {
            let group = groups.entry(key.clone()).or_insert_with(|| Group::empty(&sales.shape));
            match adds {
                true => group.add(&sales.shape, c, position(version), n).unwrap(),
                false => group.remove(&sales.shape, c, position(version), n).unwrap(),
            }
        }
        groups.clone()
    };
    let p = Key::from_text("p").unwrap();
    let only_one = fold(&one, 1, true);
    let both = fold(&two, 2, true);
    assert_eq!(
        row(&sales, &both[&p]),
        serde_json::json!({"product_id": "p", "lines": 3, "sold": 7, "money": "32.90", "mean": "7.533333",
            "cheapest": "0.10", "dearest": "12.50", "last": "ann", "buyers": 2})
    );
    let kept = Group::parse(&sales.shape, &both[&p].to_json(&sales.shape)).unwrap();
    assert_eq!(kept, both[&p], "what is kept of a group comes back whole");
    let again = fold(&two, 2, false);
    assert_eq!(row(&sales, &again[&p]), row(&sales, &only_one[&p]));
    assert_eq!(row(&sales, &again[&p])["last"], "kim");
    let none = fold(&one, 1, false);
    assert!(none.values().all(Group::is_empty), "what everything was taken back from is empty");
    assert_eq!(none[&p], Group::empty(&sales.shape), "and nothing is left of it");
}

#[test]
fn contributions_come_back_from_how_they_are_kept() {
    let from = orders();
    let sales = sales(&from);
    let record = order(&from, "kim", &[("p/1", 2, "9228162514.26"), ("q", -1, "5.00")]);
    let found = sales.contributions(&record).unwrap();
    assert_eq!(sales.parse(&sales.to_json(&found)).unwrap(), found);
    assert_eq!(
        found[0].1.values[2],
        Value::Decimal(Decimal::from_str_exact("18456325028.52").unwrap())
    );
}

#[test]
fn keys_of_several_parts_are_one_text_that_tells_them_apart() {
    let from = orders();
    let value = |text: &str| Expression::compile(&from, None, text).unwrap();
    let declared = Declared {
        filter: None,
        each: None,
        key: vec![
            DeclaredKey { name: "user".into(), value: value("record.user") },
            DeclaredKey { name: "status".into(), value: value("record.status") },
        ],
        fields: Vec::new(),
    };
    let by_both = declared.compile("by_both", &from).unwrap();
    let key = |user: &str, status: serde_json::Value| {
        let json = serde_json::json!({"id": "o", "user": user, "status": status});
        let record = json::parse(&from, &json).unwrap();
        let found = by_both.contributions(&record).unwrap();
        found.first().map(|(key, _)| key.to_string())
    };
    assert_eq!(key("a/b", "c".into()).unwrap(), "a%2Fb/c");
    assert_eq!(key("a", "b/c".into()).unwrap(), "a/b%2Fc");
    assert_eq!(key("a", Json::Null), None, "with a null among its parts it is in no group");
    let names: Vec<_> = by_both.rows.fields().iter().map(|f| &*f.name).collect();
    assert_eq!(names, ["key", "user", "status"]);
}

#[test]
fn what_is_not_kept_any_more_of_many_values_has_the_group_made_anew() {
    let kept = Kept::new("least", Function::Min, FieldType::Integer).unwrap();
    let shape = Shape { key: Vec::new(), fields: vec![kept] };
    let of = |n: i64| Contribution { key: Vec::new(), values: vec![Value::Integer(n)] };
    let mut group = Group::empty(&shape);
    for n in (0..200).rev() {
        group.add(&shape, &of(n), position(1), 0).unwrap();
    }
    let mut lost = None;
    for n in 0..200 {
        assert_eq!(group.results(&shape).unwrap(), [Value::Integer(n)], "the least of those left");
        if let Err(Anew) = group.remove(&shape, &of(n), position(1), 0) {
            lost = Some(n);
            break;
        }
    }
    assert_eq!(lost, Some(63), "so many are kept");
}

#[test]
fn a_value_that_does_not_fit_its_type_is_told_and_not_rounded() {
    let from = orders();
    let declared = |ty: &str| {
        let value = Expression::compile(&from, None, "record.data.total").unwrap();
        let ty = match ty {
            "" => None,
            _ => Some(FieldType::Decimal { precision: 10, scale: 2 }),
        };
        let field = DeclaredValue {
            name: "total".into(),
            function: Function::Sum,
            value: Some(value),
            filter: None,
            ty,
        };
        Declared { filter: None, each: None, key: Vec::new(), fields: vec![field] }
    };
    let error = declared("").compile("totals", &from).unwrap_err();
    assert!(error.hint_text().unwrap().contains("`type`"), "{error:?}");
    let totals = declared("decimal(10,2)").compile("totals", &from).unwrap();
    let record = |total: serde_json::Value| {
        let json = serde_json::json!({"id": "o", "data": {"total": total}});
        json::parse(&from, &json).unwrap()
    };
    let found = totals.contributions(&record("12.50".into())).unwrap();
    assert_eq!(found[0].0.to_string(), ONLY);
    assert_eq!(found[0].1.values, [Value::Decimal(Decimal::new(1250, 2))]);
    assert!(totals.contributions(&record("12.505".into())).is_err());
    assert_eq!(totals.contributions(&record(Json::Null)).unwrap()[0].1.values, [Value::Null]);
}
