//! The cache protocol against every order of steps: one key, one writer, readers that fill late, a worker that follows
//! the log, and faults that strike once at any moment.
//!
//! A protocol is wrong if the cache still holds something else than the truth when everything has come to rest, or, where
//! a test asks for it, if an entry ever lacks a change that the cache says it has applied. The search is exhaustive, so
//! it finds what random schedules miss; `sources/redis/tests` runs the shipped scripts, which are the steps of this
//! model, under random schedules on a real server. The protocols that people write by hand are here to see that the
//! search does find what is wrong with them.

mod model;
mod protocol;

use model::Case;
use protocol::{
    ANY_ORDER, EPOCHS, FAULTS, FENCE, Fault, LEASES, LEASES_WITH_ENTRY, NAIVE, OURS, POSITION,
    Protocol, TWICE, VERSIONS, WINDOW,
};

/// Histories: for each commit, whether it changes the key.
const HISTORIES: [&[bool]; 5] =
    [&[true], &[true, true], &[true, false, true], &[true, false], &[false, true, false]];

fn case<'a>(protocol: Protocol, faults: &'a [Fault], commits: &'a [bool]) -> Case<'a> {
    Case { protocol, faults, commits, fillers: 2, reads_contiguous: true, at_all_times: false }
}

/// Whether a protocol is wrong even without any fault, and the faults under which it is.
fn breaks(protocol: Protocol) -> (bool, Vec<Fault>) {
    let fails = |faults: &[Fault]| {
        HISTORIES.iter().any(|commits| !case(protocol, faults, commits).holds().1)
    };
    (fails(&[]), FAULTS.into_iter().filter(|fault| fails(&[*fault])).collect())
}

#[test]
fn ours_holds_under_every_fault() {
    assert_eq!(breaks(OURS), (false, Vec::new()));
}

#[test]
fn an_entry_of_ours_always_has_what_the_cache_has_applied() {
    for fault in FAULTS {
        for commits in HISTORIES {
            let faults = [fault];
            let case = Case { at_all_times: true, ..case(OURS, &faults, commits) };
            assert!(case.holds().1, "{fault:?} {commits:?}");
        }
    }
}

#[test]
fn ours_holds_under_every_pair_of_faults() {
    for (n, first) in FAULTS.iter().enumerate() {
        for second in &FAULTS[n + 1..] {
            for commits in HISTORIES {
                let faults = [*first, *second];
                assert!(case(OURS, &faults, commits).holds().1, "{faults:?} {commits:?}");
            }
        }
    }
}

#[test]
fn ours_holds_with_three_readers_and_four_faults() {
    let faults = [Fault::Evict, Fault::Failover, Fault::Lag, Fault::Zombie];
    let case = Case { fillers: 3, ..case(OURS, &faults, &[true, false, true]) };
    let (states, holds) = case.holds();
    assert!(holds);
    assert!(states > 100_000, "the search came to an early end: {states} states");
}

#[test]
fn a_reader_must_name_the_position_up_to_which_it_saw_everything() {
    let holds = |commits: &&[bool]| {
        let case = case(OURS, &[Fault::Gap], commits);
        Case { reads_contiguous: false, ..case }.holds().1
    };
    assert!(!HISTORIES.iter().all(holds), "this guard is not needed");
}

/// Each lacks something of ours, or is what teams write by hand; without a fault only those break that nothing orders.
#[test]
fn every_other_protocol_is_found_wrong() {
    use Fault::{Evict, Expire, Failover, FenceEvict, Flush, Lag, LostDelete, Zombie};
    let cases: [(Protocol, bool, &[Fault]); 9] = [
        (NAIVE, true, &FAULTS),
        (TWICE, true, &FAULTS),
        (LEASES_WITH_ENTRY, true, &FAULTS),
        (LEASES, false, &[Failover, LostDelete, Lag]),
        (VERSIONS, false, &[Evict, Expire, Flush, Failover]),
        (VERSIONS.cached_only(), true, &FAULTS),
        (POSITION, false, &[Evict, Expire, Flush, FenceEvict, Zombie]),
        (FENCE, false, &[FenceEvict, Zombie]),
        (ANY_ORDER, false, &[Zombie]),
    ];
    for (protocol, alone, faults) in cases {
        assert_eq!(breaks(protocol), (alone, faults.to_vec()), "{}", protocol.name);
    }
}

/// Two that are as good as ours: checking a fill against the position refuses more of them, and bringing into the cache
/// what nobody asked for fills it with what nobody reads.
#[test]
fn what_ours_was_chosen_from_holds_too() {
    for protocol in [WINDOW, EPOCHS, EPOCHS.cached_only()] {
        assert_eq!(breaks(protocol), (false, Vec::new()), "{}", protocol.name);
    }
}
