//! `[entities.NAME.read]` and `[entities.NAME.write]`.

use std::sync::Arc;

use unisono_policy::read::{Place, ReadPolicy, ReadRule, ReadStrategy};
use unisono_policy::rule::Rule;
use unisono_policy::write::{BehindPolicy, WritePolicy, WriteStrategy};

use crate::document::Item;
use crate::entities::Use;
use crate::problem::meant;
use crate::sections::{READ, READ_RULE, WRITE};
use crate::table::{Found, Table};

/// How an entity that is kept in the sources of `uses` is read; `None` if a problem was reported.
pub(crate) fn read(entity: &Table<'_>, uses: &[Use], keepers: usize) -> Option<ReadPolicy> {
    let Some(table) = entity.table("read", &READ) else { return Some(ReadPolicy::default()) };
    let rules = table.tables("rules", &READ_RULE).into_iter().map(|rule| read_rule(rule, uses));
    let rules = rules.collect::<Vec<_>>();
    let strategy = table.text("strategy");
    let given = |name| table.item(name).map(|_| table.duration(name));
    let quorum = table.item("quorum").map(|found| {
        let count = table.integer("quorum").and_then(|n| usize::try_from(n).ok());
        count.filter(|count| is_answerable(&table, &found, *count, keepers))
    });
    let policy = ReadPolicy {
        strategy: strategy
            .and_then(|s| ReadStrategy::ALL.into_iter().find(|one| one.as_str() == s.value))
            .unwrap_or_default(),
        no_fallback: table.boolean("fallback") == Some(false),
        lag_max: given("lag_max"),
        hedge: given("hedge"),
        quorum: quorum.flatten(),
        rules: Vec::new(),
    };
    table.finish();
    Some(ReadPolicy { rules: rules.into_iter().collect::<Option<_>>()?, ..policy })
}

/// Whether so many sources keep the entity.
fn is_answerable(table: &Table<'_>, found: &Found<&Item>, count: usize, keepers: usize) -> bool {
    if count > keepers {
        let message = format!("`quorum` is {count}, and 1 to {keepers} sources keep the entity");
        let hint = "the truth is one of them, and the cache is none; add followers, or ask less";
        table.report.error_with(&found.spot, message, hint);
    }
    count <= keepers
}

fn read_rule(table: Table<'_>, uses: &[Use]) -> Option<ReadRule> {
    let name = table.text("name");
    let when = match table.text("when") {
        None => Some(None),
        Some(found) => condition(&table, &found).map(Some),
    };
    let ask = table.texts("ask");
    if ask.is_empty() && table.item("ask").is_some() {
        table.report.error(&table.spot_of("ask"), "a rule names at least one place to ask");
    }
    let ask = ask.iter().map(|found| place(&table, found, uses)).collect::<Option<Vec<_>>>();
    let only = table.boolean("only");
    table.finish();
    Some(ReadRule { name: name?.value.into(), when: when?, ask: ask?, only: only? })
}

fn condition(table: &Table<'_>, text: &Found<String>) -> Option<Arc<Rule>> {
    match Rule::of_request(&text.value) {
        Ok(rule) => Some(Arc::new(rule)),
        Err(error) => {
            let hint = error.hint_text().map(str::to_owned);
            table.report.error_maybe(&text.spot, error.message().to_owned(), hint);
            None
        }
    }
}

/// A place that the entity has.
fn place(table: &Table<'_>, found: &Found<String>, uses: &[Use]) -> Option<Place> {
    let place = Place::parse(&found.value);
    let Place::Source(name) = &place else { return Some(place) };
    let known = || uses.iter().map(|u| u.source.as_str()).chain(Place::WORDS);
    if uses.iter().any(|u| u.source == **name) {
        return Some(place);
    }
    let hint =
        meant(name, known(), || format!("it has {}", known().collect::<Vec<_>>().join(", ")));
    let message = format!("the entity has no place `{name}` to ask");
    table.report.error_with(&found.spot, message, hint);
    None
}

/// What only the strategy `write_behind` has.
const BEHIND: [&str; 4] = ["journal", "flush_after", "pending_max", "age_alert"];

/// How an entity is written; `journal` finds the source that keeps its acknowledged writes. `None` if a problem was
/// reported.
pub(crate) fn write(
    entity: &Table<'_>,
    journal: impl FnOnce(&Table<'_>) -> Option<Found<String>>,
) -> Option<WritePolicy> {
    let Some(table) = entity.table("write", &WRITE) else { return Some(WritePolicy::default()) };
    let strategy = table.text("strategy");
    let strategy = strategy
        .and_then(|s| WriteStrategy::ALL.into_iter().find(|one| one.as_str() == s.value))
        .unwrap_or_default();
    let hold = table.duration("hold");
    let behind = match strategy {
        WriteStrategy::WriteBehind => behind(&table, journal).map(Some),
        _ => not_behind(&table).map(|()| None),
    };
    table.finish();
    Some(WritePolicy { strategy, hold, behind: behind? })
}

fn behind(
    table: &Table<'_>,
    journal: impl FnOnce(&Table<'_>) -> Option<Found<String>>,
) -> Option<BehindPolicy> {
    let flush_after = table.duration("flush_after");
    let pending_max = table.integer("pending_max").and_then(|n| usize::try_from(n).ok());
    let age_alert = table.duration("age_alert");
    if table.item("journal").is_none() {
        let message = "`write_behind` needs a `journal`";
        let hint = "name a source of a kind that can be a journal, such as sqlite, or redis for several processes, declared for this alone";
        table.report.error_with(&table.spot_of("strategy"), message, hint);
        return None;
    }
    let journal = journal(table)?.value.into();
    Some(BehindPolicy { journal, flush_after, pending_max: pending_max?, age_alert })
}

/// Options that would do nothing are a mistake.
fn not_behind(table: &Table<'_>) -> Option<()> {
    let given: Vec<_> = BEHIND.into_iter().filter(|name| table.item(name).is_some()).collect();
    for name in &given {
        let message = format!("`{name}` is for the strategy write_behind");
        let hint = "set strategy = \"write_behind\", or remove it";
        table.report.error_with(&table.spot_of(name), message, hint);
    }
    given.is_empty().then_some(())
}
