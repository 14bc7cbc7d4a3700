//! Who is at work in a world: writers who read what they wrote, an operator, and one who follows the rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{Context, Effect, Key, Position, Value};
use unisono_engine::{Engine, RowsChanged};
use unisono_policy::projection::BesideState;

use crate::world::{SALES, Sales, Tally, row, sales_of};

/// Writes an order of its own, in which a product of its own is sold ever more often, and orders that all of them share.
pub(crate) struct Writer {
    name: usize,
    random: StdRng,
    sold: i64,
}

impl Writer {
    pub(crate) fn new(name: usize, seed: u64) -> Self {
        Writer { name, random: StdRng::seed_from_u64(seed), sold: 0 }
    }

    pub(crate) async fn run(
        &mut self,
        engines: &[Engine],
        tally: &Mutex<Tally>,
    ) -> Result<(), String> {
        loop {
            let pause = self.random.random_range(0..300);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let engine = engines.choose(&mut self.random).unwrap();
            if self.random.random_bool(0.4) {
                self.write_shared(engine).await;
                continue;
            }
            self.sold += 1;
            let own = format!("own{}", self.name);
            let mut lines = self.lines();
            lines.push(json!({"product": own, "quantity": self.sold}));
            let write = put(engine, &format!("w{}", self.name), lines);
            let written = match engine.write(&context(), vec![write]).await {
                Ok(written) => written,
                Err(error) => {
                    if error.effect_on_data() == Effect::Unknown {
                        tally.lock().unwrap().count("answer lost");
                    }
                    continue;
                }
            };
            // Whichever process answers, and whichever version: what was written is there.
            let reader = engines.choose(&mut self.random).unwrap();
            let entity = reader.entity(SALES).unwrap();
            let context = Context { token: written.token, ..context() };
            let key = Key::from_text(&own).unwrap();
            let Ok(answer) = reader.get(&context, entity, &key).await else { continue };
            let found = answer.value.map_or(0, |stored| row(entity, &stored.record).1.0);
            if found < self.sold {
                return Err(format!("{own} was sold {} times, and is read as {found}", self.sold));
            }
            tally.lock().unwrap().count("read by token");
        }
    }

    async fn write_shared(&mut self, engine: &Engine) {
        let id = format!("o{}", self.random.random_range(0..8));
        let write = match self.random.random_bool(0.3) {
            true => Write { action: Action::Delete, ..put(engine, &id, Vec::new()) },
            false => put(engine, &id, self.lines()),
        };
        // Whether it takes place is all the same.
        let _ = engine.write(&context(), vec![write]).await;
    }

    fn lines(&mut self) -> Vec<serde_json::Value> {
        let line = |random: &mut StdRng| {
            let product = format!("p{}", random.random_range(0..5));
            json!({"product": product, "quantity": random.random_range(-3..10)})
        };
        (0..self.random.random_range(0..4)).map(|_| line(&mut self.random)).collect()
    }
}

fn put(engine: &Engine, id: &str, lines: Vec<serde_json::Value>) -> Write {
    let entity = engine.entity("orders").unwrap();
    let record = unisono_core::json::parse(entity, &json!({"id": id, "lines": lines})).unwrap();
    Write {
        entity: Arc::clone(entity),
        key: Key::from_text(id).unwrap(),
        action: Action::Put(record),
        condition: Condition::None,
    }
}

fn context() -> Context {
    Context { timeout: Duration::from_secs(2), ..Context::default() }
}

/// Rebuilds, goes back and discards, now and then.
pub(crate) struct Operator(StdRng);

impl Operator {
    pub(crate) fn new(seed: u64) -> Self {
        Operator(StdRng::seed_from_u64(seed))
    }

    pub(crate) async fn run(&mut self, engines: &[Engine], tally: &Mutex<Tally>) {
        loop {
            let pause = self.0.random_range(0..4000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let engine = engines.choose(&mut self.0).unwrap();
            let (what, done) = match self.0.random_range(0..6) {
                0..3 => ("rebuild", engine.rebuild_projection(SALES).await),
                3 => ("back", engine.projection_back(SALES).await),
                _ => ("discard", engine.discard_projection(SALES).await),
            };
            if done.is_ok() {
                let mut tally = tally.lock().unwrap();
                tally.count(what);
                let beside = sales_of(engine).versions.beside;
                if beside.is_some_and(|b| b.state == BesideState::Returning) {
                    tally.count("made in the declared place");
                }
            }
        }
    }
}

/// Follows the rows, from where it was when a process ended, whichever process comes then.
#[derive(Default)]
pub(crate) struct Follower {
    rows: Sales,
    position: Option<Position>,
    turns: usize,
}

impl Follower {
    pub(crate) async fn run(
        &mut self,
        engines: &[Engine],
        tally: &Mutex<Tally>,
    ) -> Result<(), String> {
        loop {
            self.turns += 1;
            let engine = &engines[self.turns % engines.len()];
            let Ok(mut followed) = engine.follow_rows(SALES, self.position).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            for _ in 0..20 {
                match followed.next(Duration::from_millis(700)).await {
                    Ok(Some(step)) => self.take(engine, &step, tally)?,
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
        }
    }

    /// Follows to the end, where it must have the rows.
    pub(crate) async fn settles(
        &mut self,
        engine: &Engine,
        wanted: &Sales,
        tally: &Mutex<Tally>,
    ) -> Result<(), String> {
        let followed = engine.follow_rows(SALES, self.position).await;
        let mut followed = followed.map_err(|e| e.to_string())?;
        let mut quiet = 0;
        while quiet < 3 {
            match followed.next(Duration::from_secs(5)).await {
                Ok(Some(step)) => self.take(engine, &step, tally)?,
                Ok(None) => quiet += 1,
                Err(error) => return Err(format!("following ends with {error}")),
            }
        }
        match self.rows == *wanted {
            true => Ok(()),
            false => {
                Err(format!("what was followed is {:?}, the truth comes to {wanted:?}", self.rows))
            }
        }
    }

    fn take(
        &mut self,
        engine: &Engine,
        step: &RowsChanged,
        tally: &Mutex<Tally>,
    ) -> Result<(), String> {
        let entity = engine.entity(SALES).unwrap();
        if self.position.is_some() {
            let what = if step.anew { "followed anew" } else { "followed on" };
            tally.lock().unwrap().count(what);
        }
        if self.position.is_some_and(|position| step.position < position) {
            return Err(format!("a step goes back from {:?} to {}", self.position, step.position));
        }
        self.position = Some(step.position);
        let before = match step.anew {
            true => std::mem::take(&mut self.rows),
            false => BTreeMap::new(),
        };
        for (key, change) in &step.rows {
            let name = match key.to_value() {
                Value::String(name) => name.to_string(),
                other => return Err(format!("{other:?} is no product")),
            };
            let known = before.get(&name).or_else(|| self.rows.get(&name)).copied();
            let Some(record) = change else {
                self.rows.remove(&name);
                continue;
            };
            let (_, now) = row(entity, record);
            // What is sold of the product of one writer only grows.
            if name.starts_with("own") && known.is_some_and(|known| now.0 < known.0) {
                return Err(format!("{name} goes back from {known:?} to {now:?}"));
            }
            self.rows.insert(name, now);
        }
        Ok(())
    }
}
