//! The judgement at the end, when faults have ended: everything agrees by itself, verification says so, finds exactly
//! what is changed by hand and repairs it, reads go on without the truth, and closing loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::query::{Filter, Query};
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{
    Ack, Consistency, Context, Effect, ErrorKind, Key, Position, Stored, Token, Value,
};
use unisono_engine::Engine;
use unisono_engine::delivery::dead_letter::DeadLetter;
use unisono_engine::verify::report::{Depth, Difference, Divergence, VerifyOptions};

use crate::adaptive;
use crate::checkers;
use crate::disks::FOLLOWERS;
use crate::follower::POISON;
use crate::workload::record;
use crate::world::World;

/// How long followers may take to agree without faults.
const AGREE_WITHIN: Duration = Duration::from_secs(300);

type Records = BTreeMap<Key, Stored>;

impl World {
    pub(crate) async fn judge(&mut self, engine: Engine) -> Result<(), String> {
        checkers::check(&self.history.seen())?;
        // There may be no room before.
        self.drains(&engine).await?;
        self.write_once_more(&engine).await?;
        self.settles_what_was_accepted(&engine).await?;
        self.agrees(&engine).await?;
        self.demands_most_again(&engine).await?;
        self.notices_a_lost_disk(&engine).await?;
        self.finds_what_was_changed_by_hand(&engine).await?;
        self.discards(&engine).await?;
        if self.seed.is_multiple_of(2) && !self.shape.read.no_fallback {
            self.goes_on_without_the_truth(&engine).await?;
        }
        self.closes_and_reopens(engine).await
    }

    /// Without faults a write takes place. It also gives a log that nobody has written to a beginning.
    async fn write_once_more(&self, engine: &Engine) -> Result<(), String> {
        let key = Key::Integer(0);
        let action = Action::Put(record(&key, 5, "the last".to_owned()));
        let entity = Arc::clone(&self.disks.entity);
        let write = Write { entity, key, action, condition: Condition::None };
        let context = Context { ack: Some(Ack::Truth), ..Context::default() };
        let written = engine.write(&context, vec![write]).await;
        written.map(drop).map_err(|e| format!("P5: a write fails without faults: {e}"))
    }

