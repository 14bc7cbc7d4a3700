//! Projections as an application meets them: declared, filled from what is there, kept, and read as an entity.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::core::json::to_json;
use unisono::core::query::{Order, Path, Query};
use unisono::core::stream::NewEvent;
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{
    Context, ErrorKind, FieldType, Key, Record, Result, Token, Value, json as records,
};
use unisono::engine::stream::Appending;
use unisono::engine::verify::report::VerifyOptions;
use unisono::policy::projection::{Contributes, Contribution, Function, Kept, Projection, Shape};
use unisono::{Registry, Unisono, config};

const WAIT: Duration = Duration::from_secs(60);

const ENTITIES: &str = r#"
[sources.main]
kind = "sqlite"
path = "main.db"
[sources.other]
kind = "memory"

[entities.orders]
truth = "main"
key = "id"
[entities.orders.fields]
id = "string"
user_id = "string"
status = "string"
lines = { type = "list", of = { product_id = "string", quantity = "integer", price = "decimal(12,2)" } }
"#;

const SALES: &str = r#"
[projections.product_sales]
from = "orders"
where = "record.status != 'cancelled'"
each = "record.lines"
key = { product_id = "item.product_id" }
[projections.product_sales.fields]
lines = { count = true }
big = { count = true, where = "item.quantity > 2" }
sold = { sum = "item.quantity" }
revenue = { sum = "item.quantity * item.price" }
mean = { avg = "item.price" }
dearest = { max = "item.price" }
cheapest = { min = "item.price" }
buyers = { distinct = "record.user_id" }
last = { latest = "record.user_id" }
[[projections.product_sales.targets]]
source = "main"
[[projections.product_sales.targets]]
source = "other"
"#;

async fn open(folder: &tempfile::TempDir, text: &str) -> Unisono {
    let registry = Registry::builtin();
    let mut configuration = config::parse(text, "test.toml", &registry, &config::Process).unwrap();
    configuration.data = folder.path().to_owned();
    Unisono::open(configuration).await.unwrap()
}

async fn write(unisono: &Unisono, id: &str, order: Option<Json>) -> Token {
    let entity = unisono.engine().entity("orders").unwrap();
    let action = match order {
        Some(mut order) => {
            order["id"] = id.into();
            Action::Put(records::parse(entity, &order).unwrap())
        }
        None => Action::Delete,
    };
    let write = Write {
        entity: entity.clone(),
        key: Key::from_text(id).unwrap(),
        action,
        condition: Condition::None,
    };
    unisono.engine().write(&Context::default(), vec![write]).await.unwrap().token
}

fn order(user: &str, status: &str, lines: &[(&str, i64, &str)]) -> Option<Json> {
    let line = |(product, quantity, price): &(&str, i64, &str)| json!({"product_id": product, "quantity": quantity, "price": price});
    Some(
        json!({"user_id": user, "status": status, "lines": lines.iter().map(line).collect::<Vec<_>>()}),
    )
}

async fn settled(unisono: &Unisono) {
    let head = unisono.engine().head_token().await.unwrap();
    unisono.engine().wait_applied(&head, WAIT).await.unwrap();
}

async fn rows(unisono: &Unisono, name: &str, context: &Context) -> Vec<Json> {
    let entity = unisono.engine().entity(name).unwrap();
    let page = unisono.engine().query(context, entity, &Query::all()).await.unwrap();
    page.value.hits.iter().map(|hit| to_json(entity, &hit.stored.record)).collect()
}

#[tokio::test]
async fn rows_follow_the_records_and_what_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    let before = open(&folder, ENTITIES).await;
    write(&before, "o1", order("kim", "open", &[("p", 2, "10.00"), ("q", 1, "5.00")])).await;
    write(&before, "o2", order("ann", "cancelled", &[("p", 9, "1.00")])).await;
    before.close().await.unwrap();

    let unisono = open(&folder, &format!("{ENTITIES}{SALES}")).await;
    settled(&unisono).await;
    let p = json!({"product_id": "p", "lines": 1, "big": 0, "sold": 2, "revenue": "20.00", "mean": "10.000000",
        "dearest": "10.00", "cheapest": "10.00", "buyers": 1, "last": "kim"});
    let q = json!({"product_id": "q", "lines": 1, "big": 0, "sold": 1, "revenue": "5.00", "mean": "5.000000",
        "dearest": "5.00", "cheapest": "5.00", "buyers": 1, "last": "kim"});
    assert_eq!(rows(&unisono, "product_sales", &Context::default()).await, [p.clone(), q.clone()]);

    // A caller sees what its own write has done.
    let token = write(&unisono, "o2", order("ann", "open", &[("p", 3, "1.50")])).await;
    let context = Context { token, ..Context::default() };
    let both = json!({"product_id": "p", "lines": 2, "big": 1, "sold": 5, "revenue": "24.50", "mean": "5.750000",
        "dearest": "10.00", "cheapest": "1.50", "buyers": 2, "last": "ann"});
    assert_eq!(rows(&unisono, "product_sales", &context).await[0], both);
    write(&unisono, "o1", None).await;
    write(&unisono, "o3", order("kim", "open", &[("r", 1, "1.00"), ("r", 1, "2.00")])).await;
    settled(&unisono).await;
    let names = |rows: &[Json]| rows.iter().map(|r| r["product_id"].clone()).collect::<Vec<_>>();
    let after = rows(&unisono, "product_sales", &Context::default()).await;
    assert_eq!(names(&after), ["p", "r"], "a row that nothing contributes to is gone");
    assert_eq!((&after[0]["buyers"], &after[0]["dearest"]), (&json!(1), &json!("1.50")));
    assert_eq!((&after[1]["lines"], &after[1]["revenue"]), (&json!(2), &json!("3.00")));

    // Rows are ordered as records are: the best first.
    let entity = unisono.engine().entity("product_sales").unwrap();
    let sold = Path::whole(entity.index_of("sold").unwrap());
    let best =
        Query { order: vec![Order { path: sold, descending: true }], limit: 1, ..Query::all() };
    let page = unisono.engine().query(&Context::default(), entity, &best).await.unwrap().value;
    assert_eq!(page.hits[0].stored.key.to_string(), "p");
    unisono.close().await.unwrap();

    // A target that forgets everything is filled again, and one that does not goes on.
    let again = open(&folder, &format!("{ENTITIES}{SALES}")).await;
    write(&again, "o4", order("eve", "open", &[("p", 1, "1.00")])).await;
    settled(&again).await;
    let rows = rows(&again, "product_sales", &Context::default()).await;
    assert_eq!((&rows[0]["sold"], &rows[0]["buyers"]), (&json!(4), &json!(2)));
    again.close().await.unwrap();
}

