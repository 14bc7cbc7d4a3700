//! What of a new declaration can take effect while the engine runs: the differences, each one a change or a reason to restart.
//!
//! | takes effect | needs a restart |
//! |---|---|
//! | how an entity is read, when a write is answered (`ack`), which followers it has, and their `where`, `map`, `after`, `batch` and `priority` | its fields and key, place and options of a follower, and which entities there are |
//! | how it is written, within `write_around` and `write_through`, or within `write_behind` | to or from `write_behind`, another journal |
//! | how long and how its cache keeps what, `results`, and with what it is warmed when it next begins empty | `personal` of an entity, `clear` of a follower; which source its cache is, options of the kind that are not live |
//! | | `sync` |
//! | which of its followers is the truth, alone | |
//! | which sources there are, `[log]`, `[sweep]`, how many samples `[sampler]` takes | options of a source, `region`, `[archive]`, `[personal]`, hooks, whether there is a sampler |

mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use unisono_core::kind::Options;
use unisono_core::time::duration_text;
use unisono_core::{Ack, Capture, Error, ErrorKind, Result, stream};

use crate::ack::AckPolicy;
use crate::adaptive::AdaptivePolicy;
use crate::declaration::{
    CacheDeclaration, Declaration, EntityDeclaration, FollowerDeclaration, LogDeclaration,
    SamplerDeclaration, SourceDeclaration, SweepDeclaration,
};
use crate::delivery::{BatchPolicy, DeliveryPolicy};
use crate::mapping::Mapping;
use crate::projection::Projection;
use crate::read::{ReadPolicy, ReadRule};
use crate::rule::Rule;
use crate::write::{BehindPolicy, WritePolicy, WriteStrategy};

pub use step::Step;

/// What a reload would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What becomes of sources and followers.
    pub steps: Vec<Step>,
    /// What else takes effect, such as `entities.product.read.strategy: cache_first -> parallel`.
    pub changes: Vec<String>,
    /// The keys of what cannot take effect while the engine runs. If there are any, nothing does.
    pub restart: Vec<String>,
}

impl Plan {
    /// Everything that takes effect, a line for each; or `invalid_config`, which names everything that needs a restart.
    pub fn outcome(self) -> Result<Vec<String>> {
        if self.restart.is_empty() {
            return Ok(self.steps.iter().map(Step::to_string).chain(self.changes).collect());
        }
        let message = "this cannot be changed while it runs, so nothing was changed";
        Err(Error::new(ErrorKind::InvalidConfig, message)
            .on("reload")
            .with("restart", self.restart.join(", "))
            .hint("restart to change it"))
    }

    /// Notes what cannot be changed, if it is different.
    pub fn fixed<T: PartialEq>(&mut self, key: impl Into<String>, running: &T, wanted: &T) {
        if running != wanted {
            self.restart.push(key.into());
        }
    }

    fn set<T: PartialEq>(
        &mut self,
        key: String,
        running: &T,
        wanted: &T,
        shown: impl Fn(&T) -> String,
    ) {
        if running != wanted {
            self.changes.push(format!("{key}: {} -> {}", shown(running), shown(wanted)));
        }
    }

    fn set_time(&mut self, key: String, running: Duration, wanted: Duration) {
        self.set(key, &running, &wanted, |time| duration_text(*time));
    }

    fn set_optional_time(
        &mut self,
        key: String,
        running: Option<Duration>,
        wanted: Option<Duration>,
    ) {
        self.set(key, &running, &wanted, |time| time.map_or("none".to_owned(), duration_text));
    }

    /// Compares what both have under a name; what only one has needs a restart.
    fn each<T>(
        &mut self,
        section: &str,
        running: &BTreeMap<Arc<str>, T>,
        wanted: &BTreeMap<Arc<str>, T>,
        compare: impl Fn(&mut Plan, &str, &T, &T),
    ) {
        let names: BTreeSet<_> = running.keys().chain(wanted.keys()).collect();
        for name in names {
            let key = format!("{section}.{name}");
            match (running.get(name), wanted.get(name)) {
                (Some(running), Some(wanted)) => compare(self, &key, running, wanted),
                (None, _) => self.restart.push(format!("{key} (added)")),
                (_, None) => self.restart.push(format!("{key} (removed)")),
            }
        }
    }
}

