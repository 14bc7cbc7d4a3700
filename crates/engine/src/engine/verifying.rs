//! [`Engine`]: comparing followers with their truth.

use std::sync::{Arc, Weak};

use futures::future::BoxFuture;
use serde_json::json;
use unisono_core::query::Filter;
use unisono_core::source::require;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{Context, Entity, Error, ErrorKind, Result, Stored};
use unisono_policy::declaration::SweepDeclaration;
use unisono_policy::projection::Projection;

use crate::delivery::Delivery;
use crate::engine::{Engine, Inner};
use crate::read::serving::Serving;
use crate::runtime::Runtime;
use crate::verify::report::{Comparison, Depth, Progress, Report, VerifyOptions};
use crate::verify::{Audit, Repair, projected, sweep};

/// One comparison.
#[derive(Clone, Copy)]
struct How {
    depth: Depth,
    repair: bool,
    /// Whether the truth's record may be written again for that.
    rewrite: bool,
    rate: Option<u32>,
}

impl How {
    fn of(options: &VerifyOptions) -> Self {
        let VerifyOptions { depth, repair, rate, .. } = *options;
        How { depth, repair, rewrite: false, rate }
    }
}

/// What the sweep of one follower holds while it waits: nothing that would keep an engine that nobody has any more.
pub(crate) struct Swept {
    engine: Weak<Inner>,
    runtime: Runtime,
    delivery: Weak<Delivery>,
}

impl Swept {
    /// Its time and randomness.
    pub(crate) fn runtime(&self) -> Runtime {
        self.runtime.clone()
    }

    /// How followers are to be compared at present; `None` if the engine or the follower is gone.
    pub(crate) fn declared(&self) -> Option<SweepDeclaration> {
        let engine = self.engine.upgrade()?;
        self.delivery.upgrade()?;
        Some(engine.present.load().declaration.sweep.clone())
    }

    /// What differs; `None` if that cannot be told now.
    pub(crate) async fn compare(
        &self,
        depth: Depth,
        rate: u32,
        repair: bool,
    ) -> Option<Comparison> {
        let (engine, delivery) = (self.engine.upgrade()?, self.delivery.upgrade()?);
        // A follower that is being filled differs, and its delivery sees to it.
        if !delivery.is_complete() || delivery.target().handle.is_paused() {
            return None;
        }
        if delivery.target().outlet {
            return None;
        }
        // A projection is compared with a fold of the whole truth: only if somebody asks for it.
        if delivery.target().projection.is_some() && depth != Depth::Ledger {
            return None;
        }
        let how = How { depth, repair, rewrite: false, rate: Some(rate) };
        let sweep = Engine(engine, Some(SWEEP.into()));
        let compared = sweep.compare(&delivery, how, &|_| {}).await;
        let error = match compared {
            Ok(Comparison { error: Some(error), .. }) => error,
            Ok(found) => return Some(found),
            Err(error) => error.to_string(),
        };
        let target = delivery.target();
        tracing::warn!(entity = %target.name(), source = %target.source, error, "a follower could not be compared");
        None
    }
}

/// Who writes a record again that a follower claims to have in a later version.
const ACTOR: &str = "unisono repair";
/// Who repairs without having been asked.
const SWEEP: &str = "unisono sweep";
/// How many of the repaired keys the audit trail names.
const KEYS_AUDITED: usize = 20;

