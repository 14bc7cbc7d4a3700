//! Native errors to kinds, hints and classes: the one table.

use std::time::Duration;

use mysql_async::{DriverError, Error as Native, IoError};
use unisono_core::{Effect, Error, ErrorKind, Retry};

/// What a failure means for the work that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The connection is gone, and with it the transaction; of a commit under way nobody knows.
    Lost,
    /// The server did not answer in time: as if lost, but asking again at once would take as long.
    Late,
    /// Others were in the way, and the transaction was undone: at once it can succeed.
    Conflict,
    /// The table refuses a row; only the statement is to blame.
    Refused,
    /// The database or one of its tables is not there.
    Gone,
    /// Anything else.
    Other,
}

/// A failure with its class.
#[derive(Debug)]
pub(crate) struct Failed {
    /// What it means.
    pub(crate) class: Class,
    /// What is told.
    pub(crate) error: Error,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed { class: Class::Other, error }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl From<Native> for Failed {
    fn from(native: Native) -> Self {
        translate(native)
    }
}

impl Failed {
    /// Names the server that it happened at.
    pub(crate) fn with_server(mut self, server: &str) -> Self {
        self.error = self.error.with("server", server);
        self
    }

    /// Whether a lock of another transaction was waited for too long.
    pub(crate) fn is_lock_wait(&self) -> bool {
        self.class == Class::Conflict && matches!(self.error.detail("code"), Some("1205" | "3572"))
    }