/// What it takes to go from one declaration to another.
pub fn plan(running: &Declaration, wanted: &Declaration) -> Plan {
    // Taken apart, here and below, so that nothing that is ever added is left out of the comparison.
    let Declaration { sources, entities, log, archive, sweep, region, sampler, hooks, personal } =
        running;
    let mut plan = Plan::default();
    plan.fixed("region", region, &wanted.region);
    plan.fixed("archive", archive, &wanted.archive);
    plan.fixed("personal", personal, &wanted.personal);
    self::sources(&mut plan, sources, &wanted.sources, &moved_between(entities, &wanted.entities));
    plan.each("entities", entities, &wanted.entities, entity);
    self::log(&mut plan, log, &wanted.log);
    self::sweep(&mut plan, sweep, &wanted.sweep);
    match (sampler, &wanted.sampler) {
        (None, None) => {}
        (Some(running), Some(wanted)) => {
            let SamplerDeclaration { one_in, pending_max } = running;
            plan.set("sampler.one_in".to_owned(), one_in, &wanted.one_in, u64::to_string);
            let key = "sampler.pending_max".to_owned();
            plan.set(key, pending_max, &wanted.pending_max, usize::to_string);
        }
        _ => plan.restart.push("sampler".to_owned()),
    }
    let moves = plan.steps.iter().filter(|step| matches!(step, Step::MoveTruth { .. })).count();
    keys_stay_apart(&mut plan, wanted);
    go_with_their_entity(&mut plan, entities, &wanted.entities);
    if moves > 0 && (plan.steps.len() > 1 || !plan.changes.is_empty()) {
        plan.restart.push("entities (move one truth, and change nothing else with it)".to_owned());
    }
    plan.each("hooks", hooks, &wanted.hooks, |plan, key, running, wanted| {
        plan.fixed(key, running, wanted);
    });
    plan
}

/// What is personal never comes to where its keys are.
fn keys_stay_apart(plan: &mut Plan, wanted: &Declaration) {
    let Some(personal) = &wanted.personal else { return };
    let together = wanted.entities.iter().filter(|(_, declared)| {
        declared.truth == personal.keys && declared.entity.personal().is_some()
    });
    let reason =
        |name| format!("entities.{name}.truth (the source has the keys of what is personal)");
    plan.restart.extend(together.map(|(name, _)| reason(name)));
}

/// What is worked out has the truth of what it is worked out from, and changes it with that alone.
fn go_with_their_entity(
    plan: &mut Plan,
    running: &BTreeMap<Arc<str>, EntityDeclaration>,
    wanted: &BTreeMap<Arc<str>, EntityDeclaration>,
) {
    let both =
        running.iter().filter_map(|(name, declared)| Some((name, declared, wanted.get(name)?)));
    for (name, from, to) in both.filter(|(_, from, to)| from.truth != to.truth) {
        let Some(projection) = &from.projection else { continue };
        let goes_with = |step: &Step| matches!(step, Step::MoveTruth { entity, to: truth, .. } if entity == projection.from.name() && *truth == to.truth);
        if !plan.steps.iter().any(goes_with) {
            plan.restart.push(format!("entities.{name}.truth"));
        }
    }
}

/// The sources that a truth is moved from or to.
fn moved_between(
    running: &BTreeMap<Arc<str>, EntityDeclaration>,
    wanted: &BTreeMap<Arc<str>, EntityDeclaration>,
) -> BTreeSet<Arc<str>> {
    let both = running.iter().filter_map(|(name, declared)| Some((declared, wanted.get(name)?)));
    let moved = both.filter(|(running, wanted)| running.truth != wanted.truth);
    moved.flat_map(|(from, to)| [Arc::clone(&from.truth), Arc::clone(&to.truth)]).collect()
}

fn sources(
    plan: &mut Plan,
    running: &BTreeMap<Arc<str>, SourceDeclaration>,
    wanted: &BTreeMap<Arc<str>, SourceDeclaration>,
    moved: &BTreeSet<Arc<str>>,
) {
    let names: BTreeSet<_> = running.keys().chain(wanted.keys()).collect();
    for name in names {
        match (running.get(name), wanted.get(name)) {
            (Some(running), Some(wanted)) => {
                let key = format!("sources.{name}");
                // It matters at the start alone, and a truth is required unless something else is said.
                if !moved.contains(name) {
                    plan.fixed(format!("{key}.required"), &running.required, &wanted.required);
                }
                source(plan, &key, running, wanted);
            }
            (None, Some(added)) => {
                let kind = Arc::clone(&added.kind);
                plan.steps.push(Step::AddSource { source: Arc::clone(name), kind });
            }
            (_, None) => plan.steps.push(Step::RemoveSource { source: Arc::clone(name) }),
        }
    }
}

