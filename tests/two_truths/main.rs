//! Two truths that follow each other, under partitions, clocks that differ and crashes between any two steps: from seeds, on
//! virtual time. `SEEDS=1000` runs more of them, `SEED=7` one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::time::Duration;

mod judge;
mod world;

/// How many worlds a run without arguments tries.
const SEEDS: u64 = 60;

#[test]
fn both_come_to_hold_the_same_and_to_rest() {
    if let Some(tally) = unisono_testkit::seeds::run(SEEDS, world::run) {
        assert!(tally.is_complete(), "something never happened: {tally:?}");
    }
}

#[test]
fn what_gave_way_is_recorded_for_as_long_as_is_declared() {
    let [soon, before, afterwards] = world::conflicts_kept_for(Duration::from_secs(600));
    assert!(soon > 0 && before == soon, "{soon}, then {before}");
    assert_eq!(afterwards, 0);
}
