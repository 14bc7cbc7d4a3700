//! Where a read goes: from facts about the sources and a request to an ordered list of candidates, with reasons.
//!
//! | read | order of candidates |
//! |---|---|
//! | get | the cache if it has applied the token, the truth, followers that hold all records |
//! | search | followers with search, filtered ones too (their filter is the point), then a truth that can search |
//! | query, count, aggregate | the truth, then followers that hold all records |
//! | any, strong | the truth alone |
//!
//! The rule that the read falls under ([`crate::read`]) can put places before that order. Sources that would read every
//! record come after those that would not. A follower with a `map` holds other records than the truth: it is asked only
//! where the rule names it. A follower that has not applied the token comes last and is marked: asking it
//! means waiting first. Among equals those of another region than this process come last, and of the others the less
//! loaded of two random ones comes first. A source behind an open breaker is not asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::capability::QueryCapability;
use unisono_core::{Consistency, Position, Role};

use crate::read::{Place, ReadPolicy, ReadRule};

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Records by key.
    Get,
    /// A page of records by filter and order.
    Query,
    /// A page of records by words.
    Search,
    /// A number of records by filter.
    Count,
    /// A number of records by words.
    SearchCount,
    /// Groups and totals.
    Aggregate,
}

impl Operation {
    /// The word for it in rules and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Query => "query",
            Operation::Search => "search",
            Operation::Count => "count",
            Operation::SearchCount => "search_count",
            Operation::Aggregate => "aggregate",
        }
    }

    /// Whether it looks for words.
    pub fn searches(self) -> bool {
        matches!(self, Operation::Search | Operation::SearchCount)
    }

    fn can(self, query: QueryCapability) -> bool {
        match self {
            Operation::Get => query.get,
            Operation::Query => query.filter,
            Operation::Search => query.search,
            Operation::Count | Operation::Aggregate => query.aggregate,
            Operation::SearchCount => query.search && query.aggregate,
        }
    }
}

/// What the caller asks for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What is read.
    pub operation: Operation,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// The position that a session read must contain, of the truth's log.
    pub token: Position,
    /// Whether a second source may be asked when the first fails.
    pub fallback: bool,
    /// How many tests the filter has; 1 for a read by key.
    pub criteria: usize,
    /// The fields that are tested or ordered by.
    pub fields: Vec<&'a str>,
    /// What the caller says about the read, such as `critical`.
    pub hints: &'a [Arc<str>],
    /// Who asks.
    pub actor: Option<&'a str>,
    /// Whether personal values are tested, so that only a source that has them as they are can answer.
    pub clear: bool,
}

impl Request<'_> {
    /// A session read of an anonymous caller without demands.
    pub fn new(operation: Operation) -> Self {
        Request {
            operation,
            consistency: Consistency::Session,
            token: Position::ZERO,
            fallback: true,
            criteria: 1,
            fields: Vec::new(),
            hints: &[],
            actor: None,
            clear: false,
        }
    }
}

/// What is known of one source of the entity.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its name.
    pub source: Arc<str>,
    /// What it does for the entity.
    pub role: Role,
    /// What it answers itself.
    pub query: QueryCapability,
    /// Whether its breaker lets no call through, or it is paused.
    pub blocked: bool,
    /// Up to where it has applied the log; `None` while it is being filled for the first time. Not used for the truth.
    pub applied: Option<Position>,
    /// How far behind it is in time.
    pub lag: Duration,
    /// Seconds that a further question may expect to take: latency times questions under way.
    pub load: f64,
    /// Whether it holds only the records that its `where` keeps.
    pub filtered: bool,
    /// Whether it holds records as its `map` makes them, and not as they are.
    pub mapped: bool,
    /// Whether it is known to be in another region than this process.
    pub far: bool,
    /// Whether it holds personal values as they are. It is asked for nothing but what needs that, so that they come into
    /// no cache and no other answer.
    pub clear: bool,
}

/// One source to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub source: Arc<str>,
    /// What it does for the entity.
    pub role: Role,
    /// Why it is on the list.
    pub why: Why,
    /// If set, it must first have applied this position.
    pub needs_wait: Option<Position>,
    /// Whether its answer may be older than the truth with nobody able to tell, because the truth cannot be asked.
    pub stale: bool,
    /// Whether it is known to be in another region: its equals that are not come before it.
    pub far: bool,
}