fn source(plan: &mut Plan, key: &str, running: &SourceDeclaration, wanted: &SourceDeclaration) {
    let SourceDeclaration { kind, options, required: _, region } = running;
    plan.fixed(format!("{key}.kind"), kind, &wanted.kind);
    plan.fixed(format!("{key}.region"), region, &wanted.region);
    self::options(plan, key, options, &wanted.options);
}

/// The names of those that differ. Their values may be secret.
fn options(plan: &mut Plan, key: &str, running: &Options, wanted: &Options) {
    let names: BTreeSet<_> = running.0.keys().chain(wanted.0.keys()).collect();
    for name in names {
        plan.fixed(format!("{key}.{name}"), &running.0.get(name), &wanted.0.get(name));
    }
}

fn entity(plan: &mut Plan, key: &str, running: &EntityDeclaration, wanted: &EntityDeclaration) {
    let moved = match (running.truth == wanted.truth, &running.projection) {
        (true, _) => None,
        (false, Some(_)) => {
            Some(EntityDeclaration { truth: Arc::clone(&wanted.truth), ..running.clone() })
        }
        (false, None) => match truth(plan, key, running, &wanted.truth) {
            None => return,
            moved => moved,
        },
    };
    let running = moved.as_ref().unwrap_or(running);
    let EntityDeclaration {
        entity,
        truth,
        table,
        truth_options,
        cache: cached,
        followers,
        read: reads,
        write: writes,
        ack,
        strategy,
        adaptive,
        projection,
        sync,
    } = running;
    let definition = |of: &Option<Arc<Projection>>| of.as_ref().map(|p| Arc::clone(&p.definition));
    plan.fixed(
        format!("{key}.projection"),
        &definition(projection),
        &definition(&wanted.projection),
    );
    plan.fixed(format!("{key}.sync"), sync, &wanted.sync);
    plan.fixed(format!("{key}.key"), &entity.key_field().name, &wanted.entity.key_field().name);
    plan.fixed(format!("{key}.fields"), &entity.fields(), &wanted.entity.fields());
    plan.fixed(format!("{key}.personal"), &entity.personal(), &wanted.entity.personal());
    plan.fixed(format!("{key}.truth"), truth, &wanted.truth);
    plan.fixed(format!("{key}.table"), table, &wanted.table);
    options(plan, key, truth_options, &wanted.truth_options);
    match (cached, &wanted.cache) {
        (None, None) => {}
        (Some(running), Some(wanted)) => cache(plan, &format!("{key}.cache"), running, wanted),
        _ => plan.restart.push(format!("{key}.cache")),
    }
    self::followers(plan, entity.name(), followers, &wanted.followers);
    read(plan, &format!("{key}.read"), reads, &wanted.read);
    write(plan, &format!("{key}.write"), writes, &wanted.write);
    plan.set(format!("{key}.strategy"), strategy, &wanted.strategy, |strategy| {
        strategy.map_or("none", |strategy| strategy.name).to_owned()
    });
    let AckPolicy { ack, timeout } = ack;
    plan.set(format!("{key}.ack"), ack, &wanted.ack.ack, Ack::to_string);
    plan.set_time(format!("{key}.ack_timeout"), *timeout, wanted.ack.timeout);
    if let (Some(running), Some(wanted)) = (adaptive, &wanted.adaptive) {
        let AdaptivePolicy { latency, lag, dwell } = running;
        plan.set_time(format!("{key}.adaptive.latency"), *latency, wanted.latency);
        plan.set_time(format!("{key}.adaptive.lag"), *lag, wanted.lag);
        plan.set_time(format!("{key}.adaptive.dwell"), *dwell, wanted.dwell);
    }
}

/// Notes that a truth is moved; answers the same declaration with it moved, if that is possible.
fn truth(
    plan: &mut Plan,
    key: &str,
    running: &EntityDeclaration,
    to: &Arc<str>,
) -> Option<EntityDeclaration> {
    let Some(moved) = running.with_truth(to) else {
        plan.restart
            .push(format!("{key}.truth (it must follow first, with all records as they are)"));
        return None;
    };
    plan.steps.push(Step::MoveTruth {
        entity: Arc::clone(running.entity.name()),
        from: Arc::clone(&running.truth),
        to: Arc::clone(to),
    });
    if let Some(reason) = stays(running, to) {
        plan.restart.push(format!("{key}.truth ({reason})"));
    }
    Some(moved)
}

