//! The generators keep the rules that they promise, for many seeds.

use unisono_core::{Timestamp, json};

use crate::Generator;

#[test]
fn the_same_seed_makes_the_same_things() {
    let make = || {
        let mut g = Generator::new(7);
        let entity = g.entity("thing", &|_| true);
        let records = g.records(&entity, 20);
        let all: Vec<_> = records.values().collect();
        format!(
            "{:?} {records:?} {:?} {:?}",
            entity.fields(),
            g.query(&entity, &all),
            g.aggregate(&entity, &all)
        )
    };
    assert_eq!(make(), make());
}

#[test]
fn records_keep_their_rules_and_survive_json() {
    for seed in 0..300 {
        let mut g = Generator::new(seed);
        let entity = g.entity("thing", &|_| true);
        for (key, record) in g.records(&entity, 20) {
            entity.check(&record).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert_eq!(entity.key_of(&record).unwrap(), key, "seed {seed}");
            let text = json::to_vec(&entity, &record);
            let back =
                json::parse_slice(&entity, &text).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert_eq!(back, record, "seed {seed}");
        }
    }
}

#[test]
fn writes_name_their_own_record() {
    for seed in 0..100 {
        let mut g = Generator::new(seed);
        let entity = g.entity("thing", &|_| true);
        let keys: Vec<_> = (0..5).map(|_| g.key(&entity)).collect();
        for unit in g.units(&entity, &keys, 10, Timestamp::EPOCH).into_iter().flatten() {
            assert!((1..4).contains(&unit.writes.len()), "seed {seed}");
            assert!(unit.writes.iter().all(|w| keys.contains(&w.key)), "seed {seed}");
        }
    }
}
