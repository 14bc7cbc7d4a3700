use super::*;

const POLICY: AdaptivePolicy = AdaptivePolicy {
    latency: Duration::from_millis(100),
    lag: Duration::from_secs(5),
    dwell: Duration::from_secs(10),
};

fn at(second: u64) -> Timestamp {
    Timestamp::EPOCH.plus(Duration::from_secs(1_000_000_000 + second))
}

/// One of which nothing bad is known.
fn well(source: &str) -> Facts {
    Facts {
        source: source.into(),
        filtered: false,
        latency: Duration::from_millis(4),
        lag: Duration::ZERO,
        lag_changes: 0,
        failures: 0,
        away: false,
    }
}

fn slow(source: &str, millis: u64) -> Facts {
    Facts { latency: Duration::from_millis(millis), ..well(source) }
}

/// A controller that looks once a second.
struct Course {
    controller: Controller,
    second: u64,
    moves: Vec<(u64, Move)>,
}

impl Course {
    fn new() -> Self {
        Course { controller: Controller::default(), second: 0, moves: Vec::new() }
    }

    /// Looks for some seconds at followers that stay as they are; answers the level and the moves, as `truth>quorum`.
    fn looks(&mut self, seconds: u64, followers: &[Facts]) -> (Level, Vec<String>) {
        let before = self.moves.len();
        for _ in 0..seconds {
            self.look(followers);
        }
        let told = |(_, m): &(u64, Move)| format!("{}>{}", m.from.as_str(), m.to.as_str());
        (self.controller.level(), self.moves[before..].iter().map(told).collect())
    }

    fn look(&mut self, followers: &[Facts]) {
        self.second += 1;
        let made = self.controller.look(&POLICY, followers, at(self.second));
        self.moves.extend(made.map(|made| (self.second, made)));
    }

    /// One whose followers were all well until it was at the top.
    fn at_the_top(followers: &[Facts]) -> Self {
        let mut course = Course::new();
        assert_eq!(course.looks(22, followers).0, Level::All);
        course
    }

    fn why(&self) -> &str {
        &self.moves.last().unwrap().1.why
    }
}

#[test]
fn levels_demand_more_the_higher_they_are() {
    for (followers, quorum) in [(1, 2), (2, 2), (3, 3), (4, 3), (5, 4)] {
        assert_eq!(Level::Quorum.ack(followers), Ack::Count(quorum), "{followers}");
    }
    assert_eq!((Level::All.ack(3), Level::Truth.ack(3)), (Ack::All, Ack::Truth));
    assert!(Level::All > Level::Quorum && Level::Quorum > Level::Truth);
}

#[test]
fn it_begins_at_the_truth_and_goes_up_level_by_level() {
    let three = [well("a"), well("b"), well("c")];
    let mut course = Course::new();
    assert_eq!(course.looks(10, &three), (Level::Truth, vec![]));
    assert_eq!(course.looks(1, &three), (Level::Quorum, vec!["truth>quorum".to_owned()]));
    assert_eq!(course.why(), "enough followers were well for 10s");
    assert_eq!(course.looks(10, &three), (Level::Quorum, vec![]));
    assert_eq!(course.looks(1, &three), (Level::All, vec!["quorum>all".to_owned()]));
    assert_eq!(course.looks(1000, &three), (Level::All, vec![]));
    // Of a truth and one follower, more than half are all.
    assert_eq!(Course::new().looks(11, &[well("a")]).1, ["truth>all"]);
}

#[test]
fn it_goes_down_as_far_as_the_fit_ones_reach_and_says_why() {
    let cases: [(Facts, &str); 5] = [
        (slow("b", 101), "b takes 101ms for a batch, of at most 100ms"),
        (
            Facts { lag: Duration::from_millis(5200), lag_changes: 77, ..well("b") },
            "b lags by 5200ms and 77 changes, of at most 5s",
        ),
        (Facts { failures: 3, ..well("b") }, "b failed 3 times within a look"),
        (Facts { away: true, ..well("b") }, "b takes in nothing"),
        (Facts { away: true, failures: 3, ..slow("b", 900) }, "b takes in nothing"),
    ];
    for (bad, why) in cases {
        let mut course = Course::at_the_top(&[well("a"), well("b"), well("c")]);
        let all = [well("a"), bad, well("c")];
        assert_eq!(course.looks(1, &all), (Level::All, vec![]), "one look is no trend");
        assert_eq!(course.looks(60, &all), (Level::Quorum, vec!["all>quorum".to_owned()]));
        assert_eq!(course.why(), why);
        assert!(!course.controller.is_fit("b") && course.controller.is_fit("c"));
    }
    let mut course = Course::at_the_top(&[well("a"), well("b"), well("c")]);
    let two = [well("a"), slow("b", 300), slow("c", 200)];
    assert_eq!(course.looks(60, &two), (Level::Truth, vec!["all>truth".to_owned()]));
    assert!(course.why().contains("b takes 300ms") && course.why().contains("; c takes 200ms"));
}