/// Why the truth of an entity cannot be moved to a source.
fn stays(declared: &EntityDeclaration, to: &str) -> Option<&'static str> {
    if declared.write.behind.is_some() {
        return Some("it is written behind: flush, and declare another strategy first");
    }
    if declared.sync.is_some() {
        return Some("it is synchronised with another truth: leave `sync` out first");
    }
    if Capture::of(&declared.truth_options).is_some() {
        return Some("other programs write its table: leave `capture` out first");
    }
    let entity = &declared.entity;
    let is_clear = declared.followers.iter().any(|f| *f.source == *to && f.clear);
    if entity.personal().is_some() && is_clear {
        return Some("the follower has what is personal as it is: choose one without `clear`");
    }
    if entity.is_of_events() || stream::is_of_tags(entity) || entity.is_system() {
        return Some("events stay where they were appended: followers answer for them");
    }
    None
}

fn followers(
    plan: &mut Plan,
    entity: &Arc<str>,
    running: &[FollowerDeclaration],
    wanted: &[FollowerDeclaration],
) {
    let named = |all: &[FollowerDeclaration], name: &Arc<str>| {
        all.iter().position(|follower| follower.source == *name)
    };
    for gone in running.iter().filter(|f| named(wanted, &f.source).is_none()) {
        let (entity, source) = (Arc::clone(entity), Arc::clone(&gone.source));
        plan.steps.push(Step::RemoveFollower { entity, source });
    }
    for to in wanted {
        match named(running, &to.source) {
            Some(number) => {
                follower(plan, entity, &running[number], to);
                mapping(plan, (entity, &to.source), running, wanted);
            }
            None => plan.steps.push(Step::AddFollower {
                entity: Arc::clone(entity),
                source: Arc::clone(&to.source),
                filtered: to.filter.is_some(),
                records: None,
            }),
        }
    }
}

fn follower(
    plan: &mut Plan,
    entity: &Arc<str>,
    running: &FollowerDeclaration,
    wanted: &FollowerDeclaration,
) {
    // What it keeps of records depends on the followers before it, too.
    let FollowerDeclaration { source, place, options, filter, map: _, delivery, clear } = running;
    let key = &format!("entities.{entity}.followers.{source}");
    plan.fixed(format!("{key}.place"), place, &wanted.place);
    plan.fixed(format!("{key}.clear"), clear, &wanted.clear);
    self::options(plan, key, options, &wanted.options);
    if running.rule() != wanted.rule() {
        let told = |rule: &Option<Arc<Rule>>| {
            rule.as_ref().map_or("none".to_owned(), |rule| rule.text().to_owned())
        };
        plan.steps.push(Step::ChangeWhere {
            entity: Arc::clone(entity),
            source: Arc::clone(source),
            from: told(filter),
            to: told(&wanted.filter),
            records: None,
        });
    }
    let DeliveryPolicy { after, priority, batch } = delivery;
    let BatchPolicy { size, bytes, age } = batch;
    let to = &wanted.delivery;
    plan.set(format!("{key}.after"), after, &to.after, |after| {
        after.as_ref().map_or("none".to_owned(), |after| after.to_string())
    });
    plan.set(format!("{key}.priority"), priority, &to.priority, i64::to_string);
    plan.set(format!("{key}.batch.size"), size, &to.batch.size, count);
    plan.set(format!("{key}.batch.bytes"), bytes, &to.batch.bytes, count);
    plan.set_time(format!("{key}.batch.age"), *age, to.batch.age);
}

/// What a follower keeps of records, by its `map` and those of the followers that it comes after.
fn mapping(
    plan: &mut Plan,
    (entity, source): (&Arc<str>, &Arc<str>),
    running: &[FollowerDeclaration],
    wanted: &[FollowerDeclaration],
) {
    let [from, to] = [running, wanted].map(|all| Mapping::of(source, all));
    if from != to {
        let told =
            |map: Option<Arc<Mapping>>| map.map_or("none".to_owned(), |map| map.text().to_owned());
        plan.steps.push(Step::ChangeMap {
            entity: Arc::clone(entity),
            source: Arc::clone(source),
            from: told(from),
            to: told(to),
            records: None,
        });
    }
}

