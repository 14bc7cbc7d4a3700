//! The shipped scripts of the cache under random schedules, and the same with one check after the other removed from
//! them: each must be missed, or a second one must be known that does its work.
//!
//! `PROTOCOL_SEEDS=30000 cargo test -p unisono-source-redis --test engine -- schedules:: --nocapture` runs that many;
//! `PROTOCOL_SEED=7` runs the one of that seed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use unisono_core::source::Cache;

use crate::common::Server;
use crate::schedule::{Tally, compressing_processes, processes, run};
use crate::scripts::{Changed, Cut, FILL, FOLLOW, LOOKUP, RESTART};

/// How many schedules each test runs unless it is told.
const SEEDS: u64 = 400;
/// Within how many schedules a missing check must be noticed.
const NOTICED_WITHIN: u64 = 3000;

/// The lists of changed keys hold 16,384 keys before they are replaced: here one, so that it happens all the time.
/// What a list says of itself is one more.
const SHORT_LISTS: Cut = Cut { script: FOLLOW, from: "tonumber(ARGV[4])", to: "1" };

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name} is {n}")))
}

fn seeds() -> Range<u64> {
    match number("PROTOCOL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PROTOCOL_SEEDS").unwrap_or(SEEDS),
    }
}

/// The first schedule in which something was wrong, or what happened in all of them.
async fn all(
    server: &Server,
    caches: &[Arc<dyn Cache>],
    seeds: Range<u64>,
    compresses: bool,
) -> Result<Tally, (u64, String)> {
    let client = server.client().await;
    let mut tally = Tally::default();
    for seed in seeds {
        let ran = run(&client, caches, seed, compresses).await;
        tally += ran.map_err(|wrong| (seed, wrong))?;
    }
    Ok(tally)
}

/// All of these hold, and enough happened for that to mean something.
async fn hold(name: &str, server: &Server, caches: &[Arc<dyn Cache>], compresses: bool) {
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    let tally = all(server, caches, seeds, compresses).await;
    let tally = tally.unwrap_or_else(|(seed, wrong)| panic!("{name}, seed {seed}: {wrong}"));
    println!("{name}: {count} schedules, 0 violations; {tally:?}");
    let happened = [
        tally.stored,
        tally.outdated,
        tally.other_epoch,
        tally.followed,
        tally.moved,
        tally.evictions,
        tally.flushes,
        tally.failovers,
        tally.late,
    ];
    let rarest = happened.into_iter().min().unwrap_or(0);
    let enough = rarest > 0 && tally.stored > count && (tally.compressed > count || !compresses);
    assert!(count < 100 || enough, "too little happened: {tally:?}");
}

#[tokio::test]
async fn no_entry_is_ever_older_than_applied() {
    let server = Server::start(&[]).await;
    hold("as shipped", &server, &processes(&server.url()).await, false).await;
}

#[tokio::test]
async fn nor_is_one_that_is_compressed() {
    let server = Server::start(&[]).await;
    hold("compressed", &server, &compressing_processes(&server.url()).await, true).await;
}

#[tokio::test]
async fn nor_while_the_lists_of_changed_keys_are_replaced() {
    let server = Server::start(&[]).await;
    let way = Changed::before(&server, &[SHORT_LISTS]).await;
    hold("short lists", &server, &processes(&way.url).await, false).await;
    assert!(way.runs.load(Ordering::Relaxed) > 0, "the scripts were the shipped ones");
}

/// A check that is removed.
struct Mutant {
    name: &'static str,
    cuts: &'static [Cut],
    /// Why nothing is wrong without it, where nothing is.
    doubled: Option<&'static str>,
    /// The seed to begin with: 0, but for what few schedules notice.
    first: u64,
}

const fn needed(name: &'static str, cuts: &'static [Cut]) -> Mutant {
    Mutant { name, cuts, doubled: None, first: 0 }
}

const fn doubled(name: &'static str, why: &'static str, cuts: &'static [Cut]) -> Mutant {
    Mutant { name, cuts, doubled: Some(why), first: 0 }
}

const fn cut(script: &'static str, from: &'static str, to: &'static str) -> Cut {
    Cut { script, from, to }
}

