//! [`Server`]: the socket, the accept loop, and an orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use unisono::config::TlsOptions;
use unisono::core::{Error, ErrorKind, Result};

use crate::app::{App, Phase, Shared};
use crate::connection;
use crate::options::Options;

/// The pause after a failed accept, such as when the process has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a connection above the limit gets instead of service.
const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n\
    content-type: application/problem+json\r\ncontent-length: 175\r\n\r\n\
    {\"type\":\"/errors/overloaded\",\"title\":\"A bound of this process was reached.\",\"status\":503,\
    \"detail\":\"too many connections\",\"code\":\"overloaded\",\"retryable\":true,\"committed\":\"no\"}";

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
}

impl Server {
    /// Takes the address, reads the certificate, prepares the documentation. Nothing is answered before [`run`].
    ///
    /// Fails with `invalid_config` for a public address without tokens or files that are no certificate and key,
    /// with `unavailable` if the address cannot be taken.
    ///
    /// [`run`]: Server::run
    pub async fn bind(options: Options, app: App) -> Result<Server> {
        options.check()?;
        let tls = options.tls.as_ref().map(acceptor).transpose()?;
        let failed = |e: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "the address cannot be listened on")
                .on("listen")
                .with("address", options.listen)
                .hint("stop the program that uses the port, or choose another with --listen")
                .caused_by(e)
        };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (sender, receiver) = watch::channel(Phase::Serving);
        let shared = Arc::new(Shared::new(&options, app, receiver));
        Ok(Server { listener, address, tls, shared, phase: sender })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `shutdown` ends; then takes nothing further, ends event streams, lets running requests finish
    /// within the limit, and returns.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let limits = &self.shared.limits;
        let connections_max = limits.connections.min(Semaphore::MAX_PERMITS) as u32;
        let connections = Arc::new(Semaphore::new(connections_max as usize));
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &connections),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        self.shared.app.engine.runtime().sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        self.phase.send_replace(Phase::Draining);
        // Every connection holds a permit, so all permits together mean that none is left.
        let all = || connections.acquire_many(connections_max);
        if tokio::time::timeout(limits.shutdown_timeout, all()).await.is_err() {
            tracing::warn!(limit = ?limits.shutdown_timeout, "requests were still running and are cut off");
            self.phase.send_replace(Phase::Ended);
            // The semaphore is never closed, so this fails by time alone, which `Ended` makes short.
            let _ = tokio::time::timeout(Duration::from_secs(1), all()).await;
        }
        Ok(())
    }

    fn admit(&self, stream: TcpStream, connections: &Arc<Semaphore>) {
        let Ok(permit) = Arc::clone(connections).try_acquire_owned() else {
            self.shared.meters.turned_away.increment(1);
            if self.tls.is_none() {
                // Courtesy only: a caller that is not told sees a closed connection.
                let _ = stream.try_write(TURNED_AWAY);
            }
            return;
        };
        let (shared, tls) = (Arc::clone(&self.shared), self.tls.clone());
        self.shared.app.engine.runtime().spawn(async move {
            shared.meters.connections.increment(1);
            connection::serve(stream, tls, &shared).await;
            shared.meters.connections.decrement(1);
            drop(permit);
        });
    }
}

/// TLS from files; HTTP/2 is offered first.
fn acceptor(tls: &TlsOptions) -> Result<TlsAcceptor> {
    let wrong = |message: &'static str, path: &std::path::Path| {
        Error::new(ErrorKind::InvalidConfig, message).with("file", path.display())
    };
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&tls.certificate)
            .and_then(Iterator::collect)
            .map_err(|e| wrong("the certificate cannot be read", &tls.certificate).caused_by(e))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|e| wrong("the private key cannot be read", &tls.key).caused_by(e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(certificates, key))
        .map_err(|e| {
            wrong("the certificate and the key cannot be used", &tls.certificate).caused_by(e)
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_a_connection_is_a_well_formed_problem() {
        let text = std::str::from_utf8(TURNED_AWAY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len()))
                || head.ends_with(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "overloaded");
    }
}
