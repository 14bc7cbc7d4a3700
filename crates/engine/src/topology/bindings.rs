//! What each source is to keep, by a declaration.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::capability::Role;
use unisono_core::kind::Options;
use unisono_core::source::{Binding, Source};
use unisono_core::{Error, ErrorKind, Result};
use unisono_policy::declaration::Declaration;

use crate::audit;
use crate::kept;
use crate::projection;
use crate::sync;

/// What each source keeps.
pub(crate) type Bindings = BTreeMap<Arc<str>, Vec<Binding>>;

/// What each of some sources keeps.
pub(crate) fn bindings<'a>(
    declaration: &Declaration,
    sources: impl Iterator<Item = (&'a Arc<str>, &'a Arc<dyn Source>)> + Clone,
) -> Result<Bindings> {
    let mut bindings: Bindings =
        sources.clone().map(|(name, _)| (Arc::clone(name), Vec::new())).collect();
    let is_outlet = |name: &Arc<str>| {
        let found = sources.clone().find(|(known, _)| *known == name);
        found.is_some_and(|(_, source)| Arc::clone(source).outlet().is_some())
    };
    for declared in declaration.entities.values() {
        let mut bind = |source: &Arc<str>, role, place: Option<&Arc<str>>, options: &Options| {
            let entity = Arc::clone(&declared.entity);
            let place = Arc::clone(place.unwrap_or(declared.entity.name()));
            let Some(of_source) = bindings.get_mut(source) else {
                return Err(
                    Error::new(ErrorKind::InvalidConfig, "the source is not declared").at(source)
                );
            };
            of_source.push(Binding { entity, role, place, options: options.clone() });
            Ok(())
        };
        if declared.projection.is_none() {
            bind(&declared.truth, Role::Truth, declared.table.as_ref(), &declared.truth_options)?;
        }
        for follower in declared.followers.iter().filter(|f| !is_outlet(&f.source)) {
            bind(&follower.source, Role::Follower, follower.place.as_ref(), &follower.options)?;
        }
        if let Some(cache) = &declared.cache {
            bind(&cache.source, Role::Cache, None, &cache.options.with(&cache.live))?;
        }
        let named = |name: &Arc<str>| {
            let found = sources.clone().find(|(known, _)| *known == name);
            found.map(|(_, source)| source.capability())
        };
        let kept = projection::bindings(declared, &named);
        for (source, binding) in kept.chain(sync::bindings(declared)?) {
            bindings.entry(source).or_default().push(binding);
        }
    }
    for (name, source) in sources {
        let is_truth = declaration.entities.values().any(|e| e.truth == *name);
        if let Some(of_source) = bindings.get_mut(name)
            && is_truth
        {
            of_source.extend(audit::binding(source));
            of_source.extend(kept::binding(source));
        }
    }
    Ok(bindings)
}

/// What a source is to keep that keeps more or less than before, and what goes on meanwhile; nothing if that is no more
/// than it keeps already.
pub(crate) fn with_those_before(
    wanted: &[Binding],
    before: Option<&Vec<Binding>>,
) -> Option<Vec<Binding>> {
    let same = |a: &Binding, b: &Binding| a.entity.name() == b.entity.name() && a.role == b.role;
    let Some(before) = before else { return Some(wanted.to_vec()) };
    let is_known = |binding: &Binding| before.iter().any(|b| same(b, binding));
    if wanted.iter().all(is_known) {
        return None;
    }
    let goes_on = before.iter().filter(|b| !wanted.iter().any(|w| same(w, b)));
    Some(wanted.iter().chain(goes_on).cloned().collect())
}
