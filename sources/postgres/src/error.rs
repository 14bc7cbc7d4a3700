//! Native errors to kinds, hints and classes: the one table.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use tokio_postgres::Error as Native;
use tokio_postgres::error::DbError;
use unisono_core::{Effect, Error, ErrorKind, Retry};

/// What a failure means for the work that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The connection is gone or of no more use; of a commit under way nobody knows.
    Lost,
    /// The server is no longer, or not yet, the one that takes writes.
    Standby,
    /// Others were in the way, and the transaction was undone: at once it can succeed.
    Conflict,
    /// The table refuses a row; only the statement is to blame.
    Refused,
    /// The schema or one of its tables is not there.
    Gone,
    /// The pooler in between does not keep prepared statements.
    Unprepared,
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
    /// Whether only the statement is to blame, so that other work of the same transaction can go on behind a savepoint:
    /// a row was refused, or another transaction kept it locked for longer than was waited.
    pub(crate) fn is_of_statement(&self) -> bool {
        self.class == Class::Refused || self.is_of_lock()
    }

    /// Whether another transaction kept a row or table locked for longer than was waited.
    pub(crate) fn is_of_lock(&self) -> bool {
        is_of_lock(&self.error)
    }

    /// Whether a table is not as it was prepared, so that work on others can go on behind a savepoint.
    pub(crate) fn is_of_table(&self) -> bool {
        self.error.kind() == ErrorKind::SchemaMismatch
    }

    /// The failure of an exchange that included a commit: if the connection was lost, nobody knows.
    pub(crate) fn at_commit(mut self) -> Self {
        if self.class == Class::Lost {
            self.error = self.error.effect(Effect::Unknown);
        }
        self
    }

    /// Whether the other side, a pooler it seems, does not know a parameter that the connection began with.
    pub(crate) fn is_of_startup(&self) -> bool {
        matches!(self.error.detail("sqlstate"), Some("08P01" | "0A000"))
    }

    /// Names the entity that it is about.
    pub(crate) fn of(mut self, entity: &str) -> Self {
        self.error = self.error.of(entity);
        self
    }

    /// Names the server at which it happened.
    pub(crate) fn with_server(mut self, address: &str) -> Self {
        self.error = self.error.with("server", address);
        self
    }
}

/// Whether another transaction kept a row or table locked for longer than was waited.
pub(crate) fn is_of_lock(error: &Error) -> bool {
    error.detail("sqlstate") == Some("55P03")
}

/// A call that took too long. Its connection is given up.
pub(crate) fn timed_out(limit: Duration, option: &'static str) -> Failed {
    let error = Error::new(ErrorKind::Unavailable, "the server did not answer in time")
        .with(option, format!("{limit:?}"))
        .hint("look at the server's load and at locks of other programs, or raise the timeout");
    Failed { class: Class::Lost, error }
}

/// Every call after the source was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the source is closed")
}

/// What a failure of the engine means.
pub(crate) fn translate(native: Native) -> Failed {
    let Some(db) = native.as_db_error() else { return of_connection(native) };
    let state = db.code().code();
    let Meaning(class, kind, message, hint) = of_state(of_pooler(state, db.message()));
    let mut error = Error::new(kind, message).with("sqlstate", state);
    if let Some(field) = field(db) {
        error = error.with("field", field);
    }
    if let Some(constraint) = db.constraint() {
        error = error.with("constraint", constraint);
    }
    if class == Class::Conflict {
        error = error.retry(Retry::Now);
    }
    if !hint.is_empty() {
        error = error.hint(hint);
    }
    // Only the main message: details show values of rows.
    Failed { class, error: error.caused_by(db.message().to_owned()) }
}

/// The state that the server would have named: PgBouncer has one for all that it refuses.
fn of_pooler<'a>(state: &'a str, message: &str) -> &'a str {
    match state {
        "08P01" if message.contains("authentication failed") => "28P01",
        "08P01" if message.contains("no such user") => "28P01",
        "08P01" if message.contains("no such database") => "3D000",
        state => state,
    }
}

/// What is wrong, for whom, and what to do about it.
struct Meaning(Class, ErrorKind, &'static str, &'static str);

const RESTART: &str = "somebody changed or dropped them while the source was open: restart, so that they are checked again";

