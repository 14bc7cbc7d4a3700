//! `kill -9` of the process that appends, sends and has timers fire: of the whole of it, again and again.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use unisono::core::outlet::{Begin, Manner};
use unisono::core::stream::{Expected, NewEvent};
use unisono::core::{Context, Position, Result};
use unisono::engine::stream::{Appending, Sought};
use unisono::{Process, Recorded, Registry, Streams, Then, Timer, Unisono, config};

use crate::receiver::{Receiver, SECRET};
use crate::until;

const KILLS: usize = 12;
/// Where a child finds its folder, and whom to send to.
const CHILD: &str = "UNISONO_TEST_CHILD";

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Told {
    Placed(u64),
    Expired,
}

/// Lets every order expire after a moment.
#[derive(Default, Serialize, Deserialize)]
struct Expiry;

impl Process for Expiry {
    type Event = Told;

    fn correlate(event: &Recorded<Told>) -> Option<String> {
        match event.value {
            Told::Placed(number) => Some(number.to_string()),
            Told::Expired => None,
        }
    }

    fn on_event(&mut self, _: Recorded<Told>, then: &mut Then) -> Result<()> {
        then.after("expires", Duration::from_millis(300), Json::Null);
        Ok(())
    }

    fn on_timer(&mut self, _: Timer, then: &mut Then) -> Result<()> {
        let expired = vec![NewEvent::new("expired", Json::Null)];
        then.append("order", Appending::to(format!("end-{}", then.key()), expired));
        then.end();
        Ok(())
    }
}

async fn open(folder: &Path, url: &str) -> Unisono {
    let text = format!(
        "[sources.main]\nkind = \"sqlite\"\npath = \"main.db\"\n[streams.order]\ntruth = \"main\"\n\
         [outlets.shop]\nkind = \"webhook\"\nurl = \"{url}\"\nsecret = \"{SECRET}\"\nfrom = [\"order\"]\nbegin = \"first\"\n"
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
    configuration.data = folder.to_owned();
    let unisono = Unisono::open(configuration).await.unwrap();
    let orders: Streams<Told> = unisono.streams("order").unwrap();
    let manner = Manner { begin: Begin::First, ..Manner::default() };
    unisono.process::<Expiry>("expiry", &orders, manner).await.unwrap();
    unisono
}

/// What the test below starts and kills; by itself it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let (folder, url) = given.split_once('|').unwrap();
    let unisono = open(Path::new(folder), url).await;
    let orders: Streams<Told> = unisono.streams("order").unwrap();
    let mut number = all(&unisono).await.len() as u64 * 1000;
    loop {
        number += 1;
        let stream = format!("placed-{}", number % 3);
        orders.append(&stream, Expected::Any, &[Told::Placed(number)]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn all(unisono: &Unisono) -> Vec<unisono::core::stream::Event> {
    let (mut after, mut found) = (Position::ZERO, Vec::new());
    loop {
        let sought = Sought { after: Some(after), limit: 1000, ..Sought::default() };
        let page =
            unisono.engine().read_events(&Context::default(), "order", &sought).await.unwrap();
        found.extend(page.value.events);
        match page.value.next {
            Some(next) => after = next,
            None => return found,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_no_timer_fires_twice_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(|_, _| (Some(200), Duration::from_millis(1))).await;
    let mut random = rand::rng();
    for _ in 0..KILLS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "killed::child", "--nocapture"]);
        command.env(CHILD, format!("{}|{}", folder.path().display(), receiver.url()));
        let mut child = command.spawn().unwrap();
        // Some live longer than another process waits for the claim of one that was killed.
        let lives = if random.random_bool(0.2) { 9_000..10_000 } else { 100..1_500 };
        tokio::time::sleep(Duration::from_millis(random.random_range(lives))).await;
        assert!(child.try_wait().unwrap().is_none(), "it was to be killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let unisono = open(folder.path(), &receiver.url()).await;
    let placed = async || {
        let all = all(&unisono).await;
        let (ends, placed): (Vec<_>, Vec<_>) = all.into_iter().partition(|e| e.kind == "expired");
        (placed, ends)
    };
    until("every order has expired", async || {
        let (placed, ends) = placed().await;
        ends.len() >= placed.len()
    })
    .await;
    let (placed, ends) = placed().await;
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    ends.iter().for_each(|end| *times.entry(&end.stream).or_default() += 1);
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    assert_eq!(times.len(), placed.len());
    let wanted = placed.len() + ends.len();
    until("everything was sent", async || receiver.took.lock().unwrap().times.len() == wanted)
        .await;
    let took = receiver.took();
    for stream in ["placed-0", "placed-1", "placed-2"] {
        let sent = took.messages.iter().filter(|message| message["subject"] == stream);
        let mut first: Vec<u64> = Vec::new();
        for revision in sent.map(|message| message["sequence"].as_str().unwrap().parse().unwrap()) {
            if !first.contains(&revision) {
                first.push(revision);
            }
        }
        assert!(first.is_sorted(), "{stream}: {first:?}");
    }
    println!("{KILLS} kills, {wanted} events, {} sent", took.messages.len());
    unisono.close().await.unwrap();
}
