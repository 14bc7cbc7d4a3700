//! `[entities.NAME.sync]`: the other truth, and what becomes of writes that had not seen each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::{Entity, Error};
use unisono_policy::conflict::{Merge, Plan, SyncDeclaration, merge};
use unisono_policy::rule::Rule;

use crate::document::{Data, Item};
use crate::problem::meant;
use crate::table::{Found, Table, list};

/// What is read elsewhere and matters here.
pub(crate) struct Around<'a> {
    pub(crate) entity: Option<&'a Arc<Entity>>,
    pub(crate) truth: Option<&'a str>,
    /// Whether writes wait in a journal.
    pub(crate) behind: bool,
    /// Whether other programs write the table.
    pub(crate) captured: bool,
    pub(crate) name: &'a str,
}

/// The longest name of an entity, so that what is remembered of it can be named after it.
const NAME_MAX: usize = 39;

/// Reads the table; `None` if a problem was reported. `with` is the other truth, if it is one.
pub(crate) fn read(
    table: Table<'_>,
    with: Option<Found<String>>,
    around: &Around<'_>,
) -> Option<SyncDeclaration> {
    let report = table.report;
    let refuse = |key: &str, message: String, hint: &str| {
        report.error_with(&table.spot_of(key), message, hint.to_owned());
    };
    let mut is_good = true;
    if around.behind {
        is_good = false;
        let hint = "write it to the truth, or leave `sync` out";
        refuse("with", "an entity that is written behind cannot be synchronised".into(), hint);
    }
    if around.captured {
        is_good = false;
        let hint = "have other programs write through Unisono, or leave `sync` out";
        refuse("with", "an entity with `capture` cannot be synchronised".into(), hint);
    }
    if around.name.len() > NAME_MAX {
        is_good = false;
        let message = format!("a synchronised entity has a name of at most {NAME_MAX} characters");
        refuse("with", message, "give it another name; its table can keep this one");
    }
    let prefer = table.text("prefer");
    if let (Some(prefer), Some(with), Some(truth)) = (&prefer, &with, around.truth)
        && ![with.value.as_str(), truth].contains(&prefer.value.as_str())
    {
        is_good = false;
        let names = [with.value.as_str(), truth];
        let hint = meant(&prefer.value, names, || {
            format!("the two truths are {truth} and {}", with.value)
        });
        let message = format!("`{}` is not one of the two truths", prefer.value);
        report.error_with(&prefer.spot, message, hint);
    }
    let rule = older_wins(&table, around.entity);
    if prefer.is_some() && matches!(rule, Some(Some(_))) {
        is_good = false;
        let message = "`prefer` and `older_wins` both decide the same".to_owned();
        refuse("older_wins", message, "remove one of them");
    }
    let delete_wins = table.text("delete").is_none_or(|found| found.value == "wins");
    let (fields, groups) = (fields(&table), groups(&table));
    let (place, max_drift) = (table.text("table"), table.duration("max_drift"));
    let conflicts = table.duration("conflicts");
    let spots = (table.spot_of("fields"), table.spot_of("groups"));
    table.finish();
    let declared = SyncDeclaration {
        with: with?.value.into(),
        table: place.map(|found| found.value.into()),
        prefer: prefer.map(|found| found.value.into()),
        older_wins: rule?,
        delete_wins,
        fields: fields?,
        groups: groups?,
        max_drift,
        conflicts,
    };
    if let Err(error) = Plan::new(around.entity?, &declared) {
        is_good = false;
        let field = error.detail("field").unwrap_or_default();
        let in_fields = declared.fields.keys().any(|name| **name == *field);
        let spot = if in_fields { &spots.0 } else { &spots.1 };
        report.error_maybe(spot, format!("the field `{field}` {}", error.message()), None);
    }
    is_good.then_some(declared)
}

fn older_wins(table: &Table<'_>, entity: Option<&Arc<Entity>>) -> Option<Option<Arc<Rule>>> {
    let Some(text) = table.text("older_wins") else { return Some(None) };
    let told = |error: &Error| (error.message().to_owned(), error.hint_text().map(str::to_owned));
    match Rule::of_two(entity?, &text.value) {
        Ok(rule) => Some(Some(Arc::new(rule))),
        Err(error) => {
            let (message, hint) = told(&error);
            table.report.error_maybe(&text.spot, message, hint);
            None
        }
    }
}

fn fields(table: &Table<'_>) -> Option<BTreeMap<Arc<str>, &'static Merge>> {
    let way = |(name, found): (&crate::document::Name, Found<&Item>)| {
        let given = match &found.value.data {
            Data::Text { text, .. } => text.as_str(),
            _ => "",
        };
        let merge = merge::named(given);
        if merge.is_none() {
            let names = merge::NAMES.join(", ");
            let hint = meant(given, merge::NAMES.iter().copied(), || format!("one of {names}"));
            let message = format!("`{}` takes one of {names}", name.text);
            table.report.error_with(&found.spot, message, hint);
        }
        Some((Arc::from(name.text.as_str()), merge?))
    };
    table.named("fields").into_iter().map(way).collect::<Vec<_>>().into_iter().collect()
}

fn groups(table: &Table<'_>) -> Option<Vec<Vec<Arc<str>>>> {
    let group = |found: Found<&Item>| {
        let names =
            list(table.report, found.value, &found.spot).iter().map(|item| match &item.data {
                Data::Text { text, .. } => Some(Arc::from(text.as_str())),
                _ => {
                    let message = format!("takes names of fields, not {}", item.describe());
                    table.report.error(&found.spot, message);
                    None
                }
            });
        let names = names.collect::<Option<Vec<_>>>()?;
        if names.len() < 2 {
            table.report.error(&found.spot, "a group has at least two fields");
            return None;
        }
        Some(names)
    };
    table.items("groups").into_iter().map(group).collect::<Vec<_>>().into_iter().collect()
}