fn of_state(state: &str) -> Meaning {
    use Class::*;
    use ErrorKind::*;
    match state {
        "23505" => Meaning(Refused, ConstraintViolated, "another record has the same value", ""),
        "23000" | "23001" | "23502" | "23503" | "23514" | "23P01" | "44000" => {
            Meaning(Refused, ConstraintViolated, "a constraint of the table refuses the record", "")
        }
        "22P05" | "22021" => Meaning(
            Refused,
            InvalidInput,
            "a text holds a character that the column cannot keep",
            "a jsonb column keeps no U+0000: remove it, or keep the field in a json or text column",
        ),
        "54000" => Meaning(
            Refused,
            LimitExceeded,
            "a value is too long for an index",
            "declare the field without `index` or `unique`, or with a smaller `max_length`",
        ),
        "21000" => Meaning(Refused, Internal, "a statement meets a row twice", ""),
        "P0001" => {
            Meaning(Refused, ConstraintViolated, "a trigger of the table refuses the record", "")
        }
        "42P01" | "3F000" => Meaning(Gone, SchemaMismatch, "the tables are not there", RESTART),
        "42703" | "42804" | "42883" | "42704" | "0A000" => {
            Meaning(Other, SchemaMismatch, "the tables are not as they were prepared", RESTART)
        }
        "26000" | "42P05" => Meaning(
            Unprepared,
            Unavailable,
            "a pooler in between does not keep prepared statements",
            "set prepared = false on the source",
        ),
        "55P03" => Meaning(
            Conflict,
            Unavailable,
            "another transaction keeps the record or table locked",
            "look for transactions that are idle (pg_stat_activity), and end them",
        ),
        "40001" | "40P01" => {
            Meaning(Conflict, Unavailable, "another transaction was in the way", "")
        }
        _ => of_server_state(state),
    }
}

/// States of the server, of the connection and of what the user may do, rather than of records.
fn of_server_state(state: &str) -> Meaning {
    use Class::*;
    use ErrorKind::*;
    match state {
        "25006" => Meaning(
            Standby,
            NotPrimary,
            "the server is read-only",
            "give the hosts of all members of the cluster in the url; the writable one is found by itself. If it is the writable one, default_transaction_read_only is on for the user or the database",
        ),
        "28P01" | "28000" => Meaning(
            Other,
            Unavailable,
            "the server refuses the user or the password",
            "correct user and password in the url; they are percent-encoded there. If they are right, pg_hba.conf has no line for this user, database, address and encryption",
        ),
        "42501" => Meaning(
            Other,
            PermissionDenied,
            "the database user lacks a right",
            "grant it to the user in the url: CREATE on the database, or on the schema if that is there; USAGE on the schema; SELECT, INSERT, UPDATE and DELETE on its tables. Only its owner can change a table",
        ),
        "3D000" => Meaning(
            Other,
            Unavailable,
            "the database does not exist",
            "create it, or correct its name in the url",
        ),
        "53300" => Meaning(
            Lost,
            Unavailable,
            "the server has no connection left",
            "lower `pool`, or raise max_connections of the server",
        ),
        "53100" => {
            Meaning(Other, Unavailable, "the server's disk is full", "free space on its disk")
        }
        "57014" => Meaning(Lost, Unavailable, "the statement was cancelled", ""),
        "57P01" | "57P02" | "57P03" => {
            Meaning(Lost, Unavailable, "the server is shutting down or starting", "")
        }
        "25P03" | "57P05" => Meaning(
            Lost,
            Unavailable,
            "the server ended a connection that was idle for too long",
            "raise idle_in_transaction_session_timeout or idle_session_timeout of the user",
        ),
        _ => of_state_class(state),
    }
}

/// By the class of a state, which are its first two characters.
fn of_state_class(state: &str) -> Meaning {
    use Class::*;
    use ErrorKind::*;
    match state.get(..2).unwrap_or_default() {
        "22" => Meaning(Refused, InvalidInput, "a column cannot hold a value", ""),
        "08" => Meaning(Lost, Unavailable, "the connection broke", ""),
        "53" => Meaning(
            Lost,
            Unavailable,
            "the server is out of resources",
            "look at its memory and disk",
        ),
        "54" => Meaning(Refused, LimitExceeded, "a limit of the server was reached", ""),
        "58" | "XX" => Meaning(Lost, Unavailable, "the server failed", "look at the server's log"),
        "40" => Meaning(Conflict, Unavailable, "the transaction was undone", ""),
        _ => Meaning(Other, Internal, "the server refused a statement", ""),
    }
}

/// The field whose uniqueness or rule was violated: the column, or what our index is named after.
fn field(db: &DbError) -> Option<String> {
    if let Some(column) = db.column() {
        return Some(column.to_owned());
    }
    // `Key (email)=(a@b) already exists.`; the value stays out of messages.
    let (_, rest) = db.detail()?.split_once("Key (")?;
    let (columns, _) = rest.split_once(")=(")?;
    Some(columns.replace("::text", "").replace('"', ""))
}

