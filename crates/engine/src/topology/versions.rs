//! Which versions of a projection there are: one text in the truth of what it is worked out from, which is changed by
//! compare-and-set. So of several processes that want to change it one does, and all others see that.
//!
//! It is kept where a truth keeps what it is told of entities whose writes it refuses, under a name that is none of an entity.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::source::{Source, Truth};
use unisono_core::{Error, ErrorKind, Result};
use unisono_policy::declaration::Declaration;
use unisono_policy::projection::{Projection, Versions};

use crate::topology::rules;

/// What the names of these texts begin with.
const PREFIX: &str = "projection:";

/// Whether a text that a truth keeps is about an entity whose writes it refuses.
pub(crate) fn is_of_entity(name: &str) -> bool {
    !name.starts_with(PREFIX)
}

/// The versions of a projection; those of one that was never rebuilt, if nothing is known.
pub(crate) async fn kept(truth: &dyn Truth, projection: &str) -> Result<Versions> {
    Ok(parse(projection, text(truth, projection).await?.as_deref())?.unwrap_or_default())
}

/// The versions of all projections of which a truth knows some.
pub(crate) async fn all(truth: &dyn Truth) -> Result<BTreeMap<String, Versions>> {
    let mut found = BTreeMap::new();
    for (name, text) in truth.fences().await? {
        if let Some(projection) = name.strip_prefix(PREFIX)
            && let Some(versions) = parse(projection, Some(&text))?
        {
            found.insert(projection.to_owned(), versions);
        }
    }
    Ok(found)
}

/// Changes the versions; whether that took place, or others were faster.
pub(crate) async fn change(
    truth: &dyn Truth,
    projection: &str,
    from: &Versions,
    to: &Versions,
) -> Result<bool> {
    let before = text(truth, projection).await?;
    if parse(projection, before.as_deref())?.unwrap_or_default() != *from {
        return Ok(false);
    }
    let after = serde_json::to_string(to)
        .map_err(|e| Error::internal("the versions cannot be encoded").caused_by(e))?;
    match truth.fence(&name(projection), before.as_deref(), Some(&after)).await? {
        Some(_) => Ok(true),
        // It may have been said by this very call, whose first answer was lost.
        None => Ok(text(truth, projection).await?.as_deref() == Some(&*after)),
    }
}

/// A declaration whose projections have the versions that their truths know of.
pub(crate) async fn as_they_are(
    mut declaration: Declaration,
    sources: &BTreeMap<Arc<str>, Arc<dyn Source>>,
) -> Result<Declaration> {
    for (name, declared) in &mut declaration.entities {
        let Some(projection) = &mut declared.projection else { continue };
        let truth = sources.get(&declared.truth).and_then(|source| Arc::clone(source).truth());
        let truth = truth.ok_or_else(|| Error::internal("the truth is not open"))?;
        let sources: Vec<_> = declared.followers.iter().map(|f| &*f.source).collect();
        let found = of_declared(truth.as_ref(), projection, &sources).await;
        *projection = Arc::new(found.map_err(|e| e.at(&declared.truth).of(name))?);
    }
    Ok(declaration)
}

/// A projection as it is declared, with its versions. If the one that answers was made by another definition, that one
/// stands still, and another is made beside it.
async fn of_declared(
    truth: &dyn Truth,
    projection: &Projection,
    sources: &[&str],
) -> Result<Projection> {
    let name = projection.name();
    let mut found = projection.with_versions(kept(truth, name).await?);
    let live = found.at(found.versions.live);
    let mut is_other = false;
    for source in sources {
        let rule = rules::kept(truth, live.rows.name(), source).await?;
        is_other |= rule.is_some_and(|rule| rule != live.rule());
    }
    if !is_other {
        return Ok(found);
    }
    let replaced = found.versions.replaced();
    if replaced != found.versions {
        match change(truth, name, &found.versions, &replaced).await {
            Ok(_) => {}
            // Then it is made anew in its place.
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(found),
            Err(error) => return Err(error),
        }
    }
    found.still = Some(live.version);
    Ok(found.with_versions(kept(truth, name).await?))
}

/// A declaration whose projections have the versions that another one has of them.
pub(crate) fn carried_over(mut wanted: Declaration, present: &Declaration) -> Declaration {
    for (name, declared) in &mut wanted.entities {
        let known = present.entities.get(name).and_then(|known| known.projection.as_ref());
        if let Some((projection, known)) = declared.projection.as_mut().zip(known) {
            let versions = known.versions.clone();
            let mut carried = projection.with_versions(versions);
            carried.still = known.still;
            *projection = Arc::new(carried);
        }
    }
    wanted
}

async fn text(truth: &dyn Truth, projection: &str) -> Result<Option<String>> {
    Ok(truth.fences().await?.remove(&name(projection)))
}

fn parse(projection: &str, text: Option<&str>) -> Result<Option<Versions>> {
    text.map(serde_json::from_str).transpose().map_err(|e| {
        Error::new(ErrorKind::Corrupt, "the versions of a projection cannot be decoded")
            .of(projection)
            .caused_by(e)
    })
}

fn name(projection: &str) -> String {
    format!("{PREFIX}{projection}")
}
