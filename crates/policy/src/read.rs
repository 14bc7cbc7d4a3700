//! [`ReadPolicy`]: what is declared of an entity's reads, and the rule that a read falls under.
//!
//! The first rule whose condition holds decides; it lists the places to ask first. Without declared rules the built-in
//! ones apply:
//!
//! | rule | condition | asked first |
//! |---|---|---|
//! | `critical` | the hint `critical` | the truth, and nobody else |
//! | `search` | words, or more than one criterion | followers with a search index |
//! | `lookup` | everything else | the cache |

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use unisono_core::{Entity, Field, FieldType, Record, Result, Value};

use crate::route::Request;
use crate::rule::Rule;

/// In which order the cache and the sources are asked for one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadStrategy {
    /// The cache, and the sources for what it has not.
    #[default]
    CacheFirst,
    /// The sources; the cache is filled, and answers when they fail.
    DatabaseFirst,
    /// Both at once; the newer version is the answer.
    Parallel,
}

impl ReadStrategy {
    /// Every strategy.
    pub const ALL: [ReadStrategy; 3] =
        [ReadStrategy::CacheFirst, ReadStrategy::DatabaseFirst, ReadStrategy::Parallel];

    /// The word used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            ReadStrategy::CacheFirst => "cache_first",
            ReadStrategy::DatabaseFirst => "database_first",
            ReadStrategy::Parallel => "parallel",
        }
    }
}

/// What is declared of an entity's reads.
#[derive(Clone, Debug, Default)]
pub struct ReadPolicy {
    /// In which order the cache and the sources are asked.
    pub strategy: ReadStrategy,
    /// Whether nobody but the first choice answers.
    pub no_fallback: bool,
    /// A follower that lags by more is asked only if nobody else answers.
    pub lag_max: Option<Duration>,
    /// After how long without an answer to a read by key another source is asked as well.
    pub hedge: Option<Duration>,
    /// How many sources are asked for one record, of which the newest answer counts; one if absent.
    pub quorum: Option<usize>,
    /// Declared rules; the built-in ones if there are none.
    pub rules: Vec<ReadRule>,
}

/// A place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The cache of the entity.
    Cache,
    /// Its truth.
    Truth,
    /// Any of its followers.
    Followers,
    /// Its followers that have a search index.
    Search,
    /// The source of this name.
    Source(Arc<str>),
}

impl Place {
    /// The words for places that are not the name of a source.
    pub const WORDS: [&'static str; 4] = ["cache", "truth", "followers", "search"];

    /// From one of [`Place::WORDS`], or the name of a source.
    pub fn parse(text: &str) -> Self {
        match text {
            "cache" => Place::Cache,
            "truth" => Place::Truth,
            "followers" => Place::Followers,
            "search" => Place::Search,
            name => Place::Source(name.into()),
        }
    }

    /// What [`Place::parse`] takes.
    pub fn as_str(&self) -> &str {
        match self {
            Place::Cache => "cache",
            Place::Truth => "truth",
            Place::Followers => "followers",
            Place::Search => "search",
            Place::Source(name) => name,
        }
    }
}

/// A rule about whom to ask.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadRule {
    /// How answers and metrics name it.
    pub name: Arc<str>,
    /// Which reads it is for; all if absent.
    pub when: Option<Arc<Rule>>,
    /// Whom to ask first, in order.
    pub ask: Vec<Place>,
    /// Whether nobody else is asked.
    pub only: bool,
}

impl ReadRule {
    /// What streams are read by unless rules are declared: who appends next must see the last event, so the truth is asked
    /// first, and followers when it is away.
    pub fn of_streams() -> Self {
        let ask = vec![Place::Truth, Place::Followers];
        ReadRule { name: "stream".into(), when: None, ask, only: false }
    }
}

impl ReadRule {
    /// Whether it names a source.
    pub fn names(&self, source: &str) -> bool {
        self.ask.iter().any(|place| matches!(place, Place::Source(name) if **name == *source))
    }
}

impl fmt::Display for ReadRule {
    /// For people: `reports asks followers, truth when request.criteria > 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<&str> = self.ask.iter().map(Place::as_str).collect();
        let only = if self.only { "only " } else { "" };
        write!(f, "{} asks {only}{}", self.name, places.join(", "))?;
        match &self.when {
            Some(when) => write!(f, " when {}", when.text()),
            None => Ok(()),
        }
    }
}

