//! Many programs and several processes of Unisono that write the same few records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio_postgres::Client;
use unisono_core::source::Source;
use unisono_core::write::{Action, Condition, Write};

use crate::common::background;
use crate::follower::Copy;
use crate::site::{Site, key, truth, unit};

const WRITERS: u64 = 8;
const TIME: Duration = Duration::from_secs(4);

/// Statements of another program, by chance.
fn statements(random: &mut StdRng) -> String {
    let (a, b) = (random.random_range(0..12), random.random_range(0..12));
    match random.random_range(0..14) {
        0..3 => format!(
            "INSERT INTO thing VALUES ('{a}', 's{b}', {a}) ON CONFLICT (id) DO UPDATE SET v = thing.v + 1"
        ),
        3 => format!("UPDATE thing SET id = '{b}', v = v + 1 WHERE id = '{a}'"),
        4 => format!("DELETE FROM thing WHERE id >= '{a}'"),
        5 => format!("UPDATE thing SET v = {b} WHERE id < '{a}'"),
        6 => format!("BEGIN; UPDATE thing SET v = {a}; ROLLBACK"),
        7 => format!(
            "BEGIN; DELETE FROM thing WHERE id = '{a}'; SAVEPOINT s; DELETE FROM thing; ROLLBACK TO s; \
             INSERT INTO thing VALUES ('{b}', NULL, {a}) ON CONFLICT DO NOTHING; COMMIT"
        ),
        8 => format!(
            "BEGIN; UPDATE thing SET v = {a} WHERE id = '{a}'; SELECT pg_sleep(0.05); UPDATE thing SET v = {b} WHERE id = '{b}'; COMMIT"
        ),
        9 if a == 0 => "TRUNCATE thing".into(),
        9 | 10 => format!(
            "INSERT INTO thing SELECT n, NULL, {a} FROM generate_series({b}, {b} + 5) n ON CONFLICT (id) DO UPDATE SET v = excluded.v"
        ),
        11 => format!(
            "BEGIN; INSERT INTO thing VALUES ('{a}', NULL, 1) ON CONFLICT DO NOTHING; SELECT pg_sleep(0.02); COMMIT"
        ),
        _ => format!("UPDATE thing SET v = v + 1 WHERE id = '{a}'"),
    }
}

async fn write_as_others(client: Client, seed: u64, ends: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    let mut random = StdRng::seed_from_u64(seed);
    while !ends.load(Ordering::Relaxed) {
        // A deadlock or a key that is taken: the program gives up this transaction.
        match client.batch_execute(&statements(&mut random)).await {
            Ok(()) => {
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => client.batch_execute("ROLLBACK").await.unwrap(),
        }
    }
}

async fn write_as_unisono(
    site: Arc<Site>,
    source: Arc<dyn Source>,
    seed: u64,
    ends: Arc<AtomicBool>,
) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut done = 0;
    while !ends.load(Ordering::Relaxed) {
        let (a, b) = (random.random_range(0..12), random.random_range(0..12));
        let id = a.to_string();
        let write = match random.random_range(0..4) {
            0 => site.put(json!({"id": id, "sku": format!("s{b}"), "v": b})),
            1 => site.delete(&id),
            2 => site.write(key(&id), Action::Patch(json!({"v": b}))),
            _ => Write { condition: Condition::Absent, ..site.put(json!({"id": id, "v": b})) },
        };
        let units = vec![unit(vec![write]), unit(vec![site.put(json!({"id": b.to_string()}))])];
        // Whether it takes place depends on what the others do; what it must not do is to harm the log.
        match truth(&source).commit(units).await {
            Ok(results) => done += results.iter().filter(|r| r.is_ok()).count() as u64,
            Err(error) => {
                assert_eq!(error.kind(), unisono_core::ErrorKind::Unavailable, "{error:?}")
            }
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn random_writes_of_many_leave_a_log_that_tells_exactly_what_is_there() {
    let seed: u64 = std::env::var("SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    println!("SEED={seed}");
    let site = Arc::new(Site::new("").await);
    let second = site.second().await;
    let (ends, others) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let client = site.other().await;
        let work = write_as_others(client, seed ^ n, Arc::clone(&ends), Arc::clone(&others));
        writers.push(background(work));
    }
    let mut owns = Vec::new();
    for (n, source) in [&site.source, &second].into_iter().enumerate() {
        let (site, source, ends) = (Arc::clone(&site), Arc::clone(source), Arc::clone(&ends));
        owns.push(background(write_as_unisono(site, source, seed ^ (100 + n as u64), ends)));
    }
    let mut copy = Copy::new(&site.source, &site.entity).await;
    let watch = tokio::time::Instant::now();
    let mut changes = 0;
    while watch.elapsed() < TIME {
        // Now this process is the one that follows, now the other.
        changes += copy.follow(&second).await + copy.follow(&site.source).await;
    }
    ends.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let mut own = 0;
    for writer in owns {
        own += writer.await.unwrap();
    }
    site.run("UPDATE unisono_sequencer SET until = '-infinity'").await;
    loop {
        match copy.follow(&site.source).await {
            0 => break,
            more => changes += more,
        }
    }
    println!(
        "others {} transactions, own {own} units, {changes} changes",
        others.load(Ordering::Relaxed)
    );
    assert!(own > 0 && changes > 0);
    assert_eq!(copy.records().await, site.rows().await, "SEED={seed}");
    site.assert_log_tells_all().await;
    assert_eq!(site.db.see("SELECT count(*) FROM unisono_intake").await, ["0"]);
    Arc::into_inner(site).unwrap().db.drop().await;
}