/// A failure that the server did not send.
fn of_connection(native: Native) -> Failed {
    use ErrorKind::*;
    let lost = |kind, message: &'static str| Error::new(kind, message);
    let causes: Vec<_> = causes(&native).collect();
    let text = causes.last().map_or(String::new(), |cause| cause.to_string());
    let is_io = causes.iter().any(|cause| cause.is::<io::Error>());
    let error = if let Some(tls) = causes.iter().find_map(|cause| cause.downcast_ref()) {
        of_tls(tls)
    } else if text.contains("server does not support TLS") {
        lost(Unavailable, "the server does not offer TLS")
            .hint("turn on `ssl` in the server's configuration")
    } else if text.contains("password missing") {
        lost(Unavailable, "the server wants a password")
            .hint("give it in the url: postgresql://user:password@host/database")
    } else if native.is_closed() || is_io {
        lost(Unavailable, "the server cannot be reached or closed the connection")
            .hint("check that it runs, and that host and port in the url are right")
    } else {
        lost(Unavailable, "the connection broke")
    };
    Failed { class: Class::Lost, error: error.caused_by(text) }
}

/// The failure and what it wraps, outermost first.
fn causes(native: &Native) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(Some(native as &(dyn StdError + 'static)), |error| inner(*error))
}

/// An I/O error hides what it wraps: its `source` is that of the wrapped error.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

fn of_tls(tls: &rustls::Error) -> Error {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
    };
    let unavailable = |message: &'static str| Error::new(ErrorKind::Unavailable, message);
    match tls {
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            unavailable("the server's certificate is for another host")
                .hint("connect by a name that is in the certificate, or give the server one with its name")
        }
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            unavailable("the server's certificate has expired").hint("renew it on the server")
        }
        rustls::Error::InvalidCertificate(_) => {
            unavailable("the server's certificate is not signed by the authority in tls_ca")
                .hint("give in tls_ca the certificate of the authority that signed the server's")
        }
        _ => unavailable("the server and this process cannot agree on TLS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_a_kind_and_a_class() {
        for (state, class, kind) in [
            ("23505", Class::Refused, ErrorKind::ConstraintViolated),
            ("22003", Class::Refused, ErrorKind::InvalidInput),
            ("40P01", Class::Conflict, ErrorKind::Unavailable),
            ("25006", Class::Standby, ErrorKind::NotPrimary),
            ("28P01", Class::Other, ErrorKind::Unavailable),
            ("42501", Class::Other, ErrorKind::PermissionDenied),
            ("42P01", Class::Gone, ErrorKind::SchemaMismatch),
            ("57P01", Class::Lost, ErrorKind::Unavailable),
            ("26000", Class::Unprepared, ErrorKind::Unavailable),
            ("53100", Class::Other, ErrorKind::Unavailable),
            ("XX001", Class::Lost, ErrorKind::Unavailable),
            ("42601", Class::Other, ErrorKind::Internal),
        ] {
            let Meaning(found, found_kind, ..) = of_state(state);
            assert_eq!((found, found_kind), (class, kind), "{state}");
        }
    }

    #[test]
    fn what_a_pooler_refuses_is_told_as_by_the_server() {
        let meaning = |message| of_state(of_pooler("08P01", message)).3;
        assert!(meaning("SASL authentication failed").contains("password"));
        assert!(meaning("no such database: shop").contains("create it"));
        assert_eq!(of_pooler("08P01", "broken"), "08P01");
        assert_eq!(of_pooler("23505", "no such user"), "23505");
    }

    #[test]
    fn a_commit_is_unknown_only_if_the_connection_was_lost() {
        let failed = |class| Failed { class, error: Error::internal("x") }.at_commit().error;
        assert_eq!(failed(Class::Lost).effect_on_data(), Effect::Unknown);
        for class in [Class::Standby, Class::Conflict, Class::Refused, Class::Gone, Class::Other] {
            assert_eq!(failed(class).effect_on_data(), Effect::None, "{class:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_apart() {
        use rustls::CertificateError::{Expired, NotValidForName, UnknownIssuer};
        let hint = |e| of_tls(&rustls::Error::InvalidCertificate(e)).message().to_owned();
        assert!(hint(UnknownIssuer).contains("tls_ca"));
        assert!(hint(NotValidForName).contains("another host"));
        assert!(hint(Expired).contains("expired"));
    }
}
