//! Fields beside their records: what a plain client finds under their keys, through changes, damage and losses.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use serde_json::json;
use unisono_core::kind::{OptionValue, Options, SourceKind};
use unisono_core::slice::Slices;
use unisono_core::source::{Auditor, Binding, Follower, Source};
use unisono_core::{Change, Entity, ErrorKind, Position, Record, Role};
use unisono_source_redis::Redis;
use unisono_testkit::{Changes, Sample};

use crate::common::{Server, ask, at, batch, binding, checkpoint, engine, open, until};

fn list(all: &[&str]) -> OptionValue {
    OptionValue::List(all.iter().map(|text| (*text).to_owned()).collect())
}

/// Products whose stock is a value and a score, and whose price is a score.
fn showing(entity: &Arc<Entity>) -> Binding {
    let mut bound = binding(entity, Role::Follower, &[("format", "hash")]);
    let options = &mut bound.options.0;
    options
        .insert("values".to_owned(), list(&["stock=product-stock:{id}:now", "name = named:{id}"]));
    options.insert("sorted_sets".to_owned(), list(&["stock=by_stock", "price=dearest"]));
    bound
}

fn product(entity: &Entity, id: &str, stock: Option<i64>, price: &str) -> Record {
    Sample::record(entity, &json!({"id": id, "name": "", "stock": stock, "price": price}))
}

/// A follower of four products on a server of the test's own, without a prefix.
struct Site {
    server: Server,
    source: Arc<dyn Source>,
    follower: Arc<dyn Follower>,
    auditor: Arc<dyn Auditor>,
    client: MultiplexedConnection,
    entity: Arc<Entity>,
    changes: Changes,
    all: Vec<Arc<Change>>,
}

impl Site {
    async fn filled() -> Site {
        let server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]).await;
        let source = open(&at(&server.url())).await.unwrap();
        let entity = Sample::product();
        source.prepare(&[showing(&entity)]).await.unwrap();
        let mut changes = Changes::new();
        let put = |n: i64| {
            changes
                .put(&entity, product(&entity, &format!("p{n}"), Some(n * 10), &format!("{n}.50")))
        };
        let all: Vec<_> = (1..5).map(put).collect();
        let (follower, auditor) =
            (source.clone().follower().unwrap(), source.clone().auditor().unwrap());
        follower.apply(batch(&entity, &changes, &all, 0, 4)).await.unwrap();
        let client = server.client().await;
        Site { server, source, follower, auditor, client, entity, changes, all }
    }

    /// All keys but those of the source's own.
    async fn keys(&mut self) -> Vec<String> {
        let mut keys: Vec<String> = ask(&mut self.client, &[b"KEYS", b"*"]).await;
        keys.retain(|key| !key.starts_with("unisono:"));
        keys.sort();
        keys
    }

    async fn get(&mut self, key: &str) -> Option<String> {
        ask(&mut self.client, &[b"GET", key.as_bytes()]).await
    }

    async fn best(&mut self, set: &str) -> Vec<String> {
        let words: [&[u8]; 5] = [b"ZREVRANGE", set.as_bytes(), b"0", b"9", b"WITHSCORES"];
        ask(&mut self.client, &words).await
    }

    async fn harm(&mut self, words: &[&str]) {
        let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
        let _: redis::Value = ask(&mut self.client, &words).await;
    }

    /// The products of which the deep comparison sees that they are not as they were written.
    async fn wrong(&self) -> Vec<String> {
        let found = self.auditor.scan(&self.entity, None, 100).await.unwrap().value.records;
        let keys: Vec<_> = self.all.iter().map(|change| change.key.clone()).collect();
        let held = self.auditor.held(&self.entity, &keys).await.unwrap().unwrap().value;
        let mut wrong = Vec::new();
        for (change, held) in self.all.iter().zip(held) {
            let scanned = found.iter().find(|stored| stored.key == change.key);
            assert_eq!(scanned, held.as_ref(), "a look and a scan tell the same");
            if held.map(|stored| stored.record) != change.image {
                wrong.push(change.key.to_string());
            }
        }
        wrong
    }

    /// The products that are missing in what the follower sums up.
    async fn missing(&self) -> Vec<String> {
        let slices = Slices::of(Position::new(1).unwrap());
        let among: Vec<_> = self.all.iter().map(|c| slices.of_version(c.position)).collect();
        let listed = self.auditor.versions(&self.entity, slices, &among).await.unwrap().value;
        let is_listed = |change: &&Arc<Change>| !listed.iter().any(|(key, _)| *key == change.key);
        self.all.iter().filter(is_listed).map(|change| change.key.to_string()).collect()
    }

    async fn repair(&self) {
        let mut copies = batch(&self.entity, &self.changes, &self.all, 0, 4);
        (copies.advance, copies.copied) = (None, true);
        self.follower.apply(copies).await.unwrap();
    }
}

