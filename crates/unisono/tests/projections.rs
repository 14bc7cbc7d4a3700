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
use unisono::engine::ProjectionStatus;
use unisono::engine::stream::Appending;
use unisono::engine::verify::report::{Depth, VerifyOptions};
use unisono::policy::projection::{
    BesideState, Contributes, Contribution, Function, Kept, Projection, Shape,
};
use unisono::{Registry, Step, Unisono, config};

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
    let entity = unisono.engine().entity("product_sales").unwrap();
    let sold = async || {
        let key = Key::from_text("p").unwrap();
        loop {
            let answer = unisono.engine().get(&Context::default(), entity, &key).await;
            // Right after the start it is not known yet what there is.
            let Ok(answer) = answer else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let record = answer.value.unwrap().record.clone();
            return to_json(entity, &record)["sold"].clone();
        }
    };
    assert_eq!(sold().await, 2, "the rows that there are go on answering");
    let begun = unisono.engine().projection("product_sales").await.unwrap();
    assert_eq!((begun.still, begun.beside.unwrap().state), (Some(1), BesideState::Replacing));
    let made = versions(&unisono, |found| found.version == 2).await;
    assert_eq!(made.beside.unwrap().state, BesideState::Returning);
    assert_eq!(sold().await, 200);
    let alone = versions(&unisono, |found| found.beside.is_none()).await;
    assert_eq!((alone.version, sold().await), (3, json!(200)));
    unisono.close().await.unwrap();
    let unisono = open(&folder, &format!("{ENTITIES}{other}")).await;
    assert_eq!(unisono.engine().projection("product_sales").await.unwrap().still, None);
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

