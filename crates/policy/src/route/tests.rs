use super::*;
use crate::read::ReadRule;
use crate::rule::Rule;

/// Reads a topology of lines such as `main truth get filter agg` or `find follower search at=7 where`.
fn sources(text: &str) -> Vec<Facts> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let has = |word: &str| words.contains(&word);
            let number =
                |name: &str| words.iter().find_map(|w| w.strip_prefix(name)?.parse::<u64>().ok());
            Facts {
                source: words[0].into(),
                role: match words[1] {
                    "truth" => Role::Truth,
                    "follower" => Role::Follower,
                    _ => Role::Cache,
                },
                query: QueryCapability {
                    get: has("get"),
                    filter: has("filter"),
                    aggregate: has("agg"),
                    search: has("search"),
                    scans: has("scans"),
                },
                blocked: has("blocked"),
                applied: number("at=").map(|n| Position::new(n).unwrap()),
                lag: Duration::from_secs(number("lag=").unwrap_or(0)),
                load: number("load=").unwrap_or(0) as f64,
                filtered: has("where"),
                mapped: has("map"),
                far: has("far"),
                clear: has("clear"),
            }
        })
        .collect()
}

fn shown(plan: &Plan) -> String {
    let asked = plan.candidates.iter().map(|c| {
        let wait = c.needs_wait.map_or(String::new(), |p| format!(" wait={p}"));
        let stale = if c.stale { " stale" } else { "" };
        format!("{}{wait}{stale}", c.source)
    });
    let not = plan.excluded.iter().map(|(source, reason)| format!("-{source}:{reason:?}"));
    asked.chain(not).collect::<Vec<_>>().join(", ")
}

fn route(text: &str, operation: Operation, consistency: Consistency, token: u64) -> String {
    let token = Position::new(token).unwrap();
    decide(&Request { consistency, token, ..Request::new(operation) }, &ReadPolicy::default(), text)
}

fn decide(request: &Request<'_>, policy: &ReadPolicy, text: &str) -> String {
    shown(&plan(request, policy, &sources(text), 0.0))
}

const USUAL: &str = "
    main   truth    get filter agg
    memory cache    at=9
    find   follower get search filter agg at=7 where
    copy   follower get filter agg at=8
";
use Consistency::*;
use Operation::*;

#[test]
fn the_usual_topology() {
    for (operation, consistency, token, expected) in [
        (Get, Session, 0, "memory, main, copy, -find:Filtered"),
        (Get, Session, 9, "memory, main, copy wait=9, -find:Filtered"),
        (Get, Session, 10, "main, copy wait=10, -memory:Behind, -find:Filtered"),
        (Get, Eventual, 10, "memory, main, copy, -find:Filtered"),
        (Get, Strong, 0, "main, -memory:NotTheTruth, -find:NotTheTruth, -copy:NotTheTruth"),
        (Query, Session, 8, "main, copy, -memory:Unable, -find:Filtered"),
        (Query, Session, 9, "main, copy wait=9, -memory:Unable, -find:Filtered"),
        (Count, Eventual, 9, "main, copy, -memory:Unable, -find:Filtered"),
        (Aggregate, Strong, 9, "main, -memory:Unable, -find:NotTheTruth, -copy:NotTheTruth"),
        (Search, Session, 7, "find, -main:Unable, -memory:Unable, -copy:Unable"),
        (Search, Session, 8, "find wait=8, -main:Unable, -memory:Unable, -copy:Unable"),
        (SearchCount, Eventual, 8, "find, -main:Unable, -memory:Unable, -copy:Unable"),
        (Search, Strong, 0, "-main:Unable, -memory:Unable, -find:NotTheTruth, -copy:Unable"),
    ] {
        assert_eq!(
            route(USUAL, operation, consistency, token),
            expected,
            "{operation:?} {consistency:?} {token}"
        );
    }
}

