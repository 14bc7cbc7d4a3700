use unisono_core::kind::OptionValue;
use unisono_core::query::Filter;
use unisono_core::{Entity, Field, FieldType};

use super::*;
use crate::declaration::WarmQuestion;
use crate::hook::{HookDeclaration, Secret};
use crate::read::{Place, ReadStrategy};
use crate::rule::Rule;
use crate::strategy;

const SECOND: Duration = Duration::from_secs(1);

fn options(text: &str) -> Options {
    Options([("url".to_owned(), OptionValue::Text(text.to_owned()))].into())
}

fn thing(fields: &[&str]) -> Arc<Entity> {
    let fields = fields.iter().map(|name| Field::new(name, FieldType::String)).collect();
    Arc::new(Entity::new("thing", "id", fields).unwrap())
}

fn behind() -> WritePolicy {
    let behind = BehindPolicy {
        journal: "queue".into(),
        flush_after: SECOND,
        pending_max: 10,
        age_alert: SECOND,
    };
    WritePolicy { strategy: WriteStrategy::WriteBehind, hold: SECOND, behind: Some(behind) }
}

fn running() -> Declaration {
    let source =
        SourceDeclaration { kind: "x".into(), options: options("a"), required: true, region: None };
    let cache = CacheDeclaration {
        source: "near".into(),
        ttl: 60 * SECOND,
        negative_ttl: SECOND,
        stale: Duration::ZERO,
        refresh: true,
        misses_max: 8,
        lease: SECOND,
        results: Duration::ZERO,
        filter: None,
        warm: 0,
        warm_hot: 0,
        warm_questions: Vec::new(),
        options: Options::default(),
        live: Options::default(),
    };
    let entity = thing(&["id", "name"]);
    let filter = Rule::compile(&entity, "record.name == 'a'").unwrap();
    let follower = FollowerDeclaration {
        source: "find".into(),
        place: None,
        options: Options::default(),
        filter: Some(Arc::new(filter)),
        map: None,
        delivery: DeliveryPolicy::default(),
        clear: false,
    };
    let declared = EntityDeclaration {
        entity,
        truth: "main".into(),
        table: None,
        truth_options: Options::default(),
        cache: Some(cache),
        followers: vec![follower],
        read: ReadPolicy::default(),
        write: WritePolicy::default(),
        ack: AckPolicy::default(),
        strategy: None,
        adaptive: Some(AdaptivePolicy::default()),
        projection: None,
        sync: None,
    };
    Declaration {
        sources: [("main".into(), source)].into(),
        entities: [("thing".into(), declared)].into(),
        ..Declaration::default()
    }
}

