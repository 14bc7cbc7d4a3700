//! What NATS says, in the words of Unisono.

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use unisono_core::{Error, ErrorKind};

/// Of a message that was published: whether the server is not there, or refuses it.
pub(crate) fn publish(error: PublishError) -> Error {
    let (kind, message, hint) = match error.kind() {
        PublishErrorKind::StreamNotFound => (
            ErrorKind::Unavailable,
            "no stream of JetStream takes the subject",
            "create a stream whose subjects include it; messages wait meanwhile",
        ),
        PublishErrorKind::TimedOut => {
            (ErrorKind::Timeout, "the server does not say that it has the message", "")
        }
        PublishErrorKind::BrokenPipe => (ErrorKind::Unavailable, "the connection was lost", ""),
        PublishErrorKind::MaxAckPending => {
            (ErrorKind::Overloaded, "too many messages wait for the server", "")
        }
        PublishErrorKind::MaxPayloadExceeded => (
            ErrorKind::InvalidInput,
            "the message is larger than the server takes",
            "raise max_payload of the server",
        ),
        // A server that is short of something says so in words that nothing can be decided by.
        _ => (ErrorKind::Unavailable, "the server does not take the message", ""),
    };
    let error = Error::new(kind, message).caused_by(error);
    if hint.is_empty() { error } else { error.hint(hint) }
}
