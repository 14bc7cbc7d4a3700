use super::*;
use crate::route::Operation;

fn policy(rules: &[(&str, &str)]) -> ReadPolicy {
    let rule = |(when, ask): &(&str, &str)| ReadRule {
        name: (*ask).into(),
        when: Some(Arc::new(Rule::of_request(when).unwrap())),
        ask: vec![Place::parse(ask)],
        only: false,
    };
    ReadPolicy { rules: rules.iter().map(rule).collect(), ..ReadPolicy::default() }
}

#[test]
fn a_condition_sees_what_is_asked_and_by_whom() {
    let hints: [Arc<str>; 1] = ["fresh".into()];
    let request = Request {
        criteria: 3,
        fields: vec!["status", "amount"],
        hints: &hints,
        actor: Some("shop"),
        ..Request::new(Operation::SearchCount)
    };
    for (when, holds) in [
        ("request.operation == 'search_count'", true),
        ("request.search", true),
        ("request.criteria >= 3", true),
        ("'amount' in request.fields && size(request.fields) == 2", true),
        ("request.fields.exists(f, f.startsWith('st'))", true),
        ("'fresh' in request.hints", true),
        ("'critical' in request.hints", false),
        ("request.consistency == 'session'", true),
        ("request.actor == 'shop'", true),
        ("request.actor == 'till'", false),
    ] {
        let rule = &policy(&[(when, "main")]).rule(&request).name.to_string();
        assert_eq!(rule == "main", holds, "{when}");
    }
}

#[test]
fn an_anonymous_caller_is_no_actor() {
    let request = Request::new(Operation::Get);
    assert_eq!(&*policy(&[("request.actor == null", "main")]).rule(&request).name, "main");
}

#[test]
fn what_a_condition_cannot_name_is_refused() {
    for (when, says) in [
        ("request.colour == 'red'", "`request.colour` is not declared"),
        ("record.id == 1", "`record` is not known"),
        ("request.criteria", "a condition takes true or false"),
        ("request", "`request` is used as a value"),
    ] {
        let error = Rule::of_request(when).unwrap_err();
        assert!(error.message().contains(says), "{when}: {}", error.message());
    }
}

#[test]
fn the_cache_is_looked_into_when_rule_and_strategy_say() {
    let asking = |ask: &[&str], only| ReadRule {
        name: "test".into(),
        when: None,
        ask: ask.iter().map(|place| Place::parse(place)).collect(),
        only,
    };
    let with = |strategy| ReadPolicy { strategy, ..ReadPolicy::default() };
    use CacheUse::*;
    use ReadStrategy::*;
    for (strategy, ask, only, expected) in [
        (CacheFirst, &["cache"][..], false, First),
        (CacheFirst, &["redis", "truth"], false, First),
        (CacheFirst, &["truth", "cache"], true, Last),
        (CacheFirst, &["truth"], false, Last),
        (CacheFirst, &["truth"], true, Never),
        (DatabaseFirst, &["cache"], false, Last),
        (Parallel, &["cache"], false, Beside),
        (Parallel, &["truth"], true, Never),
    ] {
        let used = with(strategy).cache_use(&asking(ask, only), "redis");
        assert_eq!(used, expected, "{strategy:?} {ask:?} {only}");
    }
}
