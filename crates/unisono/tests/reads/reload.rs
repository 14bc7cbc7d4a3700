//! Policies that change while everything goes on.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{join, join_all};
use serde_json::{Value as Json, json};
use unisono::core::query::{Filter, Query};
use unisono::core::{Consistency, Context, ErrorKind, Key, Result};
use unisono::engine::CacheStatus;
use unisono::{Handle, Unisono};

use crate::gated::{configuration, gate, open};
use crate::{CACHED, get, is_hit, item, pass, put, settled};

async fn reload(unisono: &Unisono, name: &str, options: &str) -> Vec<String> {
    try_reload(unisono, name, options).await.unwrap()
}

async fn try_reload(unisono: &Unisono, name: &str, options: &str) -> Result<Vec<String>> {
    unisono.reload(configuration(name, options)).await
}

#[tokio::test(start_paused = true)]
async fn the_strategy_of_reads_changes() {
    let unisono = open("turned", CACHED).await;
    put(&unisono, 1, "a").await;
    get(&unisono, 1).await;
    assert!(is_hit(&get(&unisono, 1).await));
    let options = format!("{CACHED}[entities.item.read]\nstrategy = \"database_first\"\n");
    let changes = reload(&unisono, "turned", &options).await;
    assert_eq!(changes, ["entities.item.read.strategy: cache_first -> database_first"]);
    let reads = gate("turned").gets();
    assert!(!is_hit(&get(&unisono, 1).await));
    assert_eq!(gate("turned").gets(), reads + 1);
    assert_eq!(reload(&unisono, "turned", &options).await, [""; 0], "nothing is different");
    reload(&unisono, "turned", CACHED).await;
    assert!(is_hit(&get(&unisono, 1).await));
}

#[tokio::test(start_paused = true)]
async fn entries_live_as_is_declared_when_they_are_filled() {
    let unisono = open("aging", CACHED).await;
    for id in [1, 2] {
        put(&unisono, id, "a").await;
    }
    get(&unisono, 1).await;
    let options = CACHED.replace("60s", "10s") + "stale = \"5s\"\n";
    let changes = reload(&unisono, "aging", &options).await;
    assert_eq!(
        changes,
        ["entities.item.cache.ttl: 1m -> 10s", "entities.item.cache.stale: 0ms -> 5s"]
    );
    get(&unisono, 2).await;
    pass(12.0).await;
    assert!(is_hit(&get(&unisono, 1).await), "it was filled for a minute");
    let late = CacheStatus::Hit { ttl: Duration::ZERO, refreshing: true };
    assert_eq!(get(&unisono, 2).await.cache, late, "its time is over, and it is read again");
    reload(&unisono, "aging", &CACHED.replace("60s", "10s")).await;
    put(&unisono, 3, "a").await;
    get(&unisono, 3).await;
    pass(12.0).await;
    assert!(!is_hit(&get(&unisono, 3).await));
}

#[tokio::test(start_paused = true)]
async fn fallback_is_turned_off_for_calls_that_begin_afterwards() {
    let unisono = open("strict", "").await;
    put(&unisono, 1, "a").await;
    settled(&unisono).await;
    gate("strict").take(1000);
    let change = async {
        pass(0.5).await;
        let options = "[entities.item.read]\nfallback = false\n";
        let changes = reload(&unisono, "strict", options).await;
        assert_eq!(changes, ["entities.item.read.fallback: true -> false"]);
        gate("strict").set_down(true);
    };
    let (begun_before, ()) = join(get(&unisono, 1), change).await;
    assert_eq!(&*begun_before.source, "strict_copy", "it ends as it began");
    let key = Key::Integer(1);
    let refused = unisono.engine().get(&Context::default(), &item(&unisono), &key).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    reload(&unisono, "strict", "").await;
    assert_eq!(&*get(&unisono, 1).await.source, "strict_copy");
}

#[tokio::test(start_paused = true)]
async fn rules_change() {
    let unisono = open("reruled", "").await;
    put(&unisono, 1, "a").await;
    settled(&unisono).await;
    assert_eq!(&*get(&unisono, 1).await.rule, "lookup");
    let options =
        "[[entities.item.read.rules]]\nname = 'mine'\nask = ['reruled_copy']\nonly = true\n";
    let changes = reload(&unisono, "reruled", options).await;
    assert_eq!(changes, ["entities.item.read.rules: none -> mine asks only reruled_copy"]);
    let answer = get(&unisono, 1).await;
    assert_eq!((&*answer.source, &*answer.rule), ("reruled_copy", "mine"));
}

