//! Native errors to kinds: the one table.

use std::error::Error as _;

use temporalio_client::errors::ClientConnectError;
use temporalio_client::tonic::{Code, Status};
use unisono_core::{Effect, Error, ErrorKind};

const UNREACHABLE: &str =
    "check that the frontend of the server runs at the host and port of `url`";
/// A server that misses a certificate says so, but is often not heard any more.
const CLOSED: &str = "write https:// in `url` if the server speaks TLS; if it wants certificates of its clients, name one that it accepts by `tls_certificate`";
const SCHEMES: &str = "check that `url` names the gRPC port of the frontend, with https:// if it speaks TLS and http:// if it does not";

/// Why no connection was made.
pub(crate) fn not_connected(native: ClientConnectError) -> Error {
    let error = match native {
        ClientConnectError::SystemInfoCallError(status) => translate(&status),
        ClientConnectError::TonicTransportError(cause) => unreachable_because(chain(&cause)),
        ClientConnectError::InvalidUri(cause) => {
            Error::new(ErrorKind::InvalidConfig, "the url is not one of a server")
                .with("option", "url")
                .caused_by(cause)
        }
        other => Error::new(ErrorKind::InvalidConfig, "the client refuses an option")
            .with("reason", other),
    };
    error.effect(Effect::None)
}

/// What a failed call means, and by its effect whether it can have taken place.
pub(crate) fn translate(status: &Status) -> Error {
    let reason = status.message();
    let error = |kind, message: &'static str| Error::new(kind, message).with("reason", reason);
    match status.code() {
        Code::NotFound if details_name(status, "NamespaceNotFound") => {
            error(ErrorKind::InvalidConfig, "the Temporal namespace does not exist")
                .hint("register it at the server, or correct `namespace`")
        }
        Code::NotFound => error(ErrorKind::NotFound, "there is no such workflow"),
        Code::AlreadyExists => {
            error(ErrorKind::AlreadyExists, "a workflow with this id is there already")
        }
        Code::InvalidArgument => error(ErrorKind::InvalidInput, "the server refuses the request"),
        Code::Unauthenticated => {
            error(ErrorKind::Unauthenticated, "the server does not accept the credentials")
                .hint("correct `api_key`, or `tls_certificate` and `tls_key`")
        }
        Code::PermissionDenied => {
            error(ErrorKind::PermissionDenied, "the credentials do not allow this").hint(
                "grant read and write access to the namespace, or correct `api_key` or `namespace`",
            )
        }
        Code::ResourceExhausted => error(ErrorKind::RateLimited, "the server limits the rate")
            .hint("lower `parallel`, or raise `look_interval` or the limits of the namespace"),
        Code::Unimplemented => {
            error(ErrorKind::Unsupported, "the server does not know this request").hint(SCHEMES)
        }
        Code::FailedPrecondition | Code::OutOfRange => {
            error(ErrorKind::Unsupported, "the server cannot do this at this time")
        }
        Code::DeadlineExceeded | Code::Cancelled => slow(),
        Code::Unavailable | Code::Unknown => {
            let texts = status.source().map_or_else(|| reason.to_owned(), chain);
            unreachable_because(texts)
        }
        _ => error(ErrorKind::Unavailable, "the server failed").effect(Effect::Unknown),
    }
}

/// The error of a call without an answer in time.
pub(crate) fn slow() -> Error {
    Error::new(ErrorKind::Timeout, "the server did not answer in time")
        .effect(Effect::Unknown)
        .hint("raise `request_timeout` if the server is only slow; one that wants certificates of its clients may be silent \
             to those without `tls_certificate`")
}

/// Whether the server's error is of this type. The types are in its details, as names of messages.
fn details_name(status: &Status, name: &str) -> bool {
    status.details().windows(name.len()).any(|part| part == name.as_bytes())
}

/// The transport tells why only in its texts.
fn unreachable_because(texts: String) -> Error {
    let lower = texts.to_lowercase();
    if lower.contains("fatal alert")
        && ["certificate", "unknownca"].iter().any(|w| lower.contains(w))
    {
        let message = "the server does not accept the certificate of this client, or misses one";
        return Error::new(ErrorKind::Unauthenticated, message)
            .hint("name one that it accepts by `tls_certificate`, with its key in `tls_key`")
            .with("reason", texts);
    }
    let (message, hint) = if lower.contains("certificate") {
        (
            "the server's certificate is not trusted",
            "name the file of the authority that signed it by `tls_ca`, and the host in `url` as in its certificate",
        )
    } else if ["tls", "corrupt", "http2", "frame", "handshake"].iter().any(|w| lower.contains(w)) {
        ("the server does not speak the expected protocol", SCHEMES)
    } else if ["broken pipe", "connection reset", "closed"].iter().any(|w| lower.contains(w)) {
        ("the server closed the connection", CLOSED)
    } else {
        ("the server cannot be reached", UNREACHABLE)
    };
    // Without a connection the request was never sent.
    let sent = !["tcp connect error", "connection refused", "dns error", "certificate"]
        .iter()
        .any(|w| lower.contains(w));
    Error::new(ErrorKind::Unavailable, message)
        .effect(if sent { Effect::Unknown } else { Effect::None })
        .hint(hint)
        .with("reason", texts)
}

/// The texts of an error and of its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}
