//! Import against a target that answers late, out of order, and sometimes not at all.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Entity, Error, ErrorKind, Field, FieldType, Position, Result, json as codec};
use unisono::engine::Runtime;
use unisono::engine::archive::backup::Backup;
use unisono::engine::delivery::dead_letter::DeadLetter;
use unisono::engine::sync::Conflict;
use unisono::engine::verify::report::VerifyOptions;

use super::lines::Lines;
use super::resume::{Done, Resume};
use super::{Ended, Import, Refusal};
use crate::target::{Found, Log, Page, Parser, Prepared, PutCondition, ReportProgress, Target};
use crate::terminal::{Interrupt, Progress};

type Failure = Box<dyn FnMut(&str, i64) -> Option<ErrorKind> + Send>;

/// Keeps the last state of each key; waits a random while before it takes a batch in.
struct Fake {
    entity: Arc<Entity>,
    state: Mutex<BTreeMap<String, i64>>,
    random: Mutex<StdRng>,
    failure: Mutex<Failure>,
}

impl Fake {
    fn new(
        seed: u64,
        failure: impl FnMut(&str, i64) -> Option<ErrorKind> + Send + 'static,
    ) -> Self {
        let fields = vec![Field::new("id", FieldType::String), Field::new("n", FieldType::Integer)];
        Fake {
            entity: Arc::new(Entity::new("thing", "id", fields).unwrap()),
            state: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            failure: Mutex::new(Box::new(failure)),
        }
    }

