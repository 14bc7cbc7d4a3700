//! Streams of events under crashes between any two steps, cut lines and lost answers: from seeds, on virtual time.
//! `SEEDS=1000` runs more of them, `SEED=7` one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod client;
mod judge;
mod world;

/// How many worlds a run without arguments tries.
const SEEDS: u64 = 100;

#[test]
fn what_was_appended_is_there_once_in_order_and_nothing_else() {
    if let Some(tally) = unisono_testkit::seeds::run(SEEDS, world::run) {
        let never = tally.never();
        assert!(never.is_empty(), "it never happened: {never:?}");
    }
}
