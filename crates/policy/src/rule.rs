//! [`Rule`]: a condition in CEL over a record, checked against the entity when it is compiled.
//!
//! The text is parsed as CEL and then resolved into a small typed tree over Unisono's own values, so that money is
//! compared exactly and a condition costs well under a microsecond. Available are `record` and its fields, literals,
//! `&& || ! == != < <= > >= + - * / % in ?:`, `has(record.x)`, `size()`, `contains`, `startsWith`, `endsWith`,
//! `exists` and `all` over lists, members and numbered elements of `json` fields, and `timestamp("…")`, `date("…")`,
//! `decimal("…")` and `duration("1h")`. There is no clock: the same record always gives the same answer. Otherwise a
//! record would have to leave a follower without any change that says so. A cache forgets records anyway, so a rule
//! [for a cache](Rule::of_cache) knows `now` as well: `record.created_at > now - duration("1h")`.
//!
//! Integers and decimals are compared and calculated exactly with each other. A number with a point in the text is an
//! exact decimal too (up to 15 digits; more with `decimal("…")`). Only where a `float` takes part are both sides
//! doubles. As CEL has it, `==` and `!=` are decided for null (it equals only null), an order or a calculation with null
//! is not, and `false && …` and `true || …` are decided whatever the other side is.

mod check;
mod evaluate;
mod expression;
mod resolve;
mod tree;

use std::sync::Arc;

use cel::IdedExpr;
use cel::parser::PrattParser;
use unisono_core::error::{Error, ErrorKind, Result};
use unisono_core::{Entity, Record, Timestamp};

pub(crate) use expression::fit;
pub use expression::{Expression, ITEM};
use resolve::Names;
use tree::Node;

/// A compiled condition such as `record.amount > 1000`.
pub struct Rule {
    text: String,
    condition: Condition,
}

enum Condition {
    Holds(Node),
    /// For what none of these takes: also where one of them cannot be decided.
    NoneOf(Vec<Arc<Rule>>),
    AllOf(Vec<Arc<Rule>>),
}

impl Rule {
    /// The longest text in bytes.
    pub const BYTES_MAX: usize = 4096;
    /// The parser descends into nested text by recursion, which its thread's stack must hold.
    const STACK_BYTES: usize = 16 << 20;

    /// Compiles a condition that may use `record` and its declared fields.
    ///
    /// Fails with `invalid_config`, naming what is not known or does not fit.
    pub fn compile(entity: &Entity, text: &str) -> Result<Rule> {
        Self::compile_in(Names { root: "record", other: None, entity, clock: false }, text)
    }

    /// The same for a cache, whose condition may use `now` as well.
    pub fn of_cache(entity: &Entity, text: &str) -> Result<Rule> {
        Self::compile_in(Names { root: "record", other: None, entity, clock: true }, text)
    }

    /// Compiles a condition over two records of an entity, the `older` and the `newer`.
    pub fn of_two(entity: &Entity, text: &str) -> Result<Rule> {
        Self::compile_in(Names { root: "older", other: Some("newer"), entity, clock: false }, text)
    }

    /// Compiles a condition over the fields of `entity`, which it calls `root`.
    pub(crate) fn compile_over(root: &'static str, entity: &Entity, text: &str) -> Result<Rule> {
        Self::compile_in(Names { root, other: None, entity, clock: false }, text)
    }

    fn compile_in(names: Names<'_>, text: &str) -> Result<Rule> {
        let resolve = |parsed: &IdedExpr| resolve::condition(names, parsed);
        let root = Self::within_stack(names.entity, text, resolve)?;
        Ok(Rule { text: text.to_owned(), condition: Condition::Holds(root) })
    }

    /// Parses a text, and resolves it where the stack is deep enough for both.
    fn within_stack<T: Send>(
        entity: &Entity,
        text: &str,
        resolve: impl FnOnce(&IdedExpr) -> Result<T> + Send,
    ) -> Result<T> {
        if text.len() > Self::BYTES_MAX {
            return Err(invalid("the condition is longer than 4096 bytes").of(entity.name()));
        }
        let parsed = std::thread::scope(|scope| {
            let work = || parse(text).and_then(|expression| resolve(&expression));
            let thread =
                std::thread::Builder::new().stack_size(Self::STACK_BYTES).spawn_scoped(scope, work);
            match thread.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(result)) => result,
                _ => Err(invalid("the condition could not be parsed")),
            }
        });
        parsed.map_err(|e| e.of(entity.name()))
    }

    /// What `forbid`, a condition as for [`Rule::compile`], is decided not to be satisfied by: where it cannot be decided,
    /// nothing is allowed.
    pub fn allowing(entity: &Entity, forbid: &str) -> Result<Rule> {
        // By itself first, so that a mistake is told at its place.
        Self::compile(entity, forbid)?;
        // A comment at its end ends with the line.
        let allowed = Self::compile(entity, &format!("!({forbid}\n)"))?;
        Ok(Rule { text: format!("not {forbid}"), ..allowed })
    }

    /// Whatever all of these rules take.
    pub fn all_of(rules: Vec<Arc<Rule>>) -> Rule {
        let texts: Vec<&str> = rules.iter().map(|rule| rule.text()).collect();
        Rule { text: format!("all of: {}", texts.join("; ")), condition: Condition::AllOf(rules) }
    }

    /// Whatever none of these rules takes.
    pub fn none_of(rules: Vec<Arc<Rule>>) -> Rule {
        let texts: Vec<&str> = rules.iter().map(|rule| rule.text()).collect();
        let text = format!("none of: {}", texts.join("; "));
        Rule { text, condition: Condition::NoneOf(rules) }
    }

    /// The text that it was compiled from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a record satisfies it. A condition that cannot be decided for a record, such as an order with a null,
    /// is not satisfied.
    pub fn holds(&self, _entity: &Entity, record: &Record) -> bool {
        self.holds_for(record)
    }

    /// The same, for a record of whatever the condition was compiled over.
    pub(crate) fn holds_for(&self, record: &Record) -> bool {
        self.decide(record, None)
    }

    /// Whether a record satisfies a condition [of a cache](Rule::of_cache) at a time.
    pub fn holds_at(&self, record: &Record, now: Timestamp) -> bool {
        self.decide(record, Some(now))
    }

    fn decide(&self, record: &Record, now: Option<Timestamp>) -> bool {
        match &self.condition {
            Condition::Holds(root) => evaluate::holds(root, record, now),
            Condition::AllOf(rules) => rules.iter().all(|rule| rule.decide(record, now)),
            Condition::NoneOf(rules) => !rules.iter().any(|rule| rule.decide(record, now)),
        }
    }
}

impl PartialEq for Rule {
    /// Whether the conditions have the same text; over the same fields they mean the same.
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rule").field(&self.text).finish()
    }
}

fn parse(text: &str) -> Result<IdedExpr> {
    PrattParser::new().max_recursion_depth(64).parse(text).map_err(|errors| {
        let Some(first) = errors.errors.first() else {
            return invalid("the condition is not valid CEL");
        };
        let message = first.msg.trim_start_matches("Syntax error: ");
        let error = invalid(format!("the condition is not valid CEL: {message}"));
        if first.pos.0 > 0 { error.with("column", first.pos.1) } else { error }
    })
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

#[cfg(test)]
mod tests;