fn cache(plan: &mut Plan, key: &str, running: &CacheDeclaration, wanted: &CacheDeclaration) {
    let CacheDeclaration {
        source,
        ttl,
        negative_ttl,
        stale,
        refresh,
        misses_max,
        lease,
        results,
        filter,
        warm,
        warm_hot,
        warm_questions,
        options,
        live,
    } = running;
    plan.fixed(format!("{key}.source"), source, &wanted.source);
    self::options(plan, key, options, &wanted.options);
    plan.set(format!("{key}.warm"), warm, &wanted.warm, usize::to_string);
    plan.set(format!("{key}.warm_hot"), warm_hot, &wanted.warm_hot, usize::to_string);
    plan.set(format!("{key}.warm_questions"), warm_questions, &wanted.warm_questions, |all| {
        format!("{} questions", all.len())
    });
    let names: BTreeSet<_> = live.0.keys().chain(wanted.live.0.keys()).collect();
    for name in names {
        // Of a kind's own options nobody here knows how to tell them, or whether they are secret.
        if live.0.get(name) != wanted.live.0.get(name) {
            plan.changes.push(format!("{key}.{name}: another value"));
        }
    }
    plan.set_time(format!("{key}.ttl"), *ttl, wanted.ttl);
    plan.set_time(format!("{key}.negative_ttl"), *negative_ttl, wanted.negative_ttl);
    plan.set_time(format!("{key}.stale"), *stale, wanted.stale);
    plan.set(format!("{key}.refresh"), refresh, &wanted.refresh, bool::to_string);
    plan.set(format!("{key}.misses_max"), misses_max, &wanted.misses_max, usize::to_string);
    plan.set_time(format!("{key}.lease"), *lease, wanted.lease);
    plan.set_time(format!("{key}.results"), *results, wanted.results);
    plan.set(format!("{key}.where"), filter, &wanted.filter, |rule| {
        rule.as_ref().map_or("none".to_owned(), |rule| rule.text().to_owned())
    });
}

fn count(number: &Option<usize>) -> String {
    number.map_or("none".to_owned(), |number| number.to_string())
}

fn read(plan: &mut Plan, key: &str, running: &ReadPolicy, wanted: &ReadPolicy) {
    let ReadPolicy { strategy, no_fallback, lag_max, hedge, quorum, rules } = running;
    plan.set(format!("{key}.strategy"), strategy, &wanted.strategy, |s| s.as_str().to_owned());
    plan.set(format!("{key}.fallback"), no_fallback, &wanted.no_fallback, |no| (!no).to_string());
    plan.set_optional_time(format!("{key}.lag_max"), *lag_max, wanted.lag_max);
    plan.set_optional_time(format!("{key}.hedge"), *hedge, wanted.hedge);
    plan.set(format!("{key}.quorum"), quorum, &wanted.quorum, count);
    plan.set(format!("{key}.rules"), rules, &wanted.rules, |rules| match rules.as_slice() {
        [] => "none".to_owned(),
        rules => rules.iter().map(ReadRule::to_string).collect::<Vec<_>>().join("; "),
    });
}

fn write(plan: &mut Plan, key: &str, running: &WritePolicy, wanted: &WritePolicy) {
    let WritePolicy { strategy, hold, behind } = running;
    let is_behind = |policy: &WritePolicy| policy.strategy == WriteStrategy::WriteBehind;
    if is_behind(running) == is_behind(wanted) {
        plan.set(format!("{key}.strategy"), strategy, &wanted.strategy, |s| s.as_str().to_owned());
    } else {
        plan.restart.push(format!("{key}.strategy"));
    }
    plan.set_time(format!("{key}.hold"), *hold, wanted.hold);
    if let (Some(running), Some(wanted)) = (behind, &wanted.behind) {
        let BehindPolicy { journal, flush_after, pending_max, age_alert } = running;
        plan.fixed(format!("{key}.journal"), journal, &wanted.journal);
        plan.set_time(format!("{key}.flush_after"), *flush_after, wanted.flush_after);
        plan.set(format!("{key}.pending_max"), pending_max, &wanted.pending_max, usize::to_string);
        plan.set_time(format!("{key}.age_alert"), *age_alert, wanted.age_alert);
    }
}

fn log(plan: &mut Plan, running: &LogDeclaration, wanted: &LogDeclaration) {
    let LogDeclaration { retention, changes_max, outcomes } = running;
    plan.set_time("log.retention".to_owned(), *retention, wanted.retention);
    plan.set("log.changes_max".to_owned(), changes_max, &wanted.changes_max, u64::to_string);
    plan.set_time("log.outcomes".to_owned(), *outcomes, wanted.outcomes);
}

fn sweep(plan: &mut Plan, running: &SweepDeclaration, wanted: &SweepDeclaration) {
    let SweepDeclaration { every, deep, rate, repair } = running;
    plan.set_time("sweep.every".to_owned(), *every, wanted.every);
    plan.set_time("sweep.deep".to_owned(), *deep, wanted.deep);
    plan.set("sweep.rate".to_owned(), rate, &wanted.rate, u32::to_string);
    plan.set("sweep.repair".to_owned(), repair, &wanted.repair, bool::to_string);
}

#[cfg(test)]
mod tests;
