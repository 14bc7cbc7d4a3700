//! `[sources.NAME]`: the stores, their kinds and options.

use std::collections::BTreeMap;

use unisono_core::entity::check_name;
use unisono_core::kind::{OptionValue, Options, SourceKind};
use unisono_core::spelling::closest;
use unisono_core::{Capability, Role};
use unisono_policy::declaration::SourceDeclaration;

use crate::document::{Data, Item};
use crate::options::{self, KINDS_UNAVAILABLE, Section};
use crate::problem::{Report, Spot};
use crate::table::{Found, Table};

/// The kinds that a configuration can use.
pub(crate) type Kinds<'a> = &'a [&'static dyn SourceKind];

/// A source as far as it could be read.
pub(crate) struct DeclaredSource {
    pub(crate) spot: Spot,
    /// `None` if a problem was reported.
    pub(crate) kind: Option<KnownKind>,
}

pub(crate) struct KnownKind {
    pub(crate) name: &'static str,
    pub(crate) capability: Capability,
    pub(crate) options: Options,
}

impl KnownKind {
    pub(crate) fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration { kind: self.name.into(), options: self.options.clone() }
    }
}

/// Reads `[sources]`.
pub(crate) fn sources(file: &Table<'_>, kinds: Kinds<'_>) -> BTreeMap<String, DeclaredSource> {
    let mut sources = BTreeMap::new();
    for (name, found) in file.named("sources") {
        let spot = Spot { span: name.span.clone(), key: found.spot.key.clone() };
        if let Err(error) = check_name(&name.text) {
            let message =
                format!("`{}` cannot be the name of a source: {}", name.text, error.message());
            file.report.error(&spot, message);
        }
        let kind = source(file.report, &found, kinds);
        sources.insert(name.text.clone(), DeclaredSource { spot, kind });
    }
    sources
}

fn source(report: &Report<'_>, found: &Found<&Item>, kinds: Kinds<'_>) -> Option<KnownKind> {
    let kind = match kind_of(report, found) {
        Some(name) => known(report, &name, kinds)?,
        None => return None,
    };
    let section = options::source(kind);
    let table = Table::new(report, &section, found.value, found.spot.clone())?;
    let options = read_options(&table, &section);
    for (option, message) in kind.check(&options) {
        report.error(&table.spot_of(option), format!("`{option}` {message}"));
    }
    table.finish();
    Some(KnownKind { name: kind.name(), capability: kind.capability(), options })
}

fn kind_of(report: &Report<'_>, found: &Found<&Item>) -> Option<Found<String>> {
    let Data::Table(entries) = &found.value.data else {
        if !matches!(found.value.data, Data::Broken) {
            report.error(&found.spot, format!("takes a table, not {}", found.value.describe()));
        }
        return None;
    };
    let Some((_, item)) = entries.iter().find(|(name, _)| name.text == "kind") else {
        report.error(&found.spot, "`kind` is missing");
        return None;
    };
    let spot = found.spot.below("kind", &item.span);
    match &item.data {
        Data::Text { text, .. } => Some(Found { value: text.clone(), spot }),
        Data::Broken => None,
        _ => {
            report.error(&spot, format!("`kind` takes text in quotes, not {}", item.describe()));
            None
        }
    }
}

fn known<'k>(
    report: &Report<'_>,
    found: &Found<String>,
    kinds: Kinds<'k>,
) -> Option<&'k dyn SourceKind> {
    let name = found.value.as_str();
    if let Some(kind) = kinds.iter().find(|k| k.name() == name) {
        return Some(*kind);
    }
    let names = || kinds.iter().map(|k| k.name());
    let available = format!("kinds are {}", names().collect::<Vec<_>>().join(", "));
    if KINDS_UNAVAILABLE.contains(&name) {
        report.error_with(
            &found.spot,
            format!("the kind `{name}` is not available in this release"),
            available,
        );
        return None;
    }
    let hint = closest(name, names()).map_or(available, |meant| format!("did you mean `{meant}`?"));
    report.error_with(&found.spot, format!("unknown kind `{name}`"), hint);
    None
}

fn read_options(table: &Table<'_>, section: &Section) -> Options {
    let mut options = Options::default();
    for key in section.keys.iter() {
        match key.name {
            "kind" => drop(table.item("kind")),
            name if key.required && table.item(name).is_none() => {}
            name => {
                if let Some(found) = table.value(name) {
                    options.0.insert(name.to_owned(), found.value);
                }
            }
        }
    }
    options
}

/// The configured sources that can play a role, for hints.
pub(crate) fn able(sources: &BTreeMap<String, DeclaredSource>, role: Role) -> String {
    let can =
        |s: &DeclaredSource| s.kind.as_ref().is_some_and(|k| k.capability.roles.contains(&role));
    let names: Vec<&str> =
        sources.iter().filter(|(_, s)| can(s)).map(|(n, _)| n.as_str()).collect();
    if names.is_empty() {
        format!("no configured source can be a {}", role.as_str())
    } else {
        format!("sources that can be a {}: {}", role.as_str(), names.join(", "))
    }
}

/// Whether two sources would write to the same file or folder.
pub(crate) fn same_place(a: &Options, b: &Options) -> bool {
    let path = |o: &Options| match o.0.get("path") {
        Some(OptionValue::Text(path)) => {
            Some(path.trim_start_matches("./").trim_end_matches('/').to_owned())
        }
        _ => None,
    };
    path(a).is_some() && path(a) == path(b)
}