async fn versions(
    unisono: &Unisono,
    wanted: impl Fn(&ProjectionStatus) -> bool,
) -> ProjectionStatus {
    let settled = async {
        loop {
            let found = unisono.engine().projection("product_sales").await.unwrap();
            if wanted(&found) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WAIT, settled).await.unwrap()
}

#[tokio::test]
async fn a_version_is_made_beside_the_one_that_answers_and_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{ENTITIES}{SALES}");
    let unisono = open(&folder, &text).await;
    for n in 0..30 {
        let lines = [("p", n, "1.00"), ("q", 1, "2.50")];
        write(&unisono, &format!("o{n}"), order("kim", "open", &lines)).await;
    }
    settled(&unisono).await;
    let engine = unisono.engine();
    let error = engine.projection_back("product_sales").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = engine.rebuild_projection("product_sale").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("product_sale"), "{error}");

    // What is written and read meanwhile goes on as before, and a token is honoured by either version.
    let begun = engine.rebuild_projection("product_sales").await.unwrap();
    assert_eq!((begun.version, begun.beside.unwrap().state), (1, BesideState::Building));
    let sold = async |token: Token| {
        let context = Context { token, ..Context::default() };
        rows(&unisono, "product_sales", &context).await[0]["sold"].as_i64().unwrap()
    };
    let mut expected = 435;
    while engine.projection("product_sales").await.unwrap().version == 1 {
        let token = write(&unisono, "o1", order("ann", "open", &[("p", expected, "1.00")])).await;
        assert_eq!(sold(token).await, 434 + expected);
        expected += 1;
    }
    let swapped = engine.projection("product_sales").await.unwrap();
    assert_eq!((swapped.version, swapped.beside.unwrap().state), (2, BesideState::Former));
    let live = |found: &ProjectionStatus| {
        let of = found.targets.iter().filter(|t| t.live);
        of.map(|t| t.delivery.source.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((live(&swapped), swapped.targets.len()), (vec!["main".into(), "other".into()], 4));
    let token = write(&unisono, "o1", order("ann", "open", &[("p", 7, "1.00")])).await;
    assert_eq!(sold(token).await, 441);
    unisono.close().await.unwrap();

    // It is remembered, and the former version has followed meanwhile.
    let unisono = open(&folder, &text).await;
    let engine = unisono.engine();
    assert_eq!(engine.projection("product_sales").await.unwrap().version, 2);
    let token = write(&unisono, "o1", order("ann", "open", &[("p", 8, "1.00")])).await;
    let back = engine.projection_back("product_sales").await.unwrap();
    assert_eq!(back.version, 1);
    let context = Context { token, ..Context::default() };
    assert_eq!(rows(&unisono, "product_sales", &context).await[0]["sold"], 442);

    // What stays in the end is where it is declared, whichever version was discarded.
    engine.discard_projection("product_sales").await.unwrap();
    let alone = versions(&unisono, |found| found.beside.is_none()).await;
    assert_eq!((alone.version, alone.targets.len()), (1, 2));
    engine.rebuild_projection("product_sales").await.unwrap();
    let again = versions(&unisono, |found| found.version != 1).await;
    assert_eq!(again.version, 4);
    let returning = engine.discard_projection("product_sales").await.unwrap();
    assert_eq!(returning.beside.unwrap().state, BesideState::Returning);
    let returned = versions(&unisono, |found| found.beside.is_none()).await;
    assert_eq!(returned.version, 5);
    settled(&unisono).await;
    assert_eq!(rows(&unisono, "product_sales", &context).await[0]["sold"], 442);
    let options = VerifyOptions { depth: Depth::Deep, ..VerifyOptions::default() };
    let report = engine.verify(&options, &|_| {}).await.unwrap();
    assert!(report.agrees(), "{report:?}");
    unisono.close().await.unwrap();
}

#[derive(Debug, PartialEq, serde::Deserialize)]
struct Sale {
    product_id: String,
    sold: i64,
}

fn texts(step: &Step<Sale>) -> Vec<String> {
    let text = |(key, row): &(Key, Option<Sale>)| match row {
        Some(sale) => format!("{}={}", sale.product_id, sale.sold),
        None => format!("-{key}"),
    };
    step.rows.iter().map(text).collect()
}

#[tokio::test]
async fn rows_are_followed_in_whole_steps_also_across_a_swap() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(&folder, &format!("{ENTITIES}{SALES}")).await;
    write(&unisono, "o1", order("kim", "open", &[("p", 2, "1.00"), ("q", 1, "1.00")])).await;
    settled(&unisono).await;
    let sales = unisono.entity::<Sale>("product_sales").unwrap();
    let mut followed = sales.follow_rows(None).await.unwrap();
    let all = followed.next().await.unwrap();
    assert_eq!((all.anew, texts(&all)), (true, vec!["p=2".into(), "q=1".into()]));
    write(&unisono, "o2", order("kim", "open", &[("p", 3, "1.00"), ("r", 1, "1.00")])).await;
    let step = followed.next().await.unwrap();
    assert_eq!((step.anew, texts(&step)), (false, vec!["p=5".into(), "r=1".into()]));

    // Another version gives no steps by itself: its rows are the same.
    unisono.engine().rebuild_projection("product_sales").await.unwrap();
    versions(&unisono, |found| found.version == 2).await;
    write(&unisono, "o2", order("kim", "open", &[("p", 4, "1.00")])).await;
    let after = followed.next().await.unwrap();
    assert_eq!((after.anew, texts(&after)), (false, vec!["p=6".into(), "-r".into()]));
    assert!(after.position > step.position && followed.position() == Some(after.position));

    // Who comes back is given what it lacks.
    let mut again = sales.follow_rows(Some(all.position)).await.unwrap();
    assert_eq!(texts(&again.next().await.unwrap()), texts(&step));
    assert_eq!(texts(&again.next().await.unwrap()), texts(&after));
    let head = unisono.engine().log_of("product_sales").unwrap();
    let head = unisono.engine().head_token().await.unwrap().position(&head);
    let error = sales.follow_rows(Some(head.plus(100))).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let orders = unisono.entity::<Sale>("orders").unwrap();
    let error = orders.follow_rows(None).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    unisono.close().await.unwrap();
}
