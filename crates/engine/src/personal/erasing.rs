//! Erasing: when the keys of a subject are destroyed, `clear` followers get its records again, without what is lost.
//!
//! What is to be delivered is noted beside the keys before they are destroyed, and forgotten when every follower has it;
//! so a follower that is away, and a process that ends, only put it off.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;
use unisono_core::query::{Comparison, Filter, Order, Path, Query, Step};
use unisono_core::{Entity, FieldType, Key, Result, Value};

use super::Keyring;
use super::cipher::hex;
use crate::delivery::{Delivery, Redelivered};
use crate::policies::{Policies, Present};
use crate::runtime::Runtime;
use crate::watched::Watched;

/// How long it is before what could not be delivered is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// How long delivering an erasure to one follower may take, before it is put off.
const DELIVERY_MAX: Duration = Duration::from_secs(10);
/// Records delivered again at once.
const PAGE: usize = 500;

/// What became of an erasure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Erased {
    /// What the audit trail calls the subject; who does not have the secret cannot tell who that is.
    pub subject: String,
    /// How many keys were destroyed; none if there was nothing to erase.
    pub keys: usize,
    /// The `clear` followers that still hold something: they get it as soon as they can be reached.
    pub pending: Vec<Pending>,
}

/// A follower that an erasure has not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The entity.
    pub entity: Arc<str>,
    /// The follower's source.
    pub source: Arc<str>,
    /// Why.
    pub reason: String,
}

/// What erasures are still to be delivered, if any may be.
#[derive(Default)]
pub(crate) struct Erasing {
    has_some: Watched<bool>,
}

impl Keyring {
    /// Destroys the keys of a subject.
    pub(crate) async fn erase(&self, subject: &str, policies: &Policies) -> Result<Erased> {
        if clear_of(policies).next().is_some() {
            self.intend(subject).await?;
        }
        let name = self.name(subject);
        let keys = self.destroy(&name).await?;
        Ok(Erased { subject: hex(&name), keys, pending: Vec::new() })
    }

    /// Delivers an erasure to every `clear` follower; answers which of them it has not reached.
    async fn deliver(&self, subject: &str, policies: &Policies) -> Vec<Pending> {
        let mut pending = Vec::new();
        for delivery in clear_of(policies) {
            let target = delivery.target();
            // One that cannot be reached does not take what it is sent.
            let delivering = self.runtime.within(DELIVERY_MAX, deliver_to(delivery, subject));
            let reason = match delivering.await {
                Ok(true) => continue,
                Ok(false) => "the follower refuses a record".to_owned(),
                Err(error) => error.to_string(),
            };
            let (entity, source) = (Arc::clone(target.entity.name()), Arc::clone(&target.source));
            pending.push(Pending { entity, source, reason });
        }
        pending
    }

    /// The same, and notes whether something is left to do.
    pub(crate) async fn deliver_erasure(
        &self,
        subject: &str,
        policies: &Policies,
        erasing: &Erasing,
    ) -> Result<Vec<Pending>> {
        if clear_of(policies).next().is_none() {
            return Ok(Vec::new());
        }
        erasing.noted();
        let pending = self.deliver(subject, policies).await;
        if pending.is_empty() {
            self.done(subject).await?;
        }
        Ok(pending)
    }
}

impl Erasing {
    fn noted(&self) {
        self.has_some.change(|has_some| !std::mem::replace(has_some, true));
    }
}

/// Delivers what is to be delivered: at the start what was left before.
pub(crate) async fn run(
    keyring: Arc<Keyring>,
    erasing: Arc<Erasing>,
    present: Present,
    runtime: Runtime,
) {
    erasing.noted();
    loop {
        erasing.has_some.until(|has_some| *has_some).await;
        // What is noted meanwhile is seen by another round.
        erasing.has_some.change(|has_some| {
            *has_some = false;
            false
        });
        if let Err(error) = round(&keyring, &present.load_full()).await {
            tracing::warn!(%error, "an erasure has not reached every follower yet");
            erasing.noted();
        }
        runtime.sleep(PAUSE).await;
    }
}

async fn round(keyring: &Keyring, policies: &Policies) -> Result<()> {
    let mut left = Ok(());
    for subject in keyring.intended().await? {
        match keyring.deliver(&subject, policies).await.into_iter().next() {
            None => keyring.done(&subject).await?,
            Some(Pending { source, reason, .. }) => {
                let error = unisono_core::Error::new(unisono_core::ErrorKind::Unavailable, reason);
                left = Err(error.at(&source));
            }
        }
    }
    left
}

fn clear_of(policies: &Policies) -> impl Iterator<Item = &Arc<Delivery>> {
    policies.deliveries.iter().filter(|delivery| delivery.target().clear.is_some())
}

/// Has a follower take in again what is about a subject; answers whether it took all of it.
async fn deliver_to(delivery: &Delivery, subject: &str) -> Result<bool> {
    let entity = &delivery.target().entity;
    let Some(filter) = about(entity, subject) else { return Ok(true) };
    let order = vec![Order { path: Path::whole(entity.key_index()), descending: false }];
    let mut last: Option<Key> = None;
    let mut all = true;
    loop {
        let beyond = last.as_ref().map_or(Filter::All, |key| {
            let path = Path::whole(entity.key_index());
            Filter::Compare(path, Comparison::Gt, key.to_value())
        });
        let query = Query {
            filter: filter.clone().and(beyond),
            order: order.clone(),
            limit: PAGE,
            ..Query::all()
        };
        let page = delivery.truth().0.query(entity, &query).await?.value;
        let keys: Vec<Key> = page.hits.into_iter().map(|hit| hit.stored.key).collect();
        last = keys.last().cloned();
        if last.is_none() {
            return Ok(all);
        }
        let redelivered = delivery.redeliver(keys).await?;
        all &= redelivered.iter().all(|outcome| matches!(outcome, Redelivered::Accepted));
    }
}

/// The records that are about a subject; nothing if none can be.
fn about(entity: &Entity, subject: &str) -> Option<Filter> {
    let path = entity.personal()?.subject.clone();
    let equal = |value| Filter::Compare(path.clone(), Comparison::Eq, value);
    if matches!(path.step, Step::Json(_)) {
        let as_text = equal(Value::Json(Json::String(subject.to_owned())));
        // A number is about the same subject as its text.
        let number = serde_json::from_str(subject).ok().filter(Json::is_number);
        return Some(match number {
            Some(number) => Filter::Or(vec![as_text, equal(Value::Json(number))]),
            None => as_text,
        });
    }
    match path.ty(entity) {
        FieldType::Integer => Some(equal(Value::Integer(subject.parse().ok()?))),
        FieldType::Uuid => Some(equal(Value::Uuid(subject.parse().ok()?))),
        _ => Some(equal(Value::String(subject.to_owned()))),
    }
}
