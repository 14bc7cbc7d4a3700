//! Native errors to kinds: the one table.

use mongodb::bson::Bson;
use mongodb::error::{
    CommandError, Error as Native, ErrorKind as NativeKind, TRANSIENT_TRANSACTION_ERROR,
    WriteFailure,
};
use unisono_core::{Error, ErrorKind};

const UNIQUE: i32 = 11000;

/// What a failure of the driver or of a command means.
pub(crate) fn translate(native: Native) -> Error {
    let (kind, message, hint) = classify(&native);
    let error = Error::new(kind, message).with("reason", reason(&native));
    if hint.is_empty() { error } else { error.hint(hint) }
}

/// What the server or the driver says, without the server's whole answer, which the driver's own text repeats.
fn reason(native: &Native) -> String {
    match native.kind.as_ref() {
        NativeKind::Write(WriteFailure::WriteError(e)) => {
            format!("{} (code {})", e.message, e.code)
        }
        NativeKind::Write(WriteFailure::WriteConcernError(e)) => {
            format!("{} (code {})", e.message, e.code)
        }
        kind => kind.to_string(),
    }
}

type Meaning = (ErrorKind, &'static str, &'static str);

const UNREACHABLE: Meaning = (
    ErrorKind::Unavailable,
    "no server can be reached",
    "check that a server runs at the hosts of `url`, and that TLS is on at both ends or at none",
);
const WRONG_CERTIFICATE: Meaning = (
    ErrorKind::Unavailable,
    "the server's certificate is not trusted",
    "name the file of the authority that signed it by `tls_ca`, and the server in `url` as in its certificate",
);
const WRONG_PASSWORD: Meaning = (
    ErrorKind::Unauthenticated,
    "the server refuses the user or the password",
    "correct them in `url`; add authSource=DATABASE if the user was made in another database",
);
const UNCONFIRMED: Meaning = (
    ErrorKind::Unavailable,
    "the write is not confirmed by most members of the replica set",
    "see which members are down",
);
const WRONG_VERSION: Meaning = (
    ErrorKind::Unsupported,
    "the server is too old or too new for this driver",
    "use MongoDB 4.4 or newer",
);

fn classify(native: &Native) -> Meaning {
    use ErrorKind::*;
    match native.kind.as_ref() {
        NativeKind::Authentication { .. } => WRONG_PASSWORD,
        NativeKind::Command(command) => by_code(native, command),
        NativeKind::Write(WriteFailure::WriteError(e)) if e.code == UNIQUE => {
            (AlreadyExists, "there is a document with this key", "")
        }
        NativeKind::Write(WriteFailure::WriteConcernError(_)) => UNCONFIRMED,
        NativeKind::IncompatibleServer { .. } => WRONG_VERSION,
        NativeKind::InvalidTlsConfig { .. } => (
            InvalidConfig,
            "the certificates cannot be read",
            "`tls_ca` must name a PEM file with the certificates of the authority",
        ),
        NativeKind::InvalidArgument { .. } => {
            (InvalidConfig, "the driver refuses an option", "correct `url`")
        }
        NativeKind::SessionsNotSupported | NativeKind::Transaction { .. } => {
            (Unavailable, "the deployment takes no transaction at this time", "")
        }
        NativeKind::Shutdown => (Unavailable, "the source is closed", ""),
        NativeKind::Bson(_)
        | NativeKind::BsonDeserialization(_)
        | NativeKind::InvalidResponse { .. } => (Corrupt, "the server's answer cannot be read", ""),
        NativeKind::Io(_)
        | NativeKind::DnsResolve { .. }
        | NativeKind::ConnectionPoolCleared { .. }
        | NativeKind::ServerSelection { .. } => unreachable_because(&native.to_string()),
        _ => (Internal, "the driver failed", ""),
    }
}

/// The driver tells why it found no server only in its text.
fn unreachable_because(text: &str) -> Meaning {
    if text.contains("wire version") {
        WRONG_VERSION
    } else if text.contains("certificate") {
        WRONG_CERTIFICATE
    } else {
        UNREACHABLE
    }
}

fn by_code(native: &Native, command: &CommandError) -> Meaning {
    use ErrorKind::*;
    match command.code {
        13 => (
            PermissionDenied,
            "the user may not do this",
            "grant it the role readWrite on the database of the source",
        ),
        18 => WRONG_PASSWORD,
        50 | 202 => (Timeout, "the server took too long", ""),
        59 => WRONG_VERSION,
        // Not the primary, or about to stop being it.
        91 | 189 | 10058 | 10107 | 11600 | 11602 | 13435 | 13436 => {
            (NotPrimary, "the server is not the primary", "")
        }
        292 => (
            LimitExceeded,
            "the question needs more memory than the server gives",
            "narrow the filter, or index the fields that it orders by",
        ),
        14031 => (Unavailable, "the server's disk is full", "free space on the server"),
        _ if native.contains_label(TRANSIENT_TRANSACTION_ERROR) => {
            (Unavailable, "another writer was in the way", "")
        }
        _ if native.contains_label("RetryableWriteError") => UNREACHABLE,
        _ => (Internal, "the server refused a command", ""),
    }
}

