//! [`Publisher`]: the connection, and messages that a stream has taken.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, HeaderMap, ServerAddr};
use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use unisono_core::kind::Options;
use unisono_core::outlet::{Message, Outlet};
use unisono_core::source::Probe;
use unisono_core::{Error, ErrorKind, Result};

use crate::error;
use crate::subject::Template;

/// The longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// Publishes messages.
pub(crate) struct Publisher {
    client: Client,
    jetstream: Context,
    subject: Template,
    stream: Option<Arc<str>>,
    timeout: Duration,
}

/// The servers that a URL names; else what is wrong with it.
pub(crate) fn servers(url: &str) -> std::result::Result<Vec<ServerAddr>, &'static str> {
    let server = |part: &str| {
        let is_here = ["127.0.0.1", "localhost", "[::1]"].iter().any(|host| {
            let rest = part.strip_prefix("nats://").and_then(|rest| rest.strip_prefix(host));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        });
        if !part.starts_with("tls://") && !is_here {
            return Err("begins with tls://; nats:// is for a server on this machine");
        }
        let server = part.parse::<ServerAddr>().map_err(|_| "is not a URL of NATS servers")?;
        match server.has_user_pass() || server.host().is_empty() {
            true => Err("names a user, or no host: `user` and `password` are options of their own"),
            false => Ok(server),
        }
    };
    url.split(',').map(|part| server(part.trim())).collect()
}

impl Publisher {
    /// Begins to connect, and goes on until it is connected: nothing is asked of the server for that.
    pub(crate) async fn new(name: &str, options: &Options) -> Result<Self> {
        let bad = |field: &'static str| {
            Error::new(ErrorKind::InvalidConfig, "NATS cannot be used as it is declared")
                .at(name)
                .with("field", field)
        };
        let url = options.text("url").ok_or_else(|| bad("url"))?;
        let servers = servers(url).map_err(|reason| bad("url").hint(reason))?;
        let subject = options.text("subject").unwrap_or("unisono.{from}.{type}");
        let subject = Template::parse(subject).map_err(|reason| bad("subject").hint(reason))?;
        let timeout = crate::timeout(options);
        let mut connecting = ConnectOptions::new()
            .name("unisono")
            .retry_on_initial_connect()
            .connection_timeout(timeout)
            .request_timeout(Some(timeout))
            .reconnect_delay_callback(|attempt| {
                let pause = Duration::from_millis(50) * (1 << attempt.min(6) as u32);
                pause.min(RECONNECT_MAX)
            });
        if let (Some(user), Some(password)) = (options.text("user"), options.text("password")) {
            connecting = connecting.user_and_password(user.to_owned(), password.to_owned());
        }
        let tls = tls(options.text("tls_ca")).map_err(|e| bad("tls_ca").caused_by(e))?;
        connecting = connecting.tls_client_config(tls);
        let client = connecting.connect(servers).await.map_err(|e| bad("tls_ca").caused_by(e))?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(timeout);
        let stream = options.text("stream").map(Into::into);
        Ok(Publisher { client, jetstream, subject, stream, timeout })
    }

    fn is_connected(&self) -> Result<()> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => {
                Err(Error::new(ErrorKind::Unavailable, "the server cannot be reached"))
            }
        }
    }
}

#[async_trait]
impl Outlet for Publisher {
    async fn send(&self, message: &Message) -> Result<()> {
        // The client would keep it until it is connected, and send it behind what comes later.
        self.is_connected()?;
        let id = message.id();
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, header(&id)?);
        headers.insert("Content-Type", "application/cloudevents+json");
        if let Some(stream) = &self.stream {
            headers.insert(async_nats::header::NATS_EXPECTED_STREAM, &**stream);
        }
        let body = message.to_cloud().to_string();
        let publishing = async {
            let subject = self.subject.of(message);
            let sent = self.jetstream.publish_with_headers(subject, headers, body.into()).await;
            sent.map_err(error::publish)?.await.map_err(error::publish)
        };
        publishing.await.map(drop).map_err(|e| e.with("timeout", format!("{:?}", self.timeout)))
    }

    async fn probe(&self) -> Result<Probe> {
        self.is_connected()?;
        let engine = format!("NATS {}", self.client.server_info().version);
        Ok(Probe { bytes: None, engine })
    }

    async fn close(&self) {
        // What was acknowledged is there; the rest is sent again.
        let _ = self.client.flush().await;
    }
}

/// Trusts an authority, or those of the system, with a provider of its own and not the process's.
fn tls(
    authority: Option<&str>,
) -> std::result::Result<rustls::ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = rustls::RootCertStore::empty();
    match authority {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path)? {
                roots.add(certificate?)?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The id as a header, which holds no ends of lines.
fn header(id: &str) -> Result<&str> {
    match id.contains(['\r', '\n']) {
        false => Ok(id),
        true => Err(Error::invalid("the id of the event cannot stand in a header").with("id", id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_crosses_no_network_in_clear() {
        assert_eq!(servers("tls://h:4222,tls://c:4222").unwrap().len(), 2);
        assert!(servers("nats://127.0.0.1:4222").is_ok() && servers("nats://localhost").is_ok());
        for bad in ["nats://example.org:4222", "nats://localhost.org", "example.org", "tls://a:b@h"]
        {
            assert!(servers(bad).is_err(), "{bad}");
        }
    }
}
