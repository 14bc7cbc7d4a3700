//! Projections under crashes between any two steps, cut lines, lost answers and two processes, while versions of them are
//! made, swapped, gone back to and discarded: from seeds, on virtual time. `SEEDS=1000` runs more of them, `SEED=7` one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod people;
mod world;

/// How many worlds a run without arguments tries.
const SEEDS: u64 = 60;

#[test]
fn rows_are_the_fold_of_the_truth_whatever_becomes_of_their_versions() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (from, count) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SEEDS").unwrap_or(SEEDS)),
    };
    let mut tally = world::Tally::default();
    let failed: Vec<String> = (from..from + count)
        .filter_map(|seed| {
            let told = world::run(seed, &mut tally);
            told.err().map(|message| format!("SEED={seed}: {message}"))
        })
        .collect();
    println!("{count} worlds: {tally:?}");
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
    if count >= SEEDS {
        let never = tally.never();
        assert!(never.is_empty(), "it never happened: {never:?}");
    }
}