#[test]
fn with_the_truth_down_reads_go_on_and_say_so() {
    let down = USUAL.replace("main   truth", "main truth blocked");
    for (operation, consistency, token, expected) in [
        (Get, Session, 8, "memory stale, copy stale, -main:Blocked, -find:Filtered"),
        (Query, Session, 8, "copy stale, -main:Blocked, -memory:Unable, -find:Filtered"),
        (Query, Session, 9, "copy wait=9 stale, -main:Blocked, -memory:Unable, -find:Filtered"),
        (Query, Strong, 0, "-main:Blocked, -memory:Unable, -find:NotTheTruth, -copy:NotTheTruth"),
        (Search, Eventual, 0, "find stale, -main:Unable, -memory:Unable, -copy:Unable"),
    ] {
        assert_eq!(
            route(&down, operation, consistency, token),
            expected,
            "{operation:?} {consistency:?} {token}"
        );
    }
}

#[test]
fn a_source_that_reads_every_record_is_asked_after_the_others() {
    let text = "
        main  truth    get filter agg search scans
        slow  follower get filter agg search at=9 scans
        copy  follower get filter agg at=9
        find  follower get search at=5
    ";
    for (operation, token, expected) in [
        (Query, 9, "copy, main, slow, -find:Unable"),
        (Search, 5, "find, main, slow, -copy:Unable"),
        (Search, 6, "find wait=6, main, slow, -copy:Unable"),
        (Get, 5, "main, slow, copy, find"),
    ] {
        assert_eq!(route(text, operation, Session, token), expected, "{operation:?} {token}");
    }
    assert!(
        route(text, Search, Strong, 0).starts_with("main,"),
        "a truth that can search answers strong searches"
    );
}

#[test]
fn of_two_random_followers_the_less_loaded_is_asked_first() {
    let text = "
        main truth filter blocked
        a    follower filter at=9 load=5
        b    follower filter at=9 load=1
        c    follower filter at=9 load=3
    ";
    let request = Request::new(Query);
    let first = |random: f64| {
        let plan = plan(&request, &ReadPolicy::default(), &sources(text), random);
        assert_eq!(plan.candidates.len(), 3, "each of them is asked once");
        plan.candidates[0].source.to_string()
    };
    let firsts: Vec<_> = (0..60).map(|n| first(f64::from(n) / 60.0)).collect();
    let share = |name: &str| firsts.iter().filter(|f| *f == name).count();
    assert_eq!((share("a"), share("b"), share("c")), (0, 40, 20), "the busiest never wins a pair");
}

#[test]
fn a_follower_that_lags_too_much_is_asked_last() {
    let text = "
        main  truth filter blocked
        tardy follower filter at=9 lag=5
        good  follower filter at=9 lag=1 load=9
    ";
    let policy = ReadPolicy { lag_max: Some(Duration::from_secs(2)), ..ReadPolicy::default() };
    assert_eq!(
        decide(&Request::new(Query), &policy, text),
        "good stale, tardy stale, -main:Blocked"
    );
}

#[test]
fn questions_of_several_criteria_go_to_a_search_index() {
    let text = "
        main truth get filter agg
        find follower get filter agg search at=7
    ";
    let two = Request { criteria: 2, ..Request::new(Query) };
    assert_eq!(decide(&two, &ReadPolicy::default(), text), "find, main");
    assert_eq!(decide(&Request::new(Query), &ReadPolicy::default(), text), "main, find");
    let behind = Request { token: Position::new(8).unwrap(), ..two.clone() };
    assert_eq!(decide(&behind, &ReadPolicy::default(), text), "main, find wait=8");
    let scanning = text.replace("search", "search scans");
    assert_eq!(decide(&two, &ReadPolicy::default(), &scanning), "main, find");
}

#[test]
fn a_critical_read_is_the_truths_alone() {
    let hints: [Arc<str>; 1] = ["critical".into()];
    let request = Request { hints: &hints, ..Request::new(Get) };
    let expected = "main, -memory:NotInRule, -find:Filtered, -copy:NotInRule";
    assert_eq!(decide(&request, &ReadPolicy::default(), USUAL), expected);
}

