//! `[sources.NAME]`: the stores, their kinds and options.

use std::collections::BTreeMap;

use unisono_core::entity::check_name;
use unisono_core::kind::{OptionType, OptionValue, Options, SourceKind};
use unisono_core::spelling::closest;
use unisono_core::{Capability, Role};
use unisono_policy::declaration::SourceDeclaration;

use crate::document::{Data, Item};
use crate::kinds::Kinds;
use crate::options::{self, KIND_SYNONYMS, KINDS_UNAVAILABLE, is_outlet};
use crate::problem::{Report, Spot, meant};
use crate::table::{Found, Table};

/// A source as far as it could be read.
pub(crate) struct DeclaredSource {
    pub(crate) spot: Spot,
    /// `None` if a problem was reported.
    pub(crate) kind: Option<KnownKind>,
}

pub(crate) struct KnownKind {
    pub(crate) kind: &'static dyn SourceKind,
    pub(crate) capability: Capability,
    pub(crate) options: Options,
    /// What was written, if anything.
    required: Option<bool>,
    pub(crate) region: Option<String>,
}

impl KnownKind {
    /// An outlet: it opens without asking anybody, so what cannot be opened is wrongly declared.
    pub(crate) fn of_outlet(kind: &'static dyn SourceKind, options: Options) -> Self {
        let capability = kind.capability();
        KnownKind { kind, capability, options, required: Some(true), region: None }
    }

    pub(crate) fn declaration(self, is_needed: bool) -> SourceDeclaration {
        SourceDeclaration {
            kind: self.kind.name().into(),
            options: self.options,
            required: self.required.unwrap_or(is_needed),
            region: self.region.map(Into::into),
        }
    }
}

/// Reads `[sources]`.
pub(crate) fn sources(file: &Table<'_>, kinds: Kinds<'_>) -> BTreeMap<String, DeclaredSource> {
    let mut sources = BTreeMap::new();
    if !file.has_table("sources") {
        file.report.hide(&file.spot_of("sources").span);
    }
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
    let kind = chosen(report, found, kinds, Role::Truth)?;
    let section = options::source(kind);
    let table = Table::new(report, &section, found.value, found.spot.clone())?;
    if kind.options().iter().any(|o| o.ty == OptionType::Secret) {
        table.hide_unknown();
    }
    table.item("kind");
    let required = table.boolean("required");
    let region = table.text("region").map(|found| found.value);
    let options = table.options(kind.options());
    for (option, message) in kind.check(&options) {
        report.error(&table.spot_of(option), format!("`{option}` {message}"));
    }
    table.finish();
    Some(KnownKind { kind, capability: kind.capability(), options, required, region })
}

/// The kind that a source or, by `role`, an outlet names; what is wrong is reported.
pub(crate) fn chosen(
    report: &Report<'_>,
    found: &Found<&Item>,
    kinds: Kinds<'_>,
    role: Role,
) -> Option<&'static dyn SourceKind> {
    let name = kind_of(report, found);
    let kind = name.as_ref().and_then(|name| known(report, name, kinds));
    let misplaced = kind.filter(|kind| is_outlet(*kind) != (role == Role::Outlet));
    if let (Some(kind), Some(name)) = (misplaced, &name) {
        let (is, section) = match is_outlet(kind) {
            true => ("an outlet", "outlets"),
            false => ("a source", "sources"),
        };
        let message = format!("the kind `{}` is that of {is}", name.value);
        report.error_with(&name.spot, message, format!("declare it as [{section}.NAME]"));
    }
    if kind.is_none() || misplaced.is_some() {
        // Which of its values are secret is not known.
        hide_texts(report, found.value);
        return None;
    }
    kind
}

/// Keeps the texts of a source from being shown, but for its kind.
fn hide_texts(report: &Report<'_>, item: &Item) {
    let Data::Table(entries) = &item.data else { return report.hide(&item.span) };
    for (_, item) in entries.iter().filter(|(name, _)| name.text != "kind") {
        report.hide(&item.span);
    }
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

fn known(
    report: &Report<'_>,
    found: &Found<String>,
    kinds: Kinds<'_>,
) -> Option<&'static dyn SourceKind> {
    let name = found.value.as_str();
    if let Some(kind) = kinds.built.iter().find(|k| k.name() == name) {
        return Some(*kind);
    }
    if kinds.left_out.contains(&name) {
        report.error_with(
            &found.spot,
            format!("the kind `{name}` is not in this build"),
            format!("build with `--features {name}`"),
        );
        return None;
    }
    let names = || kinds.built.iter().map(|k| k.name()).chain(kinds.left_out.iter().copied());
    let available = format!("kinds are {}", names().collect::<Vec<_>>().join(", "));
    if KINDS_UNAVAILABLE.contains(&name) {
        report.error_with(
            &found.spot,
            format!("the kind `{name}` is not available in this release"),
            available,
        );
        return None;
    }
    let synonym = KIND_SYNONYMS.iter().find(|(other, _)| *other == name).map(|(_, kind)| *kind);
    let meant = synonym.filter(|kind| names().any(|n| n == *kind)).or(closest(name, names()));
    let hint = meant.map_or(available, |meant| format!("did you mean `{meant}`?"));
    report.error_with(&found.spot, format!("unknown kind `{name}`"), hint);
    None
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

/// The kind of a source that is named somewhere, if it can play the role that it has there; what is wrong is reported.
pub(crate) fn playing<'s>(
    report: &Report<'_>,
    sources: &'s BTreeMap<String, DeclaredSource>,
    found: &Found<String>,
    role: Role,
) -> Option<&'s KnownKind> {
    let Some(source) = sources.get(&found.value) else {
        let hint = meant(&found.value, sources.keys().map(String::as_str), || {
            format!("declare it as [sources.{}]", found.value)
        });
        report.error_with(&found.spot, format!("unknown source `{}`", found.value), hint);
        return None;
    };
    let kind = source.kind.as_ref()?;
    if kind.capability.roles.contains(&role) {
        return Some(kind);
    }
    let roles = kind.capability.roles.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(" or ");
    let message = format!(
        "`{}` cannot be a {}: the kind {} can be {roles}",
        found.value,
        role.as_str(),
        kind.kind.name()
    );
    report.error_with(&found.spot, message, able(sources, role));
    None
}

/// Whether two sources would write to the same file or folder, or to the same part of the same server.
pub(crate) fn same_place(a: &Options, b: &Options) -> bool {
    let path = |o: &Options| {
        o.text("path").map(|p| p.trim_start_matches("./").trim_end_matches('/').to_owned())
    };
    let texts = |o: &Options| -> Vec<_> {
        let all = o.0.iter().filter(|(_, value)| matches!(value, OptionValue::Text(_)));
        all.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let same_path = path(a).is_some() && path(a) == path(b);
    // Servers are divided by an option of the kind: a schema, a prefix, …
    same_path || (a.text("url").is_some() && texts(a) == texts(b))
}
