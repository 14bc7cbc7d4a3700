#![doc = include_str!("../README.md")]

mod error;
mod outlet;
mod subject;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use unisono_core::Capability;
use unisono_core::Result;
use unisono_core::kind::{Environment, OptionSpec, OptionType, Options, SourceKind};
use unisono_core::outlet::{Manner, OutletSource};
use unisono_core::source::Source;

use outlet::Publisher;
use subject::Template;

/// The kind `nats`.
pub struct Nats;

#[async_trait]
impl SourceKind for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn summary(&self) -> &'static str {
        "A NATS server with JetStream, to which every change or event is published as a CloudEvent, until a stream has it."
    }

    fn options(&self) -> &'static [OptionSpec] {
        const OPTIONS: &[OptionSpec] = &[
            OptionSpec {
                name: "url",
                ty: OptionType::String,
                default: None,
                optional: false,
                doc: "`tls://HOST:4222`; several servers of a cluster with commas between them. `nats://` only for one on this machine.",
            },
            OptionSpec {
                name: "user",
                ty: OptionType::String,
                default: None,
                optional: true,
                doc: "The user to connect as.",
            },
            OptionSpec {
                name: "password",
                ty: OptionType::Secret,
                default: None,
                optional: true,
                doc: "The password of the user.",
            },
            OptionSpec {
                name: "subject",
                ty: OptionType::String,
                default: Some("unisono.{from}.{type}"),
                optional: false,
                doc: "The subject of a message, with {from} (entity or type of streams), {type} (of the event; put, delete) and {subject} (stream or key); what no subject may hold is written as % and two hexadecimal digits.",
            },
            OptionSpec {
                name: "stream",
                ty: OptionType::String,
                default: None,
                optional: true,
                doc: "The JetStream stream that must take the messages; whichever does if not given.",
            },
            OptionSpec {
                name: "tls_ca",
                ty: OptionType::Path,
                default: None,
                optional: true,
                doc: "PEM file with the authority that signed the server's certificate, if that is not one of the system's.",
            },
            OptionSpec {
                name: "timeout",
                ty: OptionType::Duration,
                default: Some("5s"),
                optional: false,
                doc: "How long the server may take to say that a stream has a message.",
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
        if let Some(Err(reason)) = options.text("subject").map(Template::parse) {
            problems.push(("subject", reason.to_owned()));
        }
        if let Some(Err(reason)) = options.text("url").map(outlet::servers) {
            problems.push(("url", reason.to_owned()));
        }
        problems
    }

    async fn open(
        &self,
        name: &str,
        options: &Options,
        _: &Environment,
    ) -> Result<Arc<dyn Source>> {
        let publisher = Publisher::new(name, options).await?;
        Ok(OutletSource::over(name, self.name(), Arc::new(publisher), Manner::of(options)))
    }
}

/// How long the server may take, by the options.
fn timeout(options: &Options) -> Duration {
    options.duration("timeout").unwrap_or(Duration::from_secs(5))
}
