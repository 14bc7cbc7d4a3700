use std::sync::Arc;
use std::time::Duration;

use unisono_core::{Decimal, Entity, Field, FieldType, Record, Timestamp, Value};

use super::merge::{self, How};
use super::{LocalWrite, Plan, Stamp, State, SyncDeclaration, codec};
use crate::rule::Rule;

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn entity() -> Arc<Entity> {
    let fields = vec![
        Field::new("id", FieldType::Integer),
        Field::new("name", FieldType::String),
        Field { required: true, ..Field::new("stock", FieldType::Integer) },
        Field::new("high", FieldType::Integer),
        Field::new("tags", FieldType::List(Box::new(FieldType::String))),
        Field::new("street", FieldType::String),
        Field::new("city", FieldType::String),
    ];
    Arc::new(Entity::new("thing", "id", fields).unwrap())
}

fn whole() -> SyncDeclaration {
    SyncDeclaration {
        with: "other".into(),
        table: None,
        prefer: None,
        older_wins: None,
        delete_wins: true,
        fields: Default::default(),
        groups: Vec::new(),
        max_drift: Duration::from_millis(500),
        conflicts: Duration::ZERO,
    }
}

fn by_field() -> SyncDeclaration {
    let ways = [("stock", "counter"), ("high", "max"), ("tags", "union")];
    let ways = ways.map(|(name, way)| (name.into(), merge::named(way).unwrap()));
    let groups = vec![vec!["street".into(), "city".into()]];
    SyncDeclaration { fields: ways.into(), groups, ..whole() }
}

fn record(n: u64, stock: i64) -> Arc<Record> {
    let text = |what: &str| Value::String(format!("{what}{n}"));
    Arc::new(Record::new(vec![
        Value::Integer(1),
        text("n"),
        Value::Integer(stock),
        Value::Integer((n % 7) as i64),
        Value::List(vec![text("t")]),
        text("s"),
        text("c"),
    ]))
}

fn write(dot: u64, record: Option<Arc<Record>>) -> LocalWrite {
    let time = Timestamp::EPOCH.plus(Duration::from_millis(dot));
    LocalWrite { dot, floor: 0, time, record, old: false }
}

fn stock(plan: &Plan, state: &State) -> Option<i64> {
    let record = plan.resolve(state, None).unwrap().record?;
    match record.values()[2] {
        Value::Integer(n) => Some(n),
        _ => None,
    }
}

/// What two sides know that write by themselves and look at each other now and then.
fn histories(plan: &Plan, random: &mut Random, preferred: Option<usize>) -> Vec<State> {
    let mut sides = [State::default(), State::default()];
    let mut all = vec![State::default()];
    for dot in 1..12 {
        let side = random.below(2) as usize;
        match random.below(4) {
            0 => sides[side] = plan.merged(&sides[side], &sides[1 - side].clone()),
            action => {
                let had = stock(plan, &sides[side]).unwrap_or_default();
                let more = had + random.below(3) as i64;
                let now = (action > 1).then(|| record(random.below(100), more));
                sides[side] =
                    plan.written(&sides[side], side, &write(dot, now), preferred).unwrap();
            }
        }
        all.push(sides[side].clone());
    }
    all
}

