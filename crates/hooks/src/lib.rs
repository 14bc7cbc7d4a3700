//! Hooks: signed HTTP requests that tell other programs of divergences and dead letters, as Standard Webhooks has it
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).
//!
//! A message is sent until it is answered with 2xx, for as long as `retry_for` says, so it arrives at least once while
//! the process lives; its `webhook-id` tells repetitions. Messages that wait end with the process. Dead letters outlive
//! it: those that still wait at the start are told again, under the ids that they had. Divergences are not: the next
//! comparison finds them.

mod sign;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, describe_counter};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use unisono_core::{Error, ErrorKind, Result};
use unisono_engine::notice::Notice;
use unisono_engine::{Engine, Runtime};
use unisono_policy::hook::{HookDeclaration, Occasion, pause};

pub use sign::signature;
pub use webhook::Webhook;

/// Messages of one hook that may wait to be sent for the first time; further ones are dropped and counted.
const ROOM: usize = 1024;
/// Messages of one hook that are being sent, or wait to be sent again.
const SENDING_MAX: usize = 64;
/// The pause before another attempt to learn which dead letters wait.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Starts telling, for as long as the engine runs.
///
/// `invalid_config` for a URL to which nothing can be sent.
pub fn start(engine: &Engine, hooks: &BTreeMap<Arc<str>, HookDeclaration>) -> Result<()> {
    for (name, declared) in hooks {
        let hook = Arc::new(Hook::new(name, declared, engine.runtime())?);
        let wanted = declared.clone();
        let wants = move |notice: &Notice| wanted.wants(notice.occasion, &notice.entity);
        let notices = engine.listen(Box::new(wants), ROOM);
        engine.runtime().spawn(hook.run(engine.clone(), notices));
    }
    Ok(())
}

/// One receiver.
struct Hook {
    name: Arc<str>,
    declared: HookDeclaration,
    client: reqwest::Client,
    runtime: Runtime,
    sending: Arc<Semaphore>,
}

impl Hook {
    fn new(name: &Arc<str>, declared: &HookDeclaration, runtime: &Runtime) -> Result<Self> {
        describe();
        let unusable = |e: reqwest::Error| {
            // The error's own text would show the URL.
            let e = e.without_url();
            Error::new(ErrorKind::InvalidConfig, "nothing can be sent to the hook")
                .with("hook", name)
                .hint("give hooks.NAME.url as https://host/path")
                .caused_by(e)
        };
        let client = client(declared.timeout)?;
        client.post(&*declared.url).build().map_err(unusable)?;
        Ok(Hook {
            name: Arc::clone(name),
            declared: declared.clone(),
            client,
            runtime: runtime.clone(),
            sending: Arc::new(Semaphore::new(SENDING_MAX)),
        })
    }

    async fn run(self: Arc<Self>, engine: Engine, mut notices: mpsc::Receiver<Notice>) {
        if self.declared.on.contains(&Occasion::DeadLetter) {
            for notice in self.left_over(&engine).await {
                self.send_beside(notice).await;
            }
        }
        // The queue was there before the look, so nothing was missed in between; what is in both has one id.
        drop(engine);
        while let Some(notice) = notices.recv().await {
            self.send_beside(notice).await;
        }
    }

    /// Dead letters that wait: nobody knows whether they were told before the process started.
    async fn left_over(&self, engine: &Engine) -> Vec<Notice> {
        loop {
            match engine.dead_letters().await {
                Ok(letters) => {
                    let notices = letters.iter().map(Notice::of_dead_letter);
                    return notices
                        .filter(|n| self.declared.wants(n.occasion, &n.entity))
                        .collect();
                }
                Err(error) => {
                    tracing::warn!(%error, hook = %self.name, "it is not known which dead letters wait");
                    self.runtime.sleep(LOOK_PAUSE).await;
                }
            }
        }
    }

    /// Sends a message while others are sent, when there is room.
    async fn send_beside(self: &Arc<Self>, notice: Notice) {
        // It is never closed.
        let Ok(permit) = Arc::clone(&self.sending).acquire_owned().await else { return };
        let hook = Arc::clone(self);
        self.runtime.spawn(async move {
            hook.send(&notice).await;
            drop(permit);
        });
    }

    /// Sends a message until it is taken, or has been tried for long enough.
    async fn send(&self, notice: &Notice) {
        let watch = self.runtime.stopwatch();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Err(reason) = self.post(notice).await else {
                counter!("unisono_hook_sent_total", "hook" => self.name.to_string()).increment(1);
                return;
            };
            counter!("unisono_hook_failures_total", "hook" => self.name.to_string()).increment(1);
            let pause = pause(attempt, self.runtime.random());
            if watch.elapsed() + pause > self.declared.retry_for {
                counter!("unisono_hook_given_up_total", "hook" => self.name.to_string())
                    .increment(1);
                tracing::error!(hook = %self.name, id = %notice.id, occasion = notice.occasion.as_str(), attempt, reason,
                    "a message was not taken and is given up");
                return;
            }
            tracing::warn!(hook = %self.name, id = %notice.id, attempt, reason,
                "a message was not taken; it will be sent again");
            self.runtime.sleep(pause).await;
        }
    }

    /// One attempt, signed as of now.
    async fn post(&self, notice: &Notice) -> std::result::Result<(), String> {
        let body = json!({
            "type": notice.occasion.as_str(), "timestamp": notice.time, "data": notice.data,
        })
        .to_string();
        let now = self.runtime.now().micros() / 1_000_000;
        let signature = signature(&self.declared.secret, &notice.id, now, &body);
        let request = self
            .client
            .post(&*self.declared.url)
            .header(CONTENT_TYPE, JSON)
            .header("webhook-id", &*notice.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature)
            .body(body);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it was answered with {}", answer.status())),
            Err(error) => Err(error.without_url().to_string()),
        }
    }
}

/// What requests are sent with: each is answered within a time, or has failed.
fn client(timeout: Duration) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .timeout(timeout)
        // What is signed for one receiver is not for another.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tls_backend_preconfigured(tls()?)
        .build()
        .map_err(|e| Error::internal("requests cannot be sent").caused_by(e.without_url()))
}

/// Trusts the authorities of the system, with a provider of its own and not the process's.
fn tls() -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("TLS cannot be set up").caused_by(e))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn describe() {
    describe_counter!("unisono_hook_sent_total", "Messages that the receiver took.");
    describe_counter!("unisono_hook_failures_total", "Attempts to send a message that failed.");
    describe_counter!(
        "unisono_hook_given_up_total",
        "Messages that the receiver did not take for as long as they were sent again."
    );
}