impl Engine {
    /// Compares followers with the truth while everything goes on, as thoroughly as asked; repairs if asked.
    pub async fn verify(
        &self,
        options: &VerifyOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Report> {
        let mut report = Report::default();
        for delivery in &self.0.present.load_full().deliveries {
            let target = delivery.target();
            let named = |wanted: &Option<Arc<str>>, name: &Arc<str>| {
                wanted.as_ref().is_none_or(|w| w == name)
            };
            let is_named =
                named(&options.entity, target.read_as()) && named(&options.source, &target.source);
            // What stands still is not as the truth is, and what an outlet has nobody knows.
            if is_named && !target.still && !target.outlet {
                let how = How { rewrite: true, ..How::of(options) };
                report.comparisons.push(self.compare(delivery, how, progress).await?);
            }
        }
        if report.comparisons.is_empty() && (options.entity.is_some() || options.source.is_some()) {
            return Err(Error::new(
                ErrorKind::NotFound,
                "there is no such follower of such an entity",
            ));
        }
        Ok(report)
    }

    async fn compare(
        &self,
        delivery: &Arc<Delivery>,
        how: How,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Comparison> {
        let target = delivery.target();
        let serving = self.serving(target.read_as())?;
        target.handle.refuse_if_paused()?;
        if let Some(projection) = &target.projection {
            return self.compare_rows((delivery, projection), &serving, how).await;
        }
        let reader = require(Arc::clone(&target.handle.source).reader(), &target.source, "reader")?;
        // Only a deep comparison takes so long that its end is worth knowing.
        let total = match how.depth {
            Depth::Deep => {
                Some(serving.log.reader.count(&serving.entity, &Filter::All, None).await?.value)
            }
            Depth::Ledger | Depth::Observed => None,
        };
        let rewrite = |stored: Stored| -> BoxFuture<'_, Result<()>> {
            Box::pin(self.write_again(&serving.entity, stored))
        };
        let mut audit = Audit {
            delivery,
            entity: &serving.entity,
            truth: delivery.truth(),
            follower: reader.as_ref(),
            head: &|| serving.log.tail.head(),
            runtime: &self.0.runtime,
            repair: how.repair.then_some(Repair { rewrite: how.rewrite.then_some(&rewrite) }),
            rate: how.rate,
            found: Comparison::new(target.name(), &target.source, how.depth),
        };
        let tell = |found: &Comparison| {
            progress(Progress {
                entity: Arc::clone(&found.entity),
                source: Arc::clone(&found.source),
                records: found.records,
                total: total.unwrap_or(found.records),
                different: found.different,
            });
        };
        if let Err(error) = audit.run(&tell).await {
            audit.found.error = Some(error.to_string());
        }
        self.compared(delivery, &audit.found);
        if audit.found.repaired > 0 {
            self.audit_repair(&audit.found);
        }
        Ok(audit.found)
    }

    /// Compares the versions that a follower holds with those of the truth.
    pub(super) async fn compare_versions(&self, delivery: &Arc<Delivery>) -> Result<Comparison> {
        let how = How { depth: Depth::Observed, repair: false, rewrite: false, rate: None };
        self.compare(delivery, how, &|_| {}).await
    }

    /// Compares the rows of a projection with a fold of the truth.
    async fn compare_rows(
        &self,
        of: (&Arc<Delivery>, &Arc<Projection>),
        serving: &Serving,
        how: How,
    ) -> Result<Comparison> {
        let (found, open) = self.look_at_rows(of, serving, how.depth, how.repair).await?;
        let unsettled = (open > 0).then(|| projected::unsettled(of.1, open).to_string());
        let found = Comparison { error: found.error.or(unsettled), ..found };
        self.compared(of.0, &found);
        Ok(found)
    }

    /// The same, and how many rows changed each time that they were looked at.
    pub(super) async fn look_at_rows(
        &self,
        of: (&Arc<Delivery>, &Arc<Projection>),
        serving: &Serving,
        depth: Depth,
        repair: bool,
    ) -> Result<(Comparison, u64)> {
        let target = of.0.target();
        let rows = Arc::clone(&target.handle.source).auditor();
        let rows = require(rows, &target.source, "auditor")?;
        let mut found = Comparison::new(target.name(), &target.source, depth);
        let (log, runtime) = (serving.log.as_ref(), &self.0.runtime);
        let of = (of.0.as_ref(), of.1);
        let compared =
            projected::compare(of, (log, rows.as_ref()), runtime, repair, &mut found).await;
        found.error = compared.as_ref().err().map(ToString::to_string);
        Ok((found, compared.unwrap_or_default()))
    }

    fn audit_repair(&self, found: &Comparison) {
        let named = found.differences.iter().take(KEYS_AUDITED);
        let keys: Vec<_> = named.map(|d| json!({ "key": d.key, "class": d.class })).collect();
        let details = json!({
            "depth": found.depth, "different": found.different, "repaired": found.repaired, "records": keys,
        });
        self.audit("repair", (Some(&found.entity), Some(&found.source)), details);
    }

    /// Has followers compared again and again.
    pub(super) fn sweep<'d>(&self, deliveries: impl Iterator<Item = &'d Arc<Delivery>>) {
        for delivery in deliveries {
            let (engine, runtime) = (Arc::downgrade(&self.0), self.0.runtime.clone());
            let swept = Swept { engine, runtime, delivery: Arc::downgrade(delivery) };
            self.0.runtime.spawn(sweep(swept));
        }
    }

    /// Gives a record a newer version, unless somebody else does.
    async fn write_again(&self, entity: &Arc<Entity>, stored: Stored) -> Result<()> {
        let context = Context { actor: Some(ACTOR.into()), ..Context::default() };
        let write = Write {
            entity: Arc::clone(entity),
            key: stored.key,
            action: Action::Put(Arc::unwrap_or_clone(stored.record)),
            condition: Condition::Version(Some(stored.version)),
        };
        self.commit(&context, write).await
    }
}