/// What the plan is to say below the key of the entity, of a change to its declaration.
type Case = (&'static str, fn(&mut EntityDeclaration));

fn planned(change: fn(&mut EntityDeclaration)) -> Plan {
    let mut wanted = running();
    change(wanted.entities.get_mut("thing").unwrap());
    plan(&running(), &wanted)
}

#[test]
fn what_is_the_same_changes_nothing() {
    // Made anew, so nothing is the same by being one value.
    assert_eq!(plan(&running(), &running()), Plan::default());
}

#[test]
fn policies_change_while_it_runs() {
    fn cache(e: &mut EntityDeclaration) -> &mut CacheDeclaration {
        e.cache.as_mut().unwrap()
    }
    let cases: [Case; 29] = [
        ("read.strategy: cache_first -> parallel", |e| e.read.strategy = ReadStrategy::Parallel),
        ("read.fallback: true -> false", |e| e.read.no_fallback = true),
        ("read.lag_max: none -> 5s", |e| e.read.lag_max = Some(5 * SECOND)),
        ("read.hedge: none -> 20ms", |e| e.read.hedge = Some(Duration::from_millis(20))),
        ("read.quorum: none -> 2", |e| e.read.quorum = Some(2)),
        ("read.rules: none -> all asks only find, truth when request.search", |e| {
            let when = Some(Arc::new(Rule::of_request("request.search").unwrap()));
            let ask = vec![Place::parse("find"), Place::Truth];
            e.read.rules = vec![ReadRule { name: "all".into(), when, ask, only: true }];
        }),
        ("write.strategy: write_around -> write_through", |e| {
            e.write.strategy = WriteStrategy::WriteThrough;
        }),
        ("write.hold: 0ms -> 2s", |e| e.write.hold = 2 * SECOND),
        ("strategy: none -> quorum", |e| e.strategy = strategy::find("quorum")),
        ("adaptive.lag: 5s -> 1s", |e| e.adaptive.as_mut().unwrap().lag = SECOND),
        ("ack: truth -> 2", |e| e.ack.ack = Ack::Count(2)),
        ("ack_timeout: 5s -> 1s", |e| e.ack.timeout = SECOND),
        ("followers.find.priority: 0 -> 3", |e| e.followers[0].delivery.priority = 3),
        ("followers.find.after: none -> other", |e| {
            e.followers[0].delivery.after = Some("other".into());
        }),
        ("followers.find.batch.size: none -> 9", |e| {
            e.followers[0].delivery.batch.size = Some(9);
        }),
        ("followers.find.batch.bytes: none -> 7", |e| {
            e.followers[0].delivery.batch.bytes = Some(7);
        }),
        ("followers.find.batch.age: 0ms -> 1s", |e| e.followers[0].delivery.batch.age = SECOND),
        ("cache.ttl: 1m -> 90s", |e| cache(e).ttl = 90 * SECOND),
        ("cache.negative_ttl: 1s -> 0ms", |e| cache(e).negative_ttl = Duration::ZERO),
        ("cache.stale: 0ms -> 1h", |e| cache(e).stale = 3600 * SECOND),
        ("cache.refresh: true -> false", |e| cache(e).refresh = false),
        ("cache.misses_max: 8 -> 2", |e| cache(e).misses_max = 2),
        ("cache.lease: 1s -> 0ms", |e| cache(e).lease = Duration::ZERO),
        ("cache.where: none -> record.name == 'b'", |e| {
            let rule = Rule::of_cache(&e.entity, "record.name == 'b'").unwrap();
            cache(e).filter = Some(Arc::new(rule));
        }),
        ("cache.results: 0ms -> 1s", |e| cache(e).results = SECOND),
        ("cache.warm: 0 -> 9", |e| cache(e).warm = 9),
        ("cache.warm_hot: 0 -> 9", |e| cache(e).warm_hot = 9),
        ("cache.warm_questions: 0 questions -> 1 questions", |e| {
            let question = WarmQuestion::Count { filter: Filter::All, search: None };
            cache(e).warm_questions = vec![question];
        }),
        ("cache.url: another value", |e| cache(e).live = options("b")),
    ];
    for (expected, change) in cases {
        let changes = vec![format!("entities.thing.{expected}")];
        assert_eq!(planned(change), Plan { changes, ..Plan::default() });
    }
}

#[test]
fn what_was_prepared_at_the_start_needs_a_restart() {
    let cases: [Case; 10] = [
        ("fields", |e| e.entity = thing(&["id", "title"])),
        ("truth (it must follow first, with all records as they are)", |e| {
            e.truth = "other".into()
        }),
        ("table", |e| e.table = Some("things".into())),
        ("url", |e| e.truth_options = options("b")),
        ("cache", |e| e.cache = None),
        ("cache.source", |e| e.cache.as_mut().unwrap().source = "other".into()),
        ("cache.url", |e| e.cache.as_mut().unwrap().options = options("b")),
        ("followers.find.place", |e| e.followers[0].place = Some("things".into())),
        ("followers.find.url", |e| e.followers[0].options = options("b")),
        ("write.strategy", |e| {
            e.write = WritePolicy { hold: Duration::ZERO, ..behind() };
        }),
    ];
    for (expected, change) in cases {
        let restart = vec![format!("entities.thing.{expected}")];
        assert_eq!(planned(change), Plan { restart, ..Plan::default() });
    }
}

/// A follower of all records takes the place of the truth, which takes its place.
fn moved(declared: &mut EntityDeclaration) {
    *declared = declared.with_truth(&"find".into()).unwrap();
}

#[test]
fn a_truth_moves_to_a_follower_and_back_alone() {
    let whole = |change: fn(&mut EntityDeclaration)| {
        let mut running = running();
        running.entities.get_mut("thing").unwrap().followers[0].filter = None;
        let mut wanted = running.clone();
        change(wanted.entities.get_mut("thing").unwrap());
        (running, wanted)
    };
    let (running, mut wanted) = whole(moved);
    // The default depends on what a source is.
    wanted.sources.get_mut("main").unwrap().required ^= true;
    let forth = plan(&running, &wanted);
    let (entity, from, to) = ("thing".into(), "main".into(), "find".into());
    assert_eq!(
        forth,
        Plan { steps: vec![Step::MoveTruth { entity, from, to }], ..Plan::default() }
    );
    assert_eq!(plan(&wanted, &running).steps.len(), 1);
    let declared = &wanted.entities["thing"];
    let back = declared.with_truth(&"main".into()).unwrap();
    assert_eq!((&back.truth, &back.followers[0].source), (&"main".into(), &"find".into()));
    assert!(declared.with_truth(&"nowhere".into()).is_none());

    let (running, wanted) = whole(|e| {
        moved(e);
        e.ack.ack = Ack::Count(2);
    });
    assert!(plan(&running, &wanted).outcome().is_err(), "together with something else");
    let (mut running, mut wanted) = whole(moved);
    for declaration in [&mut running, &mut wanted] {
        declaration.entities.get_mut("thing").unwrap().write = behind();
    }
    let refused = plan(&running, &wanted).restart;
    assert!(refused.iter().any(|why| why.contains("written behind")), "{refused:?}");
}

#[test]
fn what_followers_keep_of_records_changes_with_all_that_come_after() {
    let declared = |map: Option<&str>| {
        let mut declaration = running();
        let e = declaration.entities.get_mut("thing").unwrap();
        let map = map.map(|map| Arc::new(Mapping::compile(&e.entity, [("name", map)]).unwrap()));
        let delivery = DeliveryPolicy { after: Some("find".into()), ..DeliveryPolicy::default() };
        let first = FollowerDeclaration { filter: None, map, ..e.followers[0].clone() };
        let next =
            FollowerDeclaration { source: "next".into(), map: None, delivery, ..first.clone() };
        e.followers = vec![first, next];
        declaration
    };
    let steps = |from: Option<&str>, to: Option<&str>| {
        plan(&declared(from), &declared(to)).outcome().unwrap()
    };
    assert_eq!(steps(Some("'a'"), Some("'a'")), [String::new(); 0]);
    assert_eq!(
        steps(None, Some("'a'")),
        [
            "~ follower find of thing: none -> map name: 'a'; (compares all records)",
            "~ follower next of thing: none -> map name: 'a'; (compares all records)",
        ]
    );
    // Neither can become the truth: it does not hold records as they are.
    for follower in ["find", "next"] {
        let mut wanted = declared(Some("'a'"));
        wanted.entities.get_mut("thing").unwrap().truth = follower.into();
        let refused = plan(&declared(Some("'a'")), &wanted).restart;
        assert!(refused.iter().any(|why| why.contains("as they are")), "{refused:?}");
    }
}

#[test]
fn sources_and_followers_come_and_go_while_it_runs() {
    let mut wanted = running();
    let near = SourceDeclaration { kind: "y".into(), ..wanted.sources["main"].clone() };
    wanted.sources.insert("near".into(), near);
    let declared = wanted.entities.get_mut("thing").unwrap();
    let added = FollowerDeclaration {
        source: "near".into(),
        filter: None,
        ..declared.followers[0].clone()
    };
    declared.followers.push(added);
    let rule = Rule::compile(&declared.entity, "record.name == 'b'").unwrap();
    declared.followers[0].filter = Some(Arc::new(rule));
    assert_eq!(
        plan(&running(), &wanted).outcome().unwrap(),
        [
            "+ source near (y)",
            "~ follower find of thing: where record.name == 'a' -> record.name == 'b' (compares all records)",
            "+ follower near of thing (copies all records)",
        ]
    );
    assert_eq!(
        plan(&wanted, &running()).outcome().unwrap()[..2],
        ["- source near (is closed)", "- follower near of thing (what it holds stays as it is)"]
    );
}

#[test]
fn what_is_written_behind_keeps_its_journal() {
    let mut running = running();
    running.entities.get_mut("thing").unwrap().write = behind();
    let mut wanted = running.clone();
    let policy = wanted.entities.get_mut("thing").unwrap().write.behind.as_mut().unwrap();
    (policy.flush_after, policy.pending_max) = (Duration::ZERO, 20);
    policy.age_alert = 3 * SECOND;
    let changes = plan(&running, &wanted).outcome().unwrap();
    let expected = ["flush_after: 1s -> 0ms", "pending_max: 10 -> 20", "age_alert: 1s -> 3s"];
    assert_eq!(changes, expected.map(|change| format!("entities.thing.write.{change}")));
    wanted.entities.get_mut("thing").unwrap().write.behind.as_mut().unwrap().journal =
        "other".into();
    assert_eq!(plan(&running, &wanted).restart, ["entities.thing.write.journal"]);
}

#[test]
fn one_error_names_everything_that_needs_a_restart_and_shows_no_values() {
    let mut wanted = running();
    wanted.region = Some("eu".into());
    wanted.log.retention = SECOND;
    let source = wanted.sources.get_mut("main").unwrap();
    (source.options, source.required) = (options("secret"), false);
    let declared = wanted.entities.remove("thing").unwrap();
    wanted.entities.insert("other".into(), declared);
    let error = plan(&running(), &wanted).outcome().unwrap_err();
    assert_eq!(
        (error.kind(), error.hint_text()),
        (ErrorKind::InvalidConfig, Some("restart to change it"))
    );
    assert_eq!(
        error.detail("restart"),
        Some(
            "region, sources.main.required, sources.main.url, entities.other (added), entities.thing (removed)"
        )
    );
}

#[test]
fn how_long_the_log_is_kept_changes_while_it_runs() {
    let mut wanted = running();
    wanted.log = LogDeclaration { retention: 3600 * SECOND, changes_max: 5, outcomes: SECOND };
    let changes = plan(&running(), &wanted).outcome().unwrap();
    let expected = ["retention: 7d -> 1h", "changes_max: 10000000 -> 5", "outcomes: 1d -> 1s"];
    assert_eq!(changes, expected.map(|change| format!("log.{change}")));
}

#[test]
fn hooks_need_a_restart_and_are_not_shown() {
    let with = |secret: u8| {
        let hook = HookDeclaration {
            url: "https://example.org/path".into(),
            secret: Secret::new(&[secret; 32]).unwrap(),
            on: Vec::new(),
            entities: Vec::new(),
            timeout: Duration::ZERO,
            retry_for: Duration::ZERO,
        };
        Declaration { hooks: [("ops".into(), hook)].into(), ..running() }
    };
    assert_eq!(plan(&with(1), &with(1)), Plan::default());
    let restart = |plan: Plan| plan.restart;
    assert_eq!(restart(plan(&with(1), &with(2))), ["hooks.ops"]);
    assert_eq!(restart(plan(&running(), &with(1))), ["hooks.ops (added)"]);
}

#[test]
fn how_much_is_sampled_can_change_but_not_whether_anything_is() {
    let with = |one_in| Declaration {
        sampler: Some(SamplerDeclaration { one_in, pending_max: 10 }),
        ..running()
    };
    assert_eq!(plan(&with(1), &with(5)).changes, ["sampler.one_in: 1 -> 5"]);
    assert_eq!(plan(&running(), &with(5)).restart, ["sampler"]);
}

#[test]
fn how_often_followers_are_compared_changes_while_it_runs() {
    let mut wanted = running();
    wanted.sweep = SweepDeclaration { every: SECOND, deep: 60 * SECOND, rate: 5, repair: false };
    let changes = plan(&running(), &wanted).outcome().unwrap();
    let expected =
        ["every: 10m -> 1s", "deep: 0ms -> 1m", "rate: 1000 -> 5", "repair: true -> false"];
    assert_eq!(changes, expected.map(|change| format!("sweep.{change}")));
}
