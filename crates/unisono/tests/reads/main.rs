//! Reads and writes as declared: in virtual time, over sources that are slow or down on demand.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod adaptive;
mod behind;
mod gated;
mod reload;
mod sampled;
mod shared;
mod shared_behind;
mod streams;
mod warm;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value as Json, json};
use unisono::core::query::{Comparison, Filter, Path, Query, parse};
use unisono::core::{Consistency, Context, Effect, Entity, ErrorKind, Key, Role, Value};
use unisono::engine::{Answer, CacheStatus, Operation};
use unisono::{Handle, Unisono};

use gated::{gate, open, open_text};

const CACHED: &str = "[entities.item.cache]\nsource = \"near\"\nttl = \"60s\"\nrefresh = false\n";

async fn put(unisono: &Unisono, id: i64, name: &str) {
    let items: Handle<Json> = unisono.entity("item").unwrap();
    items.put(&json!({"id": id, "name": name, "stock": 1})).await.unwrap();
}

fn item(unisono: &Unisono) -> Arc<Entity> {
    Arc::clone(unisono.engine().entity("item").unwrap())
}

async fn read(unisono: &Unisono, context: &Context, id: i64) -> Answer<Option<String>> {
    let answer = unisono.engine().get(context, &item(unisono), &Key::Integer(id)).await.unwrap();
    let Answer { value, source, role, replica, position, token, age, stale, cache, rule, failed } =
        answer;
    let value = value.and_then(|s| s.record.values()[1].as_str().map(str::to_owned));
    Answer { value, source, role, replica, position, token, age, stale, cache, rule, failed }
}

async fn get(unisono: &Unisono, id: i64) -> Answer<Option<String>> {
    read(unisono, &Context::default(), id).await
}

