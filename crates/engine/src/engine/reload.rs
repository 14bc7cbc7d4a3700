//! [`Engine`]: another declaration in place of the one that it was opened with, while everything goes on.

use std::sync::{Arc, PoisonError};

use serde_json::json;
use unisono_core::Result;
use unisono_policy::declaration::Declaration;
use unisono_policy::reload::{self, Plan};

use crate::engine::Engine;
use crate::policies::Policies;

impl Engine {
    /// What [`Engine::reload`] would do at present.
    pub fn plan_reload(&self, wanted: &Declaration) -> Plan {
        reload::plan(&self.declaration(), wanted)
    }

    /// Has another declaration take effect, all of it or nothing; answers what that changed. Calls that began before
    /// end as they began; cache entries keep the life that they were filled with.
    ///
    /// Fails with `invalid_config`, which names everything that takes a restart. One reload waits for another.
    pub fn reload(&self, wanted: Declaration) -> Result<Vec<String>> {
        let _reloading = self.0.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = self.plan_reload(&wanted).outcome()?;
        let policies = Arc::new(Policies::new(wanted, Some(&self.0.present.load())));
        self.0.present.store(Arc::clone(&policies));
        for serving in self.0.running.entities.values() {
            let policies = policies.of(&serving.policies);
            let now = self.0.runtime.now();
            serving.policies.adaptive.declared(policies.adaptive.is_some(), now);
            let cache = policies.cache.as_ref();
            if let Some((feed, declared)) = serving.cache.as_ref().zip(cache) {
                feed.resize(declared.misses_max);
            }
            if let Some(behind) = &serving.behind {
                behind.reloaded();
            }
        }
        if !changes.is_empty() {
            self.audit("reload", None, None, json!({ "changes": changes }));
        }
        Ok(changes)
    }
}
