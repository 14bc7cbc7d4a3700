//! [`Engine`]: comparing followers with their truth.

use std::sync::Arc;

use futures::future::BoxFuture;
use unisono_core::query::Filter;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{Context, Entity, Error, ErrorKind, Result, Stored};

use crate::delivery::Delivery;
use crate::engine::Engine;
use crate::verify::report::{Comparison, Depth, Progress, Report, VerifyOptions};
use crate::verify::{Audit, Repair};

/// Who writes a record again that a follower claims to have in a later version.
const ACTOR: &str = "unisono repair";

impl Engine {
    /// Compares followers with the truth while everything goes on, as thoroughly as asked; repairs if asked.
    pub async fn verify(
        &self,
        options: &VerifyOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Report> {
        let mut report = Report::default();
        for delivery in &self.0.running.deliveries {
            let target = delivery.target();
            let named = |wanted: &Option<Arc<str>>, name: &Arc<str>| {
                wanted.as_ref().is_none_or(|w| w == name)
            };
            if named(&options.entity, target.entity.name())
                && named(&options.source, &target.source)
            {
                let found = self.compare(delivery, options, progress).await?;
                self.compared(&found)?;
                report.comparisons.push(found);
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
        options: &VerifyOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Comparison> {
        let target = delivery.target();
        let serving = self.serving(target.entity.name())?;
        let follower = serving
            .answering
            .get(&target.source)
            .ok_or_else(|| Error::internal("the follower does not answer"))?;
        // Only a deep comparison takes so long that its end is worth knowing.
        let total = match options.depth {
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
            truth: (serving.log.reader.as_ref(), serving.log.auditor.as_ref()),
            follower: follower.reader.as_ref(),
            head: &|| serving.log.tail.head(),
            runtime: &self.0.runtime,
            repair: options.repair.then_some(Repair { rate: options.rate, rewrite: &rewrite }),
            found: Comparison::new(target.entity.name(), &target.source, options.depth),
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
        Ok(audit.found)
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
