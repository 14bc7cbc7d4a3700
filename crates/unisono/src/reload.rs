//! [`Unisono::reload`]: another configuration in place of the one that was opened, while everything goes on.

use std::sync::Arc;

use futures::future::BoxFuture;
use unisono_config::{Configuration, ServerOptions};
use unisono_core::Result;
use unisono_core::kind::Environment;
use unisono_core::source::Source;
use unisono_policy::declaration::SourceDeclaration;
use unisono_policy::reload::Plan;

use crate::open::{Unisono, kind_of};

impl Unisono {
    /// What [`Unisono::reload`] would do at present: every change, and the key of everything that takes a restart.
    pub async fn plan_reload(&self, wanted: &Configuration) -> Plan {
        let mut declaration = wanted.declaration.clone();
        for added in &*self.handlers.lock().await {
            added.declare(&mut declaration);
        }
        let mut plan = self.engine.plan_reload(&declaration).await;
        self.fix(&mut plan, wanted);
        plan
    }

    /// Has another configuration take effect, all of it or nothing; answers what that changed, such as
    /// `entities.product.read.strategy: cache_first -> parallel` or `+ follower search of product (copies about 92
    /// records)`. Calls that began before end as they began; cache entries keep the life that they were filled with.
    ///
    /// Which sources and followers there are, which of them is the truth of an entity, how entities are read and written, how long caches keep what, and `[log]`
    /// can be changed. Fails with `invalid_config`, which names everything else that differs: fields,
    /// `[server]` and the like take a restart; and as a further source does that cannot be opened. One reload waits for
    /// another.
    pub async fn reload(&self, wanted: Configuration) -> Result<Vec<String>> {
        self.reload_for(None, wanted).await
    }

    /// [`Unisono::reload`] in the name of somebody, for the audit trail.
    pub async fn reload_for(
        &self,
        actor: Option<Arc<str>>,
        mut wanted: Configuration,
    ) -> Result<Vec<String>> {
        let handlers = self.handlers.lock().await;
        handlers.iter().for_each(|added| added.declare(&mut wanted.declaration));
        let mut plan =
            unisono_policy::reload::plan(&self.engine.declaration(), &wanted.declaration);
        self.fix(&mut plan, &wanted);
        plan.outcome()?;
        let clock = self.engine.runtime().clock();
        let environment = Environment { data: self.data.clone(), clock };
        let open = |name: Arc<str>, declared: SourceDeclaration| -> BoxFuture<'_, _> {
            let environment = environment.clone();
            Box::pin(async move {
                let kind = kind_of(&self.registry, &declared)?;
                let opened: Result<Arc<dyn Source>> =
                    kind.open(&name, &declared.options, &environment).await;
                opened
            })
        };
        self.engine.acting_for(actor).reload(wanted.declaration, &open).await
    }

    /// Notes what the engine does not know of.
    fn fix(&self, plan: &mut Plan, wanted: &Configuration) {
        plan.fixed("data", &self.data, &wanted.data);
        server(plan, &self.server, &wanted.server);
    }
}

/// A server takes its options when it begins to listen.
fn server(plan: &mut Plan, running: &ServerOptions, wanted: &ServerOptions) {
    let ServerOptions {
        listen,
        tls,
        tokens,
        body_bytes_max,
        header_bytes_max,
        request_timeout,
        header_timeout,
        connections_max,
        requests_max,
        plain_http,
        routes,
    } = running;
    plan.fixed("server.listen", listen, &wanted.listen);
    plan.fixed("server.tls", tls, &wanted.tls);
    plan.fixed("server.tokens", tokens, &wanted.tokens);
    plan.fixed("server.body_bytes_max", body_bytes_max, &wanted.body_bytes_max);
    plan.fixed("server.header_bytes_max", header_bytes_max, &wanted.header_bytes_max);
    plan.fixed("server.request_timeout", request_timeout, &wanted.request_timeout);
    plan.fixed("server.header_timeout", header_timeout, &wanted.header_timeout);
    plan.fixed("server.connections_max", connections_max, &wanted.connections_max);
    plan.fixed("server.requests_max", requests_max, &wanted.requests_max);
    plan.fixed("server.plain_http", plain_http, &wanted.plain_http);
    plan.fixed("server.routes", routes, &wanted.routes);
}