#[test]
fn a_follower_with_a_map_is_asked_only_where_a_rule_names_it() {
    let text = "
        main  truth    get filter agg
        other follower get filter agg search at=9 map
        copy  follower get filter agg at=9
    ";
    for operation in [Get, Query, Count] {
        assert_eq!(route(text, operation, Eventual, 0), "main, copy, -other:Mapped");
    }
    assert_eq!(
        route(text, Search, Eventual, 0),
        "-main:Unable, -other:Mapped, -copy:Unable",
        "nor for words, though nobody else can"
    );
    let named = |ask: &str| ReadPolicy {
        rules: vec![ReadRule {
            name: "r".into(),
            when: None,
            ask: vec![Place::parse(ask)],
            only: true,
        }],
        ..ReadPolicy::default()
    };
    let get = Request::new(Get);
    assert_eq!(decide(&get, &named("other"), text), "other, -main:NotInRule, -copy:NotInRule");
    assert_eq!(decide(&get, &named("followers"), text), "copy, -main:NotInRule, -other:Mapped");
}

#[test]
fn the_first_declared_rule_that_holds_names_the_places() {
    let rule = |name: &str, when: Option<&str>, ask: &[&str], only| ReadRule {
        name: name.into(),
        when: when.map(|text| Arc::new(Rule::of_request(text).unwrap())),
        ask: ask.iter().map(|place| Place::parse(place)).collect(),
        only,
    };
    let policy = ReadPolicy {
        rules: vec![
            rule("mine", Some("request.actor == 'report'"), &["copy"], true),
            rule("stock", Some("'stock' in request.fields"), &["copy", "truth"], false),
            rule("rest", None, &["followers"], false),
        ],
        ..ReadPolicy::default()
    };
    let of = |request: &Request<'_>| decide(request, &policy, USUAL);
    let report = Request { actor: Some("report"), ..Request::new(Query) };
    assert_eq!(of(&report), "copy, -main:NotInRule, -memory:Unable, -find:Filtered");
    let stock = Request { fields: vec!["stock"], ..Request::new(Query) };
    assert_eq!(of(&stock), "copy, main, -memory:Unable, -find:Filtered");
    let plan = plan(&stock, &policy, &sources(USUAL), 0.0);
    assert_eq!(&*plan.rule, "stock");
    assert_eq!(of(&Request::new(Get)), "copy, memory, main, -find:Filtered");
}

#[test]
fn a_follower_that_is_being_filled_is_not_asked() {
    let text = "
        main truth get
        copy follower get
        memory cache
    ";
    assert_eq!(route(text, Get, Eventual, 0), "main, -copy:NotServing, -memory:NotServing");
}

#[test]
fn without_fallback_only_the_first_is_asked() {
    let request = Request { fallback: false, ..Request::new(Get) };
    let expected = "memory, -find:Filtered, -main:NoFallback, -copy:NoFallback";
    assert_eq!(decide(&request, &ReadPolicy::default(), USUAL), expected);
    let policy = ReadPolicy { no_fallback: true, ..ReadPolicy::default() };
    assert_eq!(decide(&Request::new(Get), &policy, USUAL), expected);
}

#[test]
fn equals_of_another_region_come_last_and_nothing_else_changes_for_them() {
    let followers = ReadPolicy {
        lag_max: Some(Duration::from_secs(5)),
        rules: vec![ReadRule {
            name: "copies".into(),
            when: None,
            ask: vec![Place::Source("first".into()), Place::Followers],
            only: false,
        }],
        ..ReadPolicy::default()
    };
    let get = Request::new(Get);
    for (text, expected) in [
        // The load decides only within a region.
        (
            "main truth get\nthere follower get at=1 far\nhere follower get at=1 load=9\nidle follower get at=1 load=1",
            "idle, here, there, main",
        ),
        // A rule that names the source, and the bound of the lag, are stronger.
        (
            "main truth get\nfirst follower get at=1 far\nhere follower get at=1",
            "first, here, main",
        ),
        (
            "main truth get\nthere follower get at=1 far\nhere follower get at=1 lag=6",
            "there, main, here",
        ),
    ] {
        assert_eq!(decide(&get, &followers, text), expected, "{text}");
    }
    // Where no rule says otherwise the truth is no equal of its followers.
    let usual = "main truth get far\nhere follower get at=1";
    assert_eq!(route(usual, Get, Session, 0), "main, here");
}
