//! `[entities.NAME.read]` and `[entities.NAME.write]`.

use std::sync::Arc;

use unisono_core::spelling::closest;
use unisono_policy::read::{Place, ReadPolicy, ReadRule, ReadStrategy};
use unisono_policy::rule::Rule;
use unisono_policy::write::{WritePolicy, WriteStrategy};

use crate::entities::Use;
use crate::sections::{READ, READ_RULE, WRITE};
use crate::table::{Found, Table};

/// How an entity that is kept in the sources of `uses` is read; `None` if a problem was reported.
pub(crate) fn read(entity: &Table<'_>, uses: &[Use]) -> Option<ReadPolicy> {
    let Some(table) = entity.table("read", &READ) else { return Some(ReadPolicy::default()) };
    let rules = table.tables("rules", &READ_RULE).into_iter().map(|rule| read_rule(rule, uses));
    let rules = rules.collect::<Vec<_>>();
    let strategy = table.text("strategy");
    let given = |name| table.item(name).map(|_| table.duration(name));
    let policy = ReadPolicy {
        strategy: strategy
            .and_then(|s| ReadStrategy::ALL.into_iter().find(|one| one.as_str() == s.value))
            .unwrap_or_default(),
        no_fallback: table.boolean("fallback") == Some(false),
        lag_max: given("lag_max"),
        hedge: given("hedge"),
        rules: Vec::new(),
    };
    table.finish();
    Some(ReadPolicy { rules: rules.into_iter().collect::<Option<_>>()?, ..policy })
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
    let hint = match closest(name, known()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("it has {}", known().collect::<Vec<_>>().join(", ")),
    };
    let message = format!("the entity has no place `{name}` to ask");
    table.report.error_with(&found.spot, message, hint);
    None
}

/// How an entity is written.
pub(crate) fn write(entity: &Table<'_>) -> WritePolicy {
    let Some(table) = entity.table("write", &WRITE) else { return WritePolicy::default() };
    let strategy = table.text("strategy");
    let hold = table.duration("hold");
    table.finish();
    WritePolicy {
        strategy: strategy
            .and_then(|s| WriteStrategy::ALL.into_iter().find(|one| one.as_str() == s.value))
            .unwrap_or_default(),
        hold,
    }
}
