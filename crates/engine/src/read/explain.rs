//! The decision for a read, told without making it.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::query::{Aggregate, Query};
use unisono_core::{Consistency, Context, Key, Role};
use unisono_policy::route::{self, Facts};

use crate::read::ask::Reading;
use crate::read::serving::Serving;
use crate::runtime::Runtime;
use crate::status::EntityStatus;

/// An operation to explain.
#[derive(Clone, Debug)]
pub enum Operation {
    /// [`Engine::get`](crate::Engine::get).
    Get(Key),
    /// [`Engine::query`](crate::Engine::query).
    Query(Box<Query>),
    /// [`Engine::aggregate`](crate::Engine::aggregate).
    Aggregate(Box<Aggregate>),
}

/// The rule, what waits in a journal for the record if anything does, and one line for each source: those that would be
/// asked, in order, and those that would not; at last how writes reach the followers, if that was declared.
pub(crate) fn explain(
    serving: &Serving,
    context: &Context,
    operation: &Operation,
    runtime: &Runtime,
) -> Vec<String> {
    let present = serving.policies.present.load();
    let policies = present.of(&serving.policies);
    let reading = Reading::new(serving, policies, context, runtime);
    let request = match operation {
        Operation::Get(_) => reading.request(route::Operation::Get),
        Operation::Query(query) => {
            let searches = query.search.is_some();
            let routed = if searches { route::Operation::Search } else { route::Operation::Query };
            reading.request_for(routed, &query.filter, &query.order)
        }
        Operation::Aggregate(aggregate) => {
            reading.request_for(route::Operation::Aggregate, &aggregate.filter, &[])
        }
    };
    let now = runtime.now();
    let mut facts = serving.facts(policies, request.operation, now);
    facts.extend(serving.cache.iter().map(|feed| Facts {
        source: Arc::clone(feed.source()),
        role: Role::Cache,
        query: Default::default(),
        blocked: !feed.is_verified(now),
        applied: Some(feed.applied()),
        lag: Duration::ZERO,
        load: 0.0,
        filtered: false,
        mapped: false,
        // An entity has one cache, which has no equal to come before or behind.
        far: false,
        // It holds what the truth does, and answers reads by key.
        clear: false,
    }));
    let plan = route::plan(&request, &policies.read, &facts, 0.0);
    let rule =
        std::iter::once(format!("rule {}", plan.rule)).chain(pending(serving, context, operation));
    let asked = plan.candidates.iter().enumerate();
    let asked = asked.map(|(n, c)| {
        let far = if c.far { ", from another region" } else { "" };
        format!("{}. {} ({}): {}{far}", n + 1, c.source, c.role.as_str(), c.why)
    });
    let not = plan.excluded.iter().map(|(source, reason)| format!("-  {source}: {reason}"));
    let declaration = &present.declaration;
    let declared = declaration.entities.get(serving.entity.name());
    let writes = declared
        .and_then(|declared| EntityStatus::of(declared, serving.policies.adaptive.status()).line());
    rule.chain(asked).chain(not).chain(writes).collect()
}

/// How many acknowledged writes wait for the record, and what they do to the answer; nothing if none does.
fn pending(serving: &Serving, context: &Context, operation: &Operation) -> Option<String> {
    let (Operation::Get(key), Some(behind)) = (operation, &serving.behind) else { return None };
    let look = behind.look(key, &context.token);
    let writes = match look.len() {
        0 => return None,
        1 => "1 pending write".to_owned(),
        several => format!("{several} pending writes"),
    };
    let effect = if context.consistency == Consistency::Strong {
        "flushed before a source is asked"
    } else if look.regardless().is_some() {
        "shown instead of what the sources have"
    } else {
        "laid over the answer"
    };
    Some(format!("+  {} (journal): {writes}, {effect}", behind.journal_name()))
}
