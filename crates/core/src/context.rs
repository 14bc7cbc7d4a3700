//! [`Context`]: what a caller demands of one request.

use std::sync::Arc;
use std::time::Duration;

use crate::ack::Ack;
use crate::position::Token;

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Anything healthy.
    Eventual,
    /// At least the caller's token.
    #[default]
    Session,
    /// The truth itself.
    Strong,
}

impl Consistency {
    /// The word used in `Prefer: consistency=…`.
    pub fn as_str(self) -> &'static str {
        match self {
            Consistency::Eventual => "eventual",
            Consistency::Session => "session",
            Consistency::Strong => "strong",
        }
    }

    /// From its word.
    pub fn parse(text: &str) -> Option<Self> {
        [Consistency::Eventual, Consistency::Session, Consistency::Strong]
            .into_iter()
            .find(|c| c.as_str() == text)
    }
}

/// What a caller demands of one request.
#[derive(Clone, Debug)]
pub struct Context {
    /// How fresh a read must be.
    pub consistency: Consistency,
    /// What a session read must contain.
    pub token: Token,
    /// How long the whole request may take.
    pub timeout: Duration,
    /// Whether another source may answer when the preferred one fails.
    pub fallback: bool,
    /// What the caller says about a read, for the rules that decide whom to ask; `critical` is known to the built-in ones.
    pub hints: Vec<Arc<str>>,
    /// How many sources a read of one record asks, of which the newest answer counts; as declared if absent.
    pub quorum: Option<usize>,
    /// Which sources must have a write before it is answered; as declared of the entity if absent.
    pub ack: Option<Ack>,
    /// Makes a repeated write have the effect of one; at most 255 bytes.
    pub idempotency_key: Option<Arc<str>>,
    /// Hash of the request as the caller sent it, to tell a repetition from another use of the same key;
    /// worked out from the writes if absent.
    pub fingerprint: Option<u128>,
    /// Who asks; recorded in the log.
    pub actor: Option<Arc<str>>,
    /// Trace of the request (W3C `traceparent`); recorded in the log.
    pub trace: Option<Arc<str>>,
}

impl Default for Context {
    fn default() -> Self {
        Context {
            consistency: Consistency::default(),
            token: Token::default(),
            timeout: Duration::from_secs(30),
            fallback: true,
            hints: Vec::new(),
            quorum: None,
            ack: None,
            idempotency_key: None,
            fingerprint: None,
            actor: None,
            trace: None,
        }
    }
}
