use super::*;
use serde_json::json;
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Entity, Field, FieldType, Record, Timestamp, Uuid, Value};

use crate::runtime::Runtime;
use crate::write::behind::entry::AcceptedWrite;

fn put() -> Action {
    Action::Put(Record::new(vec![Value::Null]))
}

fn pending(sequence: u64, key: i64, action: Action, condition: Condition) -> Pending {
    let fields = vec![Field::new("id", FieldType::Integer)];
    let entity = Arc::new(Entity::new("thing", "id", fields).unwrap());
    let write = Write { entity, key: Key::Integer(key), action, condition };
    let time = Timestamp::EPOCH;
    let unit = Unit { writes: Vec::new(), idempotency: None, time, actor: None, trace: None };
    let accepted = AcceptedWrite::of(Uuid::nil(), &write, &unit);
    let watch = Runtime::system().stopwatch();
    Pending { sequence, accepted, write, watch, _room: None }
}

fn queue(entries: Vec<(i64, Action, Condition)>) -> Queue {
    let mut queue = Queue::default();
    for (sequence, (key, action, condition)) in (1..).zip(entries) {
        queue.push(Arc::new(pending(sequence, key, action, condition)));
    }
    queue
}

fn sequences(groups: &[Group]) -> Vec<Vec<u64>> {
    groups.iter().map(|group| group.sequences.clone()).collect()
}

fn take(queue: &mut Queue) -> Vec<Group> {
    queue.take(false, 100)
}

#[test]
fn puts_of_a_record_go_as_one_and_what_is_judged_goes_alone_in_its_place() {
    let none = Condition::None;
    let patch = || Action::Patch(json!({}));
    let mut queue = queue(vec![
        (1, put(), none),
        (2, put(), none),
        (1, put(), none),
        (1, put(), Condition::Present),
        (1, put(), none),
        (1, patch(), none),
        (1, put(), none),
        (1, put(), none),
        (1, Action::Delete, none),
    ]);
    let mut order = Vec::new();
    while queue.len() > 0 {
        let groups = take(&mut queue);
        order.push(sequences(&groups));
        groups.iter().for_each(|group| queue.settle(group));
    }
    let expected: Vec<Vec<Vec<u64>>> = vec![
        vec![vec![1, 3], vec![2]],
        vec![vec![4]],
        vec![vec![5]],
        vec![vec![6]],
        vec![vec![7, 8]],
        vec![vec![9]],
    ];
    assert_eq!(order, expected);
}

#[test]
fn a_group_that_was_sent_stays_as_it_is_until_its_outcome_is_known() {
    let mut queue = queue(vec![(1, put(), Condition::None)]);
    let first = take(&mut queue);
    queue.push(Arc::new(pending(2, 1, put(), Condition::None)));
    queue.push(Arc::new(pending(3, 2, put(), Condition::None)));
    assert_eq!(sequences(&take(&mut queue)), [[1], [3]]);
    queue.settle(&first[0]);
    assert!(queue.waits(Some(&Key::Integer(1)), 2) && !queue.waits(Some(&Key::Integer(1)), 1));
    assert_eq!(sequences(&take(&mut queue)), [[2], [3]]);
}

#[test]
fn a_suspect_record_is_taken_apart_and_keeps_its_order() {
    let mut queue = queue(vec![(1, put(), Condition::None), (2, put(), Condition::None)]);
    let groups = take(&mut queue);
    queue.suspect(&groups[0]);
    queue.push(Arc::new(pending(3, 1, put(), Condition::None)));
    assert_eq!(sequences(&take(&mut queue)), [[2]]);
    assert_eq!(queue.first_ready().unwrap().sequence, 2);
    let suspects = queue.take(true, 100);
    assert_eq!(sequences(&suspects), [[1]]);
    queue.settle(&suspects[0]);
    assert!(!queue.has_suspects());
    assert_eq!(sequences(&take(&mut queue)), [[2], [3]]);
}

#[test]
fn the_longest_waiting_go_first() {
    let mut queue = queue((0..5).rev().map(|key| (key, put(), Condition::None)).collect());
    assert_eq!(sequences(&queue.take(false, 2)), [[1], [2]]);
}
