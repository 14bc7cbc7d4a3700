//! What only a server shows: the documents as others see them, racing writers, a server that goes away, wrong options.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{ClientOptions, Tls, TlsOptions};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::query::{Aggregate, Comparison, Filter, Metric, Path, Query};
use unisono_core::source::{Advance, Batch, Binding, Checkpoint, Follower, Outcome, Source};
use unisono_core::{Change, Entity, ErrorKind, Key, Position, Result, Role, Value};
use unisono_source_mongodb::Mongodb;
use unisono_testkit::{Changes, ManualClock, Sample};

/// A database of a running server that no other test uses.
struct Server {
    url: String,
    tls_ca: String,
    database: String,
}

impl Server {
    fn of(file: &str) -> Server {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
        let file = PathBuf::from(base).join("mongodb").join(file);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| {
            panic!("{}: {e}\n    start it: engines/up mongodb", file.display())
        });
        let table: toml::Table = toml::from_str(&text).unwrap();
        let text = |name: &str| table[name].as_str().unwrap().to_owned();
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let database = format!("s{}_{n}", std::process::id());
        Server { url: text("url"), tls_ca: text("tls_ca"), database }
    }

    fn standalone() -> Server {
        Server::of("source.toml")
    }

    fn options(&self) -> Options {
        let text = |t: &str| OptionValue::Text(t.to_owned());
        Options(BTreeMap::from([
            ("url".to_owned(), text(&self.url)),
            ("tls_ca".to_owned(), text(&self.tls_ca)),
            ("database".to_owned(), text(&self.database)),
            ("connect_timeout".to_owned(), OptionValue::Duration(Duration::from_secs(3))),
            ("request_timeout".to_owned(), OptionValue::Duration(Duration::from_secs(30))),
        ]))
    }

    async fn open(&self) -> Result<Arc<dyn Source>> {
        open(&self.options()).await
    }

    async fn following(&self, entity: &Arc<Entity>) -> Arc<dyn Source> {
        let source = self.open().await.unwrap();
        source.prepare(&[binding(entity)]).await.unwrap();
        source
    }

    /// What another program sees.
    async fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        let mut options = ClientOptions::parse(&self.url).await.unwrap();
        let tls = TlsOptions::builder().ca_file_path(PathBuf::from(&self.tls_ca)).build();
        options.tls = Some(Tls::Enabled(tls));
        let client = mongodb::Client::with_options(options).unwrap();
        client.database(&self.database).collection(name)
    }
}

async fn open(options: &Options) -> Result<Arc<dyn Source>> {
    let environment = Environment { data: "/".into(), clock: Arc::new(ManualClock::new()) };
    Mongodb.open("docs", options, &environment).await
}

fn binding(entity: &Arc<Entity>) -> Binding {
    Binding {
        entity: Arc::clone(entity),
        role: Role::Follower,
        place: Arc::clone(entity.name()),
        options: Options::default(),
    }
}

fn follower(source: &Arc<dyn Source>) -> Arc<dyn Follower> {
    Arc::clone(source).follower().unwrap()
}

fn batch(entity: &Arc<Entity>, changes: &[Arc<Change>]) -> Batch {
    let (entity, changes) = (Arc::clone(entity), changes.to_vec());
    Batch { entity, changes, copied: false, advance: None }
}

fn product(id: &str, stock: i64) -> unisono_core::Record {
    Sample::record(&Sample::product(), &json!({"id": id, "name": "x", "stock": stock}))
}

async fn get(source: &Arc<dyn Source>, id: &str) -> Result<Option<unisono_core::Stored>> {
    let reader = Arc::clone(source).reader().unwrap();
    Ok(reader.get(&Sample::product(), &[Sample::key(id)]).await?.value.remove(0))
}

#[tokio::test]
async fn other_programs_can_read_the_documents() {
    let (server, entity) = (Server::standalone(), Sample::product());
    let source = server.following(&entity).await;
    let mut changes = Changes::new();
    let some = [
        changes.put(&entity, product("a", 3)),
        changes.put(&entity, product("b", 4)),
        changes.delete(&entity, &Sample::key("b")),
    ];
    let to = Checkpoint { log: changes.log, position: changes.head(), backfill: None };
    for change in &some {
        follower(&source).apply(batch(&entity, std::slice::from_ref(change))).await.unwrap();
    }
    let advance = Some(Advance { from: None, to: to.clone() });
    follower(&source).apply(Batch { advance, ..batch(&entity, &[]) }).await.unwrap();
    let collection = server.collection("product").await;
    let found = collection.find_one(doc! { "stock": { "$gte": 3 } }).await.unwrap();
    let expected = doc! { "_id": "a", "name": "x", "stock": 3_i64, "_v": 1_i64 };
    assert_eq!(found, Some(expected));
    let records = collection.count_documents(doc! { "_note": Bson::Null }).await.unwrap();
    assert_eq!(records, 1, "the notes are told apart by their field");
    // The deletion is remembered until the checkpoint has passed it.
    let deleted = doc! { "_note": "deleted" };
    assert_eq!(collection.count_documents(deleted.clone()).await.unwrap(), 1);
    let next = Checkpoint { position: Position::new(9).unwrap(), ..to.clone() };
    let advance = Some(Advance { from: Some(to), to: next });
    follower(&source).apply(Batch { advance, ..batch(&entity, &[]) }).await.unwrap();
    assert_eq!(collection.count_documents(deleted).await.unwrap(), 0);
}

