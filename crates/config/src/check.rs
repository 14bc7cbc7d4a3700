//! What is wrong only when sources and entities are seen together.

use std::collections::BTreeMap;

use unisono_core::Role;

use crate::entities::DeclaredEntity;
use crate::problem::{Report, Spot};
use crate::sources::{DeclaredSource, same_place};
use crate::table::Found;

/// Checks the whole. `besides` are the sources that are used for something else than entities.
pub(crate) fn check(
    report: &Report<'_>,
    sources: &BTreeMap<String, DeclaredSource>,
    entities: &BTreeMap<String, DeclaredEntity>,
    region: Option<&Found<String>>,
    besides: &[Option<&str>],
) {
    shared_places(report, entities);
    shared_paths(report, sources);
    unused(report, sources, entities, besides);
    without_neighbours(report, sources, region);
    if entities.is_empty() {
        let whole = Spot { span: 0..0, key: "entities".to_owned() };
        report.warning(&whole, "no entity is declared", "declare one as [entities.NAME]");
    }
}

/// Two entities in one table, index, folder or collection would overwrite each other.
fn shared_places(report: &Report<'_>, entities: &BTreeMap<String, DeclaredEntity>) {
    let all =
        entities.iter().flat_map(|(name, entity)| entity.uses.iter().map(move |used| (name, used)));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(_, used)| used.spot.span.start);
    let mut first: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (name, used) in all {
        let Some(place) = &used.place else { continue };
        let other = first.entry((&used.source, place)).or_insert(name);
        if *other != name {
            let message = format!("`{place}` in `{}` is used by `{other}` already", used.source);
            report.error_with(
                &used.spot,
                message,
                "give one of them another table, index, folder or collection",
            );
        }
    }
}

fn shared_paths(report: &Report<'_>, sources: &BTreeMap<String, DeclaredSource>) {
    let mut known: Vec<_> =
        sources.iter().filter_map(|(n, s)| Some((n, &s.spot, s.kind.as_ref()?))).collect();
    // Several outlets may send to the same place.
    known.retain(|(_, _, kind)| !kind.capability.roles.contains(&Role::Outlet));
    known.sort_by_key(|(_, spot, _)| spot.span.start);
    for (n, (_, spot, kind)) in known.iter().enumerate() {
        let earlier =
            known[..n].iter().find(|(_, _, other)| same_place(&kind.options, &other.options));
        if let Some((other, _, _)) = earlier {
            report.error_with(
                spot,
                format!("keeps its data in the same place as `{other}`"),
                "give each source a place of its own",
            );
        }
    }
}

fn unused(
    report: &Report<'_>,
    sources: &BTreeMap<String, DeclaredSource>,
    entities: &BTreeMap<String, DeclaredEntity>,
    besides: &[Option<&str>],
) {
    // Entities that could not be read may use any of them.
    if entities.values().any(|e| e.declaration.is_none()) {
        return;
    }
    for (name, source) in sources {
        let is_used_besides = besides.contains(&Some(name));
        if !is_used_besides && !entities.values().any(|e| e.uses.iter().any(|u| u.source == *name))
        {
            report.warning(
                &source.spot,
                format!("no entity uses the source `{name}`"),
                "remove it, or name it in an entity",
            );
        }
    }
}

/// The region of a process is for choosing between sources, which takes some that name theirs.
fn without_neighbours(
    report: &Report<'_>,
    sources: &BTreeMap<String, DeclaredSource>,
    region: Option<&Found<String>>,
) {
    let Some(region) = region else { return };
    // One that could not be read may name any.
    let says = |source: &DeclaredSource| source.kind.as_ref().is_none_or(|k| k.region.is_some());
    if !sources.values().any(says) {
        report.warning(
            &region.spot,
            format!("the region `{}` decides nothing: no source names one", region.value),
            "give sources a `region`, or remove this one",
        );
    }
}
