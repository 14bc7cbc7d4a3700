//! What the engine and people rely on: versions, checkpoints, deletions from outside, scans, life cycle.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use unisono_core::clock::SystemClock;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::query::{Comparison, Filter, Path as FieldPath, Query};
use unisono_core::source::{Binding, Outcome, Source};
use unisono_core::{Entity, ErrorKind, Field, FieldType, Role, Value};

use super::{at, batch, checkpoint, copied, delete, entity, key, place, put, versions};
use crate::Files;
use crate::codec;
use crate::follower::apply;

async fn open(data: &Path) -> Arc<dyn Source> {
    let options = BTreeMap::from([
        ("path".to_owned(), OptionValue::Text("files".to_owned())),
        ("fsync".to_owned(), OptionValue::Boolean(true)),
        ("archive".to_owned(), OptionValue::Boolean(true)),
    ]);
    let environment = Environment { data: data.to_owned(), clock: Arc::new(SystemClock) };
    Files.open("archive", &Options(options), &environment).await.unwrap()
}

fn binding(entity: Arc<Entity>) -> Binding {
    Binding {
        place: Arc::clone(entity.name()),
        entity,
        role: Role::Follower,
        options: Options::default(),
    }
}

fn outcomes(applied: &unisono_core::source::Applied) -> String {
    let letter = |o: &Outcome| match o {
        Outcome::Applied => 'a',
        Outcome::Stale => 's',
        Outcome::Rejected(_) => 'r',
        Outcome::Retry(_) => 't',
    };
    applied.outcomes.iter().map(letter).collect()
}

#[test]
fn a_deletion_is_remembered_until_the_checkpoint_has_moved_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    let file = codec::path(place.records(), &key("a"));
    apply(&place, &batch(0, 3, vec![put(1, "a"), delete(3, "a")])).unwrap();
    assert!(file.exists(), "the deletion is remembered");
    assert_eq!(outcomes(&apply(&place, &copied(vec![put(2, "a")])).unwrap()), "s");
    assert_eq!(versions(&place), []);
    apply(&place, &copied(vec![delete(5, "b")])).unwrap();
    apply(&place, &batch(3, 4, vec![])).unwrap();
    assert!(!file.exists(), "the deletion is outlived");
    assert!(codec::path(place.records(), &key("b")).exists(), "the checkpoint is not there yet");
}

