//! Processes and their timers: every step once, whatever ends between any two of them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::json;
use unisono::core::outlet::{Begin, Manner};
use unisono::core::stream::{Event, Expected, NewEvent};
use unisono::core::{Context, Error, Position, Result};
use unisono::engine::stream::{Appending, Sought};
use unisono::{Process, Recorded, Streams, Then, Timer, Unisono};

use crate::linked::{Disk, crash};
use crate::until;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Told {
    Placed,
    Paid,
    Broken,
    Confirmed,
    Expired { steps: u32 },
}

/// How long an order waits to be paid.
const WAITS: Duration = Duration::from_secs(10);

/// Waits for the payment of one order: it is confirmed, or expires after two reminders' time.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Payment {
    placed: bool,
    steps: u32,
}

impl Process for Payment {
    type Event = Told;

    fn correlate(event: &Recorded<Told>) -> Option<String> {
        event.event.stream.strip_prefix("order-").map(str::to_owned)
    }

    fn on_event(&mut self, event: Recorded<Told>, then: &mut Then) -> Result<()> {
        self.steps += 1;
        match event.value {
            Told::Placed if !self.placed => {
                self.placed = true;
                then.after("half", WAITS / 2, json!({"of": event.event.id}));
            }
            Told::Paid if self.placed => {
                tell(then, "confirmed", json!(null));
                then.cancel("half");
                then.end();
            }
            Told::Broken => return Err(Error::invalid("nobody knows what this is")),
            _ => {}
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, then: &mut Then) -> Result<()> {
        self.steps += 1;
        assert!(then.now() >= timer.due, "a timer never fires before its time");
        match timer.name.as_str() {
            "half" => then.after("whole", WAITS / 2, timer.data),
            _ => {
                tell(then, "expired", json!({"steps": self.steps}));
                then.end();
            }
        }
        Ok(())
    }
}

fn tell(then: &mut Then, kind: &str, data: serde_json::Value) {
    let stream = format!("outcome-{}", then.key());
    then.append("order", Appending::to(stream, vec![NewEvent::new(kind, data)]));
}

fn orders(unisono: &Unisono) -> Streams<Told> {
    unisono.streams("order").unwrap()
}

async fn manage(unisono: &Unisono) {
    let manner = Manner { begin: Begin::First, lanes: 4, attempts: 2 };
    // While its truth cannot be reached, it is not there yet.
    while let Err(error) = unisono.process::<Payment>("payments", &orders(unisono), manner).await {
        assert_eq!(error.kind(), unisono::core::ErrorKind::Unavailable, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn all(unisono: &Unisono) -> Vec<Event> {
    let sought = Sought { after: Some(Position::ZERO), limit: 1000, ..Sought::default() };
    let answer = unisono.engine().read_events(&Context::default(), "order", &sought).await.unwrap();
    assert!(answer.value.next.is_none());
    answer.value.events
}

/// The events by order, and what they came to.
async fn outcomes(
    unisono: &Unisono,
) -> (BTreeMap<String, Vec<Event>>, BTreeMap<String, Vec<Event>>) {
    let (mut asked, mut came): (BTreeMap<_, Vec<_>>, BTreeMap<_, Vec<_>>) = Default::default();
    for event in all(unisono).await {
        let (of, id) = event.stream.split_once('-').unwrap();
        let map = if of == "order" { &mut asked } else { &mut came };
        map.entry(id.to_owned()).or_default().push(event);
    }
    (asked, came)
}

#[tokio::test(start_paused = true)]
async fn a_timer_fires_once_after_its_time_also_if_nobody_ran_then_and_not_if_it_was_cancelled() {
    let disk = Disk::new("p_timer");
    let unisono = disk.open("p_timer").await;
    manage(&unisono).await;
    for id in ["order-1", "order-2", "order-3"] {
        orders(&unisono).append(id, Expected::None, &[Told::Placed]).await.unwrap();
    }
    tokio::time::sleep(WAITS * 3 / 4).await;
    orders(&unisono).append("order-2", Expected::Any, &[Told::Paid]).await.unwrap();
    until("it is confirmed", async || outcomes(&unisono).await.1.contains_key("2")).await;
    crash(&unisono).await;
    tokio::time::sleep(WAITS * 5).await;
    let unisono = disk.open("p_timer").await;
    assert_eq!(outcomes(&unisono).await.1.len(), 1, "nobody ran");
    manage(&unisono).await;
    until("the others expire", async || outcomes(&unisono).await.1.len() == 3).await;
    tokio::time::sleep(WAITS * 5).await;
    let (_, came) = outcomes(&unisono).await;
    for (id, expected) in [("1", "expired"), ("2", "confirmed"), ("3", "expired")] {
        let kinds: Vec<_> = came[id].iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, [expected], "{id}");
    }
    assert_eq!(came["1"][0].data, json!({"steps": 3}), "one event and two timers moved it");
    crash(&unisono).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_a_process_refuses_is_a_dead_letter_and_moves_nothing() {
    let unisono = Disk::new("p_refused").open("p_refused").await;
    manage(&unisono).await;
    orders(&unisono)
        .append("order-1", Expected::None, &[Told::Placed, Told::Broken])
        .await
        .unwrap();
    until("it is refused", async || unisono.engine().dead_letters().await.unwrap().len() == 1)
        .await;
    until("it expires", async || outcomes(&unisono).await.1.contains_key("1")).await;
    assert_eq!(outcomes(&unisono).await.1["1"][0].data, json!({"steps": 3}));
    unisono.close().await.unwrap();
}

/// One or two processes at a time, over a line that is cut, ended from one moment to the next.
async fn world(seed: u64) -> std::result::Result<(u64, u64), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let name = format!("p_world{seed}");
    let disk = Disk::new(&name);
    let mut lasting = 0;
    for _ in 0..random.random_range(2..7) {
        let mut running = vec![disk.open(&name).await];
        if random.random_bool(0.4) {
            running.push(disk.open(&name).await);
        }
        for unisono in &running {
            manage(unisono).await;
        }
        let (client, mut cutter) =
            (running[0].streams::<Told>("order").unwrap(), StdRng::seed_from_u64(random.random()));
        let appends = async {
            for _ in 0..random.random_range(1..20) {
                tokio::time::sleep(Duration::from_millis(random.random_range(0..2_000))).await;
                lasting += 1;
                let id = random.random_range(0..12);
                let told = match random.random_range(0..10) {
                    0..6 => Told::Placed,
                    6..9 => Told::Paid,
                    _ => Told::Broken,
                };
                // What became of it is seen at the end.
                let _ = client.append(&format!("order-{id}"), Expected::Any, &[told]).await;
            }
        };
        let limit = Duration::from_millis(cutter.random_range(500..15_000));
        let cutting = async {
            loop {
                tokio::time::sleep(Duration::from_millis(cutter.random_range(0..4_000))).await;
                disk.cut.fetch_xor(true, Ordering::Relaxed);
            }
        };
        let _ = tokio::time::timeout(limit, async {
            tokio::select! { () = appends => {}, () = cutting => {} }
        })
        .await;
        for unisono in &running {
            crash(unisono).await;
        }
        disk.cut.store(false, Ordering::Relaxed);
    }
    let unisono = disk.open(&name).await;
    manage(&unisono).await;
    // Beyond every timer, and every claim of who crashed.
    tokio::time::sleep(WAITS * 10).await;
    let (asked, came) = outcomes(&unisono).await;
    crash(&unisono).await;
    let (mut confirmed, mut expired) = (0, 0);
    for (id, events) in &asked {
        let came = came.get(id).map(Vec::as_slice).unwrap_or_default();
        let told = || format!("order {id}: {:?} came to {:?}", kinds(events), kinds(came));
        // Each outcome ends one process, and the next order of the id begins another.
        let placed: Vec<_> = events.iter().filter(|e| e.kind == "placed").collect();
        if placed.is_empty() != came.is_empty() || came.len() > placed.len() {
            return Err(told());
        }
        // What was placed last has come to an end, and only after its time unless it was paid.
        let (last, end) = (placed.last(), came.last());
        if let (Some(last), Some(end)) = (last, end)
            && end.position < last.position
        {
            return Err(format!("{}: the last has no end", told()));
        }
        // Every event moved one process once.
        let known = events.iter().filter(|event| event.kind != "broken").count() as u64;
        let steps: u64 =
            came.iter().filter_map(|end| end.data["steps"].as_u64()?.checked_sub(2)).sum();
        if steps > known {
            return Err(format!("{}: {steps} steps for {known} events", told()));
        }
        for outcome in came {
            let before = placed.iter().rfind(|placed| {
                placed.position < outcome.position
                    && outcome.time.seconds_since(placed.time) >= WAITS.as_secs_f64()
            });
            let paid = events.iter().any(|e| e.kind == "paid" && e.position < outcome.position);
            match outcome.kind.as_str() {
                "expired" if before.is_none() => return Err(format!("{}: too early", told())),
                "confirmed" if !paid => return Err(format!("{}: nobody paid", told())),
                "expired" => expired += 1,
                _ => confirmed += 1,
            }
        }
    }
    Ok((confirmed, expired))
}

fn kinds(events: &[Event]) -> Vec<(&str, String)> {
    events.iter().map(|event| (event.kind.as_str(), event.position.to_string())).collect()
}

#[test]
fn every_step_of_a_process_is_taken_once_whatever_ends_on_the_way() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (from, count) = match number("SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SEEDS").unwrap_or(60)),
    };
    let (mut confirmed, mut expired, mut failed) = (0, 0, Vec::new());
    for seed in from..from + count {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        match runtime.block_on(world(seed)) {
            Ok((c, e)) => {
                confirmed += c;
                expired += e;
            }
            Err(message) => failed.push(format!("SEED={seed}: {message}")),
        }
    }
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
    println!("{count} worlds: {confirmed} confirmed, {expired} expired");
    assert!(count < 60 || (confirmed > 20 && expired > 20), "{confirmed} and {expired}");
}
