//! Where a read goes: from facts about the sources and a request to an ordered list of candidates, with reasons.
//!
//! | read | order of candidates |
//! |---|---|
//! | get | the cache if it has applied the token, the truth, followers that hold all records |
//! | search | followers with search, filtered ones too (their filter is the point), then a truth that can search |
//! | query, count, aggregate | the truth, then followers that hold all records |
//! | any, strong | the truth alone |
//!
//! Sources that would read every record come after those that would not. A follower that has not applied the token
//! comes last and is marked: asking it means waiting first. A source behind an open breaker is not asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::capability::QueryCapability;
use unisono_core::{Consistency, Position, Role};

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
    fn searches(self) -> bool {
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
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What is read.
    pub operation: Operation,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// The position that a session read must contain, of the truth's log.
    pub token: Position,
    /// Whether a second source may be asked when the first fails.
    pub fallback: bool,
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
    /// Whether its breaker lets no call through.
    pub blocked: bool,
    /// Up to where it has applied the log; `None` while it is being filled for the first time. Not used for the truth.
    pub applied: Option<Position>,
    /// How far behind it is in time.
    pub lag: Duration,
    /// Whether it holds only the records that its `where` keeps.
    pub filtered: bool,
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
    /// Its breaker is open.
    Blocked,
    /// Only the truth may answer a strong read.
    NotTheTruth,
    /// It holds only some of the records.
    Filtered,
    /// It is still being filled.
    NotServing,
    /// It has applied less than the token demands, and a cache is not waited for.
    Behind,
    /// The caller allows no second source.
    NoFallback,
}

/// The sources to ask, in order, and those that are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Whom to ask, best first.
    pub candidates: Vec<Candidate>,
    /// Whom not to ask, and why.
    pub excluded: Vec<(Arc<str>, Reason)>,
}

/// Decides whom to ask. `sources` are those of the entity, in the order of their declaration.
pub fn plan(request: &Request, sources: &[Facts]) -> Plan {
    let truth_blocked = sources.iter().any(|s| s.role == Role::Truth && s.blocked);
    let mut plan = Plan::default();
    let mut ranked = Vec::with_capacity(sources.len());
    for source in sources {
        match consider(request, source) {
            Ok(why) => {
                let waits = why == Why::FollowerCatchesUp;
                let candidate = Candidate {
                    source: Arc::clone(&source.source),
                    role: source.role,
                    why,
                    needs_wait: waits.then_some(request.token),
                    stale: truth_blocked && source.role != Role::Truth,
                };
                ranked.push((rank(request.operation, why), source.lag, candidate));
            }
            Err(reason) => plan.excluded.push((Arc::clone(&source.source), reason)),
        }
    }
    // Stable, so that the order of declaration decides between equals.
    ranked.sort_by_key(|(rank, lag, _)| (*rank, *lag));
    plan.candidates = ranked.into_iter().map(|(_, _, candidate)| candidate).collect();
    if !request.fallback && plan.candidates.len() > 1 {
        let rest = plan.candidates.drain(1..);
        plan.excluded.extend(rest.map(|c| (c.source, Reason::NoFallback)));
    }
    plan
}

fn consider(request: &Request, source: &Facts) -> Result<Why, Reason> {
    let operation = request.operation;
    let can = match source.role {
        Role::Cache => operation == Operation::Get,
        Role::Truth | Role::Follower => operation.can(source.query),
    };
    if !can {
        return Err(Reason::Unable);
    }
    if request.consistency == Consistency::Strong && source.role != Role::Truth {
        return Err(Reason::NotTheTruth);
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
            Reason::Blocked => "its breaker is open",
            Reason::NotTheTruth => "only the truth answers strong reads",
            Reason::Filtered => "holds only some of the records",
            Reason::NotServing => "is still being filled",
            Reason::Behind => "has applied less than the token demands",
            Reason::NoFallback => "the caller allows no second source",
        })
    }
}

#[cfg(test)]
mod tests;