const MUTANTS: &[Mutant] = &[
    doubled(
        "fill: the epoch of the fence",
        "the lists carry it too, and without a fence nothing is found: case fill-1 of the behaviour suite fails",
        &[cut(FILL, "if string.sub(fence, 1, 16) ~= epoch then return 'epoch' end", "")],
    ),
    needed(
        "fill: the epoch of the recent list",
        &[cut(FILL, "recent[1] ~= epoch or ", "")],
    ),
    needed(
        "fill: the epoch of the previous list",
        &[cut(FILL, " or previous[1] ~= epoch", "")],
    ),
    needed("fill: the floor", &[cut(FILL, "if string.sub(fence, 37, 56) > read then return 'outdated' end", "")]),
    needed("fill: the recent list", &[cut(FILL, "recent[2] or ", "")]),
    needed("fill: the previous list", &[cut(FILL, " or previous[2]", "")]),
    needed(
        "fill: the change of the key",
        &[cut(FILL, "if changed and changed > read then return 'outdated' end", "")],
    ),
    needed("fill: the version that is held", &[cut(FILL, "held > version or", "")]),
    needed(
        "follow: where applied is",
        &[cut(FOLLOW, "if applied ~= ARGV[1] then return applied end", "")],
    ),
    needed(
        "follow: the floor of lists that are begun again",
        &[cut(FOLLOW, "floor, recent, previous = to, to, to", "recent, previous = to, to")],
    ),
    Mutant {
        first: 2200,
        ..needed(
            "follow: what lists that are begun again have passed",
            &[cut(FOLLOW, "floor, recent, previous = to, to, to", "floor = to")],
        )
    },
    needed(
        "follow: the floor of a list that is replaced",
        &[cut(FOLLOW, "floor, previous = previous, recent", "previous = recent")],
    ),
    needed(
        "follow: what a list has passed",
        &[cut(FOLLOW, "if recent < version then recent = version end", "")],
    ),
    needed(
        "follow: noting the changed key",
        &[cut(FOLLOW, "redis.call('HSET', KEYS[2], id, version)", "")],
    ),
    needed(
        "follow: the version that is cached",
        &[cut(FOLLOW, " and string.sub(cached, 17) < version", "")],
    ),
    needed(
        "follow: bringing the entry up to date",
        &[cut(
            FOLLOW,
            "redis.call('SET', KEYS[n], epoch .. version .. ARGV[at + 2], 'PX', ARGV[3])",
            "",
        )],
    ),
    needed("restart: another epoch", &[cut(RESTART, "ARGV[1]", "'00000000000000ff'")]),
    needed(
        "restart: the floor",
        &[cut(
            RESTART,
            "string.rep(ARGV[2], 4)",
            "ARGV[2] .. string.rep('0', 20) .. ARGV[2] .. ARGV[2]",
        )],
    ),
    needed(
        "lookup: the epoch of the entry",
        &[cut(
            LOOKUP,
            "local answer = redis.call('MGET', KEYS[1], KEYS[2])",
            "local answer = redis.call('MGET', KEYS[1], KEYS[2])
             if answer[1] and answer[2] then answer[2] = string.sub(answer[1], 1, 16) .. string.sub(answer[2], 17) end",
        )],
    ),
    doubled(
        "lookup: whether there is a fence",
        "a lease is taken before a life begins: its holder reads, the others wait for a moment",
        &[cut(LOOKUP, " or not fence", "")],
    ),
    needed(
        "follow: whether there is a fence",
        &[cut(FOLLOW, "if not fence then return 'nowhere' end", "")],
    ),
    doubled(
        "follow: emptying lists that are begun again",
        "what they still hold are changes that took place, all of them before the floor",
        &[cut(FOLLOW, "redis.call('UNLINK', KEYS[2], KEYS[3])", "")],
    ),
    doubled(
        "follow: removing the list that is replaced",
        "renaming replaces it; the removal only spares the server the time",
        &[cut(FOLLOW, "redis.call('UNLINK', KEYS[3])\n", "")],
    ),
    doubled(
        "follow: whether the lists are there",
        "fills are refused until both were replaced, which may take for ever: a_lost_list_of_changes_is_begun_again fails",
        &[cut(
            FOLLOW,
            "if redis.call('HGET', KEYS[2], '') ~= epoch or redis.call('HGET', KEYS[3], '') ~= epoch then",
            "if false then",
        )],
    ),
    doubled(
        "restart: emptying the lists",
        "they refuse too much, not too little: a_new_life_knows_nothing_of_the_one_before fails",
        &[cut(RESTART, "redis.call('UNLINK', KEYS[2], KEYS[3])", "")],
    ),
    doubled(
        "fill: the epoch of the entry that is held",
        "fills are refused that need not be: a_new_life_knows_nothing_of_the_one_before fails",
        &[cut(FILL, " and string.sub(cached, 1, 16) == epoch", "")],
    ),
    doubled(
        "fill: which of two equal versions lives longer",
        "both are right; an entry could only end earlier",
        &[cut(FILL, " or (held == version and ARGV[5] <= string.sub(cached, 37, 56))", "")],
    ),
];

#[tokio::test]
async fn every_check_is_needed_or_doubled() {
    let mut wrong = Vec::new();
    for mutant in MUTANTS {
        let server = Server::start(&[]).await;
        let cuts = [&[SHORT_LISTS], mutant.cuts].concat();
        let way = Changed::before(&server, &cuts).await;
        let caches = processes(&way.url).await;
        let seeds = match mutant.doubled {
            Some(_) => 0..seeds().end.div_ceil(10),
            None => mutant.first..mutant.first + NOTICED_WITHIN,
        };
        let noticed = all(&server, &caches, seeds.clone(), false).await.err();
        let told = match (&noticed, mutant.doubled) {
            (Some((seed, what)), _) => format!("noticed in schedule {}: {what}", seed + 1),
            (None, why) => {
                format!("not noticed in {}: {}", seeds.end - seeds.start, why.unwrap_or("?"))
            }
        };
        println!("without {}: {told}", mutant.name);
        if noticed.is_some() == mutant.doubled.is_some() {
            wrong.push(format!("{}: {told}", mutant.name));
        }
        assert!(way.runs.load(Ordering::Relaxed) > 0, "{}: the shipped scripts ran", mutant.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
