//! [`Late`]: a source that could not be opened or prepared at the start, and will be as soon as it can.
//!
//! Until then its calls fail with `unavailable`, as those of any source that is down: deliveries wait, caches are
//! passed by, questions go elsewhere. Only a source that is not `required` gets this treatment.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use unisono_core::capability::{Capability, Role};
use unisono_core::relay::{Front, Relay};
use unisono_core::source::{Auditor, Binding, Cache, Follower, Probe, Reader, Source, Truth};
use unisono_core::vault::Vault;
use unisono_core::{Described, Effect, Error, ErrorKind, Position, Result};
use unisono_policy::retry;

use crate::runtime::Runtime;

/// Opens the source anew.
pub type Opener = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Source>>> + Send + Sync>;

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A source that is not there yet. From `prepare` on it is tried again and again, in a task of its own.
pub struct Late(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    kind: &'static str,
    capability: Capability,
    opener: Opener,
    runtime: Runtime,
    opened: OnceLock<Arc<dyn Source>>,
    reason: Mutex<Error>,
}

impl Late {
    /// A source that `opener` will open. `reason` says why it is not open now.
    pub fn new(
        name: &Arc<str>,
        kind: &'static str,
        capability: Capability,
        opener: Opener,
        reason: Error,
        runtime: &Runtime,
    ) -> Arc<Self> {
        tracing::warn!(source = %name, error = %reason, "a source cannot be opened; it will be tried again");
        Arc::new(Late(Arc::new(Inner {
            name: Arc::clone(name),
            kind,
            capability,
            opener,
            runtime: runtime.clone(),
            opened: OnceLock::new(),
            reason: Mutex::new(reason),
        })))
    }

    /// A source that is open but could not be prepared.
    pub(crate) fn unprepared(
        source: Arc<dyn Source>,
        reason: Error,
        runtime: &Runtime,
    ) -> Arc<Self> {
        let (name, kind) = (Arc::clone(source.name()), source.kind());
        let capability = source.capability().clone();
        let opener: Opener = Box::new(move || {
            let source = Arc::clone(&source);
            Box::pin(async move { Ok(source) })
        });
        Late::new(&name, kind, capability, opener, reason, runtime)
    }

    fn plays(self: Arc<Self>, roles: &[Role]) -> Option<Arc<Relay<Self>>> {
        let plays = self.0.capability.roles.iter().any(|role| roles.contains(role));
        plays.then(|| Relay::of(self))
    }
}

impl Front for Late {
    fn inner(&self) -> Result<Arc<dyn Source>> {
        self.0.source()
    }
}

impl Inner {
    async fn keep_trying(self: Arc<Self>, bindings: Vec<Binding>) {
        let mut attempt = 0;
        while let Err(error) = self.attempt(&bindings).await {
            *self.reason() = error;
            attempt += 1;
            let pause = retry::backoff(attempt, self.runtime.random());
            self.runtime.sleep(pause.min(PAUSE_MAX)).await;
        }
    }

    async fn attempt(&self, bindings: &[Binding]) -> Result<()> {
        let source = (self.opener)().await?;
        for note in source.prepare(bindings).await.map_err(|e| e.on("prepare").at(&self.name))? {
            tracing::info!(source = %self.name, %note, "prepared");
        }
        tracing::info!(source = %self.name, "the source is open now");
        // There is one task that sets it.
        let _ = self.opened.set(source);
        Ok(())
    }

    fn reason(&self) -> MutexGuard<'_, Error> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self) -> Result<Arc<dyn Source>> {
        if let Some(source) = self.opened.get() {
            return Ok(Arc::clone(source));
        }
        let reason = self.reason();
        let error = Error::new(ErrorKind::Unavailable, "the source is not open yet")
            .at(&self.name)
            .effect(Effect::None)
            .with("reason", &*reason);
        Err(match reason.hint_text() {
            Some(hint) => error.hint(hint.to_owned()),
            None => error,
        })
    }
}

#[async_trait]
impl Source for Late {
    fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    fn kind(&self) -> &'static str {
        self.0.kind
    }

    fn capability(&self) -> &Capability {
        &self.0.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        let note = format!("not ready yet, and tried again meanwhile: {}", *self.0.reason());
        self.0.runtime.spawn(Arc::clone(&self.0).keep_trying(bindings.to_vec()));
        Ok(vec![note])
    }

    async fn describe(&self, place: &str) -> Result<Described> {
        self.inner()?.describe(place).await
    }

    async fn probe(&self) -> Result<Probe> {
        match self.0.opened.get() {
            Some(source) => source.probe().await,
            None => Err(self.0.reason().duplicate()),
        }
    }

    async fn close(&self) -> Result<()> {
        match self.0.opened.get() {
            Some(source) => source.close().await,
            None => Ok(()),
        }
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        self.plays(&[Role::Follower, Role::Truth]).map(|relay| relay as _)
    }

    fn replicas(self: Arc<Self>, at_least: Position) -> Option<Arc<dyn Reader>> {
        Arc::clone(self.0.opened.get()?).replicas(at_least)
    }

    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        self.plays(&[Role::Truth]).map(|relay| relay as _)
    }

    fn vault(self: Arc<Self>) -> Option<Arc<dyn Vault>> {
        self.plays(&[Role::Vault]).map(|relay| relay as _)
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        self.plays(&[Role::Follower]).map(|relay| relay as _)
    }

    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        self.plays(&[Role::Cache]).map(|relay| relay as _)
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        self.plays(&[Role::Follower, Role::Truth]).map(|relay| relay as _)
    }
}
