//! Streams of events under crashes between any two steps, cut lines and lost answers: from seeds, on virtual time.
//! `SEEDS=1000` runs more of them, `SEED=7` one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod client;
mod judge;
mod outlets;
mod world;

/// How many worlds a run without arguments tries.
const SEEDS: u64 = 100;

#[test]
fn what_happened_is_sent_at_least_once_in_order_by_one_process_at_a_time() {
    // Every fifth world is one in which nothing fails, and so nothing is sent twice.
    let world = |seed, seen: &mut outlets::Seen| outlets::run(seed, seed % 5 == 4, seen);
    if let Some(seen) = unisono_testkit::seeds::run(SEEDS, world) {
        let never: Vec<_> = outlets::MUST.iter().filter(|what| !seen.contains_key(*what)).collect();
        assert!(never.is_empty(), "it never happened: {never:?}");
    }
}

#[test]
fn what_was_appended_is_there_once_in_order_and_nothing_else() {
    if let Some(tally) = unisono_testkit::seeds::run(SEEDS, world::run) {
        let never = tally.never();
        assert!(never.is_empty(), "it never happened: {never:?}");
    }
}