    fn take(&self, write: &Write) -> Result<()> {
        let Action::Put(record) = &write.action else { unreachable!() };
        let key = write.key.to_string();
        let n = codec::to_json(&self.entity, record)["n"].as_i64().unwrap();
        match (self.failure.lock().unwrap())(&key, n) {
            Some(kind) => Err(Error::new(kind, "as the test wants it")),
            None => {
                self.state.lock().unwrap().insert(key, n);
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Target for Fake {
    fn parser(&self, _: &str) -> Result<Parser> {
        let entity = Arc::clone(&self.entity);
        Ok(Arc::new(move |text| {
            let record = codec::parse_slice(&entity, text)?;
            let key = entity.key_of(&record)?;
            let (entity, action) = (Arc::clone(&entity), Action::Put(record));
            Ok(Prepared::Write(Box::new(Write { entity, key, action, condition: Condition::None })))
        }))
    }

    async fn store(&self, _: &str, records: Vec<Prepared>) -> Result<Vec<Result<()>>> {
        let turns = self.random.lock().unwrap().random_range(0..20);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let results = records.iter().map(|record| match record {
            Prepared::Write(write) => self.take(write),
            Prepared::Json(_) => unreachable!(),
        });
        Ok(results.collect())
    }

    fn stores_at_once(&self) -> usize {
        4
    }

    async fn get(&self, _: &str, _: &str) -> Result<Option<Found>> {
        unreachable!()
    }
    async fn put(&self, _: &str, _: &Json, _: PutCondition) -> Result<Option<Position>> {
        unreachable!()
    }
    async fn find(&self, _: &str, _: &[(String, String)]) -> Result<Page> {
        unreachable!()
    }
    async fn count(&self, _: &str) -> Result<u64> {
        unreachable!()
    }
    async fn export(&self, _: &str, _: Option<String>) -> Result<Page> {
        unreachable!()
    }
    async fn status(&self) -> Result<Json> {
        unreachable!()
    }
    async fn logs(&self) -> Result<Vec<Log>> {
        unreachable!()
    }
    async fn changes(&self, _: &str, _: Position, _: usize, _: bool) -> Result<Vec<Json>> {
        unreachable!()
    }
    async fn history(&self, _: &str, _: &str, _: Option<Position>, _: usize) -> Result<Vec<Json>> {
        unreachable!()
    }
    async fn append(&self, _: &str, _: &str, _: &Json) -> Result<Json> {
        unreachable!()
    }
    async fn events(&self, _: &str, _: Option<&str>, _: &[(String, String)]) -> Result<Json> {
        unreachable!()
    }
    async fn verify(&self, _: &VerifyOptions, _: &ReportProgress<'_>) -> Result<Json> {
        unreachable!()
    }
    async fn back_up(&self, _: Option<&str>, _: &(dyn Fn(u64) + Sync)) -> Result<Vec<Backup>> {
        unreachable!()
    }

    async fn backups(&self, _: Option<&str>) -> Result<Vec<Backup>> {
        unreachable!()
    }

    async fn check_archive(&self, _: Option<&str>) -> Result<Vec<Json>> {
        unreachable!()
    }

    async fn erase(&self, _: &str) -> Result<Json> {
        unreachable!()
    }

    async fn pause_source(&self, _: &str) -> Result<Json> {
        unreachable!()
    }

    async fn resume_source(&self, _: &str) -> Result<bool> {
        unreachable!()
    }

    async fn backfill(&self, _: &str, _: &str) -> Result<()> {
        unreachable!()
    }
    async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        unreachable!()
    }
    async fn conflicts(&self, _: Option<&str>, _: Option<&str>) -> Result<Vec<Conflict>> {
        unreachable!()
    }
    async fn replay(&self, _: &DeadLetter) -> Result<bool> {
        unreachable!()
    }
    async fn discard(&self, _: &DeadLetter) -> Result<()> {
        unreachable!()
    }
    async fn projections(&self) -> Result<Vec<Json>> {
        unreachable!()
    }
    async fn change_projection(&self, _: &str, _: &str) -> Result<Json> {
        unreachable!()
    }
    async fn explain(
        &self,
        _: &str,
        _: Option<&str>,
        _: &[(String, String)],
    ) -> Result<Vec<String>> {
        unreachable!()
    }
    fn ends_with_program(&self) -> bool {
        false
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

async fn import(target: &Fake, text: &str, resume: Option<&Resume>) -> (Ended, Vec<Refusal>) {
    let runtime = Runtime::system();
    let mut refusals = Vec::new();
    let import = Import {
        target,
        entity: "thing",
        lines: Lines::new(Cursor::new(text.to_owned())).unwrap(),
        bytes: text.len() as u64,
        resume,
        runtime: &runtime,
    };
    let mut keep = |refusal| {
        refusals.push(refusal);
        Ok(())
    };
    let mut progress = Progress::new("thing", true);
    let ended = import.run(&mut progress, &Interrupt::never(), &mut keep).await.unwrap();
    (ended, refusals)
}

/// Lines over few keys, so that many come several times; the last of each key is what must remain.
fn lines(count: i64, keys: i64) -> (String, BTreeMap<String, i64>) {
    let text = (0..count).map(|n| format!("{}\n", json!({"id": format!("k{}", n % keys), "n": n})));
    let last = (0..count).map(|n| (format!("k{}", n % keys), n));
    (text.collect(), last.collect())
}

#[tokio::test(start_paused = true)]
async fn the_last_line_of_a_key_is_what_remains_however_batches_overtake_each_other() {
    for seed in 0..20 {
        println!("seed {seed}");
        // 3 of 10 batches share keys with their neighbours.
        let (text, last) = lines(5120, 700);
        let target = Fake::new(seed, |_, _| None);
        let (ended, refusals) = import(&target, &text, None).await;
        assert!(ended.stopped.is_none() && refusals.is_empty());
        assert_eq!(ended.done, Done { lines: 5120, records: 5120, refused: 0 });
        assert_eq!(*target.state.lock().unwrap(), last);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_for_the_moment_is_repeated_in_its_order() {
    for seed in 0..20 {
        println!("seed {seed}");
        let (text, last) = lines(2000, 150);
        let mut random = StdRng::seed_from_u64(seed);
        let mut failures = 0;
        let target = Fake::new(seed, move |_, _| {
            // Few enough that no batch reaches the last attempt.
            let fails = failures < 4 && random.random_ratio(1, 200);
            failures += u32::from(fails);
            fails.then_some(ErrorKind::Unavailable)
        });
        let (ended, _) = import(&target, &text, None).await;
        assert!(ended.stopped.is_none(), "{ended:?}");
        assert_eq!(ended.done.lines, 2000);
        assert_eq!(*target.state.lock().unwrap(), last);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_lines_are_named_and_do_not_hold_up_the_others() {
    let text = "{\"id\":\"a\",\"n\":1}\nnot json\n\n{\"id\":\"b\",\"x\":1}\n{\"id\":\"c\",\"n\":7}\n{\"id\":\"d\",\"n\":2}\n";
    let target = Fake::new(0, |key, _| (key == "c").then_some(ErrorKind::ConstraintViolated));
    let (ended, refusals) = import(&target, text, None).await;
    assert!(ended.stopped.is_none());
    assert_eq!(ended.done, Done { lines: 6, records: 2, refused: 3 });
    let found: Vec<_> = refusals.iter().map(|r| (r.line, r.reason.kind())).collect();
    let (invalid, constraint) = (ErrorKind::InvalidInput, ErrorKind::ConstraintViolated);
    assert_eq!(found, [(2, invalid), (4, invalid), (5, constraint)]);
    assert_eq!(target.state.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_import_that_was_stopped_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (text, last) = lines(3000, 3000);
    let resume = Resume::of_bytes(folder.path(), "thing", text.as_bytes());
    let target = Fake::new(0, |_, n| (n == 2000).then_some(ErrorKind::Corrupt));
    let (ended, _) = import(&target, &text, Some(&resume)).await;
    assert_eq!(ended.stopped.unwrap().kind(), ErrorKind::Corrupt);
    // Whole batches before the one that failed.
    assert_eq!(ended.done, Done { lines: 1536, records: 1536, refused: 0 });
    assert_eq!(resume.begun(), Some(ended.done));

    *target.failure.lock().unwrap() = Box::new(|_, n| {
        assert!(n >= 1536, "line {n} is stored a second time");
        None
    });
    let (ended, _) = import(&target, &text, Some(&resume)).await;
    assert!(ended.stopped.is_none());
    assert_eq!(ended.done, Done { lines: 3000, records: 3000, refused: 0 });
    assert_eq!(ended.stored, 1464);
    assert_eq!(*target.state.lock().unwrap(), last);
    assert_eq!(resume.begun(), None, "a complete import can be repeated from the start");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_stays_away_stops_the_import_without_refusing_anything() {
    let (text, _) = lines(10, 10);
    let target = Fake::new(0, |_, _| Some(ErrorKind::Unavailable));
    let (ended, refusals) = import(&target, &text, None).await;
    assert_eq!(ended.stopped.unwrap().kind(), ErrorKind::Unavailable);
    assert!(refusals.is_empty());
    assert_eq!(ended.done, Done::default());
}