/// Why a source is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The cache has applied what the caller must see.
    CacheIsFresh,
    /// The truth can answer.
    Truth,
    /// The truth can answer, by reading every record.
    TruthScans,
    /// A follower has applied what the caller must see.
    FollowerIsFresh,
    /// A follower has, and reads every record.
    FollowerScans,
    /// A follower can answer once it has caught up.
    FollowerCatchesUp,
}

/// Why a source is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It cannot answer such questions.
    Unable,
    /// Its breaker is open, or it is paused.
    Blocked,
    /// Only the truth may answer a strong read.
    NotTheTruth,
    /// It holds only some of the records.
    Filtered,
    /// Its `map` makes other records of them, and the rule does not name it.
    Mapped,
    /// It is still being filled.
    NotServing,
    /// It has applied less than the token demands, and a cache is not waited for.
    Behind,
    /// No second source is allowed.
    NoFallback,
    /// The rule that the read falls under asks others only.
    NotInRule,
    /// It holds personal values encrypted, and they are tested.
    Encrypted,
    /// It is there for reads that test personal values.
    Clear,
}

/// The sources to ask, in order, and those that are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The rule that the read falls under.
    pub rule: Arc<str>,
    /// Whom to ask, best first.
    pub candidates: Vec<Candidate>,
    /// Whom not to ask, and why.
    pub excluded: Vec<(Arc<str>, Reason)>,
}

/// Decides whom to ask. `sources` are those of the entity, in the order of their declaration; `random`, evenly in
/// `0.0..1.0`, chooses which two of several equal sources are compared by their load.
pub fn plan(request: &Request<'_>, policy: &ReadPolicy, sources: &[Facts], random: f64) -> Plan {
    let rule = policy.rule(request);
    let truth_blocked = sources.iter().any(|s| s.role == Role::Truth && s.blocked);
    let mut plan = Plan { rule: Arc::clone(&rule.name), ..Plan::default() };
    let mut ranked = Vec::with_capacity(sources.len());
    for source in sources {
        let why = match consider(request, rule, source) {
            Ok(why) => why,
            Err(reason) => {
                plan.excluded.push((Arc::clone(&source.source), reason));
                continue;
            }
        };
        let waits = why == Why::FollowerCatchesUp;
        // A source that must be waited for, or lags too much, loses its place in the rule.
        let lags = policy.lag_max.is_some_and(|max| source.lag > max);
        let place = match rule.ask.iter().position(|place| is_at(place, source)) {
            None if rule.only => {
                plan.excluded.push((Arc::clone(&source.source), Reason::NotInRule));
                continue;
            }
            Some(place) if !waits && !lags => place,
            _ => rule.ask.len(),
        };
        let candidate = Candidate {
            source: Arc::clone(&source.source),
            role: source.role,
            why,
            needs_wait: waits.then_some(request.token),
            stale: truth_blocked && source.role != Role::Truth,
            far: source.far,
        };
        let rank = (place, lags, rank(request.operation, why), source.far);
        ranked.push((rank, source.load, candidate));
    }
    // Stable, so that the order of declaration decides between equals.
    ranked.sort_by_key(|(rank, _, _)| *rank);
    for equals in ranked.chunk_by_mut(|(a, _, _), (b, _, _)| a == b) {
        choose(equals, random);
    }
    plan.candidates = ranked.into_iter().map(|(_, _, candidate)| candidate).collect();
    if !policy.falls_back(request.fallback) && plan.candidates.len() > 1 {
        let rest = plan.candidates.drain(1..);
        plan.excluded.extend(rest.map(|c| (c.source, Reason::NoFallback)));
    }
    plan
}

