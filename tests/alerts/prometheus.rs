//! A Prometheus that reads the metrics of one server several times a second, ended when dropped.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::program::{client, free_port};

/// How long a condition may take to be told of, and to be over.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running Prometheus.
pub(crate) struct Prometheus {
    child: Child,
    base: String,
    client: reqwest::Client,
}

/// An alert that fires.
#[derive(Debug)]
pub(crate) struct Alert(Json);

impl Alert {
    /// Whether it has this name and these labels.
    pub(crate) fn is(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        let found = &self.0["labels"];
        found["alertname"] == name && labels.iter().all(|(label, value)| found[*label] == *value)
    }
}

impl Prometheus {
    /// Starts it in a folder, with rules, over a server at a port of this machine.
    pub(crate) fn start(folder: &Path, rules: &str, server: u16) -> Self {
        let folder = folder.join("prometheus");
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("alerts.yml"), rules).expect("the rules are written");
        let configuration = format!(
            "global: {{ scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms }}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs: [{{ job_name: unisono, static_configs: [{{ targets: ['127.0.0.1:{server}'] }}] }}]\n"
        );
        std::fs::write(folder.join("prometheus.yml"), configuration).expect("it is configured");
        let port = free_port();
        let log = std::fs::File::create(folder.join("log")).expect("a log file");
        let child = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts: install the package prometheus");
        Prometheus { child, base: format!("http://127.0.0.1:{port}"), client: client() }
    }

    /// Waits until what fires satisfies a condition.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&[Alert]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.firing().await;
            if found.as_ref().is_some_and(|found| condition(found)) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: what fires is {found:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every rule was evaluated over metrics that were read, and asserts that nothing is wrong.
    pub(crate) async fn is_quiet(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let read = self.ask("/api/v1/query?query=unisono_source_up").await;
            let is_read =
                read.is_some_and(|r| r["result"].as_array().is_some_and(|r| r.len() == 4));
            let rules = self.ask("/api/v1/rules").await.filter(|_| is_read);
            if let Some(rules) = rules.as_ref().and_then(every_rule) {
                let wrong: Vec<_> = rules.iter().filter(|rule| rule["health"] != "ok").collect();
                assert!(wrong.is_empty(), "rules cannot be evaluated: {wrong:?}");
                break;
            }
            assert!(Instant::now() < deadline, "the metrics are not read: {rules:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.until("nothing is wrong", <[Alert]>::is_empty).await;
    }

    async fn firing(&self) -> Option<Vec<Alert>> {
        let found = self.ask("/api/v1/alerts").await?;
        let alerts = found["alerts"].as_array()?.iter();
        Some(alerts.filter(|a| a["state"] == "firing").cloned().map(Alert).collect())
    }

    /// `None` until it answers.
    async fn ask(&self, path: &str) -> Option<Json> {
        let answer = self.client.get(format!("{}{path}", self.base)).send().await.ok()?;
        Some(answer.json::<Json>().await.ok()?["data"].take())
    }
}

/// All rules, once each of them was evaluated.
fn every_rule(answer: &Json) -> Option<Vec<Json>> {
    let groups = answer["groups"].as_array()?;
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
    let rules: Vec<Json> = rules.cloned().collect();
    let is_evaluated = |rule: &Json| rule["health"] != "unknown";
    (!rules.is_empty() && rules.iter().all(is_evaluated)).then_some(rules)
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