#[tokio::test(start_paused = true)]
async fn pages_are_kept_from_when_it_is_declared_until_it_is_not() {
    let unisono = open("paged", CACHED).await;
    put(&unisono, 1, "a").await;
    pass(1.5).await;
    let is_kept = async || {
        let answer =
            unisono.engine().query(&Context::default(), &item(&unisono), &Query::all()).await;
        matches!(answer.unwrap().cache, CacheStatus::Hit { .. })
    };
    let kept = |time: &str| format!("{CACHED}results = \"{time}\"\n");
    assert!(!is_kept().await && !is_kept().await);
    let changes = reload(&unisono, "paged", &kept("30s")).await;
    assert_eq!(changes, ["entities.item.cache.results: 0ms -> 30s"]);
    assert!(!is_kept().await && is_kept().await);
    reload(&unisono, "paged", &kept("60s")).await;
    assert!(is_kept().await, "another time drops none");
    pass(40.0).await;
    assert!(is_kept().await, "it lasts as long as is declared now");
    reload(&unisono, "paged", CACHED).await;
    assert!(!is_kept().await);
    reload(&unisono, "paged", &kept("60s")).await;
    assert!(!is_kept().await, "what was kept before is gone");
}

#[tokio::test(start_paused = true)]
async fn writes_go_through_and_are_held_as_is_declared_now() {
    let unisono = open("rewritten", CACHED).await;
    put(&unisono, 1, "a").await;
    assert!(!is_hit(&get(&unisono, 1).await));
    let options =
        format!("{CACHED}[entities.item.write]\nstrategy = \"write_through\"\nhold = \"2s\"\n");
    let changes = reload(&unisono, "rewritten", &options).await;
    assert_eq!(
        changes,
        [
            "entities.item.write.strategy: write_around -> write_through",
            "entities.item.write.hold: 0ms -> 2s"
        ]
    );
    put(&unisono, 2, "a").await;
    assert!(is_hit(&get(&unisono, 2).await));

    let items: Handle<Json> = unisono.entity("item").unwrap();
    gate("rewritten").set_down(true);
    let back = async {
        pass(1.0).await;
        gate("rewritten").set_down(false);
    };
    let record = json!({"id": 3, "name": "b"});
    join(items.put(&record), back).await.0.unwrap();
    reload(&unisono, "rewritten", CACHED).await;
    gate("rewritten").set_down(true);
    let begin = tokio::time::Instant::now();
    assert_eq!(items.put(&record).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(begin.elapsed(), Duration::ZERO, "it is not held any more");
}

#[tokio::test(start_paused = true)]
async fn fewer_and_more_misses_are_let_through() {
    let limited = |max: u32| format!("{CACHED}misses_max = {max}\n");
    let unisono = open("readmitted", &limited(5)).await;
    for id in 0..60 {
        put(&unisono, id, "a").await;
    }
    gate("readmitted").take(100);
    let running = &gate("readmitted");
    let shrink = async {
        pass(0.05).await;
        assert_eq!(running.peak.load(Ordering::SeqCst), 5);
        reload(&unisono, "readmitted", &limited(2)).await;
        pass(0.1).await;
        // The five that were under way have ended.
        running.peak.store(0, Ordering::SeqCst);
    };
    join(join_all((0..20).map(|id| get(&unisono, id))), shrink).await;
    assert_eq!(running.peak.load(Ordering::SeqCst), 2);
    let grow = async {
        pass(0.15).await;
        reload(&unisono, "readmitted", &limited(9)).await;
    };
    join(join_all((20..60).map(|id| get(&unisono, id))), grow).await;
    assert_eq!(running.peak.load(Ordering::SeqCst), 9, "who waits gets in at once");
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_journal_is_flushed_and_bounded_as_is_declared_now() {
    let behind = |rest: &str| {
        format!(
            "[sources.requeued_j]\nkind = \"gated\"\n[entities.item.write]\nstrategy = \"write_behind\"\njournal = \"requeued_j\"\n{rest}"
        )
    };
    let unisono = open("requeued", &behind("flush_after = \"1h\"\n")).await;
    put(&unisono, 1, "a").await;
    pass(60.0).await;
    assert!(gate("requeued").commits.lock().unwrap().is_empty());
    let changes =
        reload(&unisono, "requeued", &behind("flush_after = \"1s\"\npending_max = 2\n")).await;
    assert_eq!(
        changes,
        [
            "entities.item.write.flush_after: 1h -> 1s",
            "entities.item.write.pending_max: 10000 -> 2"
        ]
    );
    let flushed = async {
        while gate("requeued").commits.lock().unwrap().is_empty() {
            pass(0.1).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), flushed).await.unwrap();

    gate("requeued").set_down(true);
    for id in [2, 3] {
        put(&unisono, id, "a").await;
    }
    let items: Handle<Json> = unisono.entity("item").unwrap();
    let record = json!({"id": 4, "name": "a"});
    assert_eq!(items.put(&record).await.unwrap_err().kind(), ErrorKind::Overloaded);
    reload(&unisono, "requeued", &behind("flush_after = \"1s\"\npending_max = 3\n")).await;
    items.put(&record).await.unwrap();
    assert_eq!(items.put(&record).await.unwrap_err().kind(), ErrorKind::Overloaded);
    let status = unisono.engine().status().await;
    assert_eq!((status.journals[0].pending, status.journals[0].pending_max), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn with_anything_that_takes_a_restart_nothing_changes() {
    let unisono = open("unmoved", CACHED).await;
    put(&unisono, 1, "a").await;
    get(&unisono, 1).await;
    let other = format!(
        "{CACHED}[entities.item.read]\nstrategy = \"database_first\"\n[server]\nlisten = \"127.0.0.1:4000\"\n\
         [entities.other]\ntruth = \"unmoved\"\nfields = {{ id = \"string\" }}\n"
    );
    let plan = unisono.plan_reload(&configuration("unmoved", &other)).await;
    assert_eq!(plan.changes, ["entities.item.read.strategy: cache_first -> database_first"]);
    let error = try_reload(&unisono, "unmoved", &other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_eq!(error.detail("restart"), Some("entities.other (added), server.listen"));
    assert_eq!(error.hint_text(), Some("restart to change it"));
    assert!(is_hit(&get(&unisono, 1).await), "the strategy is what it was");
    assert!(!unisono.engine().declaration().entities.contains_key("other"));
}

/// Two declarations take turns: who asks sees one of them, who asks afterwards the new one, and no write is disturbed.
#[test]
fn calls_from_all_sides_see_one_declaration_or_the_other() {
    /// What a test may keep in memory.
    const WRITES_MAX: i64 = 20_000;
    let rule = |name: &str, place: &str, write: &str| {
        format!(
            "{CACHED}misses_max = 3\n[[entities.item.read.rules]]\nname = '{name}'\nask = ['{place}']\nonly = true\n\
             [entities.item.write]\nstrategy = '{write}'\n"
        )
    };
    let one = rule("contended", "truth", "write_around");
    let two = rule("contended_copy", "followers", "write_through").replace("_max = 3", "_max = 1");
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let unisono = &tokio.block_on(open("contended", &one));
    tokio.block_on(async {
        put(unisono, 0, "a").await;
        settled(unisono).await;
    });
    let (tokio, ended, seen) = (&tokio, &AtomicBool::new(false), &AtomicU64::new(0));
    let reads = || async {
        while !ended.load(Ordering::SeqCst) {
            let answer = get(unisono, 0).await;
            assert_eq!(*answer.rule, *answer.source, "who answers is who the rule names");
            seen.fetch_add(1, Ordering::SeqCst);
        }
    };
    let writes = || async {
        let mut id = 1;
        while !ended.load(Ordering::SeqCst) && id < WRITES_MAX {
            put(unisono, id, "a").await;
            id += 1;
        }
        id
    };
    let turns = async {
        for turn in 0..100 {
            let (wanted, rule) = match turn % 2 {
                0 => (&two, "contended_copy"),
                _ => (&one, "contended"),
            };
            assert_eq!(reload(unisono, "contended", wanted).await.len(), 3);
            assert_eq!(*get(unisono, 0).await.rule, *rule);
            let before = seen.load(Ordering::SeqCst);
            while seen.load(Ordering::SeqCst) < before + 4 {
                tokio::task::yield_now().await;
            }
        }
    };
    let written = std::thread::scope(|scope| {
        let readers = [0, 1].map(|_| scope.spawn(|| tokio.block_on(reads())));
        let writer = scope.spawn(|| tokio.block_on(writes()));
        let turns = async { tokio::time::timeout(Duration::from_secs(60), turns).await };
        // Whatever becomes of them, the others must end.
        let turned = tokio.block_on(AssertUnwindSafe(turns).catch_unwind());
        ended.store(true, Ordering::SeqCst);
        turned.unwrap().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
        writer.join().unwrap()
    });
    let strong = Context { consistency: Consistency::Strong, ..Context::default() };
    let entity = item(unisono);
    let count = unisono.engine().count(&strong, &entity, &Filter::All, None);
    // The last rule asks the truth.
    assert_eq!(tokio.block_on(count).unwrap().value, written as u64);
}
