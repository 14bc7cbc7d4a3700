use std::time::Duration;

use super::*;

/// Followers `a`, `b`, `c`, changed as a case needs it.
fn given(count: usize, change: impl Fn(&mut Given)) -> Given {
    let follower = |source: &str| GivenFollower { source: source.into(), ..Default::default() };
    let followers = ["a", "b", "c"].into_iter().take(count).map(follower).collect();
    let mut given = Given { followers, ..Given::default() };
    change(&mut given);
    given
}

fn resolve(name: &str, given: &Given) -> Result<Resolved, Contradiction> {
    (find(name).unwrap().resolve)(given)
}

fn refused(name: &str, given: &Given) -> (Option<usize>, &'static str) {
    let contradiction = resolve(name, given).unwrap_err();
    (contradiction.follower, contradiction.field)
}

#[test]
fn the_names_are_those_of_the_strategies() {
    assert_eq!(ALL.iter().map(|s| s.name).collect::<Vec<_>>(), NAMES);
    assert!(NAMES.is_sorted() && find("none").is_none());
}

#[test]
fn each_says_when_a_write_is_answered_or_leaves_it() {
    for (name, followers, expected) in [
        ("best_effort", 3, Ack::Truth),
        ("async_queue", 3, Ack::Truth),
        ("parallel", 3, Ack::All),
        ("star", 0, Ack::All),
        ("quorum", 0, Ack::Count(1)),
        ("quorum", 1, Ack::Count(2)),
        ("quorum", 2, Ack::Count(2)),
        ("quorum", 3, Ack::Count(3)),
    ] {
        let plain = given(followers, |_| {});
        assert_eq!(resolve(name, &plain).unwrap().ack, expected, "{name} of {followers}");
        let same = given(followers, |g| g.ack = Some(expected.clone()));
        assert!(resolve(name, &same).is_ok(), "{name} with its own ack");
        let other = given(followers, |g| g.ack = Some(Ack::Count(9)));
        assert_eq!(refused(name, &other), (None, "ack"), "{name}");
    }
    for name in ["priority", "cascade", "batch"] {
        let free = given(3, |g| g.ack = Some(Ack::Count(2)));
        assert_eq!(resolve(name, &free).unwrap().ack, Ack::Count(2), "{name}");
    }
}

#[test]
fn what_goes_at_the_same_time_has_no_order() {
    for name in ["parallel", "star", "quorum", "adaptive"] {
        let ordered = given(2, |g| g.followers[1].after = Some("a".into()));
        assert_eq!(refused(name, &ordered), (Some(1), "after"), "{name}");
    }
}

#[test]
fn what_adapts_stands_for_the_most_and_leaves_nothing_to_say() {
    assert_eq!(resolve(ADAPTIVE, &given(2, |_| {})).unwrap().ack, Ack::All);
    let said = given(2, |g| g.ack = Some(Ack::All));
    assert_eq!(refused(ADAPTIVE, &said), (None, "ack"));
    assert_eq!(refused(ADAPTIVE, &given(0, |_| {})), (None, "followers"));
}

#[test]
fn a_cascade_goes_from_one_to_the_next() {
    let afters = |given: &Given| {
        let resolved = resolve("cascade", given).unwrap();
        resolved
            .deliveries
            .iter()
            .map(|d| d.after.as_deref().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let expected = [None, Some("a".to_owned()), Some("b".to_owned())];
    assert_eq!(afters(&given(3, |_| {})), expected);
    assert_eq!(afters(&given(3, |g| g.followers[2].after = Some("b".into()))), expected);
    let other = given(3, |g| g.followers[2].after = Some("a".into()));
    assert_eq!(refused("cascade", &other), (Some(2), "after"));
    assert_eq!(refused("cascade", &given(1, |_| {})), (None, "followers"));
}

#[test]
fn urgency_is_the_order_or_the_distance_unless_it_is_given() {
    let urgencies = |name, given: &Given| {
        let resolved = resolve(name, given).unwrap();
        resolved.deliveries.iter().map(|d| d.priority).collect::<Vec<_>>()
    };
    assert_eq!(urgencies("priority", &given(3, |_| {})), [3, 2, 1]);
    assert_eq!(urgencies("priority", &given(3, |g| g.followers[1].priority = Some(9))), [3, 9, 1]);
    assert!(urgencies("priority", &given(0, |_| {})).is_empty());
    let far = given(3, |g| {
        g.region = Some("eu".into());
        g.followers[0].region = Some("us".into());
        g.followers[1].region = Some("eu".into());
    });
    assert_eq!(urgencies("geographic", &far), [0, 1, 1]);
    assert_eq!(refused("geographic", &given(3, |_| {})), (None, "region"));
    let nowhere = given(3, |g| g.region = Some("eu".into()));
    assert_eq!(refused("geographic", &nowhere), (None, "region"));
}

#[test]
fn parts_need_conditions() {
    let parts = given(2, |g| g.followers.iter_mut().for_each(|f| f.filtered = true));
    assert!(resolve("partition", &parts).is_ok());
    assert_eq!(refused("conditional", &parts), (None, "followers"));
    let with_default =
        given(2, |g| (g.followers[0].filtered, g.followers[1].default) = (true, true));
    assert!(resolve("conditional", &with_default).is_ok());
    assert_eq!(refused("partition", &with_default), (Some(1), "where"));
    assert_eq!(refused("conditional", &given(1, |_| {})), (Some(0), "where"));
}

#[test]
fn batches_are_as_given_or_as_the_strategy_has_them() {
    let own = BatchPolicy { size: Some(7), bytes: None, age: Duration::ZERO };
    let one = given(2, |g| g.followers[0].batch = Some(own));
    let batches =
        |name| resolve(name, &one).unwrap().deliveries.iter().map(|d| d.batch).collect::<Vec<_>>();
    let queue = BatchPolicy { size: Some(500), ..BatchPolicy::default() };
    assert_eq!(batches("async_queue"), [own, queue]);
    assert_eq!(batches("batch"), [own, BatchPolicy { age: Duration::from_secs(1), ..queue }]);
    assert_eq!(batches("best_effort"), [own, BatchPolicy::default()]);
}