#[tokio::test]
async fn a_plain_client_reads_values_and_the_best() {
    let mut site = Site::filled().await;
    let (entity, from) = (Arc::clone(&site.entity), 4);
    assert_eq!(site.get("product-stock:p3:now").await.as_deref(), Some("30"));
    assert_eq!(site.get("named:p3").await.as_deref(), Some(""), "empty text is a value");
    assert_eq!(site.best("by_stock").await[..4], ["p4", "40", "p3", "30"]);
    assert_eq!(site.best("dearest").await[..2], ["p4", "4.5"]);
    let hash: String = ask(&mut site.client, &[b"HGET", b"product:p3", b"price"]).await;
    assert_eq!(hash, "3.50", "the record itself is there as always");
    // One rises, one loses its number, one goes, and an old change comes late.
    let steps = [
        site.changes.put(&entity, product(&entity, "p1", Some(99), "1.50")),
        site.changes.put(&entity, product(&entity, "p2", None, "2.50")),
        site.changes.delete(&entity, &Sample::key("p4")),
    ];
    let advancing = batch(&entity, &site.changes, &steps, from, 7);
    site.follower.apply(advancing).await.unwrap();
    site.repair().await;
    assert_eq!(site.get("product-stock:p1:now").await.as_deref(), Some("99"));
    assert_eq!(site.get("product-stock:p2:now").await, None, "null is no value");
    assert_eq!(site.best("by_stock").await, ["p1", "99", "p3", "30"]);
    assert_eq!(site.best("dearest").await, ["p3", "3.5", "p2", "2.5", "p1", "1.5"]);
    site.all = vec![Arc::clone(&steps[0]), Arc::clone(&steps[1]), Arc::clone(&site.all[2])];
    assert_eq!((site.wrong().await, site.missing().await), (vec![], vec![]));
    let of = |id: &str| [format!("named:{id}"), format!("product:{id}")];
    let mut expected = [of("p1"), of("p2"), of("p3")].concat();
    let others = ["by_stock", "dearest", "product-stock:p1:now", "product-stock:p3:now"];
    expected.extend(others.map(str::to_owned));
    expected.sort();
    assert_eq!(site.keys().await, expected);
}

#[tokio::test]
async fn damage_by_hand_is_seen_and_mended() {
    let mut site = Site::filled().await;
    // What is done, what a deep comparison sees, and what the sums of versions see.
    let all = vec!["p1", "p2", "p3", "p4"];
    for (harm, wrong, missing) in [
        (vec!["SET", "product-stock:p2:now", "21"], vec!["p2"], vec![]),
        (vec!["DEL", "product-stock:p3:now"], vec!["p3"], vec!["p3"]),
        (vec!["LPUSH", "named:p9", "x"], vec![], vec![]),
        (vec!["ZADD", "by_stock", "1000", "p1"], vec!["p1"], vec![]),
        (vec!["ZREM", "dearest", "p4"], vec!["p4"], vec!["p4"]),
        (vec!["DEL", "by_stock"], all.clone(), all.clone()),
        (vec!["SET", "by_stock", "another type"], all.clone(), all.clone()),
        (vec!["HSET", "product:p2", "stock", "many"], vec!["p2"], vec![]),
    ] {
        assert_eq!(site.wrong().await, Vec::<String>::new(), "before {harm:?}");
        site.harm(&harm).await;
        assert_eq!(site.wrong().await, wrong, "{harm:?}");
        assert_eq!(site.missing().await, missing, "{harm:?}");
        site.repair().await;
        assert_eq!(site.wrong().await, Vec::<String>::new(), "after {harm:?}");
    }
    assert_eq!(site.best("by_stock").await.len(), 8);
}