#[test]
fn what_is_between_returning_and_leaving_changes_nothing() {
    let at_limit = [well("a"), slow("b", 100)];
    let mut course = Course::at_the_top(&[well("a"), well("b")]);
    assert_eq!(course.looks(100, &at_limit), (Level::All, vec![]));
    course.looks(2, &[well("a"), slow("b", 150)]);
    assert_eq!(course.looks(100, &at_limit), (Level::Quorum, vec![]), "better, and not well");
    assert_eq!(course.looks(100, &[well("a"), slow("b", 51)]).0, Level::Quorum);
    assert_eq!(course.looks(11, &[well("a"), slow("b", 50)]).1, ["quorum>all"]);
}

#[test]
fn only_followers_that_hold_every_record_make_a_quorum() {
    let part = Facts { filtered: true, ..well("b") };
    let mut course = Course::at_the_top(&[well("a"), part.clone()]);
    assert_eq!(course.looks(5, &[slow("a", 500), part.clone()]).1, ["all>truth"]);
    let mut course = Course::at_the_top(&[well("a"), part]);
    let slow_part = Facts { filtered: true, ..slow("b", 500) };
    assert_eq!(course.looks(5, &[well("a"), slow_part]).1, ["all>quorum"]);
}

#[test]
fn one_bad_look_makes_the_wait_begin_anew() {
    let mut course = Course::new();
    for _ in 0..50 {
        course.looks(9, &[well("a")]);
        course.looks(1, &[slow("a", 500)]);
        course.looks(1, &[slow("a", 500)]);
    }
    assert!(course.moves.is_empty());
    assert_eq!(course.looks(11, &[well("a")]).1, ["truth>all"]);
}

#[test]
fn each_quick_relapse_doubles_the_wait_and_a_long_stay_makes_up_for_them() {
    let mut course = Course::at_the_top(&[well("a")]);
    for wait in [20, 40, 80, 160, 320, 640, 640, 640] {
        assert_eq!(course.looks(2, &[slow("a", 500)]).1, ["all>truth"]);
        assert_eq!(course.controller.wait(&POLICY), Duration::from_secs(wait));
        assert_eq!(course.looks(wait, &[well("a")]).1, [""; 0]);
        assert_eq!(course.looks(1, &[well("a")]).1, ["truth>all"]);
    }
    course.looks(640 * 8, &[well("a")]);
    course.looks(2, &[slow("a", 500)]);
    assert_eq!(course.looks(11, &[well("a")]).1, ["truth>all"], "it waits as at first");
}

#[test]
fn a_clock_that_is_set_back_only_makes_it_wait() {
    let mut controller = Controller::default();
    for second in (0..60).rev() {
        assert_eq!(controller.look(&POLICY, &[well("a")], at(second)), None);
    }
}

/// Numbers that look random, the same for each seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        // Xorshift, of which zero is the one bad state.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn facts(&mut self, source: &str, bad_in: u64) -> Facts {
        let is_bad = self.below(bad_in) == 0;
        match self.below(4) {
            0 if is_bad => slow(source, 50 + self.below(300)),
            1 if is_bad => Facts { failures: 1 + self.below(3), ..well(source) },
            2 if is_bad => Facts { away: true, ..well(source) },
            _ if is_bad => Facts { lag: Duration::from_secs(1 + self.below(9)), ..well(source) },
            _ => well(source),
        }
    }
}

/// However followers behave: it goes up only after a wait, is nowhere that they cannot afford for longer than two looks, and
/// moves rarely.
#[test]
fn it_never_flaps() {
    const HOUR: u64 = 3600;
    for seed in 1..=300 {
        let mut numbers = Numbers(seed * 0x9E37_79B9);
        let names = &["a", "b", "c", "d"][..1 + numbers.below(4) as usize];
        let mut bad_in = 1;
        let mut course = Course::new();
        let mut over = BTreeMap::new();
        for _ in 0..HOUR {
            if numbers.below(40) == 0 {
                bad_in = 1 << numbers.below(14);
            }
            // The most spiteful: well while little is demanded, bad as soon as it is at the top.
            let spiteful = seed.is_multiple_of(3) && course.controller.level() < Level::All;
            let bad_in = if spiteful { u64::MAX } else { bad_in };
            let facts: Vec<_> = names.iter().map(|name| numbers.facts(name, bad_in)).collect();
            course.look(&facts);
            for one in &facts {
                let looks = over.entry(Arc::clone(&one.source)).or_insert(0);
                *looks = if one.complaint(&POLICY, 1).is_some() { *looks + 1 } else { 0 };
            }
            let fit = names.iter().filter(|name| over[**name] < LOOKS_OVER).count();
            match course.controller.level() {
                Level::All => assert_eq!(fit, names.len(), "seed {seed}"),
                Level::Quorum => assert!(fit >= names.len().div_ceil(2), "seed {seed}"),
                Level::Truth => {}
            }
        }
        let mut last = 0;
        for (second, made) in &course.moves {
            assert!(!made.why.is_empty());
            assert!(made.to < made.from || second - last >= 10, "seed {seed} at {second}");
            last = *second;
        }
        assert!(course.moves.len() < 80, "seed {seed}: {} in an hour", course.moves.len());
    }
}

#[test]
fn who_is_bad_whenever_much_is_demanded_is_asked_ever_more_rarely() {
    let mut course = Course::new();
    for _ in 0..3600 {
        let demanding = course.controller.level() == Level::All;
        course.look(&[well("a"), if demanding { slow("b", 500) } else { well("b") }]);
    }
    assert!(course.moves.len() <= 22, "{} in an hour", course.moves.len());
}