/// What became of one statement that the server did not carry out.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is a document of this key that the condition did not accept.
    Exists,
    /// The document never will be accepted.
    Rejected(Error),
    /// It may be when tried again.
    Later(Error),
}

/// What a write error of one statement means.
pub(crate) fn refusal(code: i32, message: &str) -> Refusal {
    let error = |kind, text| Error::new(kind, text).with("code", code).with("reason", message);
    match code {
        UNIQUE if !message.contains(" index: ") || message.contains(" index: _id_ ") => {
            Refusal::Exists
        }
        UNIQUE => Refusal::Rejected(
            error(
                ErrorKind::ConstraintViolated,
                "a unique index that somebody added refuses the record",
            )
            .hint("drop the index: uniqueness is the truth's to check"),
        ),
        121 => Refusal::Rejected(
            error(
                ErrorKind::ConstraintViolated,
                "a validator that somebody added refuses the record",
            )
            .hint("remove the validator of the collection, or let it accept these records"),
        ),
        2 | 14 | 15 | 52 | 57 | 10334 | 17280 | 17419 | 17420 => Refusal::Rejected(error(
            ErrorKind::ConstraintViolated,
            "the server cannot hold the record",
        )),
        13 => Refusal::Later(
            error(ErrorKind::PermissionDenied, "the user may not write")
                .hint("grant it the role readWrite on the database of the source"),
        ),
        _ => Refusal::Later(error(ErrorKind::Unavailable, "the server did not write the record")),
    }
}

/// The error of a command whose writes took place but may be undone by a failover.
pub(crate) fn unconfirmed() -> Error {
    let (kind, message, hint) = UNCONFIRMED;
    Error::new(kind, message).hint(hint)
}

/// The error of a stored value that is not what its field declares.
pub(crate) fn corrupt(expected: impl std::fmt::Display, found: &Bson) -> Error {
    Error::new(ErrorKind::Corrupt, "a stored value is not of the declared type")
        .with("type", expected)
        .with("stored_as", format!("{:?}", found.element_type()))
        .hint("somebody wrote to the collection past Unisono: `unisono repair` writes it again")
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{deserialize_from_document, doc};

    use super::*;

    /// What a server with users says; the one for tests has none.
    fn of_command(code: i32, name: &str, message: &str) -> Error {
        let answer = doc! { "ok": 0.0, "errmsg": message, "code": code, "codeName": name };
        let command: CommandError = deserialize_from_document(answer).unwrap();
        translate(NativeKind::Command(command).into())
    }

    #[test]
    fn missing_rights_and_wrong_passwords_have_their_remedy() {
        let message =
            "not authorized on shop to execute command { update: \"product\", ordered: true }";
        let e = of_command(13, "Unauthorized", message);
        assert_eq!(e.kind(), ErrorKind::PermissionDenied);
        assert!(e.hint_text().is_some_and(|h| h.contains("readWrite")), "{e:?}");
        assert!(e.detail("reason").is_some_and(|r| r.contains(message)), "{e:?}");
        let e = of_command(18, "AuthenticationFailed", "Authentication failed.");
        assert_eq!(e.kind(), ErrorKind::Unauthenticated);
        assert!(e.hint_text().is_some_and(|h| h.contains("url")), "{e:?}");
    }

    #[test]
    fn a_record_that_may_not_be_written_waits_for_the_right_to_it() {
        let Refusal::Later(e) = refusal(13, "not authorized on shop") else {
            panic!("it was set aside for good")
        };
        assert_eq!(e.kind(), ErrorKind::PermissionDenied);
        assert!(e.hint_text().is_some_and(|h| h.contains("readWrite")), "{e:?}");
    }

    #[test]
    fn a_server_of_another_age_is_told_from_one_that_is_away() {
        let old = "Server at db:27017 reports wire version 6, but this version of the MongoDB Rust driver requires at \
                   least 8 (MongoDB 4.2).";
        assert_eq!(unreachable_because(old).0, ErrorKind::Unsupported);
        assert_eq!(unreachable_because("Connection refused").0, ErrorKind::Unavailable);
    }
}