#[test]
fn what_is_known_comes_together_in_any_order_and_any_number_of_times() {
    let rule = Arc::new(Rule::of_two(&entity(), "older.high > newer.high").unwrap());
    let with_rule = SyncDeclaration { older_wins: Some(rule), ..by_field() };
    let loses = SyncDeclaration { delete_wins: false, ..by_field() };
    for (declared, preferred) in
        [(whole(), None), (by_field(), Some(1)), (with_rule, None), (loses, Some(0))]
    {
        let plan = Plan::new(&entity(), &declared).unwrap();
        for seed in 0..300 {
            let all = histories(&plan, &mut Random(seed), preferred);
            let mut random = Random(seed + 1_000);
            let mut pick = || all[random.below(all.len() as u64) as usize].clone();
            let (a, b, c) = (pick(), pick(), pick());
            let join = |a: &State, b: &State| plan.merged(a, b);
            assert_eq!(join(&a, &b), join(&b, &a), "seed {seed}");
            assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)), "seed {seed}");
            assert_eq!(join(&a, &a), a, "seed {seed}");
            let both = join(&a, &b);
            assert_eq!(join(&both, &b), both, "seed {seed}");
            assert_eq!(both.news_to(&join(&b, &a), true).count(), 0, "seed {seed}");
            // What a side held is what it resolves to.
            plan.resolve(&both, preferred).unwrap();
            let text = codec::to_text(&plan, &both);
            assert_eq!(codec::parse(&plan, &text).unwrap(), both, "{text}");
        }
    }
}

#[test]
fn every_way_gives_the_same_from_both_sides() {
    let list =
        |names: &[&str]| Value::List(names.iter().map(|n| Value::String((*n).into())).collect());
    let pairs = [
        (Value::Integer(3), Value::Integer(9)),
        (Value::Null, Value::Integer(-2)),
        (list(&["a", "b"]), list(&["b", "c"])),
        (Value::Null, list(&["x"])),
        (Value::Null, Value::Null),
    ];
    for merge in merge::ALL {
        let How::Of(way) = merge.how else { continue };
        for (a, b) in &pairs {
            for winner in 0..2 {
                assert_eq!(way([a, b], winner), way([b, a], 1 - winner), "{}", merge.name);
                assert_eq!(way([a, a], winner), *a, "{}", merge.name);
            }
        }
    }
    let of = |name: &str, a: i64, b: Value| match merge::named(name).unwrap().how {
        How::Of(way) => way([&Value::Integer(a), &b], 0),
        How::Sum => Value::Null,
    };
    assert_eq!(of("max", 3, Value::Integer(9)), Value::Integer(9));
    assert_eq!(of("min", 3, Value::Integer(9)), Value::Integer(3));
    assert_eq!(of("min", 3, Value::Null), Value::Integer(3), "null is no value");
    assert_eq!(merge::NAMES.len(), merge::ALL.len());
    assert!(merge::NAMES.iter().all(|name| merge::named(name).is_some()));
}

#[test]
fn what_both_have_counted_is_the_sum() {
    let plan = Plan::new(&entity(), &by_field()).unwrap();
    let a = plan.written(&State::default(), 0, &write(1, Some(record(1, 10))), None).unwrap();
    let b = plan.merged(&State::default(), &a);
    let a = plan.written(&a, 0, &write(2, Some(record(1, 13))), None).unwrap();
    let b = plan.written(&b, 1, &write(3, Some(record(1, 14))), None).unwrap();
    let both = plan.merged(&a, &b);
    assert_eq!(stock(&plan, &both), Some(17));
    // Deleted and made anew: what had been counted of it is gone, on a side that has forgotten it, too.
    let gone = plan.written(&both, 0, &write(4, None), None).unwrap();
    let again = write(9, Some(record(2, 5)));
    let again =
        plan.written(&State::default(), 0, &LocalWrite { floor: 3, ..again }, None).unwrap();
    assert_eq!(stock(&plan, &plan.merged(&gone, &again)), Some(5));
}

#[test]
fn copies_that_meet_are_not_added_up() {
    let plan = Plan::new(&entity(), &by_field()).unwrap();
    let side = |side: usize, stock: i64| {
        let old = LocalWrite { old: true, ..write(1 + side as u64, Some(record(1, stock))) };
        plan.written(&State::default(), side, &old, None).unwrap()
    };
    let (a, b) = (side(0, 10), side(1, 12));
    let met = plan.merged(&a, &b);
    assert_eq!(stock(&plan, &met), Some(12), "the later of both");
    assert_eq!(plan.merged(&b, &a), met);
    let more = plan.written(&met, 0, &write(5, Some(record(1, 15))), None).unwrap();
    assert_eq!(stock(&plan, &plan.merged(&met, &more)), Some(15));
}

