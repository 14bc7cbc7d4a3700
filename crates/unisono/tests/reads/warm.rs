//! What an empty cache is filled with before anybody asks for it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use unisono::core::query::{Filter, parse};
use unisono::core::{Context, ErrorKind, Position, Uuid};
use unisono::engine::CacheStatus;
use unisono::{Registry, Unisono, config};

use crate::gated::{configuration, gate, open, open_text};
use crate::{CACHED, get, is_hit, item, pass, put, settled};

/// Where an engine keeps the hot keys of the entity.
const SPACE: &str = "hot_keys/item";

/// Waits until the cache has taken in so much, and no more is under way.
async fn warmed(unisono: &Unisono, records: u64) {
    let warm = async {
        loop {
            let cache = &unisono.engine().status().await.caches[0];
            if (cache.warmed, cache.wanted) == (records, records) {
                return;
            }
            pass(0.1).await;
        }
    };
    let warm = tokio::time::timeout(Duration::from_secs(60), warm).await;
    assert!(warm.is_ok(), "{:?}", unisono.engine().status().await.caches[0]);
}

/// An engine over records 0 to `records` that are in its truth.
async fn filled(name: &str, options: &str, records: i64) -> Unisono {
    let unisono = open(name, options).await;
    for id in 0..records {
        put(&unisono, id, "a").await;
    }
    unisono
}

/// Reads some records often enough to be noticed.
async fn read_often(unisono: &Unisono, ids: &[i64]) {
    for _ in 0..300 {
        for id in ids {
            get(unisono, *id).await;
        }
    }
}

/// The list that is kept for the next start, as text.
async fn kept(name: &str) -> Option<String> {
    let state = gate(name).opened().truth().unwrap().list_state(SPACE).await.unwrap();
    state.into_iter().next().map(|(_, text)| text)
}

