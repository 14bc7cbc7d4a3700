//! The operator: verifies, repairs, copies anew and replays dead letters while clients work, and sometimes pulls a
//! follower's disk away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use unisono_engine::Engine;
use unisono_engine::verify::report::{Depth, VerifyOptions};
use unisono_source_memory::MemoryDisk;

use crate::disks::{Disks, FOLLOWERS};
use crate::faults::Faults;
use crate::follower::POISON;
use crate::history::History;
use crate::shape::Shape;

/// Works beside the clients.
pub(crate) struct Operator {
    pub(crate) shape: Arc<Shape>,
    pub(crate) faults: Faults,
    pub(crate) history: Arc<History>,
    pub(crate) disks: Arc<Disks>,
    /// Copies of followers, taken now and then.
    pub(crate) copies: BTreeMap<&'static str, MemoryDisk>,
}

impl Operator {
    /// Does a few things during one life of the process.
    pub(crate) async fn run(&mut self, engine: &Engine) {
        for _ in 0..self.faults.below(4) {
            let pauses = u64::from(self.shape.requests) * self.shape.pause / 2;
            let pause = pauses * u64::from(self.faults.below(1000)) / 2000;
            tokio::time::sleep(Duration::from_micros(pause)).await;
            if self.shape.tampered && self.faults.below(2) == 0 {
                self.tamper();
            } else if self.shape.operated {
                self.operate(engine).await;
            }
        }
    }

    async fn operate(&mut self, engine: &Engine) {
        let follower = FOLLOWERS[self.faults.below(4) as usize];
        let long = self.shape.pause > 1_000_000 && self.faults.below(2) == 0;
        match if long { 6 } else { self.faults.below(9) } {
            0..2 => self.verify(engine, false).await,
            2..4 => self.verify(engine, true).await,
            4 => {
                let result = engine.backfill("thing", follower).await;
                self.history.trace_result(&format!("operator copies {follower}"), &result);
            }
            5 => self.replay(engine).await,
            7 => self.rest(engine, follower).await,
            6 => {
                // What the cache misses meanwhile is in the log alone, until that is trimmed.
                let lasts = Duration::from_secs(u64::from(self.faults.below(150)));
                match self.faults.below(2) {
                    0 => self.faults.outage("cache", lasts),
                    _ => self.faults.outage_of("cache", "follow", lasts),
                }
                self.faults.lose_commit();
            }
            _ => drop(engine.status().await),
        }
    }

    /// Verification while everything goes on finds nothing, because nothing is wrong.
    async fn verify(&self, engine: &Engine, repair: bool) {
        let depth = [Depth::Ledger, Depth::Observed, Depth::Deep][self.faults.below(3) as usize];
        let options = VerifyOptions { depth, repair, ..VerifyOptions::default() };
        let result = engine.verify(&options, &|_| {}).await;
        self.history
            .trace_result(&format!("operator verifies, {depth:?}, repair {repair}"), &result);
        let Ok(report) = result else { return };
        if self.history.seen().tampered {
            return;
        }
        for comparison in &report.comparisons {
            let source = &*comparison.source;
            let refused = |key: &str| self.shape.refuses(source) && self.was_poisoned(key);
            if let Some(false_one) = comparison.differences.iter().find(|d| !refused(&d.key)) {
                self.history.breach(format!(
                    "P2: verification of {} finds {false_one:?} while clients write",
                    comparison.source
                ));
            }
            if comparison.error.is_none() {
                self.history.count(match repair {
                    true => "verified with repair while clients write",
                    false => "verified while clients write",
                });
            }
        }
    }

    /// Leaves a follower alone for a while; when the process ends meanwhile, until after the next start.
    async fn rest(&self, engine: &Engine, follower: &str) {
        let paused = engine.pause_source(follower).await;
        self.history.trace_result(&format!("operator pauses {follower}"), &paused);
        let micros = self.shape.pause * u64::from(self.faults.below(20));
        tokio::time::sleep(Duration::from_micros(micros)).await;
        let resumed = engine.resume_source(follower).await;
        self.history.trace_result(&format!("operator resumes {follower}"), &resumed);
        if paused.is_ok() && resumed.is_ok() {
            self.history.count("paused and resumed");
        }
    }

    fn was_poisoned(&self, key: &str) -> bool {
        let seen = self.history.seen();
        let mut of_key = seen.log.values().filter(|c| c.key.to_string() == key);
        of_key.any(|c| c.image.as_ref().is_some_and(|i| i.values()[2].as_str() == Some(POISON)))
    }

    async fn replay(&self, engine: &Engine) {
        let Ok(letters) = engine.dead_letters().await else { return };
        for letter in letters {
            let refused = letter.write.as_ref().and_then(|write| write.accepted.trace.clone());
            if let Some(trace) = refused {
                self.history.seen().replayed.insert(trace.to_string());
            }
            let result = engine.replay(&letter).await;
            self.history.trace_result(&format!("operator replays {}", letter.key), &result);
            if result.is_ok() {
                self.history.count("dead letter replayed");
            }
        }
    }

    /// Wipes a follower or sets it back, under the running engine.
    fn tamper(&mut self) {
        let name = FOLLOWERS[self.faults.below(4) as usize];
        let disk = self.disks.disk(name);
        match (self.faults.below(4), self.copies.get(name)) {
            (0..2, _) => {
                self.history.count("wiped under the engine");
                disk.wipe();
            }
            (2, Some(copy)) => {
                self.history.count("restored under the engine");
                disk.restore(copy);
            }
            _ => {
                drop(self.copies.insert(name, disk.copy()));
                return;
            }
        }
        self.history.trace(|| format!("operator wipes {name} or sets it back"));
        self.faults.forget_late(name);
        let mut seen = self.history.seen();
        seen.tampered = true;
        seen.spread.clear();
        drop(seen);
        // Reads that found the follower whole are then still under way when it is emptied and copied.
        for operation in ["get", "query"] {
            self.faults.slow(name, Some(operation), 6);
        }
    }

    /// Followers may lose what they had, or come back as they once were.
    pub(crate) async fn between_lives(&mut self) -> unisono_core::Result<()> {
        for name in FOLLOWERS {
            let disk = self.disks.disk(name);
            let done = match (self.faults.below(10), self.copies.get(name)) {
                (0, _) => {
                    disk.wipe();
                    "wiped"
                }
                (1..3, Some(copy)) => {
                    disk.restore(copy);
                    "restored from an older copy"
                }
                (3, _) => {
                    self.disks.make_foreign(name, self.history.head()).await?;
                    "restored from another installation"
                }
                (4..6, _) => {
                    self.copies.insert(name, disk.copy());
                    continue;
                }
                _ => continue,
            };
            self.history.seen().spread.clear();
            self.history.trace(|| format!("{name} {done}"));
            self.history.count(done);
            self.faults.forget_late(name);
        }
        Ok(())
    }
}