/// Waits until followers have everything.
async fn settled(unisono: &Unisono) {
    let head = unisono.engine().head_token().await.unwrap();
    unisono.engine().wait_applied(&head, Duration::from_secs(60)).await.unwrap();
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

fn is_hit(answer: &Answer<Option<String>>) -> bool {
    matches!(answer.cache, CacheStatus::Hit { .. })
}

#[tokio::test(start_paused = true)]
async fn written_through_a_record_is_in_the_cache_when_the_writer_is_answered() {
    let around = open("around", CACHED).await;
    put(&around, 1, "a").await;
    assert!(!is_hit(&get(&around, 1).await));

    let options = format!("{CACHED}[entities.item.write]\nstrategy = \"write_through\"\n");
    let through = open("through", &options).await;
    put(&through, 1, "a").await;
    let answer = get(&through, 1).await;
    assert!(is_hit(&answer), "{answer:?}");
    assert_eq!(gate("through").gets(), 0);
    let items: Handle<Json> = through.entity("item").unwrap();
    items.delete(1).await.unwrap();
    let answer = get(&through, 1).await;
    assert!(is_hit(&answer) && answer.value.is_none(), "absence is written through as well");
}

#[tokio::test(start_paused = true)]
async fn an_entry_beyond_its_time_is_served_while_it_is_read_again() {
    let options = CACHED.replace("60s", "10s") + "stale = \"30s\"\n";
    let unisono = open("renewed", &options).await;
    put(&unisono, 1, "a").await;
    get(&unisono, 1).await;
    let reads = gate("renewed").gets();
    gate("renewed").take(500);
    pass(15.0).await;
    for _ in 0..5 {
        let answer = get(&unisono, 1).await;
        let expected = CacheStatus::Hit { ttl: Duration::ZERO, refreshing: true };
        assert_eq!(answer.cache, expected, "nobody waits");
        assert!(!answer.stale, "it has followed the log all the time");
    }
    pass(1.0).await;
    assert_eq!(gate("renewed").gets(), reads + 1, "one of them reads it again");
    let answer = get(&unisono, 1).await;
    assert!(
        matches!(answer.cache, CacheStatus::Hit { refreshing: false, ttl } if ttl > Duration::from_secs(8))
    );
    pass(60.0).await;
    assert!(!is_hit(&get(&unisono, 1).await), "after that it is gone");
}

#[tokio::test(start_paused = true)]
async fn entries_are_read_again_shortly_before_their_end() {
    let options = CACHED.replace("refresh = false\n", "");
    let unisono = open("early", &options).await;
    put(&unisono, 1, "a").await;
    gate("early").take(200);
    get(&unisono, 1).await;
    let mut hits = 0;
    // Three lives of an entry, asked for so often that one of its readers is sure to be the first in time.
    for _ in 0..36_000 {
        hits += u32::from(is_hit(&get(&unisono, 1).await));
        pass(0.005).await;
    }
    assert_eq!(hits, 36_000, "nobody ever waits for it");
    let reads = gate("early").gets();
    assert!((3..8).contains(&reads), "{reads} reads for three lives");
}

#[tokio::test(start_paused = true)]
async fn misses_do_not_all_go_to_the_sources_at_once() {
    let unisono = open("admitted", &format!("{CACHED}misses_max = 5\n")).await;
    for id in 0..50 {
        put(&unisono, id, "a").await;
    }
    gate("admitted").take(10);
    join_all((0..50).map(|id| get(&unisono, id))).await;
    assert_eq!(gate("admitted").peak.load(Ordering::SeqCst), 5);
    assert_eq!(gate("admitted").gets(), 50);

    for id in 50..60 {
        put(&unisono, id, "a").await;
    }
    gate("admitted").take(1000);
    let patient = join_all((50..55).map(|id| get(&unisono, id)));
    let hasty = async {
        let context = Context { timeout: Duration::from_millis(900), ..Context::default() };
        let (entity, key) = (item(&unisono), Key::Integer(55));
        unisono.engine().get(&context, &entity, &key).await
    };
    let (_, refused) = futures::future::join(patient, hasty).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Overloaded, "no room within its time");
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_is_not_waited_for_when_another_can_answer() {
    let options = "[entities.item.read]\nhedge = \"20ms\"\n";
    let unisono = open("hedged", options).await;
    put(&unisono, 1, "a").await;
    settled(&unisono).await;
    assert_eq!(&*get(&unisono, 1).await.source, "hedged");
    gate("hedged").take(10_000);
    let begin = tokio::time::Instant::now();
    let answer = get(&unisono, 1).await;
    assert_eq!(&*answer.source, "hedged_copy");
    assert_eq!(begin.elapsed().as_millis(), 20);
    gate("hedged").take(50);
    join_all((0..30).map(|_| get(&unisono, 1))).await;
    let copied = gate("hedged_copy").gets();
    assert!((5..13).contains(&copied), "{copied} reads were asked twice, within the budget");
}

#[tokio::test(start_paused = true)]
async fn writes_are_held_while_the_truth_is_away() {
    let unisono = open("held", "[entities.item.write]\nhold = \"2s\"\n").await;
    put(&unisono, 1, "a").await;
    gate("held").set_down(true);
    let items: Handle<Json> = unisono.entity("item").unwrap();
    let record = json!({"id": 2, "name": "b"});
    let back = async {
        pass(1.0).await;
        gate("held").set_down(false);
    };
    let (written, ()) = futures::future::join(items.put(&record), back).await;
    written.unwrap();
    assert_eq!(items.get(2).await.unwrap().unwrap()["name"], "b");

    gate("held").set_down(true);
    let begin = tokio::time::Instant::now();
    let error = items.put(&record).await.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Unavailable, Effect::None));
    assert!((2.0..2.5).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_strategy_decides_whether_the_cache_or_the_database_is_first() {
    for (name, strategy, hit) in [
        ("first", "cache_first", true),
        ("second", "database_first", false),
        ("both", "parallel", false),
    ] {
        let options = format!("{CACHED}[entities.item.read]\nstrategy = \"{strategy}\"\n");
        let unisono = open(name, &options).await;
        put(&unisono, 1, "a").await;
        get(&unisono, 1).await;
        let reads = gate(name).gets();
        let answer = get(&unisono, 1).await;
        assert_eq!(is_hit(&answer), hit, "{strategy}");
        assert_eq!(gate(name).gets() > reads, !hit, "{strategy}");
        for place in [name.to_owned(), format!("{name}_copy")] {
            gate(&place).set_down(true);
        }
        let answer = get(&unisono, 1).await;
        assert_eq!(
            answer.value.as_deref(),
            Some("a"),
            "{strategy}: the cache answers when the rest is down"
        );
        assert_eq!(answer.role, Role::Cache);
    }
}

#[tokio::test(start_paused = true)]
async fn without_fallback_only_the_first_choice_answers() {
    let unisono = open("alone", "[entities.item.read]\nfallback = false\n").await;
    put(&unisono, 1, "a").await;
    settled(&unisono).await;
    gate("alone").set_down(true);
    let result = unisono.engine().get(&Context::default(), &item(&unisono), &Key::Integer(1)).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    let status = unisono.engine().status().await;
    let alone = status.sources.iter().find(|s| &*s.name == "alone").unwrap();
    assert_eq!((alone.load[0].class, alone.load[0].asked, alone.load[0].failed), ("get", 1, 1));
}

#[tokio::test(start_paused = true)]
async fn rules_decide_whom_to_ask_and_answers_name_them() {
    let options = "
        [[entities.item.read.rules]]
        name = 'reports'
        when = 'request.actor == \"report\" || request.criteria > 1'
        ask = ['ruled_copy']
        [[entities.item.read.rules]]
        name = 'rest'
        ask = ['truth']
        only = true
    ";
    let unisono = open("ruled", options).await;
    put(&unisono, 1, "a").await;
    settled(&unisono).await;
    let report = Context { actor: Some("report".into()), ..Context::default() };
    let answer = read(&unisono, &report, 1).await;
    assert_eq!((&*answer.source, &*answer.rule), ("ruled_copy", "reports"));
    let answer = get(&unisono, 1).await;
    assert_eq!((&*answer.source, &*answer.rule), ("ruled", "rest"));
    let at_least = |field| Filter::Compare(Path::whole(field), Comparison::Gte, Value::Integer(0));
    let both = Query { filter: at_least(0).and(at_least(2)), ..Query::all() };
    let answer = unisono.engine().query(&Context::default(), &item(&unisono), &both).await.unwrap();
    assert_eq!((&*answer.source, &*answer.rule), ("ruled_copy", "reports"));
    let operation = Operation::Query(Box::new(both));
    let lines = unisono.engine().explain(&Context::default(), &item(&unisono), &operation);
    assert_eq!(lines[0], "rule reports");
    assert!(lines[1].starts_with("1. ruled_copy (follower)"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn of_equal_sources_the_one_in_the_region_of_the_process_is_asked() {
    let text = r#"
region = "eu"
[sources.regional]
kind = "gated"
[sources.regional_there]
kind = "gated"
region = "us"
[sources.regional_here]
kind = "gated"
region = "eu"
[entities.item]
key = "id"
truth = "regional"
fields = { id = "integer", name = "string", stock = "integer" }
followers = [{ source = "regional_there" }, { source = "regional_here" }]
[[entities.item.read.rules]]
name = "copies"
ask = ["followers"]
"#;
    let unisono = open_text("regional", text).await.unwrap();
    put(&unisono, 1, "a").await;
    settled(&unisono).await;
    // Once it is slow, its load alone would send every further read to the other one.
    gate("regional_here").take(400);
    for _ in 0..5 {
        assert_eq!(&*get(&unisono, 1).await.source, "regional_here");
    }
    let operation = Operation::Get(Key::Integer(1));
    let lines = unisono.engine().explain(&Context::default(), &item(&unisono), &operation);
    assert!(lines[1].starts_with("1. regional_here (follower)"), "{lines:?}");
    assert!(lines[2].starts_with("2. regional_there (follower)"), "{lines:?}");
    assert!(lines[2].ends_with(", from another region"), "{lines:?}");
    gate("regional_here").set_down(true);
    assert_eq!(&*get(&unisono, 1).await.source, "regional_there");
}

#[tokio::test(start_paused = true)]
async fn a_critical_read_passes_the_cache_by() {
    let unisono = open("critical", CACHED).await;
    put(&unisono, 1, "a").await;
    settled(&unisono).await;
    get(&unisono, 1).await;
    assert!(is_hit(&get(&unisono, 1).await));
    let critical = Context { hints: vec!["critical".into()], ..Context::default() };
    let answer = read(&unisono, &critical, 1).await;
    assert_eq!((answer.role, &*answer.rule), (Role::Truth, "critical"));
}

#[tokio::test(start_paused = true)]
async fn with_the_search_engine_down_words_are_looked_for_in_the_database() {
    let unisono = open("worded", "").await;
    for (id, name) in [(1, "Ice cream"), (2, "ice tea"), (3, "Cream cheese"), (4, "notice")] {
        put(&unisono, id, name).await;
    }
    settled(&unisono).await;
    let search = async |words: &str, fallback| {
        let query = Query { search: Some(words.to_owned()), ..Query::all() };
        let context = Context { fallback, ..Context::default() };
        unisono.engine().query(&context, &item(&unisono), &query).await
    };
    let found = search("ice", true).await.unwrap();
    assert_eq!((&*found.source, found.failed.len()), ("worded_copy", 0));
    gate("worded_copy").set_down(true);
    let found = search("ice cream", true).await.unwrap();
    let keys: Vec<_> = found.value.hits.iter().map(|hit| hit.stored.key.clone()).collect();
    assert_eq!(keys, [Key::Integer(1)]);
    assert_eq!((&*found.source, &*found.failed[0].0), ("worded", "worded_copy"), "it says so");
    let context = Context::default();
    let number =
        unisono.engine().count(&context, &item(&unisono), &Filter::All, Some("cream")).await;
    assert_eq!(number.unwrap().value, 2);
    let refused = search("ice", false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_page_is_kept_until_its_entity_changes() {
    let unisono = open("kept", &format!("{CACHED}results = \"30s\"\n")).await;
    put(&unisono, 1, "a").await;
    let page = async |context: &Context| {
        unisono.engine().query(context, &item(&unisono), &Query::all()).await.unwrap()
    };
    let fresh = Context::default();
    pass(1.5).await;
    assert!(matches!(page(&fresh).await.cache, CacheStatus::Bypass));
    let kept = page(&fresh).await;
    assert!(matches!(kept.cache, CacheStatus::Hit { .. }), "{kept:?}");
    assert_eq!(
        page(&Context { consistency: Consistency::Strong, ..fresh.clone() }).await.cache,
        CacheStatus::Bypass
    );

    let items: Handle<Json> = unisono.entity("item").unwrap();
    items.put(&json!({"id": 2, "name": "b"})).await.unwrap();
    pass(1.5).await;
    assert_eq!(page(&fresh).await.value.hits.len(), 2, "the feed has come to the change");
    items.put(&json!({"id": 3, "name": "c"})).await.unwrap();
    let own = Context { token: items.token(), ..fresh.clone() };
    assert_eq!(page(&own).await.value.hits.len(), 3, "who wrote sees it at once");
    pass(1.5).await;
    page(&fresh).await;
    assert!(matches!(page(&fresh).await.cache, CacheStatus::Hit { .. }));
    pass(31.0).await;
    assert_eq!(page(&fresh).await.cache, CacheStatus::Bypass, "its time is over");
}

#[tokio::test(start_paused = true)]
async fn counts_and_groups_are_kept_like_pages() {
    let unisono = open("tallied", &format!("{CACHED}results = \"30s\"\n")).await;
    put(&unisono, 1, "a").await;
    let (context, entity) = (Context::default(), item(&unisono));
    let count = async |search| {
        unisono.engine().count(&context, &entity, &Filter::All, search).await.unwrap()
    };
    let body = json!({"group_by": ["name"], "metrics": {"items": "count"}});
    let question = parse::aggregate(&entity, &body).unwrap();
    let groups = async || unisono.engine().aggregate(&context, &entity, &question).await.unwrap();
    settled(&unisono).await;
    pass(1.5).await;
    for kept in [false, true] {
        let (number, words, groups) = (count(None).await, count(Some("a")).await, groups().await);
        assert_eq!((number.value, words.value, groups.value.total_groups), (1, 1, 1));
        for cache in [number.cache, words.cache, groups.cache] {
            assert_eq!(matches!(cache, CacheStatus::Hit { .. }), kept);
        }
    }
    put(&unisono, 2, "b").await;
    settled(&unisono).await;
    pass(1.5).await;
    let (number, words, groups) = (count(None).await, count(Some("a")).await, groups().await);
    assert_eq!((number.value, words.value, groups.value.total_groups), (2, 1, 2));
    for cache in [number.cache, words.cache, groups.cache] {
        assert_eq!(cache, CacheStatus::Bypass, "the entity has changed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_keeps_only_the_records_of_its_condition() {
    let options = format!(
        "{CACHED}where = \"record.stock > 3\"\n[entities.item.write]\nstrategy = \"write_through\"\n"
    );
    let unisono = open("choosy", &options).await;
    let items: Handle<Json> = unisono.entity("item").unwrap();
    let stock = async |id: i64, stock: i64| {
        items.put(&json!({"id": id, "name": "a", "stock": stock})).await.unwrap();
    };
    stock(1, 1).await;
    for _ in 0..2 {
        let answer = get(&unisono, 1).await;
        assert_eq!(answer.cache, CacheStatus::Miss { stored: false, shared: false });
        assert_eq!(answer.value.as_deref(), Some("a"));
    }
    stock(1, 4).await;
    assert!(is_hit(&get(&unisono, 1).await), "written through");
    stock(1, 1).await;
    assert!(!is_hit(&get(&unisono, 1).await), "it went with the write");
    // That there is no record is known as before.
    get(&unisono, 7).await;
    assert!(is_hit(&get(&unisono, 7).await));
}

#[tokio::test(start_paused = true)]
async fn a_cached_record_that_ceases_to_satisfy_the_condition_goes_with_the_change() {
    let unisono = open("ceased", &format!("{CACHED}where = \"record.stock > 3\"\n")).await;
    let items: Handle<Json> = unisono.entity("item").unwrap();
    for (id, stock) in [(1, 4), (2, 4), (1, 1), (2, 5)] {
        items.put(&json!({"id": id, "name": stock.to_string(), "stock": stock})).await.unwrap();
        pass(1.5).await;
        get(&unisono, id).await;
    }
    let left = get(&unisono, 1).await;
    assert_eq!((is_hit(&left), left.value.as_deref()), (false, Some("1")));
    let kept = get(&unisono, 2).await;
    assert_eq!((is_hit(&kept), kept.value.as_deref()), (true, Some("5")));
}

#[tokio::test(start_paused = true)]
async fn a_cache_with_a_clock_does_not_renew_what_has_become_too_old() {
    let options = "where = \"record.made > now - duration('1m')\"\nstale = \"100s\"\n";
    let unisono = open("young", &(CACHED.replace("60s", "50s") + options)).await;
    let items: Handle<Json> = unisono.entity("item").unwrap();
    let made = unisono.engine().runtime().now();
    items.put(&json!({"id": 1, "name": "a", "made": made})).await.unwrap();
    get(&unisono, 1).await;
    assert!(is_hit(&get(&unisono, 1).await));
    pass(70.0).await;
    let answer = get(&unisono, 1).await;
    assert!(is_hit(&answer), "beyond its time it is served while it is read again: {answer:?}");
    pass(1.0).await;
    for _ in 0..2 {
        assert!(!is_hit(&get(&unisono, 1).await), "it is too old now");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_asks_for_one_record_costs_one_read() {
    let unisono = open("crowd", CACHED).await;
    put(&unisono, 1, "a").await;
    gate("crowd").take(10);
    let crowd = (0..500).map(|_| get(&unisono, 1));
    let answers = join_all(crowd).await;
    assert!(answers.iter().all(|a| a.value.as_deref() == Some("a")));
    assert_eq!(gate("crowd").gets(), 1);
}