#[tokio::test]
async fn a_reset_takes_its_own_keys_and_no_others() {
    let mut site = Site::filled().await;
    for other in ["by_stock2", "product-stock:p3", "product-stock:x:now", "named"] {
        site.harm(&["SET", other, "of somebody else"]).await;
    }
    site.follower.reset(&site.entity).await.unwrap();
    assert_eq!(
        site.keys().await,
        ["by_stock2", "named", "product-stock:p3", "product-stock:x:now"]
    );
    assert_eq!(site.follower.checkpoint(&site.entity).await.unwrap(), None);
}

#[tokio::test]
async fn an_emptied_or_older_server_is_noticed_with_its_values() {
    let mut site = Site::filled().await;
    let entity = Arc::clone(&site.entity);
    let saved = site.server.folder.join("saved");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
        assert!(done.unwrap().success());
    };
    copy(&site.server.folder.join("appendonlydir"), &saved);
    let sold = site.changes.put(&entity, product(&entity, "p1", Some(7), "1.50"));
    let advancing = batch(&entity, &site.changes, std::slice::from_ref(&sold), 4, 5);
    site.follower.apply(advancing.clone()).await.unwrap();
    // An older copy takes the place of the data: values, scores and checkpoint are of one earlier moment.
    site.server.kill();
    std::fs::remove_dir_all(site.server.folder.join("appendonlydir")).unwrap();
    copy(&saved, &site.server.folder.join("appendonlydir"));
    site.server.again().await;
    site.client = site.server.client().await;
    let back = || async { site.follower.checkpoint(&entity).await.is_ok() };
    until("the source has found the server again", back).await;
    let at = site.follower.checkpoint(&entity).await.unwrap();
    assert_eq!(at, Some(checkpoint(&site.changes, 4)));
    assert_eq!(site.get("product-stock:p1:now").await.as_deref(), Some("10"));
    site.follower.apply(advancing).await.unwrap();
    assert_eq!(site.get("product-stock:p1:now").await.as_deref(), Some("7"));
    assert_eq!(site.best("by_stock").await[6..], ["p1", "7"]);
    // Emptied, there is no checkpoint, and everything comes again.
    site.harm(&["FLUSHALL"]).await;
    assert_eq!(site.follower.checkpoint(&entity).await.unwrap(), None);
    let mut again = site.all.clone();
    again[0] = sold;
    site.follower.apply(batch(&entity, &site.changes, &again, 0, 5)).await.unwrap();
    assert_eq!(site.best("by_stock").await[6..], ["p1", "7"]);
}

