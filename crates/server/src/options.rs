//! [`Options`]: where the server listens, who may use it, and its bounds.

use std::net::SocketAddr;
use std::time::Duration;

use unisono::config::{RouteDeclaration, ServerOptions, TlsOptions, TokenDeclaration};
use unisono::core::{Error, ErrorKind, Result};

/// How the server is reached and what it admits.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<TlsOptions>,
    /// Who may do what. Without tokens everybody may do everything, on a loopback address only.
    pub tokens: Vec<TokenDeclaration>,
    /// Further paths for the records of entities.
    pub routes: Vec<RouteDeclaration>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            tls: None,
            tokens: Vec::new(),
            routes: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Options {
    /// Refuses a public address without tokens.
    pub(crate) fn check(&self) -> Result<()> {
        if self.tokens.is_empty() && !self.listen.ip().is_loopback() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "a public address without access tokens would let everybody in",
            )
            .with("listen", self.listen)
            .hint("listen on 127.0.0.1, or declare access tokens"));
        }
        Ok(())
    }
}

impl From<ServerOptions> for Options {
    /// What is not declared is as in [`Limits::default`].
    fn from(declared: ServerOptions) -> Self {
        let limits = Limits {
            connections: declared.connections_max,
            requests: declared.requests_max,
            body_bytes: declared.body_bytes_max,
            header_bytes: declared.header_bytes_max,
            header_timeout: declared.header_timeout,
            body_timeout: declared.request_timeout,
            request_timeout: declared.request_timeout,
            ..Limits::default()
        };
        Options {
            listen: declared.listen,
            tls: declared.tls,
            tokens: declared.tokens,
            routes: declared.routes,
            limits,
        }
    }
}

/// What the server admits at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; further ones are turned away.
    pub connections: usize,
    /// Requests at work at the same time; further ones get `overloaded`.
    pub requests: usize,
    /// Open streams of `/v1/changes`; further ones get `overloaded`.
    pub streams: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of a request's headers, all together.
    pub header_bytes: usize,
    /// Bytes of a request's target.
    pub uri_bytes: usize,
    /// How long a connection may take to begin its first request, and to send the headers of each;
    /// an idle connection is closed after it.
    pub header_timeout: Duration,
    /// How long a request's body may take to arrive.
    pub body_timeout: Duration,
    /// How long a request may take; a caller asks for less with `Prefer: wait=…`.
    pub request_timeout: Duration,
    /// How long running requests may take to finish when the server is stopped.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 10_000,
            requests: 1_000,
            streams: 1_000,
            body_bytes: 16 << 20,
            header_bytes: 32 << 10,
            uri_bytes: 8 << 10,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono::config::Access;

    #[test]
    fn a_public_address_needs_tokens() {
        let mut options = Options { listen: "0.0.0.0:0".parse().unwrap(), ..Options::default() };
        assert_eq!(options.check().unwrap_err().kind(), ErrorKind::InvalidConfig);
        options.tokens.push(TokenDeclaration {
            name: "a".into(),
            hash: [7; 32],
            access: Access::Read,
            entities: vec!["*".into()],
            expires: None,
        });
        assert!(options.check().is_ok());
    }
}
