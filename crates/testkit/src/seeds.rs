//! [`run`]: one world after the other, each from its seed.

/// Runs worlds from seeds: `usual` of them, as many as the variable `SEEDS` says, or the one that `SEED` names. Panics
/// with the seeds that failed. Answers what was counted if there were so many that everything should have happened.
#[expect(clippy::print_stdout, clippy::panic, reason = "this is the course of a test")]
pub fn run<T: Default + std::fmt::Debug>(
    usual: u64,
    world: impl Fn(u64, &mut T) -> Result<(), String>,
) -> Option<T> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    let (from, count) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SEEDS").unwrap_or(usual)),
    };
    let mut tally = T::default();
    let failed: Vec<String> = (from..from + count)
        .filter_map(|seed| {
            world(seed, &mut tally).err().map(|message| format!("SEED={seed}: {message}"))
        })
        .collect();
    println!("{count} worlds: {tally:?}");
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
    (count >= usual).then_some(tally)
}