    /// The failure of an exchange that included `COMMIT`: if the connection was lost, nobody knows.
    pub(crate) fn at_commit(mut self) -> Self {
        if matches!(self.class, Class::Lost | Class::Late) {
            self.error = self.error.effect(Effect::Unknown);
        }
        self
    }
}

/// An exchange that took too long. The connection is given up, which undoes its transaction.
pub(crate) fn timed_out(limit: Duration, option: &'static str) -> Failed {
    let error = Error::new(ErrorKind::Unavailable, "the server did not answer in time")
        .with(option, format!("{limit:?}"))
        .hint("look at the server's load and at locks of other programs, or raise the timeout");
    Failed { class: Class::Late, error }
}

/// What a failure of the engine means.
pub(crate) fn translate(native: Native) -> Failed {
    let (class, kind, message, hint) = match &native {
        Native::Server(server) => of_server(server.code),
        Native::Driver(driver) => of_driver(driver),
        Native::Io(io) => of_io(io),
        Native::Url(_) => {
            (Class::Other, ErrorKind::InvalidConfig, "the URL is wrong", "correct the url")
        }
        Native::Other(_) => (Class::Other, ErrorKind::Internal, "the driver failed", ""),
    };
    let mut error = Error::new(kind, message);
    if let Native::Server(server) = &native {
        error = error.with("code", server.code);
        if let Some(field) = taken_field(&server.message).filter(|_| is_duplicate(server.code)) {
            error = error.with("field", field);
        }
    }
    if class == Class::Conflict {
        error = error.retry(Retry::Now);
    }
    if !hint.is_empty() {
        error = error.hint(hint);
    }
    Failed { class, error: error.caused_by(native) }
}

/// Whether a row was refused because of a value that another row has.
pub(crate) fn is_duplicate(code: u16) -> bool {
    matches!(code, 1062 | 1169 | 1586)
}

type Meaning = (Class, ErrorKind, &'static str, &'static str);

const READ_ONLY: Meaning = (
    Class::Other,
    ErrorKind::NotPrimary,
    "the server is read-only",
    "give the url of the primary; if it was made read-only on purpose, wait or undo it",
);
const GONE: Meaning = (
    Class::Gone,
    ErrorKind::SchemaMismatch,
    "the tables are not as they were prepared",
    "somebody changed or dropped them while the source was open: restart, so that they are checked again",
);
const LOGIN: Meaning = (
    Class::Other,
    ErrorKind::Unauthenticated,
    "the server refuses the login",
    "check user and password in the url, and from which hosts the account may log in; an account that requires TLS needs tls_ca",
);
const RIGHTS: Meaning = (
    Class::Other,
    ErrorKind::PermissionDenied,
    "the account lacks a right that the source needs",
    "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP on the database to it",
);
const LOST: Meaning = (
    Class::Lost,
    ErrorKind::Unavailable,
    "the connection to the server is lost or cannot be made",
    "check that the server runs and that host and port of the url can be reached from here",
);
const TLS: Meaning = (
    Class::Lost,
    ErrorKind::Unavailable,
    "no TLS connection could be made",
    "tls_ca must be the authority that signed the server's certificate, and the certificate must name the url's host and be valid today",
);

fn of_server(code: u16) -> Meaning {
    use ErrorKind::*;
    match code {
        1045 | 1698 | 1862 | 4151 => LOGIN,
        1044 | 1142 | 1143 | 1227 | 1370 | 1410 | 1095 => RIGHTS,
        1419 => (
            Class::Other,
            ErrorKind::PermissionDenied,
            "the server keeps a binary log and lets only administrators make triggers",
            "set log_bin_trust_function_creators = ON on the server, or give the account SUPER while the capture begins",
        ),
        1290 | 1792 | 1836 => READ_ONLY,
        1046 | 1049 | 1051 | 1054 | 1146 | 1932 => GONE,
        1040 | 1129 | 1203 | 1226 => (
            Class::Lost,
            Unavailable,
            "the server takes no more connections",
            "raise max_connections, or lower connections of this source",
        ),
        1053 | 1077..=1080 | 1152 | 1153 | 1158..=1161 | 1184 | 1317 | 1927 | 3169 | 4031 => LOST,
        1205 | 3572 => (
            Class::Conflict,
            Unavailable,
            "another program holds locks on the rows for too long",
            "end the transaction that holds them (information_schema.innodb_trx)",
        ),
        1020 | 1213 | 1412 => {
            (Class::Conflict, Unavailable, "the transaction met another one and was undone", "")
        }
        code if is_duplicate(code) => {
            (Class::Refused, ConstraintViolated, "another record has the same value", "")
        }
        1048 | 1216 | 1217 | 1264 | 1265 | 1292 | 1364 | 1366 | 1406 | 1451 | 1452 | 1525
        | 1690 | 3140 | 3819 | 4025 => {
            (Class::Refused, ConstraintViolated, "a constraint of the table refuses the record", "")
        }
        1021 | 1028 | 1114 | 3675 => (
            Class::Other,
            Unavailable,
            "the server's disk is full",
            "free space on the disk of the server",
        ),
        1030 | 1034 | 1194 | 1712 => (
            Class::Other,
            Corrupt,
            "the server reports a damaged table",
            "restore it from a backup",
        ),
        1301 | 3170 => (Class::Refused, LimitExceeded, "a value is too big for the server", ""),
        1969 | 3024 => (Class::Other, Timeout, "the server ended the statement", ""),
        3159 => (
            Class::Other,
            Unavailable,
            "the server accepts TLS connections only",
            "set tls_ca to the file of the authority that signed its certificate",
        ),
        _ => (Class::Other, Internal, "the server refused a statement", ""),
    }
}

fn of_driver(driver: &DriverError) -> Meaning {
    match driver {
        DriverError::ConnectionClosed
        | DriverError::PoolDisconnected
        | DriverError::PacketOutOfOrder
        | DriverError::UnexpectedPacket { .. } => LOST,
        DriverError::NoClientSslFlagFromServer => (
            Class::Lost,
            ErrorKind::Unavailable,
            "the server offers no TLS",
            "turn TLS on at the server, or remove tls_ca if the network is trusted",
        ),
        DriverError::UnknownAuthPlugin { .. }
        | DriverError::MysqlOldPasswordDisabled
        | DriverError::CleartextPluginDisabled => (
            Class::Other,
            ErrorKind::Unsupported,
            "the account logs in by a method that is not supported",
            "let it log in by mysql_native_password or caching_sha2_password",
        ),
        DriverError::PacketTooLarge => (
            Class::Refused,
            ErrorKind::LimitExceeded,
            "a record is too big for the server",
            "raise max_allowed_packet of the server",
        ),
        _ => (Class::Other, ErrorKind::Internal, "the driver failed", ""),
    }
}

fn of_io(io: &IoError) -> Meaning {
    match io {
        IoError::Tls(_) => TLS,
        // A certificate that is refused during the handshake comes as an input of the wrong form.
        IoError::Io(e) if e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => TLS,
        IoError::Io(_) => LOST,
    }
}

/// The field of `Duplicate entry 'x' for key 'unisono_unique_email'`; MySQL puts the table before the index.
fn taken_field(message: &str) -> Option<&str> {
    let (_, index) = message.trim_end_matches('\'').rsplit_once("for key '")?;
    let index = index.rsplit_once('.').map_or(index, |(_, name)| name);
    Some(index.strip_prefix("unisono_unique_").unwrap_or(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql_async::ServerError;

    fn server(code: u16, message: &str) -> Failed {
        translate(Native::Server(ServerError {
            code,
            message: message.into(),
            state: "HY000".into(),
        }))
    }

    #[test]
    fn each_cause_has_its_kind_and_a_remedy() {
        for (code, kind, class) in [
            (1045, ErrorKind::Unauthenticated, Class::Other),
            (1044, ErrorKind::PermissionDenied, Class::Other),
            (1142, ErrorKind::PermissionDenied, Class::Other),
            (1290, ErrorKind::NotPrimary, Class::Other),
            (1146, ErrorKind::SchemaMismatch, Class::Gone),
            (1040, ErrorKind::Unavailable, Class::Lost),
            (1927, ErrorKind::Unavailable, Class::Lost),
            (1205, ErrorKind::Unavailable, Class::Conflict),
            (1114, ErrorKind::Unavailable, Class::Other),
            (3159, ErrorKind::Unavailable, Class::Other),
        ] {
            let failed = server(code, "text of the server");
            assert_eq!((failed.error.kind(), failed.class), (kind, class), "{code}");
            assert!(failed.error.hint_text().is_some(), "{code} needs a remedy");
            assert_eq!(failed.error.effect_on_data(), Effect::None, "{code}");
        }
        assert_eq!(server(1213, "Deadlock").error.retry_override(), Some(Retry::Now));
    }

    #[test]
    fn a_taken_value_names_its_field() {
        for message in [
            "Duplicate entry 'a' for key 'unisono_unique_email'",
            "Duplicate entry 'for key 'x' for key 'person.unisono_unique_email'",
        ] {
            let failed = server(1062, message);
            assert_eq!(failed.class, Class::Refused);
            assert_eq!(failed.error.detail("field"), Some("email"));
        }
    }

    #[test]
    fn only_a_lost_commit_is_unknown() {
        let lost = || translate(Native::Driver(DriverError::ConnectionClosed));
        assert_eq!(lost().error.effect_on_data(), Effect::None);
        assert_eq!(lost().at_commit().error.effect_on_data(), Effect::Unknown);
        let refused = server(1062, "Duplicate entry 'a' for key 'PRIMARY'").at_commit();
        assert_eq!(refused.error.effect_on_data(), Effect::None);
    }
}
