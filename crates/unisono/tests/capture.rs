//! What other programs write to a captured table reaches everything that is derived from it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Consistency, Context, ErrorKind, Key, Operation, Position, Version};
use unisono::engine::verify::report::VerifyOptions;
use unisono::sqlite::record_in;
use unisono::sqlite::rusqlite::Connection;
use unisono::{Handle, Registry, Unisono, config};

const CONFIGURATION: &str = r#"
[sources.main]
kind = "sqlite"
path = "shop.db"
[sources.copy]
kind = "memory"
[sources.cache]
kind = "memory"
[sources.search]
kind = "tantivy"
path = "search"
[entities.product]
key = "id"
truth = "main"
table = "products"
capture = "trigger"
[entities.product.fields]
id = "integer"
name = { type = "string", required = true, search = true }
price = "decimal(12,2)"
[entities.product.cache]
source = "cache"
[[entities.product.followers]]
source = "copy"
where = "record.price > 1"
[[entities.product.followers]]
source = "search"
"#;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

async fn open(folder: &Path) -> Unisono {
    let registry = Registry::builtin();
    let mut configuration =
        config::parse(CONFIGURATION, "test.toml", &registry, &config::Process).unwrap();
    configuration.data = folder.to_owned();
    Unisono::open(configuration).await.unwrap()
}

/// The table of an application, and its connection.
fn shop(folder: &Path) -> Connection {
    let connection = Connection::open(folder.join("shop.db")).unwrap();
    connection.busy_timeout(LONG).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price DECIMAL(12,2));
             INSERT OR IGNORE INTO products VALUES (1, 'tea', 3.5), (2, 'milk', 1.19)",
        )
        .unwrap();
    connection
}

/// Waits, without a write of our own, until everything derived has what is committed.
async fn settled(unisono: &Unisono, after: Position) -> Position {
    let engine = unisono.engine();
    let (log, _) = engine.logs().await.unwrap().remove(0);
    assert!(!engine.changes(&log, after, 1, LONG).await.unwrap().is_empty(), "nobody is told");
    let token = engine.head_token().await.unwrap();
    engine.wait_applied(&token, LONG).await.unwrap();
    token.position(&log)
}

async fn version(unisono: &Unisono, id: i64) -> Version {
    let (engine, context) = (unisono.engine(), Context::default());
    let entity = Arc::clone(engine.entity("product").unwrap());
    let answer = engine.get(&context, &entity, &Key::Integer(id)).await.unwrap();
    answer.value.unwrap().version
}

async fn found(products: &Handle<Json>, words: &str) -> Vec<Json> {
    products.find().search(words).page().await.unwrap().items
}

#[tokio::test]
async fn writes_of_others_arrive_in_the_log_in_followers_and_in_caches() {
    let folder = tempfile::tempdir().unwrap();
    let other = shop(folder.path());
    let unisono = open(folder.path()).await;
    let products = unisono.entity::<Json>("product").unwrap();
    assert_eq!(products.get(1).await.unwrap().unwrap()["price"], "3.50");
    assert_eq!(products.get(1).await.unwrap().unwrap()["name"], "tea", "from the cache");
    assert!(products.get(3).await.unwrap().is_none());

    let head = unisono.engine().head_token().await.unwrap();
    let (log, bounds) = unisono.engine().logs().await.unwrap().remove(0);
    assert_eq!(head.position(&log), bounds.head);
    other
        .execute_batch(
            "UPDATE products SET name = 'green tea', price = 1 WHERE id = 1;
             INSERT INTO products VALUES (3, 'bread', 2.99);
             BEGIN; INSERT INTO products VALUES (4, 'never', 1); ROLLBACK;
             DELETE FROM products WHERE id = 2",
        )
        .unwrap();
    let head = settled(&unisono, bounds.head).await;
    assert_eq!(head.since(bounds.head), 3);
    let changes = unisono.engine().changes(&log, bounds.head, 10, LONG).await.unwrap();
    let told: Vec<_> = changes.iter().map(|c| (c.key.to_string(), c.operation)).collect();
    let expected = [("1", Operation::Put), ("3", Operation::Put), ("2", Operation::Delete)];
    assert_eq!(told, expected.map(|(key, operation)| (key.to_owned(), operation)));
    assert_eq!(changes[0].replaced, Some(bounds.head), "the version from before the log");

    assert_eq!(found(&products, "green").await.len(), 1);
    assert_eq!(found(&products, "milk").await.len(), 0);
    assert_eq!(found(&products, "bread").await[0]["id"], 3);
    products.observe(&unisono.engine().head_token().await.unwrap());
    assert_eq!(products.get(1).await.unwrap().unwrap()["name"], "green tea");
    assert!(products.get(2).await.unwrap().is_none());
    assert_eq!(
        products.get(3).await.unwrap().unwrap()["name"],
        "bread",
        "not the absence that was cached"
    );
    let report = unisono.engine().verify(&VerifyOptions::default(), &|_| {}).await.unwrap();
    assert!(report.agrees(), "{report:?}");
    assert_eq!(report.comparisons.len(), 2);
    assert_eq!(products.history(1, 10).await.unwrap().len(), 1);
    unisono.close().await.unwrap();
}