#[test]
fn the_later_of_two_writes_wins_and_the_other_is_told() {
    let plan = Plan::new(&entity(), &whole()).unwrap();
    let of = |side, dot, n| {
        plan.written(&State::default(), side, &write(dot, Some(record(n, 1))), None).unwrap()
    };
    let both = plan.merged(&of(0, 8, 1), &of(1, 5, 2));
    let resolved = plan.resolve(&both, None).unwrap();
    assert_eq!(resolved.record.as_ref(), Some(&*record(1, 1)));
    assert_eq!(
        (resolved.lost.len(), resolved.lost[0].winner, resolved.lost[0].dots),
        (1, 0, [8, 5])
    );
    let preferred = plan.resolve(&both, Some(1)).unwrap();
    assert_eq!(preferred.record.as_ref(), Some(&*record(2, 1)));
    // One that had seen the other is no conflict.
    let seen = plan.written(&both, 1, &write(6, Some(record(3, 1))), None).unwrap();
    let resolved = plan.resolve(&seen, None).unwrap();
    assert_eq!((resolved.record.as_ref(), resolved.lost.len()), (Some(&*record(3, 1)), 0));
}

#[test]
fn a_deletion_wins_or_loses_as_declared() {
    for (delete_wins, there) in [(true, false), (false, true)] {
        let plan = Plan::new(&entity(), &SyncDeclaration { delete_wins, ..whole() }).unwrap();
        let a = plan.written(&State::default(), 0, &write(1, Some(record(1, 1))), None).unwrap();
        let b = plan.written(&a, 1, &write(2, Some(record(2, 1))), None).unwrap();
        let a = plan.written(&a, 0, &write(3, None), None).unwrap();
        let resolved = plan.resolve(&plan.merged(&a, &b), None).unwrap();
        assert_eq!(resolved.record.is_some(), there);
        assert_eq!(resolved.lost[0].winner, usize::from(there));
    }
}

#[test]
fn a_stamp_is_after_what_its_writer_had_seen() {
    let at = |millis| Timestamp::EPOCH.plus(Duration::from_millis(millis));
    let seen = Stamp { millis: 500, count: 2 };
    assert_eq!(Stamp::after(at(501), seen), Stamp { millis: 501, count: 0 });
    assert_eq!(Stamp::after(at(400), seen), Stamp { millis: 500, count: 3 });
}

#[test]
fn ways_that_do_not_fit_are_refused_by_name() {
    let refused = |field: &str, way: &str| {
        let fields = [(field.into(), merge::named(way).unwrap())].into();
        let error = Plan::new(&entity(), &SyncDeclaration { fields, ..whole() }).unwrap_err();
        assert_eq!(error.detail("field"), Some(field));
        error.message().to_owned()
    };
    assert!(refused("name", "counter").contains("integer and decimal"));
    assert!(refused("high", "counter").contains("required"));
    assert!(refused("stock", "union").contains("lists"));
    assert!(refused("nope", "max").contains("not declared"));
    assert!(refused("id", "max").contains("key"));
    let twice = SyncDeclaration { groups: vec![vec!["street".into(), "street".into()]], ..whole() };
    assert!(Plan::new(&entity(), &twice).unwrap_err().message().contains("twice"));
}

#[test]
fn what_is_too_large_for_its_field_is_refused() {
    let max = Value::Decimal(Decimal::from(i64::MAX));
    let one = Value::Decimal(Decimal::ONE);
    assert!(merge::sum(&FieldType::Integer, [Some(&max), Some(&one)]).is_err());
    let small = FieldType::Decimal { precision: 3, scale: 1 };
    assert!(merge::sum(&small, [Some(&Value::Decimal(Decimal::from(99))), Some(&one)]).is_err());
}
