//! What the sampler finds in sources that are well, late, damaged, filtered and gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use unisono::Unisono;
use unisono::core::source::Batch;
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Change, Context, Key, Operation, Position, Timestamp};
use unisono::engine::verify::report::VerifyOptions;

use crate::gated::{gate, open, open_text};
use crate::{item, pass, put, settled};

const ALL: &str = "[sampler]\none_in = 1";

/// Consistent, inconsistent and unavailable looks at a source so long after.
async fn looks(unisono: &Unisono, source: &str, delay: u64) -> (u64, u64, u64) {
    let sampler = unisono.engine().status().await.sampler.unwrap();
    let is = |s: &&unisono::engine::status::SampleStatus| {
        *s.source == *source && s.delay_seconds == delay
    };
    let found = sampler.samples.iter().find(is);
    found.map_or((0, 0, 0), |s| (s.consistent, s.inconsistent, s.unavailable))
}

async fn nines(unisono: &Unisono, source: &str, delay: u64) -> f64 {
    let sampler = unisono.engine().status().await.sampler.unwrap();
    let found =
        sampler.consistency.iter().find(|c| *c.source == *source && c.delay_seconds == delay);
    found.unwrap().nines
}

async fn delete(unisono: &Unisono, id: i64) {
    let entity = item(unisono);
    let (key, condition) = (Key::Integer(id), Condition::None);
    let write = Write { entity, key, action: Action::Delete, condition };
    unisono.engine().write(&Context::default(), vec![write]).await.unwrap();
}

/// Somebody removes a record from the follower, and nobody notices.
async fn damage(unisono: &Unisono, name: &str, id: i64) {
    let removal = Change {
        position: Position::new(1000).unwrap(),
        entity: "item".into(),
        key: Key::Integer(id),
        operation: Operation::Delete,
        replaced: None,
        image: None,
        time: Timestamp::EPOCH,
        actor: None,
        trace: None,
    };
    let entity = item(unisono);
    let batch = Batch { entity, changes: vec![Arc::new(removal)], copied: false, advance: None };
    let follower = gate(&format!("{name}_copy")).opened().follower().unwrap();
    follower.apply(batch).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_well_is_consistent_at_every_look() {
    let unisono = open("sampled_well", ALL).await;
    settled(&unisono).await;
    for id in 0..9 {
        put(&unisono, id, "a").await;
    }
    pass(0.7).await;
    assert_eq!(looks(&unisono, "sampled_well_copy", 1).await, (0, 0, 0), "not before its time");
    // What comes after a sample, and its deletion, is as good as the sample.
    put(&unisono, 0, "b").await;
    delete(&unisono, 1).await;
    pass(301.5).await;
    for source in ["sampled_well", "sampled_well_copy"] {
        for delay in [1, 10, 60, 300] {
            assert_eq!(looks(&unisono, source, delay).await, (11, 0, 0), "{source} {delay}");
        }
    }
    assert!((nines(&unisono, "sampled_well_copy", 300).await - 12f64.log10()).abs() < 1e-9);
    assert_eq!(unisono.engine().status().await.sampler.unwrap().pending, 0);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_lags_is_inconsistent_until_it_has_caught_up() {
    let unisono = open("sampled_late", ALL).await;
    settled(&unisono).await;
    let copy = gate("sampled_late_copy");
    copy.lags.store(true, Ordering::SeqCst);
    for id in 0..10 {
        put(&unisono, id, "a").await;
    }
    pass(2.0).await;
    assert_eq!(looks(&unisono, "sampled_late_copy", 1).await, (0, 10, 0));
    assert!(nines(&unisono, "sampled_late_copy", 1).await.abs() < 1e-9);
    assert_eq!(looks(&unisono, "sampled_late", 1).await, (10, 0, 0));
    copy.lags.store(false, Ordering::SeqCst);
    pass(10.0).await;
    assert_eq!(looks(&unisono, "sampled_late_copy", 10).await, (10, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_damaged_shows_until_it_is_repaired() {
    let unisono = open("sampled_damaged", ALL).await;
    settled(&unisono).await;
    for id in 0..10 {
        put(&unisono, id, "a").await;
    }
    pass(2.0).await;
    assert_eq!(looks(&unisono, "sampled_damaged_copy", 1).await, (10, 0, 0));
    damage(&unisono, "sampled_damaged", 3).await;
    pass(10.0).await;
    assert_eq!(looks(&unisono, "sampled_damaged_copy", 10).await, (9, 1, 0));
    assert!((nines(&unisono, "sampled_damaged_copy", 10).await - 1.0).abs() < 1e-9);
    // The removal claims a version that the truth never gave: only a later one takes its place.
    let found = unisono.engine().verify(&VerifyOptions::default(), &|_| {}).await.unwrap();
    assert_eq!(found.comparisons[0].different, 1);
    let status = unisono.engine().status().await;
    let verification = &status.deliveries[0].verification[0];
    assert_eq!((verification.records, verification.different.values().sum()), (10, 1_u64));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_answer_is_not_called_inconsistent() {
    let unisono = open("sampled_down", ALL).await;
    settled(&unisono).await;
    gate("sampled_down_copy").set_down(true);
    for id in 0..10 {
        put(&unisono, id, "a").await;
    }
    pass(2.0).await;
    assert_eq!(looks(&unisono, "sampled_down_copy", 1).await, (0, 0, 10));
}

#[tokio::test(start_paused = true)]
async fn what_a_follower_is_not_to_hold_is_rightly_absent() {
    let text = r#"
[sampler]
one_in = 1
[sources.sampled_where]
kind = "gated"
[sources.sampled_where_copy]
kind = "gated"
[entities.item]
truth = "sampled_where"
fields = { id = "integer", name = "string", stock = "integer", made = "timestamp" }
followers = [{ source = "sampled_where_copy", where = "record.name == 'kept'" }]
"#;
    let unisono = open_text("sampled_where", text).await.unwrap();
    settled(&unisono).await;
    for (id, name) in [(0, "kept"), (1, "other"), (2, "kept"), (2, "other"), (3, "kept")] {
        put(&unisono, id, name).await;
    }
    pass(2.0).await;
    assert_eq!(looks(&unisono, "sampled_where_copy", 1).await, (5, 0, 0));
    damage(&unisono, "sampled_where", 3).await;
    pass(10.0).await;
    assert_eq!(looks(&unisono, "sampled_where_copy", 10).await, (4, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_share_is_sampled_and_never_more_than_there_is_room_for() {
    let unisono = open("sampled_some", "[sampler]\none_in = 10\npending_max = 30").await;
    settled(&unisono).await;
    for id in 0..200 {
        put(&unisono, id, "a").await;
    }
    pass(2.0).await;
    let sampler = unisono.engine().status().await.sampler.unwrap();
    assert!((8..=30).contains(&sampler.pending), "about 20 of 200: {sampler:?}");
    for id in 0..400 {
        put(&unisono, id, "b").await;
    }
    let sampler = unisono.engine().status().await.sampler.unwrap();
    assert!(sampler.pending == 30 && sampler.dropped > 10, "{sampler:?}");
}
