//! Typed handles on a configuration with a truth, a cache and a search index.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use unisono::core::{Effect, ErrorKind};
use unisono::{Handle, Registry, Unisono, config};

const CONFIGURATION: &str = r#"
sources = { main = { kind = "sqlite", path = "main.db" }, cache = { kind = "memory" } }
[entities.item]
key = "id"
truth = "main"
fields = { id = "integer", name = { type = "string", required = true }, stock = { type = "integer", default = 1 } }
cache = { source = "cache" }
"#;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    id: i64,
    name: String,
    stock: Option<i64>,
}

fn item(id: i64, name: &str) -> Item {
    Item { id, name: name.into(), stock: Some(id * 10) }
}

async fn open(folder: &tempfile::TempDir) -> (Unisono, Handle<Item>) {
    let registry = Registry::builtin();
    let mut configuration =
        config::parse(CONFIGURATION, "test.toml", &registry, &config::Process).unwrap();
    configuration.data = folder.path().to_owned();
    let unisono = Unisono::open(configuration).await.unwrap();
    let items = unisono.entity("item").unwrap();
    (unisono, items)
}

#[tokio::test]
async fn what_is_written_is_read_and_survives_closing() {
    let folder = tempfile::tempdir().unwrap();
    let (unisono, items) = open(&folder).await;
    assert!(unisono.notes().iter().any(|note| note.contains("item")), "{:?}", unisono.notes());
    items.create(&item(1, "a")).await.unwrap();
    assert_eq!(items.create(&item(1, "b")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    // Each read comes directly after a write, and the cache holds the value from before it.
    for n in 0..100 {
        items.patch(1, json!({"stock": n})).await.unwrap();
        assert_eq!(items.get(1).await.unwrap().unwrap().stock, Some(n));
    }
    items.put(&Item { stock: None, ..item(2, "default") }).await.unwrap();
    assert_eq!(items.get(2).await.unwrap().unwrap().stock, Some(1));
    items.delete(2).await.unwrap();
    assert_eq!(items.get(2).await.unwrap(), None);
    assert_eq!(items.delete(2).await.unwrap_err().kind(), ErrorKind::NotFound);
    unisono.close().await.unwrap();

    let (unisono, items) = open(&folder).await;
    assert!(unisono.notes().is_empty(), "{:?}", unisono.notes());
    assert_eq!(items.get(1).await.unwrap().unwrap().stock, Some(99));
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn a_token_makes_another_handle_see_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (unisono, items) = open(&folder).await;
    let other = unisono.entity::<Item>("item").unwrap();
    assert!(other.token().is_empty());
    items.put(&item(1, "a")).await.unwrap();
    other.observe(&items.token());
    assert_eq!(other.token(), items.token());
    assert_eq!(other.get(1).await.unwrap(), Some(item(1, "a")));
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn pages_lead_through_all_that_match() {
    let folder = tempfile::tempdir().unwrap();
    let (unisono, items) = open(&folder).await;
    assert_eq!(items.put_all((1..=1300).map(|n| item(n, "x"))).await.unwrap(), 1300);
    let question =
        || items.find().filter("stock", "gt", 100).filter("stock", "lte", 12_000).order("-stock");
    assert_eq!(question().limit(1).count().await.unwrap(), 1190);
    assert_eq!(question().first().await.unwrap(), Some(item(1200, "x")));
    let (mut found, mut next) = (Vec::new(), None::<String>);
    loop {
        let page = match &next {
            Some(next) => question().limit(500).after(next).page().await.unwrap(),
            None => question().limit(500).page().await.unwrap(),
        };
        found.extend(page.items.iter().map(|item| item.id));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert!(found.iter().copied().eq((11..=1200).rev()));
    let wrong = items.find().filter("colour", "eq", 1).page().await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidInput);
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn a_refused_record_of_many_is_named_and_the_others_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (unisono, items) = open(&folder).await;
    let raw = unisono.entity::<Json>("item").unwrap();
    let records =
        (0..600).map(|n| if n == 550 { json!({"id": n}) } else { json!({"id": n, "name": "x"}) });
    let error = raw.put_all(records).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::InvalidInput, Effect::None));
    assert_eq!(error.detail("record"), Some("550"));
    assert_eq!(items.find().count().await.unwrap(), 599);
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn a_record_that_does_not_fit_the_type_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (unisono, items) = open(&folder).await;
    items.put(&item(1, "a")).await.unwrap();
    let numbers = unisono.entity::<Vec<i64>>("item").unwrap();
    let error = numbers.get(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.hint_text().unwrap().contains("Option"));
    assert_eq!(unisono.entity::<Item>("itme").err().unwrap().kind(), ErrorKind::NotFound);
    unisono.close().await.unwrap();
}
