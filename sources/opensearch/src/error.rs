//! Failures of the connection and refusals of the engine → [`Error`]: kind, effect and what to do.

use std::error::Error as StdError;

use reqwest::Url;
use serde::Deserialize;
use unisono_core::{Error, ErrorKind};

/// How much of what the engine says is repeated: it may quote values of a record.
const REASON_CHARS: usize = 300;

/// A request that got no answer.
pub(crate) fn of_transport(e: reqwest::Error, base: &Url) -> Error {
    let e = e.without_url();
    let host = match (base.host_str(), base.port_or_known_default()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => String::new(),
    };
    let unavailable = |message| Error::new(ErrorKind::Unavailable, message).with("host", &host);
    let tls = cause::<rustls::Error>(&e);
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => {
            unavailable("the server's certificate is not trusted").hint(
                "set tls_ca to the file of the authority that signed it, and name the host as the certificate does",
            )
        }
        Some(_) => unavailable("TLS with the server failed")
            .hint("look whether the port speaks TLS; write http:// if it does not"),
        None if e.is_timeout() && !e.is_connect() => Error::new(
            ErrorKind::Timeout,
            "the server did not answer in time",
        )
        .with("host", &host)
        .hint("look at the cluster's load, or raise request_timeout"),
        None if e.is_connect() => unavailable("the server cannot be reached")
            .hint("look whether it runs, and at url, network and firewall"),
        None => unavailable("the connection to the server broke"),
    }
    .caused_by(e)
}

/// The first cause of a type.
fn cause<'a, T: StdError + 'static>(e: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(found) = e.downcast_ref::<T>() {
            return Some(found);
        }
        // An I/O error hides the error that it was made from, from `source`.
        let inner = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => e.source(),
        };
    }
    None
}

/// What an engine says of a refusal.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Cause {
    /// Name of the exception, such as `index_not_found_exception`.
    #[serde(rename = "type", default)]
    pub(crate) name: String,
    /// A sentence.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

impl Cause {
    /// The cause in the answer to a request.
    pub(crate) fn of_body(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            error: serde_json::Value,
        }
        let Ok(Body { error }) = serde_json::from_slice(body) else { return Cause::default() };
        match error {
            serde_json::Value::String(reason) => {
                Cause { name: String::new(), reason: Some(reason) }
            }
            object => serde_json::from_value(object).unwrap_or_default(),
        }
    }

    /// Adds what the engine says to an error.
    pub(crate) fn put(&self, mut e: Error) -> Error {
        if !self.name.is_empty() {
            e = e.with("exception", &self.name);
        }
        match &self.reason {
            Some(reason) => e.with("reason", reason.chars().take(REASON_CHARS).collect::<String>()),
            None => e,
        }
    }
}

/// A request that was refused.
pub(crate) fn of_status(status: u16, body: &[u8]) -> Error {
    of_cause(status, &Cause::of_body(body))
}

/// A refusal, of a request or of one item in it.
pub(crate) fn of_cause(status: u16, cause: &Cause) -> Error {
    let unavailable = |message| Error::new(ErrorKind::Unavailable, message);
    let e = match (status, cause.name.as_str()) {
        (_, "cluster_block_exception") => unavailable("the cluster takes no writes to the index")
            .hint("its disks may be full: free space, then remove the block index.blocks"),
        (401, _) => unavailable("the cluster refuses the user, the password or the API key")
            .hint("correct the credentials in url or api_key"),
        (403, _) => unavailable("the user may not do this in the cluster").hint(
            "grant the user all rights on the indexes with the source's prefix, and cluster monitoring",
        ),
        (404, _) => missing(),
        (413, _) => Error::new(ErrorKind::LimitExceeded, "the request is larger than the cluster takes")
            .hint("raise http.max_content_length of the cluster, or of the proxy before it"),
        (429, _) => unavailable("the cluster has too much to do").hint("give it time, or more nodes"),
        (502..=504, _) => unavailable("the cluster cannot serve at this time")
            .hint("look at the health of the cluster"),
        (500.., _) => unavailable("the cluster failed at a request").hint("look at its log"),
        _ => Error::internal("the cluster refuses a request"),
    };
    cause.put(e.with("status", status))
}

/// An index that should be there is not.
pub(crate) fn missing() -> Error {
    Error::new(ErrorKind::Unavailable, "the index is missing: somebody has deleted it")
        .hint("it is made anew and filled by itself while changes are delivered")
}

/// An answer to which parts of the index did not contribute.
pub(crate) fn incomplete() -> Error {
    Error::new(ErrorKind::Unavailable, "a part of the index cannot be reached")
        .hint("look at the health of the cluster: a shard has no node")
}

/// What every call gets once the source is closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the source is closed")
}

/// An answer, or something stored, that cannot be understood.
pub(crate) fn unreadable(e: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "what the cluster answers cannot be read")
        .hint("something else may be listening at the url, or somebody changed the index by hand")
        .caused_by(e)
}

/// A stored record that is not one.
pub(crate) fn corrupt(message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, message)
        .hint("somebody changed the index by hand: let `unisono repair` write the record again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_kind_and_a_remedy() {
        // The security plugin of OpenSearch, and Elasticsearch.
        for reason in [
            "no permissions for [indices:admin/create] and User [name=app, backend_roles=[], requestedTenant=null]",
            "action [indices:data/write/bulk] is unauthorized for user [app] with effective roles [viewer], this \
             action is granted by the index privileges [create_doc,create,delete,index,write,all]",
        ] {
            let cause = format!(r#""type":"security_exception","reason":"{reason}""#);
            let body =
                format!(r#"{{"error":{{"root_cause":[{{{cause}}}],{cause}}},"status":403}}"#);
            let e = of_status(403, body.as_bytes());
            assert_eq!(e.kind(), ErrorKind::Unavailable);
            assert!(e.hint_text().is_some_and(|h| h.contains("grant")), "{e:?}");
            assert_eq!(e.detail("exception"), Some("security_exception"));
            assert_eq!(e.detail("reason"), Some(reason), "which right is missing");
        }
        let body = br#"{"error":{"root_cause":[{"type":"security_exception","reason":"unable to authenticate user [app] for REST request [/]"}],"type":"security_exception","reason":"unable to authenticate user [app] for REST request [/]"},"status":401}"#;
        for body in [body.as_slice(), b"Unauthorized", b"<html>"] {
            let e = of_status(401, body);
            assert_eq!(e.kind(), ErrorKind::Unavailable);
            assert!(e.hint_text().is_some_and(|h| h.contains("credentials")), "{e:?}");
        }
        let blocked = Cause { name: "cluster_block_exception".into(), reason: None };
        assert!(of_cause(403, &blocked).hint_text().is_some_and(|h| h.contains("disks")));
        assert_eq!(of_status(400, b"{}").kind(), ErrorKind::Internal);
    }

    #[test]
    fn what_the_engine_says_is_cut() {
        let cause = Cause { name: "x".into(), reason: Some("ö".repeat(10_000)) };
        let e = of_cause(400, &cause);
        assert_eq!(e.detail("reason").map(|r| r.chars().count()), Some(REASON_CHARS));
    }
}