    /// Where followers are well, `adaptive` demands all again.
    async fn demands_most_again(&self, engine: &Engine) -> Result<(), String> {
        let begin = tokio::time::Instant::now();
        loop {
            match adaptive::status(engine).await {
                Some(status) if status.level != "all" => {
                    if begin.elapsed() > AGREE_WITHIN {
                        return Err(format!("adaptive does not come back: {status:?}"));
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                _ => break,
            }
        }
        adaptive::check(&self.shape, &self.history, engine).await;
        checkers::check(&self.history.seen())
    }

    /// P1: what the journal acknowledged is flushed or refused, with nobody's help.
    async fn settles_what_was_accepted(&self, engine: &Engine) -> Result<(), String> {
        self.drains(engine).await?;
        let letters = self.letters(engine).await?;
        let refused = letters.iter().filter_map(|letter| {
            let trace = letter.write.as_ref()?.accepted.trace.as_ref()?;
            Some((letter.key.clone(), trace.to_string()))
        });
        let met =
            checkers::accepted_is_settled(&self.history.seen(), &refused.collect::<Vec<_>>())?;
        for (name, count) in met {
            (0..count).for_each(|_| self.history.count(name));
        }
        Ok(())
    }

    async fn drains(&self, engine: &Engine) -> Result<(), String> {
        let begin = tokio::time::Instant::now();
        loop {
            let journals = engine.status().await.journals;
            match journals.iter().find(|journal| journal.pending > 0) {
                None => return Ok(()),
                Some(journal) if begin.elapsed() > AGREE_WITHIN => {
                    return Err(format!("P1: acknowledged writes are not flushed: {journal:?}"));
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// P2: followers come to equal the truth, and verification agrees with this judge.
    async fn agrees(&self, engine: &Engine) -> Result<(), String> {
        let token = engine.head_token().await.map_err(|e| e.to_string())?;
        engine
            .wait_applied(&token, AGREE_WITHIN)
            .await
            .map_err(|e| format!("P2: followers do not catch up: {e}"))?;
        let truth = self.records("truth").await?;
        let letters = self.letters(engine).await?;
        for name in FOLLOWERS {
            let expected = expected(name, self.shape.mapped, &truth);
            let held = self.records(name).await?;
            let of_source = letters.iter().filter(|l| *l.source == *name).map(|l| l.key.clone());
            let of_source: Vec<String> = of_source.collect();
            checkers::follower_agrees(name, &expected, &held, &of_source)?;
            letters_are_for_poison(name, self.shape.refuses(name), &expected, &of_source)?;
        }
        let mut wrong = self.differences(engine, Depth::Deep, false).await?;
        wrong
            .retain(|(source, d)| !letters.iter().any(|l| *l.source == **source && l.key == d.key));
        match wrong.first() {
            Some(first) => Err(format!("P2: verify finds what is not there: {first:?}")),
            None => Ok(()),
        }
    }

    /// P2: a follower that loses everything while nothing else happens is filled again, with nobody's help.
    async fn notices_a_lost_disk(&self, engine: &Engine) -> Result<(), String> {
        let name = FOLLOWERS[self.faults.below(4) as usize];
        self.disks.disk(name).wipe();
        tokio::time::sleep(Duration::from_secs(3)).await;
        self.agrees(engine).await.map_err(|e| format!("after {name} was wiped: {e}"))
    }

    /// Verification finds exactly what is wrong, calls it by its name, and repair mends all that can be mended.
    async fn finds_what_was_changed_by_hand(&self, engine: &Engine) -> Result<(), String> {
        let mends = FOLLOWERS.into_iter().filter(|name| !self.shape.refuses(name));
        let mends: Vec<&str> = mends.collect();
        let name = mends[self.faults.below(mends.len() as u32) as usize];
        let truth = self.records("truth").await?;
        let (held, wrong) = self.spoil(&expected(name, self.shape.mapped, &truth));
        let checkpoint = self.disks.checkpoint(name).await.map_err(|e| e.to_string())?;
        let checkpoint = checkpoint.ok_or("a follower that agrees has no checkpoint")?;
        self.disks.rewrite(name, &held, checkpoint).await.map_err(|e| e.to_string())?;
        self.history.trace(|| format!("{name} spoilt: {wrong:?}"));
        let of_name = |found: Vec<(Arc<str>, Difference)>| {
            let of_name = found.into_iter().filter(|(source, _)| **source == *name);
            of_name.map(|(_, d)| d).collect::<Vec<_>>()
        };
        for depth in [Depth::Deep, Depth::Observed] {
            let found = of_name(self.differences(engine, depth, false).await?);
            let classes: BTreeMap<_, _> = found.iter().map(|d| (d.key.clone(), d.class)).collect();
            let is_seen =
                |class: &Divergence| depth == Depth::Deep || *class != Divergence::Corrupt;
            let mut seen = wrong.clone();
            seen.retain(|_, class| is_seen(class));
            if classes != seen {
                return Err(format!("P2: {depth:?} finds {classes:?} where {seen:?} was spoilt"));
            }
        }
        let repaired = of_name(self.differences(engine, Depth::Deep, true).await?);
        if let Some(left) = repaired.iter().find(|d| !d.repaired) {
            return Err(format!("P2: repair of {name} leaves {left:?}"));
        }
        self.history.count("corrupted by hand");
        self.agrees(engine).await.map_err(|e| format!("after repair: {e}"))
    }

    /// Spoils some records in each way that verification tells apart.
    fn spoil(&self, good: &Records) -> (Records, BTreeMap<String, Divergence>) {
        let mut held = good.clone();
        let mut wrong = BTreeMap::new();
        // Versions that are exchanged for each other are no difference to an observed comparison: each is a new one.
        let mut used: BTreeSet<_> = good.values().map(|stored| stored.version.as_u64()).collect();
        let newest = used.last().copied().unwrap_or_default();
        let mut unused = |among: Range<u64>| {
            let version = among.rev().find(|v| !used.contains(v))?;
            used.insert(version);
            Position::new(version).ok()
        };
        for (key, stored) in good {
            let other = Arc::new(record(key, 77, "changed by hand".to_owned()));
            let class = match self.faults.below(if good.len() > 100 { 200 } else { 8 }) {
                0 => {
                    held.remove(key);
                    Divergence::Missing
                }
                1 => {
                    held.insert(key.clone(), Stored::new(key.clone(), stored.version, other));
                    Divergence::Corrupt
                }
                2 => {
                    let Some(version) = unused(1..stored.version.as_u64()) else { continue };
                    held.insert(key.clone(), Stored::new(key.clone(), version, other));
                    Divergence::Stale
                }
                3 => {
                    let later = stored.version.as_u64() + 1..newest;
                    let Some(version) = unused(later) else { continue };
                    held.insert(key.clone(), Stored::new(key.clone(), version, other));
                    Divergence::Ahead
                }
                _ => continue,
            };
            wrong.insert(key.to_string(), class);
        }
        let key = Key::Integer(1_000_000);
        let orphan = Arc::new(record(&key, 77, "added by hand".to_owned()));
        if let Some(version) = unused(1..newest) {
            held.insert(key.clone(), Stored::new(key.clone(), version, orphan));
            wrong.insert(key.to_string(), Divergence::Orphan);
        }
        (held, wrong)
    }

    /// A discarded dead letter leaves a difference that verification finds and repair cannot mend.
    async fn discards(&self, engine: &Engine) -> Result<(), String> {
        let letters = self.letters(engine).await?;
        if let Some(letter) = letters.iter().find(|letter| letter.write.is_some()) {
            engine.discard(letter).await.map_err(|e| e.to_string())?;
            if self.letters(engine).await?.contains(letter) {
                return Err(format!("a discarded write of {} is still there", letter.key));
            }
        }
        let of_follower = letters.iter().find(|letter| letter.write.is_none());
        let Some(letter) = of_follower else { return Ok(()) };
        self.history.seen().discarded = true;
        engine.discard(letter).await.map_err(|e| e.to_string())?;
        self.history.count("dead letter discarded");
        if self.letters(engine).await?.contains(letter) {
            return Err(format!("a discarded dead letter of {} is still there", letter.key));
        }
        let is_it = |(source, d): &(Arc<str>, Difference)| {
            *source == letter.source && d.key == letter.key && !d.repaired
        };
        if !self.differences(engine, Depth::Deep, true).await?.iter().any(is_it) {
            return Err(format!("P2: nothing tells that {} is not taken in", letter.key));
        }
        self.agrees(engine).await
    }

    /// P5: reads go on while only the truth is down, and say that they may be stale; writes fail and say so.
    async fn goes_on_without_the_truth(&self, engine: &Engine) -> Result<(), String> {
        let token = engine.head_token().await.map_err(|e| e.to_string())?;
        self.agrees(engine).await?;
        let truth = self.records("truth").await?;
        let lasts = Duration::from_secs(45);
        self.faults.outage("truth", lasts);
        let begin = tokio::time::Instant::now();
        for n in 0..6 {
            for consistency in [Consistency::Eventual, Consistency::Session] {
                let token = token.clone();
                let timeout = Duration::from_secs(2);
                let quorum = Some(1);
                let context = Context { consistency, token, timeout, quorum, ..Context::default() };
                self.reads_without_truth(engine, &context, &truth, n > 1)
                    .await
                    .map_err(|e| format!("P5: {consistency:?} read without the truth: {e}"))?;
            }
            self.write_without_truth(engine, &token).await?;
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        self.cache_answers_alone(engine).await?;
        tokio::time::sleep(lasts.saturating_sub(begin.elapsed()) + Duration::from_secs(61)).await;
        let strong = Context { consistency: Consistency::Strong, ..Context::default() };
        let entity = &self.disks.entity;
        let back = engine.query(&strong, entity, &Query::all()).await;
        back.map_err(|e| format!("P5: the truth is back and not asked: {e}"))?;
        self.drains(engine).await?;
        self.agrees(engine).await
    }

    /// With everything else down, a cached record is answered from the cache.
    async fn cache_answers_alone(&self, engine: &Engine) -> Result<(), String> {
        let (entity, key) = (&self.disks.entity, Key::Integer(0));
        let context = Context { quorum: Some(1), ..Context::default() };
        let cached = engine.get(&context, entity, &key).await.map_err(|e| e.to_string())?;
        for name in FOLLOWERS {
            self.faults.outage(name, Duration::from_secs(1));
        }
        let alone = engine.get(&context, entity, &key).await;
        let alone = alone.map_err(|e| format!("P5: the cache alone does not answer: {e}"))?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if alone.value != cached.value || !alone.stale {
            return Err(format!("P5: the cache alone answers {alone:?} and not {cached:?}"));
        }
        self.history.count("cache hit, stale");
        Ok(())
    }

    async fn reads_without_truth(
        &self,
        engine: &Engine,
        context: &Context,
        truth: &Records,
        for_long: bool,
    ) -> Result<(), String> {
        let entity = &self.disks.entity;
        // Unless the truth was asked, it takes a moment until its silence is noticed.
        let must_say = |failed: &[(Arc<str>, String)]| {
            for_long || failed.iter().any(|(source, _)| **source == *"truth")
        };
        for key in (0..i64::from(self.shape.keys).min(4)).map(Key::Integer) {
            let answer = engine.get(context, entity, &key).await.map_err(|e| e.to_string())?;
            if answer.value.as_deref() != truth.get(&key) {
                return Err(format!("{key} is {:?}", answer.value));
            }
            if must_say(&answer.failed) && !answer.stale {
                return Err(format!("{key} from {} is not called stale", answer.source));
            }
        }
        let page = engine.query(context, entity, &Query::all()).await.map_err(|e| e.to_string())?;
        if must_say(&page.failed) && !page.stale {
            return Err(format!("a page from {} is not called stale", page.source));
        }
        let count = engine.count(context, entity, &Filter::All, None).await;
        let count = count.map_err(|e| e.to_string())?;
        if !self.shape.refuses(&count.source) && count.value != truth.len() as u64 {
            return Err(format!("{} records are {} in {}", truth.len(), count.value, count.source));
        }
        Ok(())
    }

    async fn write_without_truth(&self, engine: &Engine, token: &Token) -> Result<(), String> {
        if self.shape.is_behind() {
            return self.accepts_without_truth(engine).await;
        }
        let entity = Arc::clone(&self.disks.entity);
        let (key, action) = (Key::Integer(0), Action::Delete);
        let write = Write { entity, key, action, condition: Condition::None };
        let context = Context { token: token.clone(), ..Context::default() };
        match engine.write(&context, vec![write]).await {
            Ok(_) => Err("P1: a write took place without the truth".to_owned()),
            Err(error) if error.effect_on_data() != Effect::None => {
                Err(format!("P6: a write that did not take place says {error:?}"))
            }
            Err(_) => Ok(()),
        }
    }

    /// P5: what is written behind is acknowledged and shown without the truth.
    async fn accepts_without_truth(&self, engine: &Engine) -> Result<(), String> {
        let entity = Arc::clone(&self.disks.entity);
        let key = Key::Integer(2_000_000);
        let action = Action::Put(record(&key, 1, "without the truth".to_owned()));
        let condition = Condition::None;
        let write = Write { entity: Arc::clone(&entity), key: key.clone(), action, condition };
        match engine.write(&Context::default(), vec![write]).await {
            // There is no room for more.
            Err(error) if error.kind() == ErrorKind::Overloaded => Ok(()),
            Err(error) => Err(format!("P5: a write is not accepted without the truth: {error}")),
            Ok(_) => {
                let one = Context { quorum: Some(1), ..Context::default() };
                let shown = engine.get(&one, &entity, &key).await;
                match shown.map_err(|e| e.to_string())?.value {
                    Some(_) => Ok(()),
                    None => Err("P3: an acknowledged write is not shown".to_owned()),
                }
            }
        }
    }

    /// A quiet end saves every checkpoint; the next life finds everything in place.
    async fn closes_and_reopens(&mut self, engine: Engine) -> Result<(), String> {
        self.agrees(&engine).await?;
        engine.close().await.map_err(|e| format!("the engine cannot be closed: {e}"))?;
        for name in FOLLOWERS {
            let saved = self.disks.checkpoint(name).await.map_err(|e| e.to_string())?;
            if saved.as_ref().map(|c| c.position) != Some(self.history.head()) {
                return Err(format!("closing left the checkpoint of {name} at {saved:?}"));
            }
        }
        let closed = engine.query(&Context::default(), &self.disks.entity, &Query::all()).await;
        if closed.is_ok() {
            return Err("a closed engine answers".to_owned());
        }
        let copies = self.copies();
        let runtime = self.runtime();
        let engine = self.open(&runtime).await.map_err(|e| format!("cannot reopen: {e}"))?;
        let agreed = self.agrees(&engine).await;
        runtime.abort();
        if self.copies() != copies {
            return Err("a follower was copied again after a quiet end".to_owned());
        }
        self.history.count("closed and reopened");
        agreed.map_err(|e| format!("after reopening: {e}"))
    }

    /// How often a copy was begun.
    fn copies(&self) -> u64 {
        let seen = self.history.seen();
        seen.coverage.counts().filter(|(name, _)| name.starts_with("copy ")).map(|(_, n)| n).sum()
    }

    async fn differences(
        &self,
        engine: &Engine,
        depth: Depth,
        repair: bool,
    ) -> Result<Vec<(Arc<str>, Difference)>, String> {
        let options = VerifyOptions { depth, repair, ..VerifyOptions::default() };
        let report = engine.verify(&options, &|_| {}).await.map_err(|e| e.to_string())?;
        self.history.trace(|| format!("verify, repair {repair}: {report:?}"));
        let mut found = Vec::new();
        for comparison in report.comparisons {
            if let Some(error) = comparison.error {
                return Err(format!("verify of {} failed: {error}", comparison.source));
            }
            let source = &comparison.source;
            found.extend(comparison.differences.into_iter().map(|d| (Arc::clone(source), d)));
        }
        Ok(found)
    }

    async fn letters(&self, engine: &Engine) -> Result<Vec<DeadLetter>, String> {
        engine.dead_letters().await.map_err(|e| e.to_string())
    }

    async fn records(&self, name: &str) -> Result<Records, String> {
        self.disks.records(name).await.map_err(|e| e.to_string())
    }
}

/// What a follower is to hold.
fn expected(name: &str, mapped: bool, truth: &Records) -> Records {
    let wanted = |s: &Stored| {
        name != "stocked" || matches!(s.record.values()[1], Value::Integer(stock) if stock > 3)
    };
    let kept = |stored: &Stored| {
        let mut record = unisono_core::Record::clone(&stored.record);
        if let (true, "stocked", Value::Integer(stock)) =
            (mapped, name, &mut record.values_mut()[1])
        {
            *stock *= 10;
        }
        Stored::new(stored.key.clone(), stored.version, Arc::new(record))
    };
    let wanted = truth.iter().filter(|(_, s)| wanted(s));
    wanted.map(|(key, stored)| (key.clone(), kept(stored))).collect()
}

/// A dead letter waits for a record that is refused, and for no other.
fn letters_are_for_poison(
    name: &str,
    refuses: bool,
    expected: &Records,
    letters: &[String],
) -> Result<(), String> {
    let poisoned = |key: &String| {
        expected
            .iter()
            .any(|(k, s)| k.to_string() == *key && s.record.values()[2].as_str() == Some(POISON))
    };
    match letters.iter().find(|key| !refuses || !poisoned(key)) {
        Some(key) => Err(format!("a dead letter of {name} waits for {key}, which is not refused")),
        None => Ok(()),
    }
}