/// Whoever holds a version from before a write of others is refused at once, before anybody has been told of it.
#[tokio::test]
async fn a_condition_overlooks_no_write_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = shop(folder.path());
    let unisono = open(folder.path()).await;
    let entity = Arc::clone(unisono.engine().entity("product").unwrap());
    let held = version(&unisono, 1).await;
    other.execute_batch("UPDATE products SET price = 9 WHERE id = 1").unwrap();
    let write = |condition| Write {
        entity: Arc::clone(&entity),
        key: Key::Integer(1),
        action: Action::Patch(json!({"price": "4.00"})),
        condition,
    };
    let engine = unisono.engine();
    let refused = engine
        .write(&Context::default(), vec![write(Condition::Version(Some(held)))])
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::VersionConflict);

    let strong = Context { consistency: Consistency::Strong, ..Context::default() };
    let now = engine.get(&strong, &entity, &Key::Integer(1)).await.unwrap().value.unwrap();
    assert!(now.version > held);
    assert_eq!(refused.detail("actual"), Some(now.version.to_string().as_str()));
    engine
        .write(&Context::default(), vec![write(Condition::Version(Some(now.version)))])
        .await
        .unwrap();
    let price: f64 =
        other.query_row("SELECT price FROM products WHERE id = 1", [], |r| r.get(0)).unwrap();
    assert_eq!(price, 4.0);

    // A program that says who it is.
    let transaction = other.transaction().unwrap();
    transaction.execute("DELETE FROM products WHERE id = 1", []).unwrap();
    record_in(&transaction, "product", &Key::Integer(1), Some("cleaner")).unwrap();
    transaction.commit().unwrap();
    let history = engine.history(&strong, &entity, &Key::Integer(1), None, 10).await.unwrap();
    let actors: Vec<_> = history.iter().map(|c| c.actor.as_deref()).collect();
    assert_eq!(actors, [Some("cleaner"), None, None]);
    unisono.close().await.unwrap();
}

/// As many foreign writes as were lost must not hide from a follower that what it has was lost.
#[tokio::test]
async fn followers_of_a_restored_truth_agree_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let other = shop(path);
    let unisono = open(path).await;
    let (_, bounds) = unisono.engine().logs().await.unwrap().remove(0);
    let copy = path.join("copy.db");
    other.execute("VACUUM INTO ?1", [copy.to_str()]).unwrap();
    other.execute_batch("INSERT INTO products VALUES (7, 'lost', 2), (8, 'lost', 3)").unwrap();
    settled(&unisono, bounds.head).await;
    unisono.close().await.unwrap();
    drop(other);

    std::fs::copy(&copy, path.join("shop.db")).unwrap();
    let other = shop(path);
    for n in 20..30 {
        other.execute("INSERT INTO products VALUES (?1, 'fresh', 5)", [n]).unwrap();
    }
    let unisono = open(path).await;
    assert!(unisono.notes().iter().any(|n| n.contains("older copy")), "{:?}", unisono.notes());
    let token = unisono.engine().head_token().await.unwrap();
    unisono.engine().wait_applied(&token, LONG).await.unwrap();
    let report = unisono.engine().verify(&VerifyOptions::default(), &|_| {}).await.unwrap();
    assert!(report.agrees(), "{report:?}");
    let products = unisono.entity::<Json>("product").unwrap();
    products.observe(&token);
    assert_eq!(found(&products, "lost").await.len(), 0);
    assert_eq!(found(&products, "fresh").await.len(), 10);
    unisono.close().await.unwrap();
}

#[test]
fn a_kind_that_captures_nothing_is_refused_when_the_configuration_is_checked() {
    let registry = Registry::builtin();
    let problems = |text: &str| {
        config::parse(text, "test.toml", &registry, &config::Process).unwrap_err().to_string()
    };
    let of_memory = problems(&CONFIGURATION.replace("truth = \"main\"", "truth = \"copy\""));
    assert!(of_memory.contains("capture") && of_memory.contains("sqlite"), "{of_memory}");
    let word = problems(&CONFIGURATION.replace("\"trigger\"", "\"triggers\""));
    assert!(word.contains("did you mean `trigger`?"), "{word}");
    let of_follower = problems(&CONFIGURATION.replace("where =", "capture = \"trigger\"\nwhere ="));
    assert!(of_follower.contains("capture"), "{of_follower}");
}
