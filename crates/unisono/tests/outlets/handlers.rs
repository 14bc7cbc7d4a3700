//! Handlers: every event at least once, in the order of its stream, by one process at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use unisono::core::outlet::{Begin, Manner};
use unisono::core::stream::Expected;
use unisono::core::{Error, ErrorKind};
use unisono::{Recorded, Registry, Streams, Unisono, config};

use crate::linked::{Disk, crash};
use crate::until;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Happened {
    Numbered(u64),
    Poisoned(u64),
}

/// What a handler was given, with the process that it ran in.
type Given = Arc<Mutex<Vec<(u32, String, u64)>>>;

const FIRST: Manner = Manner { begin: Begin::First, lanes: 4, attempts: 2 };

async fn handle(unisono: &Unisono, process: u32, given: &Given, mended: &Arc<AtomicBool>) {
    let (given, mended) = (Arc::clone(given), Arc::clone(mended));
    let handler = move |told: Recorded<Happened>| {
        let (given, mended) = (Arc::clone(&given), Arc::clone(&mended));
        async move {
            if matches!(told.value, Happened::Poisoned(_)) && !mended.load(Ordering::Relaxed) {
                return Err(Error::invalid("it cannot be handled"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            given.lock().unwrap().push((process, told.event.stream, told.event.revision));
            Ok::<(), Error>(())
        }
    };
    unisono.handle("mailer", &events(unisono), FIRST, handler).await.unwrap();
}

fn events(unisono: &Unisono) -> Streams<Happened> {
    unisono.streams("order").unwrap()
}

async fn append(unisono: &Unisono, stream: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        events(unisono).append(stream, Expected::Any, &[Happened::Numbered(number)]).await.unwrap();
    }
}

fn of_stream(given: &Given, stream: &str) -> Vec<u64> {
    let given = given.lock().unwrap();
    given.iter().filter(|(_, of, _)| of == stream).map(|(.., revision)| *revision).collect()
}

#[tokio::test(start_paused = true)]
async fn a_handler_goes_on_after_a_crash_and_in_one_process_at_a_time() {
    let (given, mended) = (Given::default(), Arc::default());
    let disk = Disk::new("h_crash");
    let one = disk.open("h_crash").await;
    handle(&one, 1, &given, &mended).await;
    append(&one, "a", 0..5).await;
    until("the first are handled", async || of_stream(&given, "a").len() == 5).await;
    let two = disk.open("h_crash").await;
    handle(&two, 2, &given, &mended).await;
    append(&two, "a", 5..8).await;
    append(&two, "b", 0..3).await;
    until("the next are handled", async || given.lock().unwrap().len() == 11).await;
    crash(&one).await;
    append(&two, "a", 8..10).await;
    until("another process takes over", async || of_stream(&given, "a").len() == 10).await;
    assert_eq!(of_stream(&given, "a"), (1..=10).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(of_stream(&given, "b"), [1, 2, 3]);
    let processes: Vec<u32> = given.lock().unwrap().iter().map(|(process, ..)| *process).collect();
    assert!(processes.is_sorted(), "the second only behind the first: {processes:?}");
    assert_eq!(processes.last(), Some(&2));

    two.close().await.unwrap();
    let three = disk.open("h_crash").await;
    handle(&three, 3, &given, &mended).await;
    append(&three, "c", 0..1).await;
    until("it goes on where it was", async || of_stream(&given, "c").len() == 1).await;
    assert_eq!(given.lock().unwrap().len(), 14, "nothing was handled again");
    three.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_handled_is_set_aside_and_handled_when_somebody_says_so() {
    let (given, mended) = (Given::default(), Arc::<AtomicBool>::default());
    let unisono = Disk::new("h_poison").open("h_poison").await;
    handle(&unisono, 1, &given, &mended).await;
    append(&unisono, "a", 0..1).await;
    let poison = [Happened::Poisoned(1)];
    events(&unisono).append("a", Expected::Any, &poison).await.unwrap();
    append(&unisono, "a", 2..4).await;
    until("the others are handled", async || of_stream(&given, "a") == [1, 3, 4]).await;
    let letters = unisono.engine().dead_letters().await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&*letters[0].source, letters[0].key.rsplit('/').next()),
        ("mailer", Some("0000000000000002"))
    );
    assert!(!unisono.engine().replay(&letters[0]).await.unwrap(), "it is still refused");
    mended.store(true, Ordering::Relaxed);
    assert!(unisono.engine().replay(&letters[0]).await.unwrap());
    assert_eq!(of_stream(&given, "a"), [1, 3, 4, 2]);
    assert!(unisono.engine().dead_letters().await.unwrap().is_empty());
    unisono.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_paused_and_resumed_and_stays_when_the_configuration_is_reloaded() {
    let (given, mended) = (Given::default(), Arc::default());
    let disk = Disk::new("h_pause");
    let unisono = disk.open("h_pause").await;
    handle(&unisono, 1, &given, &mended).await;
    append(&unisono, "a", 0..1).await;
    until("it is handled", async || of_stream(&given, "a").len() == 1).await;
    unisono.engine().pause_source("mailer").await.unwrap();
    append(&unisono, "a", 1..3).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(of_stream(&given, "a"), [1], "nothing while it is paused");
    unisono.engine().resume_source("mailer").await.unwrap();
    until("the rest is handled", async || of_stream(&given, "a").len() == 3).await;

    let text = "[sources.h_pause]\nkind = \"memory\"\n[streams.order]\ntruth = \"h_pause\"\n";
    let parsed = config::parse(text, "test.toml", &Registry::builtin(), &config::Process);
    let plan = unisono.plan_reload(&parsed.unwrap()).await;
    let told: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    assert!(!told.iter().any(|step| step.contains("mailer")), "{told:?}");
    let again = unisono.handle("mailer", &events(&unisono), FIRST, |_| async { Ok(()) }).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    unisono.close().await.unwrap();
}
