//! What an operator sees while something is broken: status, readiness, metrics and memory, looked at again and again.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::Value as Json;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use unisono_engine::Engine;
use unisono_engine::status::{DeliveryState, Status};
use unisono_server::{App, Options, Server};

use crate::report::late;
use crate::scenario::Role;
use crate::workload::Ledger;

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(200);
/// How long a look may take, whatever is broken.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// One look.
pub(crate) struct Look {
    pub(crate) at: Instant,
    /// The newest acknowledged version before the look.
    pub(crate) acknowledged: u64,
    pub(crate) status: Status,
    /// How long status took to answer.
    pub(crate) took: Duration,
    /// The answer of `/health/ready`.
    pub(crate) ready: (u16, String),
    /// `unisono_delivery_live` of each follower that is not.
    pub(crate) metrics: String,
    /// Memory of this process, in MiB.
    pub(crate) resident: u64,
}

impl Look {
    /// What the source over the site or its delivery says is wrong with it.
    pub(crate) fn trouble(&self, far_as: Role) -> Option<String> {
        let source = far_as.name();
        let state = self.status.sources.iter().find(|s| &*s.name == source && s.state != "up");
        let delivery = self.status.deliveries.iter().find(|d| &*d.source == source);
        let failing = delivery.filter(|d| d.state == DeliveryState::Waiting);
        failing.and_then(|d| d.last_error.clone()).or_else(|| state.map(|s| s.state.clone()))
    }

    /// Whether status and readiness name the source, and metrics say that its delivery stands still.
    pub(crate) fn tells_of(&self, far_as: Role) -> bool {
        let name = far_as.name();
        let named = self.trouble(far_as).is_some_and(|told| told.contains(&format!(" on {name}")));
        let of_truth = far_as == Role::Truth;
        let (code, reasons) = &self.ready;
        let state = match code {
            200 if !of_truth => "\"degraded\"",
            503 if !of_truth => "to far makes no progress",
            503 => "\"not_ready\"",
            _ => return false,
        };
        let ready = reasons.contains(state) && reasons.contains(name);
        named && ready && (of_truth || self.metrics.contains(&format!("source=\"{name}\"")))
    }

    /// The position of a follower.
    pub(crate) fn position(&self, source: &str) -> u64 {
        let delivery = self.status.deliveries.iter().find(|d| &*d.source == source);
        delivery.map_or(0, |d| d.position.as_u64())
    }

    /// Whether nothing is left to do, and nothing is wrong.
    pub(crate) fn is_settled(&self) -> bool {
        self.ready.0 == 200
            && self.ready.1.contains("\"ready\"")
            && self.status.sources.iter().all(|s| s.state == "up")
            && self.status.deliveries.iter().all(|d| {
                d.state == DeliveryState::Live && d.lag_changes == 0 && d.dead_letters == 0
            })
    }
}

/// Looks until it is told to stop.
pub(crate) struct Observer {
    task: JoinHandle<Result<Vec<Look>, String>>,
    stop: watch::Sender<bool>,
    shutdown: oneshot::Sender<()>,
    window: Window,
}

/// An HTTP interface of an engine, to look through.
#[derive(Clone)]
pub(crate) struct Window {
    engine: Engine,
    ledger: Arc<Ledger>,
    client: reqwest::Client,
    base: String,
}

impl Observer {
    pub(crate) async fn start(engine: &Engine, ledger: &Arc<Ledger>) -> Result<Self, String> {
        let app = App {
            engine: engine.clone(),
            name: "faults".into(),
            version: "0".into(),
            metrics: Some(recorder().clone()),
            reload: None,
        };
        let options = Options { listen: ([127, 0, 0, 1], 0).into(), ..Options::default() };
        let server = Server::bind(options, app).await.map_err(|e| e.to_string())?;
        let base = format!("http://{}", server.address());
        let (shutdown, ended) = oneshot::channel();
        tokio::spawn(server.run(async move {
            let _ = ended.await;
        }));
        let client = reqwest::Client::builder().timeout(LOOK_MAX * 2).build();
        let client = client.map_err(|e| e.to_string())?;
        let window = Window { engine: engine.clone(), ledger: Arc::clone(ledger), client, base };
        let (stop, stopped) = watch::channel(false);
        let looking = window.clone();
        let task = tokio::spawn(async move {
            let mut looks = Vec::new();
            while !*stopped.borrow() {
                looks.push(looking.look().await?);
                tokio::time::sleep(EVERY).await;
            }
            Ok(looks)
        });
        Ok(Observer { task, stop, shutdown, window })
    }

    /// Waits until nothing is left to do; fails with what is.
    pub(crate) async fn settled(&self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            let look = self.window.look().await?;
            if look.is_settled() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let Status { sources, deliveries, .. } = &look.status;
                return Err(late(format_args!(
                    "not settled after {within:?}: {:?}\n{sources:#?}\n{deliveries:#?}",
                    look.ready
                )));
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Waits until a condition of a look holds.
    pub(crate) async fn until(
        &self,
        within: Duration,
        what: &str,
        holds: impl Fn(&Look) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + within;
        loop {
            let look = self.window.look().await?;
            if holds(&look) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let Look { ready, metrics, status, .. } = &look;
                return Err(late(format_args!(
                    "not in {within:?}: {what}: {ready:?}\n{metrics}\n{status:#?}"
                )));
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Every look so far.
    pub(crate) async fn stop(self) -> Result<Vec<Look>, String> {
        self.stop.send_replace(true);
        let looks = self.task.await.map_err(|e| format!("the observer panicked: {e}"))?;
        // The server may have ended by itself.
        let _ = self.shutdown.send(());
        looks
    }
}

impl Window {
    async fn look(&self) -> Result<Look, String> {
        let acknowledged = self.ledger.newest();
        let at = Instant::now();
        let status = tokio::time::timeout(LOOK_MAX, self.engine.status()).await;
        let status =
            status.map_err(|_| late(format_args!("status took longer than {LOOK_MAX:?}")))?;
        let took = at.elapsed();
        let (code, body) = self.get("/health/ready").await?;
        let reasons: Json = serde_json::from_str(&body).map_err(|e| e.to_string())?;
        let (_, metrics) = self.get("/metrics").await?;
        let idle = |line: &&str| line.starts_with("unisono_delivery_live{") && line.ends_with(" 0");
        let metrics: Vec<&str> = metrics.lines().filter(idle).collect();
        let ready = (code, reasons.to_string());
        let (metrics, resident) = (metrics.join("\n"), resident());
        Ok(Look { at, acknowledged, status, took, ready, metrics, resident })
    }

    async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let failed = |e: reqwest::Error| late(format_args!("{path} does not answer: {e:?}"));
        let answer =
            self.client.get(format!("{}{path}", self.base)).send().await.map_err(failed)?;
        let code = answer.status().as_u16();
        Ok((code, answer.text().await.map_err(failed)?))
    }
}

/// Memory of this process, in MiB, without that of files mapped into it.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Vec<u64> = text.split(' ').filter_map(|n| n.parse().ok()).collect();
    let (all, of_files) = (pages.get(1).unwrap_or(&0), pages.get(2).unwrap_or(&0));
    all.saturating_sub(*of_files) * 4096 / (1 << 20)
}

fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        // Fails only if there is one, and this is where the only one is made.
        PrometheusBuilder::new()
            .install_recorder()
            .unwrap_or_else(|_| PrometheusBuilder::new().build_recorder().handle())
    })
}
