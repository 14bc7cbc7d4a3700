//! The outlet `webhook`: every message as a CloudEvent, in a request that is signed as Standard Webhooks has it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use unisono_core::clock::Clock;
use unisono_core::kind::{Environment, OptionSpec, OptionType, Options, SourceKind};
use unisono_core::outlet::{Manner, Message, Outlet, OutletSource};
use unisono_core::source::Source;
use unisono_core::{Capability, Error, ErrorKind, Result, Retry};
use unisono_policy::hook::{Secret, is_private};

use crate::{client, signature};

const CLOUD_EVENT: HeaderValue = HeaderValue::from_static("application/cloudevents+json");

/// The kind `webhook`.
pub struct Webhook;

#[async_trait]
impl SourceKind for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn summary(&self) -> &'static str {
        "A URL to which every change or event is posted as a CloudEvent, signed as Standard Webhooks has it, until it is answered with 2xx."
    }

    fn options(&self) -> &'static [OptionSpec] {
        const OPTIONS: &[OptionSpec] = &[
            OptionSpec {
                name: "url",
                ty: OptionType::Secret,
                default: None,
                optional: false,
                doc: "Where messages are posted; https:// unless it is on this machine.",
            },
            OptionSpec {
                name: "secret",
                ty: OptionType::Secret,
                default: None,
                optional: false,
                doc: "What they are signed with: `whsec_` and 24 to 64 bytes in Base64.",
            },
            OptionSpec {
                name: "timeout",
                ty: OptionType::Duration,
                default: Some("10s"),
                optional: false,
                doc: "How long the receiver may take to answer.",
            },
            Manner::BEGIN,
            Manner::LANES,
            Manner::ATTEMPTS,
        ];
        OPTIONS
    }

    fn capability(&self) -> Capability {
        OutletSource::capability()
    }

    fn check(&self, options: &Options) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if options.text("url").is_some_and(|url| !is_private(url)) {
            let message = "begins with https://; http:// is for a receiver on this machine";
            problems.push(("url", message.to_owned()));
        }
        if options.text("secret").is_some_and(|secret| Secret::parse(secret).is_none()) {
            let message = "is not a secret for signatures: `whsec_` and 24 to 64 bytes in Base64, such as echo \"whsec_$(openssl rand -base64 32)\" makes";
            problems.push(("secret", message.to_owned()));
        }
        problems
    }

    async fn open(
        &self,
        name: &str,
        options: &Options,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        let bad = |field: &'static str| {
            Error::new(ErrorKind::InvalidConfig, "nothing can be sent to the webhook")
                .at(name)
                .with("field", field)
        };
        let secret = options.text("secret").and_then(Secret::parse);
        let timeout = options.duration("timeout").unwrap_or(Duration::from_secs(10));
        let receiver = Receiver {
            url: options.text("url").ok_or_else(|| bad("url"))?.into(),
            secret: secret.ok_or_else(|| bad("secret"))?,
            client: client(timeout)?,
            clock: Arc::clone(&environment.clock),
        };
        // Its own text would show the URL.
        let made = receiver.client.post(&*receiver.url).build();
        made.map_err(|e| bad("url").caused_by(e.without_url()))?;
        Ok(OutletSource::over(name, self.name(), Arc::new(receiver), Manner::of(options)))
    }
}

/// Who is posted to.
struct Receiver {
    url: Arc<str>,
    secret: Secret,
    client: reqwest::Client,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Outlet for Receiver {
    async fn send(&self, message: &Message) -> Result<()> {
        let body = message.to_cloud().to_string();
        let id = message.id();
        let header = HeaderValue::from_str(&id).map_err(|e| {
            Error::invalid("the id of the event cannot stand in a header")
                .with("id", &id)
                .caused_by(e)
        })?;
        let now = self.clock.now().micros() / 1_000_000;
        let request = self
            .client
            .post(&*self.url)
            .header(CONTENT_TYPE, CLOUD_EVENT)
            .header("webhook-id", header.clone())
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature(&self.secret, &id, now, &body))
            .header("idempotency-key", header)
            .body(body);
        match request.send().await {
            Ok(answer) => judge(answer.status(), answer.headers()),
            Err(error) => Err(Error::new(ErrorKind::Unavailable, "the receiver cannot be reached")
                .caused_by(error.without_url())),
        }
    }
}

/// Whether the receiver has the message, is not there, or refuses it.
fn judge(status: StatusCode, headers: &HeaderMap) -> Result<()> {
    use StatusCode as S;
    if status.is_success() {
        return Ok(());
    }
    let kind = match status {
        S::TOO_MANY_REQUESTS => ErrorKind::RateLimited,
        S::REQUEST_TIMEOUT | S::TOO_EARLY | S::BAD_GATEWAY => ErrorKind::Unavailable,
        S::SERVICE_UNAVAILABLE | S::GATEWAY_TIMEOUT => ErrorKind::Unavailable,
        // It looked at the message.
        _ => ErrorKind::InvalidInput,
    };
    let error = Error::new(kind, "the receiver did not take the message").with("status", status);
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Err(match seconds {
        Some(seconds) => error.retry(Retry::After(Duration::from_secs(seconds))),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use unisono_core::outlet::is_away;

    use super::*;

    #[test]
    fn a_receiver_that_is_not_there_is_told_from_one_that_refuses() {
        let judged = |status: u16| judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        assert!(judged(200).is_ok() && judged(202).is_ok());
        for status in [408, 425, 429, 502, 503, 504] {
            assert!(is_away(&judged(status).unwrap_err()), "{status}");
        }
        for status in [301, 400, 404, 410, 422, 500] {
            assert!(!is_away(&judged(status).unwrap_err()), "{status}");
        }
    }

    #[test]
    fn the_pause_that_a_receiver_asks_for_is_taken() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("7"))]);
        let error = judge(StatusCode::SERVICE_UNAVAILABLE, &headers).unwrap_err();
        assert_eq!(error.retry_override(), Some(Retry::After(Duration::from_secs(7))));
    }

    #[test]
    fn what_could_be_overheard_or_forged_is_not_declared() {
        let options = |url: &str, secret: &str| {
            let text = |text: &str| unisono_core::kind::OptionValue::Text(text.to_owned());
            Options([("url".into(), text(url)), ("secret".into(), text(secret))].into())
        };
        let good = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        assert!(Webhook.check(&options("https://example.org/x", good)).is_empty());
        assert!(Webhook.check(&options("http://127.0.0.1:9/x", good)).is_empty());
        assert_eq!(Webhook.check(&options("http://example.org/x", "whsec_short")).len(), 2);
    }
}
