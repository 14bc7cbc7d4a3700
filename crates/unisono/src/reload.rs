//! [`Unisono::reload`]: another configuration in place of the one that was opened, while everything goes on.

use unisono_config::{Configuration, ServerOptions};
use unisono_core::Result;
use unisono_policy::reload::Plan;

use crate::open::Unisono;

impl Unisono {
    /// What [`Unisono::reload`] would do at present: every change, and the key of everything that takes a restart.
    pub fn plan_reload(&self, wanted: &Configuration) -> Plan {
        let mut plan = self.engine.plan_reload(&wanted.declaration);
        plan.fixed("data", &self.data, &wanted.data);
        server(&mut plan, &self.server, &wanted.server);
        plan
    }

    /// Has another configuration take effect, all of it or nothing; answers what that changed, such as
    /// `entities.product.read.strategy: cache_first -> parallel`. Calls that began before end as they began; cache
    /// entries keep the life that they were filled with.
    ///
    /// How entities are read and written, how long caches keep what, and `[log]` can be changed. Fails with
    /// `invalid_config`, which names everything else that differs: fields, sources, followers, `[server]` and the like
    /// take a restart. One reload waits for another.
    pub fn reload(&self, wanted: Configuration) -> Result<Vec<String>> {
        self.plan_reload(&wanted).outcome()?;
        self.engine.reload(wanted.declaration)
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
