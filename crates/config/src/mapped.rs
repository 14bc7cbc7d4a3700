//! `map` of a follower: fields that it keeps otherwise than the truth, and what cannot be beside it.

use std::sync::Arc;

use unisono_core::Entity;
use unisono_policy::declaration::{CacheDeclaration, FollowerDeclaration};
use unisono_policy::mapping::Mapping;
use unisono_policy::read::{Place, ReadPolicy};
use unisono_policy::write::WritePolicy;

use crate::document::Data;
use crate::problem::Spot;
use crate::table::Table;

/// Reads the `map` of a follower, if it has one; `None` if a problem was reported.
pub(crate) fn read(
    follower: &Table<'_>,
    entity: Option<&Arc<Entity>>,
) -> Option<Option<Arc<Mapping>>> {
    let entries = if follower.takes("map") { follower.named("map") } else { Vec::new() };
    let report = follower.report;
    let texts = entries.iter().map(|(name, found)| match &found.value.data {
        Data::Text { text, .. } => Some((name.text.as_str(), text.as_str())),
        _ => {
            let message = format!("takes a value in CEL, not {}", found.value.describe());
            report.error(&found.spot, message);
            None
        }
    });
    // Each is looked at, so that all problems are reported.
    let texts: Vec<_> = texts.collect();
    let texts: Vec<(&str, &str)> = texts.into_iter().collect::<Option<_>>()?;
    if texts.is_empty() {
        return Some(None);
    }
    let entity = entity?;
    if entity.is_of_events() {
        let message = "events are kept as they were appended";
        report.error_with(
            &follower.spot_of("map"),
            message,
            "work out what you need in a projection",
        );
        return None;
    }
    match Mapping::compile(entity, texts) {
        Ok(mapping) => Some(Some(Arc::new(mapping))),
        Err(error) => {
            let of_error = |name: &str| error.detail("field") == Some(name);
            let spot = entries.iter().find(|(name, _)| of_error(&name.text));
            let spot =
                spot.map_or_else(|| follower.spot_of("map"), |(_, found)| found.spot.clone());
            let at = error
                .detail("column")
                .map_or(String::new(), |n| format!(" (at its character {n})"));
            let message = format!("{}{at}", error.message());
            report.error_maybe(&spot, message, error.hint_text().map(str::to_owned));
            None
        }
    }
}

/// How an entity is read, written and cached, as far as that could be read.
type Ways<'a> = (Option<&'a ReadPolicy>, Option<&'a WritePolicy>, Option<&'a CacheDeclaration>);

/// Reports what cannot be beside followers that keep records otherwise than the truth; `None` if something was.
///
/// Such a follower answers only reads under a rule that names it and nobody else, so that no read has now the record and
/// now what a `map` makes of it.
pub(crate) fn check(
    entity: &Table<'_>,
    followers: &[FollowerDeclaration],
    (read, write, cache): Ways<'_>,
) -> Option<()> {
    let mapped = followers.iter().filter(|f| Mapping::of(&f.source, followers).is_some());
    let mapped: Vec<&str> = mapped.map(|f| &*f.source).collect();
    let Some(read) = read.filter(|_| !mapped.is_empty()) else { return Some(()) };
    let spot: Spot = entity.spot_of("read");
    let refuse = |message: String, hint: &str| entity.report.error_with(&spot, message, hint);
    let keepers = followers.len() + 1 - mapped.len();
    if let Some(quorum) = read.quorum.filter(|quorum| *quorum > keepers) {
        let message =
            format!("`quorum` is {quorum}, and 1 to {keepers} sources keep records as they are");
        refuse(message, "followers with a `map` do not count; ask less");
        return None;
    }
    let names_one =
        |place: &&Place| matches!(place, Place::Source(name) if mapped.contains(&&**name));
    for rule in &read.rules {
        let Some(named) = rule.ask.iter().find(names_one) else { continue };
        let (name, source) = (&rule.name, named.as_str());
        if !rule.only || rule.ask.len() > 1 {
            let message = format!(
                "the rule `{name}` asks `{source}`, whose `map` makes other records than the others have"
            );
            refuse(message, "have the rule ask this source alone: set only = true");
            return None;
        }
        if cache.is_some_and(|cache| !cache.results.is_zero()) {
            let message = format!(
                "kept answers (`results`) would answer for the rule `{name}`, whose source has a `map`"
            );
            refuse(message, "leave out `results`, or the rule");
            return None;
        }
        if write.is_some_and(|write| write.behind.is_some()) {
            let message = format!(
                "what waits in the journal would be laid over the answers to the rule `{name}`, whose source has a `map`"
            );
            refuse(message, "leave out the rule, or choose another strategy of writing");
            return None;
        }
    }
    Some(())
}
