//! Streams of events under crashes between any two steps, cut lines and lost answers: from seeds, on virtual time.
//! `SEEDS=1000` runs more of them, `SEED=7` one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod client;
mod judge;
mod outlets;
mod world;

/// How many worlds a run without arguments tries.
const SEEDS: u64 = 100;

/// The first seed, and how many.
fn seeds() -> (u64, u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SEEDS").unwrap_or(SEEDS)),
    }
}

#[test]
fn what_happened_is_sent_at_least_once_in_order_by_one_process_at_a_time() {
    let (from, count) = seeds();
    let mut seen = outlets::Seen::new();
    let run = |seed| {
        // Every fifth world is one in which nothing fails, and so nothing is sent twice.
        let told = outlets::run(seed, seed % 5 == 4, &mut seen);
        told.err().map(|message| format!("SEED={seed}: {message}"))
    };
    let failed: Vec<String> = (from..from + count).filter_map(run).collect();
    println!("{count} worlds: {seen:?}");
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
    if count >= SEEDS {
        let never: Vec<_> = outlets::MUST.iter().filter(|what| !seen.contains_key(*what)).collect();
        assert!(never.is_empty(), "it never happened: {never:?}");
    }
}

#[test]
fn what_was_appended_is_there_once_in_order_and_nothing_else() {
    let (from, count) = seeds();
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
