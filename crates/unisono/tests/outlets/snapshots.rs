//! Aggregates from their snapshots: the same as from all their events, whatever becomes of either.

use serde::{Deserialize, Serialize};
use serde_json::json;
use unisono::core::ErrorKind;
use unisono::core::stream::Expected;
use unisono::{Aggregate, Registry, Snapshot, Snapshots, Streams, Unisono, config};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Moved {
    By { amount: i64 },
}

/// The sum of what came, and how many events have been applied in this process.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sum {
    sum: i64,
    #[serde(skip)]
    applied: u64,
}

impl Aggregate for Sum {
    type Event = Moved;

    fn apply(&mut self, Moved::By { amount }: Moved) {
        self.sum += amount;
        self.applied += 1;
    }
}

impl Snapshot for Sum {
    const SCHEMA: u32 = 1;
}

/// The same of a later version, which counts in another way.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Twice(i64);

impl Aggregate for Twice {
    type Event = Moved;

    fn apply(&mut self, Moved::By { amount }: Moved) {
        self.0 += 2 * amount;
    }
}

impl Snapshot for Twice {
    const SCHEMA: u32 = 2;
}

async fn open(personal: &str) -> Unisono {
    let text = format!(
        "[sources]\nmain = {{ kind = \"memory\" }}\nkeys = {{ kind = \"memory\" }}\n[streams.order]\ntruth = \"main\"\n{personal}"
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    Unisono::open(parsed.unwrap_or_else(|report| panic!("{report}"))).await.unwrap()
}

fn streams(unisono: &Unisono) -> Streams<Moved> {
    unisono.streams("order").unwrap()
}

async fn append(streams: &Streams<Moved>, amounts: std::ops::Range<i64>) {
    for amount in amounts {
        streams.append("a", Expected::Any, &[Moved::By { amount }]).await.unwrap();
    }
}

#[tokio::test]
async fn an_aggregate_is_loaded_from_its_snapshot_and_what_came_since() {
    let unisono = open("").await;
    let streams = streams(&unisono);
    let sums: Snapshots<Sum> = streams.snapshots(10).unwrap();
    assert_eq!(sums.load("a").await.unwrap(), (Sum::default(), 0));
    append(&streams, 0..9).await;
    sums.load("a").await.unwrap();
    assert_eq!(sums.kept("a").await.unwrap(), None, "there are fewer than ten");
    append(&streams, 9..12).await;
    let (all, revision) = sums.load("a").await.unwrap();
    assert_eq!((all.sum, all.applied, revision), (66, 12, 12));
    assert_eq!(sums.kept("a").await.unwrap(), Some(12));
    append(&streams, 12..15).await;
    let (sum, revision) = sums.load("a").await.unwrap();
    assert_eq!((sum.sum, sum.applied, revision), (105, 3, 15), "only what came since is read");
    let (folded, _) = streams.load::<Sum>("a").await.unwrap();
    assert_eq!(folded.sum, sum.sum);
    let appended = sums.decide("a", |sum| Ok(vec![Moved::By { amount: -sum.sum }])).await.unwrap();
    assert_eq!(appended.unwrap().events[0].revision, 16);
    assert_eq!(sums.load("a").await.unwrap().0.sum, 0);
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_of_another_schema_or_of_another_stream_is_not_used() {
    let unisono = open("").await;
    let streams = streams(&unisono);
    let sums: Snapshots<Sum> = streams.snapshots(2).unwrap();
    append(&streams, 0..4).await;
    sums.load("a").await.unwrap();
    assert_eq!(sums.kept("a").await.unwrap(), Some(4));
    let twice: Snapshots<Twice> = streams.snapshots(2).unwrap();
    assert_eq!(twice.load("a").await.unwrap().0.0, 12, "it is folded anew");
    assert_eq!(twice.kept("a").await.unwrap(), Some(4));
    assert_eq!(sums.kept("a").await.unwrap(), None, "the other way round as well");

    // One that is beyond the stream, as after a restore, and one after another event than is there.
    let engine = unisono.engine();
    for (revision, event) in [(9, "any"), (3, "another")] {
        let version = engine.snapshot("order", "a").await.unwrap().map(|kept| kept.version);
        let data =
            json!({"schema": 1, "revision": revision, "event": event, "state": {"sum": 1000}});
        engine.keep_snapshot("order", "a", data, version).await.unwrap();
        assert_eq!(sums.kept("a").await.unwrap(), None);
        assert_eq!(streams.snapshots::<Sum>(1000).unwrap().load("a").await.unwrap().0.sum, 6);
    }
    let stale = engine.keep_snapshot("order", "a", json!({}), None).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::VersionConflict, "a newer one is not overwritten");

    sums.load("a").await.unwrap();
    assert_eq!(sums.kept("a").await.unwrap(), Some(4));
    streams.delete("a").await.unwrap();
    assert!(engine.snapshot("order", "a").await.unwrap().is_none(), "it goes with its stream");
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn what_is_personal_is_kept_in_no_snapshot() {
    let secret = "A".repeat(43);
    let unisono = open(&format!(
        "personal = {{ fields = [\"data.name\"], subject = \"stream\" }}\n[personal]\nkeys = \"keys\"\nsecret = \"{secret}=\"\n"
    ))
    .await;
    let refused = streams(&unisono).snapshots::<Sum>(1).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    unisono.close().await.unwrap();
}