async fn keep(name: &str, text: &str) {
    let truth = gate(name).opened().truth().unwrap();
    truth.put_state(SPACE, "read_most", Some(text.to_owned())).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn declared_questions_are_asked_when_the_cache_begins() {
    let options = format!(
        "{CACHED}results = \"1h\"
         warm_questions = [
             {{ count = {{ where = {{ field = \"stock\", op = \"gt\", value = 0 }} }} }},
             {{ aggregate = {{ group_by = [\"name\"], metrics = {{ items = \"count\" }} }} }},
             {{ query = {{ order = [\"-stock\"], limit = 1 }} }},
         ]\n"
    );
    let unisono = open("ready", &options).await;
    put(&unisono, 1, "a").await;
    settled(&unisono).await;
    unisono.close().await.unwrap();

    let unisono = open("ready", &options).await;
    warmed(&unisono, 3).await;
    pass(1.5).await;
    let (context, entity) = (Context::default(), item(&unisono));
    for place in ["ready", "ready_copy"] {
        gate(place).set_down(true);
    }
    let engine = unisono.engine();
    let at_least = json!({"where": {"field": "stock", "op": "gt", "value": 0}});
    let filter = parse::query(&entity, &at_least).unwrap().filter;
    assert_eq!(engine.count(&context, &entity, &filter, None).await.unwrap().value, 1);
    let body = json!({"group_by": ["name"], "metrics": {"items": "count"}});
    let groups = parse::aggregate(&entity, &body).unwrap();
    let groups = engine.aggregate(&context, &entity, &groups).await.unwrap();
    assert_eq!(groups.value.total_groups, 1);
    let page = parse::query(&entity, &json!({"order": ["-stock"], "limit": 1})).unwrap();
    let page = engine.query(&context, &entity, &page).await.unwrap();
    assert!(matches!(page.cache, CacheStatus::Hit { .. }));
    let other = engine.count(&context, &entity, &Filter::All, None).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Unavailable, "nobody has asked for that");
}

#[tokio::test(start_paused = true)]
async fn an_empty_cache_takes_in_the_records_that_changed_last() {
    let unisono = open("warmed", &format!("{CACHED}warm = 3\n")).await;
    assert_eq!(unisono.engine().status().await.caches[0].warmed, 0);
    for id in 0..6 {
        put(&unisono, id, "a").await;
    }
    unisono.close().await.unwrap();
    let unisono = open("warmed", &format!("{CACHED}warm = 3\n")).await;
    warmed(&unisono, 3).await;
    for (id, hit) in [(5, true), (4, true), (3, true), (2, false)] {
        let answer = get(&unisono, id).await;
        assert_eq!(is_hit(&answer), hit, "{id}");
        assert_eq!(answer.value.as_deref(), Some("a"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_most_is_in_the_cache_after_a_restart() {
    let options = format!("{CACHED}warm_hot = 2\n");
    let unisono = filled("hot", &options, 20).await;
    for id in 0..20 {
        get(&unisono, id).await;
    }
    read_often(&unisono, &[7, 11]).await;
    unisono.close().await.unwrap();

    let unisono = open("hot", &options).await;
    warmed(&unisono, 2).await;
    let reads = gate("hot").gets();
    for id in [7, 11] {
        let answer = get(&unisono, id).await;
        assert!(is_hit(&answer), "{answer:?}");
        assert_eq!(answer.value.as_deref(), Some("a"));
    }
    assert_eq!(gate("hot").gets(), reads, "nobody had to ask the truth");
    assert!(!is_hit(&get(&unisono, 3).await), "it was read once");
}

#[tokio::test(start_paused = true)]
async fn with_what_a_cache_is_warmed_can_change_while_it_runs() {
    let unisono = filled("rewarmed", CACHED, 20).await;
    let options =
        format!("{CACHED}results = \"1h\"\nwarm_hot = 2\nwarm_questions = [{{ count = {{}} }}]\n");
    let mut changes = unisono.reload(configuration("rewarmed", &options)).await.unwrap();
    changes.sort();
    let expected = [
        "entities.item.cache.results: 0ms -> 1h",
        "entities.item.cache.warm_hot: 0 -> 2",
        "entities.item.cache.warm_questions: 0 questions -> 1 questions",
    ];
    assert_eq!(changes, expected);
    read_often(&unisono, &[7, 11]).await;
    assert_eq!(kept("rewarmed").await, None, "not yet: once a minute, and when it closes");
    pass(61.0).await;
    assert!(kept("rewarmed").await.is_some_and(|list| list.contains('7')));
    assert_eq!(
        unisono.engine().status().await.caches[0].wanted,
        0,
        "the life that runs is not begun anew"
    );
    unisono.close().await.unwrap();

    let unisono = open("rewarmed", &options).await;
    warmed(&unisono, 3).await;
    let reads = gate("rewarmed").gets();
    for id in [7, 11] {
        assert!(is_hit(&get(&unisono, id).await), "{id}");
    }
    assert_eq!(gate("rewarmed").gets(), reads);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_was_lost_gets_again_what_was_read_most() {
    let text = r#"
[sources.hot_lost]
kind = "gated"
[sources.hot_lost_cache]
kind = "gated"
[entities.item]
key = "id"
truth = "hot_lost"
fields = { id = "integer", name = "string", stock = "integer" }
cache = { source = "hot_lost_cache", refresh = false, warm_hot = 2 }
"#;
    let unisono = open_text("hot_lost", text).await.unwrap();
    for id in 0..3 {
        put(&unisono, id, "a").await;
    }
    read_often(&unisono, &[1]).await;
    pass(1.5).await;
    let cache = &unisono.engine().status().await.caches[0];
    assert_eq!((cache.applied.as_u64(), cache.warmed), (3, 0));
    let cache = gate("hot_lost_cache").opened().cache().unwrap();
    cache.restart(&item(&unisono), Uuid::nil(), Position::ZERO).await.unwrap();
    warmed(&unisono, 1).await;
    let reads = gate("hot_lost").gets();
    assert!(is_hit(&get(&unisono, 1).await));
    assert_eq!(gate("hot_lost").gets(), reads);
}

#[tokio::test(start_paused = true)]
async fn what_changed_last_and_is_read_most_is_taken_in_once() {
    let options = format!("{CACHED}warm = 3\nwarm_hot = 2\n");
    let mut unisono = filled("hot_both", &options, 6).await;
    for (often, records, reads) in [(5, 3, 0), (1, 4, 1)] {
        read_often(&unisono, &[often]).await;
        unisono.close().await.unwrap();
        let before = gate("hot_both").gets();
        unisono = open("hot_both", &options).await;
        warmed(&unisono, records).await;
        assert_eq!(gate("hot_both").gets() - before, reads, "for record {often}");
    }
    for (id, hit) in [(5, true), (4, true), (3, true), (2, false), (1, true), (0, false)] {
        assert_eq!(is_hit(&get(&unisono, id).await), hit, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_orderly_end_the_list_is_a_minute_old_at_most() {
    let options = format!("{CACHED}warm_hot = 2\n");
    let unisono = filled("hot_minute", &options, 3).await;
    read_often(&unisono, &[1]).await;
    assert_eq!(kept("hot_minute").await, None);
    pass(61.0).await;
    assert_eq!(kept("hot_minute").await.as_deref(), Some("[\"1\"]"));
    keep("hot_minute", "[\"2\",\"1\"]").await;
    pass(61.0).await;
    let same = kept("hot_minute").await;
    assert_eq!(same.as_deref(), Some("[\"2\",\"1\"]"), "nothing was read since");
    read_often(&unisono, &[0]).await;
    pass(61.0).await;
    let joined = kept("hot_minute").await;
    assert_eq!(joined.as_deref(), Some("[\"1\",\"0\"]"), "what others read gives way");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_means_nothing_here_is_passed_over_and_written_anew() {
    let options = format!("{CACHED}warm_hot = 2\n");
    filled("hot_odd", &options, 3).await.close().await.unwrap();
    for garbage in ["", "{\"v\": 2}", "[\"1\", \"a\"]", "[1]", "[\"1\""] {
        let unisono = open("hot_odd", &options).await;
        keep("hot_odd", garbage).await;
        unisono.close().await.unwrap();
        let unisono = open("hot_odd", &options).await;
        assert_eq!(get(&unisono, 1).await.value.as_deref(), Some("a"), "{garbage}");
        let cache = &unisono.engine().status().await.caches[0];
        assert_eq!((cache.warmed, cache.wanted), (0, 0), "{garbage}");
        unisono.close().await.unwrap();
    }
    let unisono = open("hot_odd", &options).await;
    warmed(&unisono, 1).await;
    assert!(is_hit(&get(&unisono, 1).await), "the last reader left a list");
}

#[tokio::test(start_paused = true)]
async fn warming_takes_its_turn_among_the_misses() {
    let options = format!("{CACHED}warm_hot = 1000\nmisses_max = 1\n");
    let unisono = filled("hot_turn", &options, 300).await;
    let hot: Vec<_> = (0..250).map(|id: i64| id.to_string()).collect();
    keep("hot_turn", &json!(hot).to_string()).await;
    unisono.close().await.unwrap();

    gate("hot_turn").peak.store(0, Ordering::SeqCst);
    gate("hot_turn").take(1000);
    let unisono = open("hot_turn", &options).await;
    pass(0.5).await;
    assert_eq!(get(&unisono, 270).await.value.as_deref(), Some("a"));
    let cache = &unisono.engine().status().await.caches[0];
    assert!(cache.warmed < cache.wanted, "a reader does not wait for all of it: {cache:?}");
    warmed(&unisono, 250).await;
    assert_eq!(gate("hot_turn").peak.load(Ordering::SeqCst), 1);
    assert!(is_hit(&get(&unisono, 249).await));
}

#[tokio::test(start_paused = true)]
async fn what_is_read_most_waits_for_a_source_that_answers() {
    let options = format!("{CACHED}warm_hot = 2\n");
    let unisono = filled("hot_later", &options, 3).await;
    read_often(&unisono, &[1]).await;
    unisono.close().await.unwrap();
    gate("hot_later").take(100);
    let unisono = open("hot_later", &options).await;
    for place in ["hot_later", "hot_later_copy"] {
        gate(place).set_down(true);
    }
    pass(0.3).await;
    let cache = &unisono.engine().status().await.caches[0];
    assert_eq!((cache.warmed, cache.wanted), (0, 1));
    for place in ["hot_later", "hot_later_copy"] {
        gate(place).set_down(false);
    }
    warmed(&unisono, 1).await;
    assert!(is_hit(&get(&unisono, 1).await));
}

/// In real time.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn the_list_outlives_the_process_in_a_database() {
    const TEXT: &str = r#"
sources = { main = { kind = "sqlite", path = "main.db" }, near = { kind = "memory" } }
[entities.item]
key = "id"
truth = "main"
fields = { id = "integer", name = "string", stock = "integer" }
cache = { source = "near", warm_hot = 2 }
"#;
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        let configuration =
            config::parse(TEXT, "test.toml", &Registry::builtin(), &config::Process);
        let mut configuration = configuration.unwrap_or_else(|report| panic!("{report}"));
        configuration.data = folder.path().to_owned();
        Unisono::open(configuration).await.unwrap()
    };
    let unisono = open().await;
    for id in 0..10 {
        put(&unisono, id, "a").await;
    }
    read_often(&unisono, &[4, 8]).await;
    unisono.close().await.unwrap();
    let unisono = open().await;
    warmed(&unisono, 2).await;
    for id in [4, 8] {
        let answer = get(&unisono, id).await;
        assert!(is_hit(&answer), "{answer:?}");
    }
}
