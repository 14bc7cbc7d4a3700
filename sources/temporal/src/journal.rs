//! [`Journal`]: the log of a source and the newest record that it knows of each workflow, kept by another kind's truth.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::source::{Auditor, Reader, Source, Truth, require};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Entity, Key, Record, Result, Stored, Timestamp};

use crate::config::Settings;

/// The roles of the source that keeps the journal.
pub(crate) struct Journal {
    /// Itself, for its life cycle.
    pub(crate) source: Arc<dyn Source>,
    /// Takes positions and keeps the log.
    pub(crate) truth: Arc<dyn Truth>,
    /// Answers from the newest records.
    pub(crate) reader: Arc<dyn Reader>,
    /// Scans them.
    pub(crate) auditor: Arc<dyn Auditor>,
}

impl Journal {
    /// Opens the file. It has the name of its source, so that errors name that one.
    pub(crate) async fn open(
        name: &str,
        kind: &'static dyn SourceKind,
        settings: &Settings,
        environment: &Environment,
    ) -> Result<Self> {
        let path = OptionValue::Text(settings.path.to_string_lossy().into_owned());
        let options = Options(BTreeMap::from([("path".to_owned(), path)]));
        let source = kind.open(name, &options, environment).await?;
        let truth = require(Arc::clone(&source).truth(), name, "truth")?;
        let reader = require(Arc::clone(&source).reader(), name, "reader")?;
        let auditor = require(Arc::clone(&source).auditor(), name, "auditor")?;
        Ok(Journal { source, truth, reader, auditor })
    }

    /// The newest records of some workflows, in the order of the keys.
    pub(crate) async fn known(
        &self,
        entity: &Arc<Entity>,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>> {
        Ok(self.reader.get(entity, keys).await?.value)
    }
}

/// The entry of the journal that replaces what is known of a workflow; `None` if there is nothing to be said.
pub(crate) fn news(
    entity: &Arc<Entity>,
    key: &Key,
    known: Option<&Stored>,
    seen: Option<Record>,
    time: Timestamp,
) -> Option<Unit> {
    let action = match (known, seen) {
        (Some(known), Some(seen)) if *known.record == seen => return None,
        (None, None) => return None,
        (_, Some(seen)) => Action::Put(seen),
        (Some(_), None) => Action::Delete,
    };
    let write =
        Write { entity: Arc::clone(entity), key: key.clone(), action, condition: Condition::None };
    Some(Unit { writes: vec![write], idempotency: None, time, actor: None, trace: None })
}
