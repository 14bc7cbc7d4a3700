//! Figures, for people: `cargo test --release -p unisono-source-tantivy speed -- --ignored --nocapture`.
#![expect(clippy::disallowed_methods, reason = "measuring needs the machine's clock")]

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unisono_core::query::{Comparison, Filter, Order, Path, Query};
use unisono_core::{Entity, Field, FieldType, Record, Value};

use super::Fed;

const BATCH: u32 = 8_192;
const RECORDS: u32 = 11 * BATCH;

fn product() -> std::sync::Arc<Entity> {
    let search = |name| Field { search: true, ..Field::new(name, FieldType::String) };
    let fields = vec![
        Field::new("id", FieldType::String),
        search("department"),
        search("category"),
        search("type"),
        Field::new("brand", FieldType::String),
        Field::new("manufacturer", FieldType::String),
        Field::new("package_size", FieldType::String),
        Field::new("price", FieldType::Decimal { precision: 12, scale: 2 }),
    ];
    std::sync::Arc::new(Entity::new("product", "id", fields).unwrap())
}

fn word(rng: &mut StdRng) -> String {
    // Few words are frequent and many are rare, as in real texts.
    let n = (rng.random::<f64>().powi(4) * 4000.0) as u32;
    format!("word{n}")
}

fn record(rng: &mut StdRng, n: u32) -> Record {
    let text = |rng: &mut StdRng, words: u32| {
        Value::String((0..words).map(|_| word(rng)).collect::<Vec<_>>().join(" "))
    };
    let price = unisono_core::Decimal::new(rng.random_range(10..100_000), 2);
    Record::new(vec![
        Value::String((1_000_000 + n).to_string()),
        text(rng, 1),
        text(rng, 3),
        text(rng, 4),
        Value::String(format!("brand{}", n % 3)),
        Value::String(format!("{}", n % 6000)),
        text(rng, 1),
        Value::Decimal(price),
    ])
}

fn show(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{name:<44} p50 {:>9.3?}  p99 {:>9.3?}", at(0.5), at(0.99));
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status.lines().filter(|l| l.starts_with("RssAnon") || l.starts_with("VmRSS"));
    lines.collect::<Vec<_>>().join(", ")
}

#[tokio::test]
#[ignore = "figures for people, in minutes"]
async fn speed() {
    let entity = product();
    let mut rng = StdRng::seed_from_u64(1);
    let mut fed = Fed::new(&entity).await;
    println!("empty: {}", resident());
    for what in ["bulk", "bulk, replacing"] {
        let mut took = Duration::ZERO;
        for n in 0..RECORDS / BATCH {
            // Made here and dropped again, so that the memory shown is the source's.
            let some = (n * BATCH..(n + 1) * BATCH).map(|n| record(&mut rng, n)).collect();
            let began = Instant::now();
            fed.put(some).await;
            took += began.elapsed();
        }
        println!("{what}: {:.0} records/s", f64::from(RECORDS) / took.as_secs_f64());
        println!("{}", resident());
    }
    let mut times = Vec::new();
    for n in 0..300 {
        let one = record(&mut rng, n * 7);
        let began = Instant::now();
        fed.put(vec![one]).await;
        times.push(began.elapsed());
    }
    show("one change, committed and visible", times);
    println!("after writing: {}", resident());
    fed.reopen(&entity).await.unwrap();
    println!("reopened: {}", resident());
    let search = |text: String, limit| Query { search: Some(text), limit, ..Query::all() };
    let two = |rng: &mut StdRng| format!("{} {}", word(rng), word(rng));
    let price = |n| Filter::Compare(Path::whole(7), Comparison::Lt, Value::Decimal(n));
    let by_price = Order { path: Path::whole(7), descending: true };
    let mut run = async |name: &str, query: &mut dyn FnMut(&mut StdRng) -> Query| {
        let mut times = Vec::new();
        for _ in 0..300 {
            let query = query(&mut rng);
            let began = Instant::now();
            fed.reader().query(&entity, &query).await.unwrap();
            times.push(began.elapsed());
        }
        show(name, times);
    };
    run("search one word, 10", &mut |rng| search(word(rng), 10)).await;
    run("search one word, 50", &mut |rng| search(word(rng), 50)).await;
    run("search the most frequent word, 50", &mut |_| search("word0".into(), 50)).await;
    run("search two words, 10", &mut |rng| search(two(rng), 10)).await;
    run("search a beginning, 10", &mut |_| search("word1*".into(), 10)).await;
    run("search with facet and highlight, 10", &mut |rng| Query {
        facets: vec![4],
        highlight: true,
        ..search(word(rng), 10)
    })
    .await;
    run("filter by price, by price, 50", &mut |rng| Query {
        filter: price(unisono_core::Decimal::new(rng.random_range(10..100_000), 2)),
        order: vec![by_price.clone()],
        ..Query::all()
    })
    .await;
    run("all, by key, 50", &mut |_| Query::all()).await;
    println!("after reading: {}", resident());
}