/// Brings the less loaded of two random ones to the front, and the other behind it.
fn choose<R>(equals: &mut [(R, f64, Candidate)], random: f64) {
    let n = equals.len();
    if n < 2 {
        return;
    }
    let pairs = n * (n - 1);
    let pair = ((random * pairs as f64) as usize).min(pairs - 1);
    let (a, b) = (pair / (n - 1), pair % (n - 1));
    let b = if b >= a { b + 1 } else { b };
    let (first, second) = if equals[b].1 < equals[a].1 { (b, a) } else { (a, b) };
    equals.swap(0, first);
    // The one at the front has just gone where the first came from.
    let second = if second == 0 { first } else { second };
    equals.swap(1, second);
}

fn is_at(place: &Place, source: &Facts) -> bool {
    match place {
        Place::Cache => source.role == Role::Cache,
        Place::Truth => source.role == Role::Truth,
        Place::Followers => source.role == Role::Follower,
        Place::Search => {
            source.role == Role::Follower && source.query.search && !source.query.scans
        }
        Place::Source(name) => *name == source.source,
    }
}

fn consider(request: &Request<'_>, rule: &ReadRule, source: &Facts) -> Result<Why, Reason> {
    let operation = request.operation;
    let can = match source.role {
        Role::Cache => operation == Operation::Get,
        // What is pending is laid over the answers of the others.
        Role::Journal | Role::Vault | Role::Outlet => false,
        Role::Truth | Role::Follower => operation.can(source.query),
    };
    if !can {
        return Err(Reason::Unable);
    }
    match (request.clear, source.clear) {
        (true, false) => return Err(Reason::Encrypted),
        (false, true) => return Err(Reason::Clear),
        _ => {}
    }
    if request.consistency == Consistency::Strong && source.role != Role::Truth {
        return Err(Reason::NotTheTruth);
    }
    if source.mapped && !rule.names(&source.source) {
        return Err(Reason::Mapped);
    }
    if source.filtered && !operation.searches() {
        return Err(Reason::Filtered);
    }
    if source.blocked {
        return Err(Reason::Blocked);
    }
    let scans = source.query.scans && operation != Operation::Get;
    if source.role == Role::Truth {
        return Ok(if scans { Why::TruthScans } else { Why::Truth });
    }
    let applied = source.applied.ok_or(Reason::NotServing)?;
    let fresh = request.consistency == Consistency::Eventual || applied >= request.token;
    match (source.role, fresh) {
        (Role::Cache, true) => Ok(Why::CacheIsFresh),
        (Role::Cache, false) => Err(Reason::Behind),
        (_, false) => Ok(Why::FollowerCatchesUp),
        (_, true) if scans => Ok(Why::FollowerScans),
        (_, true) => Ok(Why::FollowerIsFresh),
    }
}

/// Lower is asked earlier.
fn rank(operation: Operation, why: Why) -> u8 {
    match why {
        Why::CacheIsFresh => 0,
        // Search belongs to its followers: they are what the declaration built for it.
        Why::FollowerIsFresh if operation.searches() => 1,
        Why::Truth => 2,
        Why::FollowerIsFresh => 3,
        // A short wait is cheaper than reading every record.
        Why::FollowerCatchesUp if operation.searches() => 4,
        Why::TruthScans => 5,
        Why::FollowerScans => 6,
        Why::FollowerCatchesUp => 7,
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::CacheIsFresh => "the cache has applied what must be seen",
            Why::Truth => "the truth can answer",
            Why::TruthScans => "the truth can answer by reading every record",
            Why::FollowerIsFresh => "the follower has applied what must be seen",
            Why::FollowerScans => "the follower can answer by reading every record",
            Why::FollowerCatchesUp => "the follower can answer once it has caught up",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Unable => "cannot answer such questions",
            Reason::Blocked => "its breaker is open, or it is paused",
            Reason::NotTheTruth => "only the truth answers strong reads",
            Reason::Filtered => "holds only some of the records",
            Reason::Mapped => "its map makes other records, and no rule names it",
            Reason::NotServing => "is still being filled",
            Reason::Behind => "has applied less than the token demands",
            Reason::NoFallback => "no second source is allowed",
            Reason::NotInRule => "the rule asks others only",
            Reason::Encrypted => "holds the personal values that are tested encrypted",
            Reason::Clear => "is asked only where personal values are tested",
        })
    }
}

#[cfg(test)]
mod tests;