#[tokio::test]
async fn what_others_wrote_is_passed_over_or_replaced() {
    let (server, entity) = (Server::standalone(), Sample::product());
    let source = server.following(&entity).await;
    let collection = server.collection("product").await;
    let foreign = doc! { "name": "of another program" };
    let by_hand = doc! { "_id": "a", "name": "by hand" };
    collection.insert_many([foreign, by_hand]).await.unwrap();
    let reader = Arc::clone(&source).reader().unwrap();
    let page = reader.query(&entity, &Query::all()).await.unwrap().value;
    let found: Vec<_> = page.hits.iter().map(|h| h.stored.key.to_string()).collect();
    assert_eq!(found, ["a"]);
    let change = Changes::new().put(&entity, product("a", 1));
    let applied = follower(&source).apply(batch(&entity, &[change])).await.unwrap();
    assert!(matches!(applied.outcomes[..], [Outcome::Applied]), "{applied:?}");
    assert_eq!(get(&source, "a").await.unwrap().unwrap().version.as_u64(), 1);
}

#[tokio::test]
async fn a_collection_of_another_program_is_left_alone() {
    let (server, entity) = (Server::standalone(), Sample::product());
    let collection = server.collection("product").await;
    collection.insert_one(doc! { "_id": "a", "name": "theirs" }).await.unwrap();
    let source = server.open().await.unwrap();
    let error = source.prepare(&[binding(&entity)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
    assert!(error.hint_text().is_some_and(|h| h.contains("another collection")), "{error:?}");
    assert_eq!(collection.count_documents(doc! {}).await.unwrap(), 1, "nothing was written");
}

#[tokio::test]
async fn of_writers_that_race_the_newest_wins() {
    for file in ["source.toml", "replica-set.toml"] {
        let (server, entity) = (Server::of(file), Sample::product());
        let sources = [server.following(&entity).await, server.following(&entity).await];
        let mut changes = Changes::new();
        for round in 0..20 {
            let versions: Vec<_> =
                (0..8).map(|n| changes.put(&entity, product(&format!("k{round}"), n))).collect();
            // All make the same document at once; nothing but the condition of each orders them.
            let applied = versions.iter().rev().enumerate().map(|(n, change)| {
                let follower = follower(&sources[n % 2]);
                let batch = batch(&entity, std::slice::from_ref(change));
                async move { follower.apply(batch).await.unwrap().outcomes.remove(0) }
            });
            for outcome in futures::future::join_all(applied).await {
                assert!(matches!(outcome, Outcome::Applied | Outcome::Stale), "{outcome:?}");
            }
            let found = get(&sources[0], &format!("k{round}")).await.unwrap().unwrap();
            assert_eq!(found.version, changes.head(), "{file}, round {round}");
        }
    }
}

#[tokio::test]
async fn a_replica_set_is_used_with_transactions() {
    let server = Server::of("replica-set.toml");
    let probe = server.open().await.unwrap().probe().await.unwrap();
    assert!(probe.engine.contains("with transactions"), "{}", probe.engine);
    let probe = Server::standalone().open().await.unwrap().probe().await.unwrap();
    assert!(probe.engine.contains("without transactions"), "{}", probe.engine);
}

#[tokio::test]
async fn an_index_that_somebody_added_rejects_single_changes() {
    for file in ["source.toml", "replica-set.toml"] {
        let (server, entity) = (Server::of(file), Sample::product());
        let source = server.following(&entity).await;
        let options = mongodb::options::IndexOptions::builder().unique(true).build();
        let index =
            mongodb::IndexModel::builder().keys(doc! { "stock": 1 }).options(options).build();
        server.collection("product").await.create_index(index).await.unwrap();
        let mut changes = Changes::new();
        let some: Vec<_> = [("a", 1), ("b", 1), ("c", 2)]
            .map(|(id, stock)| changes.put(&entity, product(id, stock)))
            .into();
        let to = Checkpoint { log: changes.log, position: changes.head(), backfill: None };
        let advance = Some(Advance { from: None, to });
        let applied =
            follower(&source).apply(Batch { advance, ..batch(&entity, &some) }).await.unwrap();
        // Stale where the test server does not undo what the transaction wrote before it was refused.
        let [
            Outcome::Applied | Outcome::Stale,
            Outcome::Rejected(error),
            Outcome::Applied | Outcome::Stale,
        ] = &applied.outcomes[..]
        else {
            panic!("{file}: {applied:?}")
        };
        assert_eq!(error.kind(), ErrorKind::ConstraintViolated);
        assert!(!applied.advanced, "the checkpoint passed a rejected change");
    }
}

#[tokio::test]
async fn big_answers_come_in_several_batches() {
    let (server, entity) = (Server::standalone(), Sample::product());
    let source = server.following(&entity).await;
    let mut changes = Changes::new();
    let some: Vec<_> =
        (0..2500).map(|n| changes.put(&entity, product(&format!("k{n:04}"), n % 7))).collect();
    for some in some.chunks(2000) {
        let applied = follower(&source).apply(batch(&entity, some)).await.unwrap();
        assert!(applied.outcomes.iter().all(|o| matches!(o, Outcome::Applied)));
    }
    let keys: Vec<Key> = (0..2500).map(|n| Sample::key(&format!("k{n:04}"))).collect();
    let reader = Arc::clone(&source).reader().unwrap();
    let found = reader.get(&entity, &keys).await.unwrap().value;
    assert!(found.iter().all(Option::is_some), "a key is missing");
    let count = Aggregate {
        filter: Filter::Compare(Path::whole(4), Comparison::Lt, Value::Integer(5)),
        unnest: None,
        group_by: vec![Path::whole(0)],
        metrics: vec![("sum".into(), Metric::Sum(Path::whole(4)))],
        order: vec![],
        limit: 10,
    };
    let groups = reader.aggregate(&entity, &count).await.unwrap().value;
    assert_eq!(groups.total_groups, 2500 / 7 * 5 + 1);
    let auditor = Arc::clone(&source).auditor().unwrap();
    let page = auditor.scan(&entity, None, 5000).await.unwrap().value;
    assert_eq!((page.records.len(), page.end), (2500, true));
}

/// Passes connections on to a server until it is dropped.
struct Proxy {
    address: std::net::SocketAddr,
    _accepting: JoinSet<()>,
}

impl Proxy {
    async fn before(server: &str, address: &str) -> Proxy {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, server) = (listener.local_addr().unwrap(), server.to_owned());
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let server = server.clone();
                passing.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(server).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Proxy { address, _accepting: accepting }
    }
}

#[tokio::test]
async fn a_server_that_was_away_is_found_again() {
    let (mut server, entity) = (Server::standalone(), Sample::product());
    let behind = server.url.trim_start_matches("mongodb://").trim_end_matches('/').to_owned();
    let proxy = Proxy::before(&behind, "127.0.0.1:0").await;
    let address = proxy.address.to_string();
    server.url = format!("mongodb://{address}/");
    let source = server.following(&entity).await;
    let mut changes = Changes::new();
    let change = changes.put(&entity, product("a", 1));
    follower(&source).apply(batch(&entity, &[change])).await.unwrap();
    drop(proxy);
    let next = changes.put(&entity, product("a", 2));
    let error = follower(&source).apply(batch(&entity, &[Arc::clone(&next)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let error = get(&source, "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let _proxy = Proxy::before(&behind, &address).await;
    let applied = follower(&source).apply(batch(&entity, &[next])).await.unwrap();
    assert!(matches!(applied.outcomes[..], [Outcome::Applied]), "{applied:?}");
    assert_eq!(get(&source, "a").await.unwrap().unwrap().version.as_u64(), 2);
}

/// The error of opening a source under changed options.
async fn refused(change: impl FnOnce(&mut Server)) -> unisono_core::Error {
    let mut server = Server::standalone();
    change(&mut server);
    let mut options = server.options();
    let second = OptionValue::Duration(Duration::from_secs(1));
    options.0.insert("connect_timeout".into(), second);
    open(&options).await.err().unwrap()
}

#[tokio::test]
async fn wrong_options_give_one_clear_error() {
    // A port that was free a moment ago.
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = refused(|s| s.url = format!("mongodb://user:secret@{nowhere}/")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.hint_text().is_some_and(|h| h.contains("`url`")), "{error:?}");
    assert_eq!(error.source_name(), Some("docs"));
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");

    let error = refused(|s| s.tls_ca = "/nowhere/ca.pem".into()).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");

    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("ca.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    std::fs::write(&other, authority.pem()).unwrap();
    let error = refused(|s| s.tls_ca = other.display().to_string()).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.hint_text().is_some_and(|h| h.contains("`tls_ca`")), "{error:?}");

    // A certificate for another name than the one in the url.
    let behind = Server::standalone().url;
    let behind = behind.trim_start_matches("mongodb://").trim_end_matches('/');
    let proxy = Proxy::before(behind, "127.0.0.2:0").await;
    let error = refused(|s| s.url = format!("mongodb://{}/", proxy.address)).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.hint_text().is_some_and(|h| h.contains("`tls_ca`")), "{error:?}");
}
