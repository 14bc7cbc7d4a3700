//! Real engines side by side with the best loop that a user would write with the engine's own client.
//!
//! Needs the engines that it measures: `engines/up NAME…`. What is held equal: the same records and fields, the same
//! server, TLS on both sides, durability as the server is configured. The loops by hand keep no versions, no
//! checkpoint and no deletions, so they cannot be repeated safely; that is what the ratio pays for.

mod carry;
mod commits;
mod events;
pub(crate) mod load;
mod mongodb;
mod mysql;
mod opensearch;
pub(crate) mod postgres;
mod redis;
mod slowed;
mod strategies;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use unisono::config::{Process, parse};
use unisono::engine::status::DeliveryState;
use unisono::{Registry, Unisono};

use crate::report::Report;
use crate::{Plan, Result};

/// Measures the wanted parts; without a running engine they fail and say which is missing.
pub(crate) async fn run(
    plan: &Plan,
    wanted: &dyn Fn(&str) -> bool,
    report: &mut Report,
) -> Result<()> {
    if wanted("load") {
        load::run(plan, report).await?;
    }
    if wanted("latency") {
        carry::latency(report).await?;
    }
    if wanted("carry") {
        carry::run(plan, report).await?;
    }
    if wanted("commits") {
        commits::run(plan, report).await?;
    }
    if wanted("events") {
        events::run(plan, report).await?;
    }
    if wanted("memory") {
        carry::memory(plan, report).await?;
    }
    if wanted("strategies") {
        strategies::run(plan, report).await?;
        slowed::run(plan, report).await?;
    }
    Ok(())
}

/// How a running engine is reached: what its start script has written, with a namespace of this run.
pub(crate) struct Engine {
    options: BTreeMap<String, toml::Value>,
}

impl Engine {
    pub(crate) fn new(name: &str) -> Result<Self> {
        Engine::told_by(name, "source.toml")
    }

    /// Redis by way of its sentinels.
    pub(crate) fn sentinel() -> Result<Self> {
        Engine::told_by("redis", "source-sentinel.toml")
    }

    fn told_by(name: &str, file: &str) -> Result<Self> {
        let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
        let file = PathBuf::from(base).join(name).join(file);
        let text = std::fs::read_to_string(&file)
            .map_err(|e| format!("{}: {e}; start it: engines/up {name}", file.display()))?;
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        let namespace = format!("t{}_{}", std::process::id(), nanos % 1_000_000);
        Ok(Engine { options: toml::from_str(&text.replace("{namespace}", &namespace))? })
    }

    /// A text option, empty if there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.options.get(name).and_then(|v| v.as_str()).unwrap_or_default()
    }

    /// The lines of a `[sources.…]` section.
    fn section(&self, source: &str, kind: &str) -> String {
        let lines: String = self.options.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
        format!("[sources.{source}]\nkind = \"{kind}\"\n{lines}")
    }

    /// TLS that trusts the engine's authority.
    pub(crate) fn tls(&self) -> Result<ClientConfig> {
        trusting(self.text("tls_ca"))
    }

    /// The first replica that the engine has, or another of them.
    pub(crate) fn replica(&self, n: usize) -> Result<&str> {
        let urls = self.options.get("replicas").and_then(|v| v.as_array());
        let url = urls.and_then(|urls| urls.get(n)).and_then(|url| url.as_str());
        url.ok_or_else(|| "the engine has no such replica".into())
    }
}

/// TLS that trusts the authority in a PEM file.
pub(crate) fn trusting(authority: &str) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority)? {
        roots.add(certificate?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The product entity of the real data.
const PRODUCT: &str = r#"
[entities.product]
key = "id"
truth = "main"
[entities.product.fields]
id = "string"
department = { type = "string", search = true }
category = { type = "string", search = true }
type = { type = "string", search = true }
brand = "string"
manufacturer = "string"
package_size = "string"
price = "decimal(12,2)"
"#;

/// A truth in a SQLite file.
pub(crate) fn sqlite_truth() -> String {
    "[sources.main]\nkind = \"sqlite\"\npath = \"main.db\"\n".into()
}

/// A configuration over a truth with followers: name, kind, engine.
pub(crate) fn configuration(truth: &str, followers: &[(&str, &str, &Engine)]) -> String {
    let mut text = truth.to_owned();
    for (name, kind, engine) in followers {
        text += &engine.section(name, kind);
    }
    text += PRODUCT;
    for (name, ..) in followers {
        text += &format!("[[entities.product.followers]]\nsource = \"{name}\"\n");
    }
    text
}

/// Opens a configuration with its embedded data in a folder.
pub(crate) async fn open(text: &str, data: &Path) -> Result<Unisono> {
    let registry = Registry::builtin();
    let mut configuration =
        parse(text, "bench.toml", &registry, &Process).map_err(|p| p.to_string())?;
    configuration.data = data.to_owned();
    Ok(Unisono::open(configuration).await?)
}

/// Waits until every follower has everything; answers how long that took.
pub(crate) async fn caught_up(ours: &Unisono, deadline: Duration) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let status = ours.engine().status().await;
        let done = |d: &unisono::engine::status::DeliveryStatus| {
            d.state == DeliveryState::Live && d.lag_changes == 0
        };
        if status.deliveries.iter().all(done) {
            return Ok(began.elapsed());
        }
        if began.elapsed() > deadline {
            return Err(format!("not caught up: {:?}", status.deliveries).into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
