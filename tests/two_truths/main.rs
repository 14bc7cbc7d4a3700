//! Two truths that follow each other, under partitions, clocks that differ and crashes between any two steps: from seeds, on
//! virtual time. `SEEDS=1000` runs more of them, `SEED=7` one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod judge;
mod world;

/// How many worlds a run without arguments tries.
const SEEDS: u64 = 60;

#[test]
fn both_come_to_hold_the_same_and_to_rest() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (from, count) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SEEDS").unwrap_or(SEEDS)),
    };
    let mut tally = world::Tally::default();
    let failed: Vec<String> = (from..from + count)
        .filter_map(|seed| {
            let told = world::run(seed, &mut tally);
            told.err().map(|message| format!("seed {seed}: {message}"))
        })
        .collect();
    println!("{count} worlds: {tally:?}");
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
    if count >= SEEDS {
        assert!(tally.is_complete(), "something never happened: {tally:?}");
    }
}
