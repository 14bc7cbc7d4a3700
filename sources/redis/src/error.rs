//! Failures of servers and connections to kinds, effects and remedies: the one table.

use std::error::Error as _;
use std::io;

use redis::{ErrorKind as NativeKind, RedisError, ServerErrorKind};
use unisono_core::{Effect, Error, ErrorKind};

use crate::url::Address;

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It was not sent.
    Unsent(Error),
    /// It was sent, and nothing came back: it may have been carried out.
    Lost(RedisError),
    /// The server refused it, and did nothing.
    Refused(RedisError),
}

impl Trouble {
    /// What a failed request says: refused by the server, or lost on the way.
    pub(crate) fn of(native: RedisError) -> Self {
        match native.kind() {
            NativeKind::Io | NativeKind::Parse => Trouble::Lost(native),
            _ => Trouble::Refused(native),
        }
    }

    /// As an error of a request that may have changed something, or not.
    pub(crate) fn into_error(self, writes: bool) -> Error {
        match self {
            Trouble::Unsent(error) => error,
            Trouble::Lost(native) => {
                let effect = if writes { Effect::Unknown } else { Effect::None };
                lost(&native).caused_by(native).effect(effect)
            }
            Trouble::Refused(native) => refused(native),
        }
    }
}

fn lost(native: &RedisError) -> Error {
    match native.is_timeout() {
        true => Error::new(ErrorKind::Timeout, "the server did not answer in time")
            .hint("see whether the server is paused, swapping or runs slow scripts; request_timeout is how long is waited"),
        false => Error::new(ErrorKind::Unavailable, "the connection broke"),
    }
}

/// An error that a server gave as its answer.
fn refused(native: RedisError) -> Error {
    let unavailable = |message| Error::new(ErrorKind::Unavailable, message);
    let code = native.code().unwrap_or_default().to_owned();
    let error = match (native.kind(), code.as_str()) {
        (NativeKind::AuthenticationFailed, _) | (_, "WRONGPASS" | "NOAUTH") => unauthenticated(),
        (NativeKind::Server(ServerErrorKind::NoPerm), _) => {
            unavailable("the user lacks rights that are needed")
                .hint("grant the commands and key patterns that the README of the kind lists, with ACL SETUSER")
        }
        (NativeKind::Server(ServerErrorKind::ReadOnly), _) => {
            Error::new(ErrorKind::NotPrimary, "the server is a read-only copy of another one")
                .hint("name the primary, or let sentinels find it: redis+sentinel://host/name")
        }
        (NativeKind::Server(ServerErrorKind::BusyLoading), _) => {
            unavailable("the server is loading its data")
        }
        (NativeKind::Server(ServerErrorKind::MasterDown), _) => {
            unavailable("the server has lost its primary")
        }
        (
            NativeKind::Server(
                ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain | ServerErrorKind::Ask,
            ),
            _,
        ) => unavailable("the cluster does not serve these keys at the moment")
            .hint("see CLUSTER INFO: slots without a node, or slots that are being moved"),
        (NativeKind::Server(ServerErrorKind::Moved | ServerErrorKind::CrossSlot), _) => {
            Error::new(ErrorKind::InvalidConfig, "the server is part of a cluster")
                .hint("set cluster = true")
        }
        (_, "OOM") => unavailable("the server's memory is full")
            .hint("raise maxmemory; with the policy volatile-lru cached entries make room"),
        (_, "MISCONF" | "NOREPLICAS") => {
            unavailable("the server refuses writes because it cannot keep them")
                .hint("see its log: the disk is full, snapshots fail, or too few copies are connected")
        }
        (_, "BUSY" | "UNKILLABLE") => unavailable("the server is busy with a script of somebody's"),
        (_, "WRONGTYPE") => Error::new(ErrorKind::Corrupt, "a key of this source has another type")
            .hint("another program writes under the same prefix: give one of them a prefix of its own"),
        _ if is_unknown(&native) => {
            Error::new(ErrorKind::Unsupported, "the server lacks something that is needed")
                .hint("use Redis 7.0, Valkey 7.2 or later")
        }
        _ => Error::internal("the server refused a request"),
    };
    error.caused_by(native)
}

fn is_unknown(native: &RedisError) -> bool {
    let detail = native.detail().unwrap_or_default();
    detail.starts_with("unknown command") || detail.contains("Unexpected symbol near '#'")
}

fn unauthenticated() -> Error {
    Error::new(ErrorKind::Unavailable, "the server refuses the user or the password")
        .hint("check user and password of the url, percent-encoded, against ACL LIST")
}

/// What kept a connection from being made.
pub(crate) fn unreachable(address: &Address, error: io::Error) -> Error {
    let certificate = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let unavailable = |message| Error::new(ErrorKind::Unavailable, message);
    let said = match certificate {
        Some(rustls::Error::InvalidCertificate(reason)) => match reason {
            rustls::CertificateError::NotValidForName
            | rustls::CertificateError::NotValidForNameContext { .. } => {
                unavailable("the server's certificate is for another name")
                    .hint("write the host in the url as the certificate has it")
            }
            _ => unavailable("the server's certificate is not trusted")
                .hint("give the authority that signed it as tls_ca"),
        },
        Some(_) => unavailable("the server does not speak TLS as expected")
            .hint("see whether the port is the one for TLS"),
        None if error.kind() == io::ErrorKind::UnexpectedEof
            || error.kind() == io::ErrorKind::ConnectionReset =>
        {
            unavailable("the server closed the connection while it was made")
                .hint("see whether it expects TLS (rediss://), and its maxclients")
        }
        None => unavailable("the server cannot be reached")
            .hint("see whether it runs, and whether host and port of the url are right"),
    };
    said.with("address", address).caused_by(error)
}

/// What kept a fresh connection from being used.
pub(crate) fn no_login(address: &Address, native: RedisError) -> Error {
    let io = native.source().is_none() && native.is_io_error();
    let error = match Trouble::of(native) {
        Trouble::Lost(native) if native.is_connection_dropped() || io => {
            Error::new(ErrorKind::Unavailable, "the server closed the connection while it was made")
                .hint("see whether it expects TLS (rediss://), and its maxclients")
                .caused_by(native)
        }
        trouble => trouble.into_error(false),
    };
    error.with("address", address)
}

/// A connection took too long to be made.
pub(crate) fn slow_connection(address: &Address) -> Error {
    Error::new(ErrorKind::Unavailable, "the server cannot be reached in time")
        .with("address", address)
        .hint("see whether host and port of the url are right and no firewall is in between; connect_timeout is how long is waited")
}

/// The source was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the source is closed")
}

/// An answer that the source's own scripts do not give.
pub(crate) fn unexpected() -> Error {
    Error::internal("the server's answer has another form than expected")
}

/// Stored bytes that cannot be decoded.
pub(crate) fn corrupt(message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, message)
        .hint("somebody changed the key by hand: repair the follower")
}
