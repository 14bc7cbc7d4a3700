//! The one error type of Unisono: what happened, whether to try again, and whether anything was written.
//!
//! Every kind has a page in `error/<code>.md`, which the server and the CLI show.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// `Result` with Unisono's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($variant:ident, $code:literal, $summary:literal;)*) => {
        /// What went wrong, in terms that decide what to do next.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorKind { $(#[doc = $summary] $variant,)* }

        impl ErrorKind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[ErrorKind] = &[$(ErrorKind::$variant,)*];

            /// The stable code shown to callers, for example `version_conflict`.
            pub fn code(self) -> &'static str {
                match self { $(ErrorKind::$variant => $code,)* }
            }

            /// One sentence saying what the kind means.
            pub fn summary(self) -> &'static str {
                match self { $(ErrorKind::$variant => $summary,)* }
            }

            /// The full page: what it means, what Unisono did, what to do. Markdown.
            pub fn page(self) -> &'static str {
                match self { $(ErrorKind::$variant => include_str!(concat!("error/", $code, ".md")),)* }
            }
        }
    };
}

kinds! {
    NotFound, "not_found", "The named record, entity, source or other thing does not exist.";
    StreamClosed, "stream_closed", "The stream was archived or deleted for good.";
    AlreadyExists, "already_exists", "A record with this key is already there.";
    VersionConflict, "version_conflict", "The record is not at the version that the write expected.";
    ConstraintViolated, "constraint_violated", "A unique or other declared constraint refuses the write.";
    InvalidInput, "invalid_input", "The request itself is wrong.";
    InvalidConfig, "invalid_config", "The configuration is wrong.";
    SchemaMismatch, "schema_mismatch", "The store and the declaration differ in a way that is not changed automatically.";
    Unsupported, "unsupported", "The source cannot do this.";
    Unauthenticated, "unauthenticated", "No valid credentials came with the request.";
    PermissionDenied, "permission_denied", "The credentials do not allow this.";
    RateLimited, "rate_limited", "Too many requests.";
    Overloaded, "overloaded", "A bound of this process was reached.";
    LimitExceeded, "limit_exceeded", "One item is above a declared limit.";
    Timeout, "timeout", "The deadline passed while waiting.";
    Unavailable, "unavailable", "The source cannot be reached.";
    NotPrimary, "not_primary", "The source became read-only or a standby.";
    Fenced, "fenced", "Somebody else is in charge of writing.";
    TooStale, "too_stale", "No source is fresh enough for the request.";
    QuorumNotReached, "quorum_not_reached", "Fewer sources have the write than `ack` demands.";
    LogTruncated, "log_truncated", "The position asked for is older than the oldest entry of the log.";
    CheckpointMoved, "checkpoint_moved", "The follower's checkpoint is not where its delivery left it.";
    IdempotencyKeyReused, "idempotency_key_reused", "The idempotency key was used before for another request.";
    IdempotencyKeyInFlight, "idempotency_key_in_flight", "A request with this idempotency key is still running.";
    Diverged, "diverged", "A follower differs from the truth.";
    Corrupt, "corrupt", "Stored bytes cannot be decoded.";
    Cancelled, "cancelled", "The work was ended by a shutdown or by its caller.";
    Internal, "internal", "A bug in Unisono.";
}

/// Whether trying the same thing again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It fails the same way every time.
    Never,
    /// At once, perhaps elsewhere.
    Now,
    /// After a pause of at least this long.
    After(Duration),
}

/// What the failed operation did to stored data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was written.
    None,
    /// The write is committed in the truth.
    Committed,
    /// The write may or may not have taken place.
    Unknown,
}