#[test]
fn a_batch_decides_by_the_versions_that_it_brings_itself() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    let changes = vec![put(3, "a"), put(2, "a"), put(3, "a"), put(4, "a")];
    let applied = apply(&place, &batch(0, 4, changes));
    assert_eq!(outcomes(&applied.unwrap()), "assa");
    assert_eq!(versions(&place), [("a".to_owned(), 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_a_part_of_a_batch() {
    let data = tempfile::tempdir().unwrap();
    let source = open(data.path()).await;
    source.prepare(&[binding(entity())]).await.unwrap();
    let follower = Arc::clone(&source).follower().unwrap();
    let reader = source.reader().unwrap();
    let keys: Vec<_> = (0..20).map(|n| key(&format!("k{n}"))).collect();
    let all = |n: u64| keys.iter().map(|k| put(n, &k.to_string())).collect();
    follower.apply(batch(0, 1, all(1))).await.unwrap();
    let write = async {
        for n in 2..=40 {
            follower.apply(batch(n - 1, n, all(n))).await.unwrap();
        }
    };
    let read = async {
        loop {
            let got = reader.get(&entity(), &keys).await.unwrap();
            let versions: Vec<_> = got.value.iter().map(|s| s.as_ref().unwrap().version).collect();
            assert_eq!(versions, [got.position; 20]);
            if got.position == at(40) {
                return;
            }
        }
    };
    tokio::join!(write, read);
}

#[test]
fn a_remembered_deletion_is_let_go_after_a_restart_once_it_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    apply(&place(folder.path()), &batch(0, 3, vec![put(1, "a"), delete(3, "a")])).unwrap();
    let place = place(folder.path());
    assert_eq!(versions(&place), []);
    apply(&place, &batch(3, 4, vec![])).unwrap();
    assert!(!codec::path(place.records(), &key("a")).exists());
}

#[test]
fn a_batch_from_elsewhere_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    apply(&place, &batch(0, 1, vec![put(1, "a")])).unwrap();
    let error = apply(&place, &batch(2, 3, vec![put(3, "a")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CheckpointMoved);
    assert_eq!((error.detail("expected"), error.detail("actual")), (Some("2"), Some("1")));
    assert_eq!(versions(&place), [("a".to_owned(), 1)]);
    assert_eq!(super::archived(folder.path()), [1]);
}

#[test]
fn what_was_deleted_from_outside_takes_the_checkpoint_with_it() {
    for victim in ["", "records", "records/.incarnation", "checkpoint.json"] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("product");
        let place = place(&folder);
        apply(&place, &batch(0, 2, vec![put(1, "a"), put(2, "b")])).unwrap();
        assert_eq!(place.checkpoint().unwrap(), Some(checkpoint(2)));
        let victim = folder.join(victim);
        if victim.is_dir() {
            std::fs::remove_dir_all(&victim)
        } else {
            std::fs::remove_file(&victim)
        }
        .unwrap();
        assert_eq!(place.checkpoint().unwrap(), None, "without {victim:?}");
        let applied =
            apply(&place, &batch(0, 3, vec![put(1, "a"), put(2, "b"), put(3, "c")])).unwrap();
        assert!(applied.advanced);
        assert_eq!(place.checkpoint().unwrap(), Some(checkpoint(3)));
        assert_eq!(versions(&place).len(), 3, "without {victim:?}");
    }
}

#[test]
fn a_state_from_the_truth_repairs_what_was_changed_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    apply(&place, &batch(0, 1, vec![put(1, "a")])).unwrap();
    let file = codec::path(place.records(), &key("a"));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("a at 1", "mine")).unwrap();
    let mut again = copied(vec![put(1, "a")]);
    again.copied = false;
    assert_eq!(outcomes(&apply(&place, &again).unwrap()), "s");
    assert_eq!(outcomes(&apply(&place, &copied(vec![put(1, "a")])).unwrap()), "a");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    assert_eq!(outcomes(&apply(&place, &copied(vec![put(1, "a")])).unwrap()), "s");
    std::fs::write(&file, "{ half").unwrap();
    assert_eq!(outcomes(&apply(&place, &copied(vec![put(1, "a")])).unwrap()), "a");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn one_process_writes_and_the_next_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (place(folder.path()), place(folder.path()));
    apply(&one, &batch(0, 1, vec![put(1, "a")])).unwrap();
    let error = apply(&two, &batch(1, 2, vec![put(2, "a")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(versions(&two), [("a".to_owned(), 1)], "reading needs no right");
    one.release();
    assert!(apply(&two, &batch(1, 2, vec![put(2, "a")])).unwrap().advanced);
}

#[tokio::test]
async fn a_scan_reads_files_in_the_order_of_keys_and_sees_what_people_do_to_them() {
    let data = tempfile::tempdir().unwrap();
    let source = open(data.path()).await;
    source.prepare(&[binding(entity())]).await.unwrap();
    let (follower, auditor) =
        (Arc::clone(&source).follower().unwrap(), Arc::clone(&source).auditor().unwrap());
    let long = "x".repeat(400);
    let ids = ["b", "B", "a/b", "ä", "10", "9", long.as_str()];
    let changes = ids
        .iter()
        .enumerate()
        .map(|(n, id)| put(n as u64 + 1, id))
        .chain([delete(8, "9")])
        .collect();
    follower.apply(batch(0, 8, changes)).await.unwrap();
    let scan = async |limit: usize| {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = auditor.scan(&entity(), after.as_ref(), limit).await.unwrap();
            assert_eq!(page.position, at(8));
            assert!(page.value.records.len() <= limit);
            keys.extend(page.value.records.iter().map(|r| r.key.to_string()));
            if page.value.end {
                return keys;
            }
            after = page.value.records.last().map(|r| r.key.clone());
        }
    };
    let sorted = ["10", "B", "a/b", "b", long.as_str(), "ä"];
    for limit in [1, 2, 3, 6, 100] {
        assert_eq!(scan(limit).await, sorted, "limit {limit}");
    }
    let records = data.path().join("files/product/records");
    std::fs::remove_file(codec::path(&records, &key("10"))).unwrap();
    std::fs::write(codec::path(&records, &key("B")), "nonsense").unwrap();
    let by_hand = codec::path(&records, &key("hand"));
    std::fs::create_dir_all(by_hand.parent().unwrap()).unwrap();
    std::fs::write(by_hand, r#"{"key": "hand", "version": "1", "record": {"id": "hand"}}"#)
        .unwrap();
    assert_eq!(scan(2).await, ["a/b", "b", "hand", long.as_str(), "ä"]);
    let error = source.reader().unwrap().get(&entity(), &[key("B")]).await.unwrap_err();
    assert_eq!((error.kind(), error.source_name()), (ErrorKind::Corrupt, Some("archive")));
}

#[tokio::test]
async fn questions_are_answered_from_the_files() {
    let data = tempfile::tempdir().unwrap();
    let source = open(data.path()).await;
    source.prepare(&[binding(entity())]).await.unwrap();
    let changes = (1..=100).map(|n| put(n, &format!("p{n:03}"))).collect();
    Arc::clone(&source).follower().unwrap().apply(batch(0, 100, changes)).await.unwrap();
    let reader = Arc::clone(&source).reader().unwrap();
    let filter = Filter::Compare(FieldPath::whole(2), Comparison::Gt, Value::Integer(90));
    assert_eq!(reader.count(&entity(), &filter, None).await.unwrap().value, 10);
    let page = reader.query(&entity(), &Query { filter, limit: 4, ..Query::all() }).await.unwrap();
    let found: Vec<_> = page.value.hits.iter().map(|h| h.stored.key.to_string()).collect();
    assert_eq!(found, ["p091", "p092", "p093", "p094"]);
    assert_eq!(page.position, at(100));
    let got = reader.get(&entity(), &[key("p007"), key("nope"), key("p001")]).await.unwrap().value;
    let got: Vec<_> = got.iter().map(|r| r.as_ref().map(|r| r.version.as_u64())).collect();
    assert_eq!(got, [Some(7), None, Some(1)]);
    let error = reader.count(&entity(), &Filter::All, Some("word")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn prepare_adds_and_widens_and_refuses_what_cannot_be_read() {
    let data = tempfile::tempdir().unwrap();
    let source = open(data.path()).await;
    let with = |fields: Vec<Field>| {
        let fields = [vec![Field::new("id", FieldType::String)], fields].concat();
        [binding(Arc::new(Entity::new("thing", "id", fields).unwrap()))]
    };
    let narrow = || Field::new("price", FieldType::Decimal { precision: 6, scale: 2 });
    assert_eq!(source.prepare(&with(vec![narrow()])).await.unwrap().len(), 1);
    assert_eq!(source.prepare(&with(vec![narrow()])).await.unwrap(), [""; 0]);
    let wide = Field::new("price", FieldType::Decimal { precision: 9, scale: 3 });
    let said = source
        .prepare(&with(vec![wide.clone(), Field::new("note", FieldType::Text)]))
        .await
        .unwrap();
    assert_eq!(
        said,
        [
            "thing: field note added as text",
            "thing: field price widened from decimal(6,2) to decimal(9,3)"
        ]
    );
    let before = std::fs::read(data.path().join("files/thing/schema.json")).unwrap();
    for refused in [narrow(), Field::new("price", FieldType::Float)] {
        let error = source.prepare(&with(vec![refused])).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.detail("field")),
            (ErrorKind::SchemaMismatch, Some("price"))
        );
        assert!(error.hint_text().is_some());
    }
    assert_eq!(std::fs::read(data.path().join("files/thing/schema.json")).unwrap(), before);
    let mut truth = binding(entity());
    truth.role = Role::Truth;
    assert_eq!(source.prepare(&[truth]).await.unwrap_err().kind(), ErrorKind::Unsupported);
    let mut outside = binding(entity());
    outside.place = "../x".into();
    assert_eq!(source.prepare(&[outside]).await.unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn a_closed_source_answers_nothing_and_lets_the_next_one_write() {
    let data = tempfile::tempdir().unwrap();
    let first = open(data.path()).await;
    first.prepare(&[binding(entity())]).await.unwrap();
    first.probe().await.unwrap();
    let follower = Arc::clone(&first).follower().unwrap();
    follower.apply(batch(0, 1, vec![put(1, "a")])).await.unwrap();
    first.close().await.unwrap();
    assert_eq!(follower.checkpoint(&entity()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(first.probe().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let second = open(data.path()).await;
    second.prepare(&[binding(entity())]).await.unwrap();
    let follower = second.follower().unwrap();
    assert_eq!(follower.checkpoint(&entity()).await.unwrap(), Some(checkpoint(1)));
    assert!(follower.apply(batch(1, 2, vec![put(2, "a")])).await.unwrap().advanced);
    follower.reset(&entity()).await.unwrap();
    assert_eq!(follower.checkpoint(&entity()).await.unwrap(), None);
}
