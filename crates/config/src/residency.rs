//! `[[entities.NAME.residency]]`: which records a source must never hold, whatever else is declared of it.

use std::sync::Arc;

use unisono_core::Entity;
use unisono_policy::declaration::CacheDeclaration;
use unisono_policy::rule::Rule;

use crate::entities::Use;
use crate::problem::{Spot, meant};
use crate::replication::DeclaredFollower;
use crate::sections::RESIDENCY;
use crate::table::Table;

/// What sources may hold of an entity.
struct Residency(Vec<(Vec<String>, Arc<Rule>)>);

impl Residency {
    /// A condition of a source with what residency adds to it.
    fn within(&self, source: &str, filter: Option<Arc<Rule>>) -> Option<Arc<Rule>> {
        let names = |(sources, _): &&(Vec<String>, Arc<Rule>)| sources.iter().any(|s| s == source);
        let allowed = self.0.iter().filter(names).map(|(_, rule)| Arc::clone(rule));
        let all: Vec<Arc<Rule>> = filter.into_iter().chain(allowed).collect();
        match all.as_slice() {
            [] => None,
            [one] => Some(Arc::clone(one)),
            _ => Some(Arc::new(Rule::all_of(all))),
        }
    }
}

/// Where an entity is kept, and what of that holds every record.
pub(crate) struct Places<'a> {
    pub(crate) uses: &'a [Use],
    pub(crate) truth: Option<&'a str>,
    pub(crate) journal: Option<&'a str>,
    /// The region of a source; of this process, if none is named.
    pub(crate) regions: &'a dyn Fn(Option<&str>) -> Option<String>,
}

/// Reads the rules, and has every condition keep out what is forbidden there; `None` if a problem was reported.
pub(crate) fn keep_out(
    table: &Table<'_>,
    entity: Option<&Arc<Entity>>,
    places: &Places<'_>,
    followers: &mut [Option<DeclaredFollower>],
    cache: Option<&mut CacheDeclaration>,
) -> Option<()> {
    let rules = table.tables("residency", &RESIDENCY).into_iter();
    let rules = rules.map(|rule| one(rule, entity, places)).collect::<Vec<_>>();
    let residency = Residency(rules.into_iter().collect::<Option<_>>()?);
    for follower in followers.iter_mut().flatten().map(|follower| &mut follower.declaration) {
        follower.filter = residency.within(&follower.source, follower.filter.take());
    }
    if let Some(cache) = cache {
        cache.filter = residency.within(&cache.source, cache.filter.take());
    }
    Some(())
}

fn one(
    table: Table<'_>,
    entity: Option<&Arc<Entity>>,
    places: &Places<'_>,
) -> Option<(Vec<String>, Arc<Rule>)> {
    let (source, region, forbid) =
        (table.text("source"), table.text("region"), table.text("forbid"));
    let report = table.report;
    let used = || places.uses.iter().map(|u| u.source.as_str());
    let (sources, spot): (Vec<String>, Spot) = match (source, region) {
        (Some(found), None) if used().any(|used| used == found.value) => {
            (vec![found.value], found.spot)
        }
        (Some(found), None) => {
            let hint = meant(&found.value, used(), || {
                format!("it is kept in {}", used().collect::<Vec<_>>().join(", "))
            });
            report.error_with(
                &found.spot,
                format!("the entity is not kept in `{}`", found.value),
                hint,
            );
            return None;
        }
        (None, Some(found)) => {
            let there =
                |source: &&str| (places.regions)(Some(source)).as_ref() == Some(&found.value);
            let sources: Vec<String> = used().filter(there).map(str::to_owned).collect();
            if sources.is_empty() {
                let message =
                    format!("no source that keeps the entity is in the region `{}`", found.value);
                report.error_with(
                    &found.spot,
                    message,
                    "name the region of one, or remove the rule",
                );
                return None;
            }
            (sources, found.spot)
        }
        _ => {
            let message = "a rule names either a `source` or a `region`";
            report.error_with(&table.spot, message, "give one of them");
            return None;
        }
    };
    table.finish();
    for (role, whole) in [("truth", places.truth), ("journal", places.journal)] {
        if let Some(whole) = whole.filter(|whole| sources.iter().any(|s| s == whole)) {
            let message = format!("`{whole}` is the {role}, which holds every record");
            let hint = format!("name another {role}, where all of them may lie");
            report.error_with(&spot, message, hint);
            return None;
        }
    }
    let forbid = forbid?;
    match Rule::allowing(entity?, &forbid.value) {
        Ok(rule) => Some((sources, Arc::new(rule))),
        Err(error) => {
            let hint = error.hint_text().map(str::to_owned);
            report.error_maybe(&forbid.spot, error.message().to_owned(), hint);
            None
        }
    }
}