/// A failure: kind, effect, where it happened, what to do about it, and its cause.
///
/// `Display` is one line for logs and callers; `Debug` has every detail over several lines.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    effect: Effect,
    retry: Option<Retry>,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    source: Option<String>,
    entity: Option<String>,
    context: Vec<(&'static str, String)>,
    hint: Option<Cow<'static, str>>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with the default retry of its kind and no effect on stored data.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner {
            kind,
            effect: Effect::None,
            retry: None,
            message: message.into(),
            operation: None,
            source: None,
            entity: None,
            context: Vec::new(),
            hint: None,
            cause: None,
        }))
    }

    /// Shorthand for [`ErrorKind::InvalidInput`].
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(ErrorKind::InvalidInput, message)
    }

    /// Shorthand for [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(ErrorKind::Unsupported, message)
    }

    /// Shorthand for [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// Says what the failure did to stored data.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.0.effect = effect;
        self
    }

    /// Overrides the default retry of the kind.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = Some(retry);
        self
    }

    /// Names the operation, such as `commit`; the innermost name wins.
    #[must_use]
    pub fn on(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the source; the innermost name wins.
    #[must_use]
    pub fn at(mut self, source: &str) -> Self {
        self.0.source.get_or_insert_with(|| source.to_owned());
        self
    }

    /// Names the entity; the innermost name wins.
    #[must_use]
    pub fn of(mut self, entity: &str) -> Self {
        self.0.entity.get_or_insert_with(|| entity.to_owned());
        self
    }

    /// Adds a detail such as `("field", "price")`. Never put secrets or whole records here.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Says what the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Attaches the underlying failure.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the failure did to stored data.
    pub fn effect_on_data(&self) -> Effect {
        self.0.effect
    }

    /// Whether and when to try again; `None` leaves it to the kind's default in `policy::retry`.
    pub fn retry_override(&self) -> Option<Retry> {
        self.0.retry
    }

    /// The sentence that was given when the error was made.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that failed.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The source at which it failed.
    pub fn source_name(&self) -> Option<&str> {
        self.0.source.as_deref()
    }

    /// The entity that it concerns.
    pub fn entity(&self) -> Option<&str> {
        self.0.entity.as_deref()
    }

    /// The details, in the order in which they were added.
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// The value of one detail.
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.0.context.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// What the reader can do about it.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// A copy for the second and later callers of one shared failure; the cause becomes text.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let i = &self.0;
        Error(Box::new(Inner {
            kind: i.kind,
            effect: i.effect,
            retry: i.retry,
            message: i.message.clone(),
            operation: i.operation,
            source: i.source.clone(),
            entity: i.entity.clone(),
            context: i.context.clone(),
            hint: i.hint.clone(),
            cause: i.cause.as_ref().map(|c| c.to_string().into()),
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = &self.0;
        write!(f, "{}", i.kind.code())?;
        if let Some(operation) = i.operation {
            write!(f, " at {operation}")?;
        }
        if let Some(source) = &i.source {
            write!(f, " on {source}")?;
        }
        if let Some(entity) = &i.entity {
            write!(f, " of {entity}")?;
        }
        write!(f, ": {}", i.message)?;
        for (n, (name, value)) in i.context.iter().enumerate() {
            write!(f, "{}{name}={value}", if n == 0 { " [" } else { ", " })?;
        }
        if !i.context.is_empty() {
            write!(f, "]")?;
        }
        if let Some(cause) = &i.cause {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{self}")?;
        writeln!(f, "  effect: {:?}, retry: {:?}", self.0.effect, self.0.retry)?;
        if let Some(hint) = &self.0.hint {
            writeln!(f, "  hint: {hint}")?;
        }
        let mut cause = self.0.cause.as_ref().and_then(|c| c.source());
        while let Some(c) = cause {
            writeln!(f, "  caused by: {c}")?;
            cause = c.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|c| c.as_ref() as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_and_names_the_place() {
        let e = Error::invalid("is not a number")
            .on("put")
            .at("main")
            .of("product")
            .with("field", "price");
        assert_eq!(
            e.to_string(),
            "invalid_input at put on main of product: is not a number [field=price]"
        );
    }

    #[test]
    fn the_innermost_place_wins() {
        let e = Error::internal("x").at("inner").at("outer");
        assert_eq!(e.source_name(), Some("inner"));
    }

    #[test]
    fn every_kind_has_a_page_that_starts_with_its_code() {
        for kind in ErrorKind::ALL {
            assert!(kind.page().starts_with(&format!("# {}", kind.code())), "{}", kind.code());
        }
    }
}