static CRITICAL: LazyLock<ReadRule> = LazyLock::new(|| built_in("critical", Place::Truth, true));
static SEARCH: LazyLock<ReadRule> = LazyLock::new(|| built_in("search", Place::Search, false));
static LOOKUP: LazyLock<ReadRule> = LazyLock::new(|| built_in("lookup", Place::Cache, false));

fn built_in(name: &str, place: Place, only: bool) -> ReadRule {
    ReadRule { name: name.into(), when: None, ask: vec![place], only }
}

impl ReadPolicy {
    /// Whether another source may answer, if the caller allows it.
    pub fn falls_back(&self, allowed: bool) -> bool {
        allowed && !self.no_fallback
    }

    /// The rule that a read falls under. With declared rules of which none holds, it is a lookup.
    pub fn rule(&self, request: &Request<'_>) -> &ReadRule {
        if self.rules.is_empty() {
            return match request {
                r if r.hints.iter().any(|hint| **hint == *"critical") => &CRITICAL,
                r if r.operation.searches() || r.criteria > 1 => &SEARCH,
                _ => &LOOKUP,
            };
        }
        let mut record = None;
        let holds = |rule: &&ReadRule| match &rule.when {
            None => true,
            Some(when) => when.holds_for(record.get_or_insert_with(|| request.as_record())),
        };
        let mut holds = holds;
        self.rules.iter().find(|rule| holds(rule)).unwrap_or(&LOOKUP)
    }
}

/// When a read by key looks into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheUse {
    /// Before the sources.
    First,
    /// At the same time as the sources.
    Beside,
    /// When the sources fail.
    Last,
    /// Not at all.
    Never,
}

impl ReadPolicy {
    /// When a read that falls under `rule` looks into the cache of source `name`.
    pub fn cache_use(&self, rule: &ReadRule, name: &str) -> CacheUse {
        let is_cache = |place: &Place| match place {
            Place::Cache => true,
            Place::Source(source) => **source == *name,
            _ => false,
        };
        match (rule.ask.iter().position(is_cache), self.strategy) {
            (None, _) if rule.only => CacheUse::Never,
            (None, _) => CacheUse::Last,
            (Some(0), ReadStrategy::CacheFirst) => CacheUse::First,
            (Some(0), ReadStrategy::Parallel) => CacheUse::Beside,
            (Some(_), _) => CacheUse::Last,
        }
    }
}

/// What conditions of rules see of a read, as the fields of `request`.
pub(crate) static REQUEST: LazyLock<Entity> = LazyLock::new(|| {
    let texts = || FieldType::List(Box::new(FieldType::String));
    let fields = vec![
        Field::new("operation", FieldType::String),
        Field::new("search", FieldType::Boolean),
        Field::new("criteria", FieldType::Integer),
        Field::new("fields", texts()),
        Field::new("hints", texts()),
        Field::new("consistency", FieldType::String),
        Field::new("actor", FieldType::String),
    ];
    Entity::new("request", "operation", fields)
        .unwrap_or_else(|error| unreachable!("a declaration without any input: {error}"))
});

impl Rule {
    /// Compiles a condition that may use `request`: its `operation` (get, query, search, count, search_count or
    /// aggregate), `search` (whether there are words), `criteria` (tests of the filter), `fields` (those tested or
    /// ordered by), `hints`, `consistency` and `actor`.
    ///
    /// Fails with `invalid_config`, naming what is not known or does not fit.
    pub fn of_request(text: &str) -> Result<Rule> {
        Rule::compile_over("request", &REQUEST, text)
    }
}

impl Request<'_> {
    fn as_record(&self) -> Record {
        let text = |text: &str| Value::String(text.to_owned());
        Record::new(vec![
            text(self.operation.as_str()),
            Value::Boolean(self.operation.searches()),
            Value::Integer(self.criteria as i64),
            Value::List(self.fields.iter().map(|field| text(field)).collect()),
            Value::List(self.hints.iter().map(|hint| text(hint)).collect()),
            text(self.consistency.as_str()),
            self.actor.map_or(Value::Null, text),
        ])
    }
}

#[cfg(test)]
mod tests;