/// The end of the append-only file is cut off within a step, and the server goes on behind it: every step writes values and
/// no differences, so that half of one that is carried out with the next one does no harm.
#[tokio::test]
async fn a_torn_file_leaves_exact_values() {
    let mut site = Site::filled().await;
    let entity = Arc::clone(&site.entity);
    for round in 0..5_u64 {
        let at = site.follower.checkpoint(&entity).await.unwrap().unwrap().position.as_u64();
        let sold =
            site.changes.put(&entity, product(&entity, "p1", Some(100 + round as i64), "1.50"));
        let to = sold.position.as_u64();
        site.all[0] = sold;
        let all: Vec<_> = site.all.clone();
        site.follower.apply(batch(&entity, &site.changes, &all, at, to)).await.unwrap();
        site.server.kill();
        let folder = std::fs::read_dir(site.server.folder.join("appendonlydir")).unwrap();
        let file = folder.map(|file| file.unwrap().path());
        let file = file.filter(|path| path.to_string_lossy().contains(".incr.")).max().unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length - 20 - 60 * round).unwrap();
        site.server.again().await;
        let back = || async { site.follower.checkpoint(&entity).await.is_ok() };
        until("the source has found the server again", back).await;
        site.client = site.server.client().await;
        let now = site.follower.checkpoint(&entity).await.unwrap().unwrap().position.as_u64();
        assert!(now < to, "round {round}: the last step was torn");
        site.follower.apply(batch(&entity, &site.changes, &all, now, to)).await.unwrap();
        let expected = (100 + round).to_string();
        assert_eq!(site.get("product-stock:p1:now").await, Some(expected.clone()), "round {round}");
        assert_eq!(site.best("by_stock").await[..2], ["p1".to_owned(), expected]);
        assert_eq!(site.wrong().await, Vec::<String>::new(), "round {round}");
    }
}

#[tokio::test]
async fn what_is_shown_can_change() {
    let mut site = Site::filled().await;
    let mut bound = showing(&site.entity);
    bound.options.0.insert("values".to_owned(), list(&["stock=left:{id}"]));
    bound.options.0.remove("sorted_sets");
    let notes = site.source.prepare(&[bound]).await.unwrap();
    assert!(notes.iter().any(|n| n.contains("other values or sorted sets")), "{notes:?}");
    assert_eq!(site.keys().await, Vec::<String>::new(), "what was there went under its old keys");
    assert_eq!(site.follower.checkpoint(&site.entity).await.unwrap(), None, "it is filled anew");
    let entity = Arc::clone(&site.entity);
    site.follower.apply(batch(&entity, &site.changes, &site.all, 0, 4)).await.unwrap();
    assert_eq!(site.get("left:p2").await.as_deref(), Some("20"));
    assert_eq!(site.wrong().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_cannot_be_shown_is_refused_by_name() {
    let entity = Sample::product();
    let of = |option: &str, all: &[&str]| Options([(option.to_owned(), list(all))].into());
    for (option, all, says) in [
        ("values", &["stock"][..], "must be a field and a key"),
        ("values", &["gone=a:{id}"], "is no field of the entity"),
        ("values", &["stock=a"], "must contain the key field in braces"),
        ("values", &["stock=a:{id}:{name}"], "may contain the key field only"),
        ("values", &["stock=a:{id}", "stock=b:{id}"], "names a field twice"),
        ("values", &["stock=product:{id}"], "could have the same key"),
        ("sorted_sets", &["name=by_name"], "the field is none"),
        ("sorted_sets", &["stock=by:{id}"], "a sorted set has one key"),
        ("sorted_sets", &["stock=one", "price=one"], "could have the same key"),
    ] {
        let options = of(option, all);
        let problems = Redis.check_entity(Role::Follower, &entity, &options);
        let [(at, message)] = &problems[..] else { panic!("{option} {all:?}: {problems:?}") };
        assert!(*at == option && message.contains(says), "{at}: {message}");
    }
    let cluster = open(&engine("source-cluster.toml")).await.unwrap();
    let error = cluster.prepare(&[showing(&entity)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.hint_text().is_some_and(|hint| hint.contains("sentinels")), "{error:?}");
    // The values of one entity, and the records of another.
    let source = open(&engine("source.toml")).await.unwrap();
    source.prepare(&[showing(&entity)]).await.unwrap();
    let order = Sample::order();
    let records = [binding(&order, Role::Follower, &[("key_template", "named:{id}")])];
    let error = source.prepare(&records);
    assert_eq!(error.await.unwrap_err().kind(), ErrorKind::InvalidConfig);
}