#[tokio::test]
async fn rows_are_not_written_and_another_definition_makes_them_anew() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(&folder, &format!("{ENTITIES}{SALES}")).await;
    write(&unisono, "o1", order("kim", "open", &[("p", 2, "10.00")])).await;
    settled(&unisono).await;
    let entity = unisono.engine().entity("product_sales").unwrap().clone();
    let refused = Write {
        key: Key::from_text("p").unwrap(),
        action: Action::Delete,
        condition: Condition::None,
        entity,
    };
    let error = unisono.engine().write(&Context::default(), vec![refused]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    unisono.close().await.unwrap();

    let other = SALES.replace("sum = \"item.quantity\"", "sum = \"item.quantity * 100\"");
    let unisono = open(&folder, &format!("{ENTITIES}{other}")).await;
    settled(&unisono).await;
    let sold = rows(&unisono, "product_sales", &Context::default()).await[0]["sold"].clone();
    assert_eq!(sold, 200);
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn events_of_streams_come_to_rows() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"
[sources.main]
kind = "sqlite"
path = "main.db"
[streams.account]
truth = "main"
[projections.balances]
streams = "account"
where = "record.type == 'moved'"
key = { account = "record.stream" }
[projections.balances.fields]
balance = { sum = "record.data.amount", type = "decimal(12,2)" }
moves = { count = true }
last = { latest = "record.time" }
[[projections.balances.targets]]
source = "main"
"#;
    let unisono = open(&folder, text).await;
    for (stream, amount) in [("a", "10.50"), ("b", "1.00"), ("a", "-0.75")] {
        let event = NewEvent::new("moved", json!({"amount": amount}));
        let appending = Appending::to(stream, vec![event]);
        unisono.engine().append(&Context::default(), "account", appending).await.unwrap();
    }
    settled(&unisono).await;
    let found = rows(&unisono, "balances", &Context::default()).await;
    let short: Vec<_> = found.iter().map(|r| (&r["account"], &r["balance"], &r["moves"])).collect();
    assert_eq!(
        short,
        [(&json!("a"), &json!("9.75"), &json!(2)), (&json!("b"), &json!("1.00"), &json!(1))]
    );
    unisono.close().await.unwrap();
}

/// One row for the first letter of each user, from orders of any status.
struct Initials;

impl Contributes for Initials {
    fn contributions(&self, record: &Record) -> Result<Vec<Contribution>> {
        let initial = record.values()[1].as_str().and_then(|user| user.chars().next());
        let key = initial.map_or(Value::Null, |c| Value::String(c.to_string()));
        Ok(vec![Contribution { key: vec![key], values: vec![Value::Boolean(true)] }])
    }
}

#[tokio::test]
async fn a_projection_written_in_rust_is_kept_as_a_declared_one() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::builtin();
    let mut configuration =
        config::parse(ENTITIES, "test.toml", &registry, &config::Process).unwrap();
    configuration.data = folder.path().to_owned();
    let orders = configuration.declaration.entities["orders"].entity.clone();
    let shape = Shape {
        key: vec![("initial".into(), FieldType::String)],
        fields: vec![Kept::new("orders", Function::Count, FieldType::Boolean).unwrap()],
    };
    let by = Arc::new(Initials);
    let projection = Projection::new("initials", &orders, None, shape, "initials 1", by).unwrap();
    let error = unisono::project(&mut configuration, projection.clone(), &["nowhere"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    unisono::project(&mut configuration, projection, &["main"]).unwrap();
    let unisono = Unisono::open(configuration).await.unwrap();
    for (n, user) in ["kim", "kai", "ann"].into_iter().enumerate() {
        write(&unisono, &format!("o{n}"), order(user, "open", &[])).await;
    }
    settled(&unisono).await;
    let found = rows(&unisono, "initials", &Context::default()).await;
    assert_eq!(found, [json!({"initial": "a", "orders": 1}), json!({"initial": "k", "orders": 2})]);

    let report = unisono.engine().verify(&VerifyOptions::default(), &|_| {}).await.unwrap();
    assert!(report.agrees(), "{report:?}");
    unisono.close().await.unwrap();
}
