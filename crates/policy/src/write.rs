//! [`WritePolicy`]: what is declared of an entity's writes, and the decisions of writing behind.
//!
//! | strategy | a write is answered when | the cache | costs |
//! |---|---|---|---|
//! | `write_around` | the truth has committed it | learns of it from the log | a commit of the truth per write |
//! | `write_through` | the truth has committed it | holds it | the same, and a fill |
//! | `write_behind` | the journal has it | learns of it when it is flushed | conditions are judged later, unseen by the writer |

use std::sync::Arc;
use std::time::Duration;

use unisono_core::write::{Action, Condition, Write};
use unisono_core::{Error, ErrorKind};

/// What has happened when a write is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteStrategy {
    /// It is committed: the cache learns of it from the log, moments later.
    #[default]
    WriteAround,
    /// It is committed, and the cache holds the new record.
    WriteThrough,
    /// It is in the journal, and will be flushed to the truth.
    WriteBehind,
}

impl WriteStrategy {
    /// Every strategy.
    pub const ALL: [WriteStrategy; 3] =
        [WriteStrategy::WriteAround, WriteStrategy::WriteThrough, WriteStrategy::WriteBehind];

    /// The word used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            WriteStrategy::WriteAround => "write_around",
            WriteStrategy::WriteThrough => "write_through",
            WriteStrategy::WriteBehind => "write_behind",
        }
    }
}

/// What is declared of an entity's writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WritePolicy {
    /// What has happened when a write is answered.
    pub strategy: WriteStrategy,
    /// For how long a write is held while the truth cannot be reached; written behind, while there is no room for it.
    pub hold: Duration,
    /// Where acknowledged writes wait; set for `write_behind` and for no other strategy.
    pub behind: Option<BehindPolicy>,
}

/// How writes wait for their truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BehindPolicy {
    /// The source whose journal keeps them.
    pub journal: Arc<str>,
    /// The longest time that a write waits for others to be flushed with it.
    pub flush_after: Duration,
    /// The most writes that wait; a further one is refused.
    pub pending_max: usize,
    /// The age of the oldest waiting write from which on the node is called degraded.
    pub age_alert: Duration,
}

impl BehindPolicy {
    /// How long to wait before the next flush; `oldest` is the age of the oldest of `pending` writes.
    ///
    /// Half of the room taken, a full transaction, or the end of the process are reasons not to wait for more.
    pub fn flush_in(&self, pending: usize, oldest: Duration, closing: bool) -> Duration {
        const FULL: usize = 1024;
        match closing || pending >= FULL.min(self.pending_max.div_ceil(2)) {
            true => Duration::ZERO,
            false => self.flush_after.saturating_sub(oldest),
        }
    }
}

/// Whether the outcome of a write depends on what is there when it takes place.
pub fn is_conditional(write: &Write) -> bool {
    write.condition != Condition::None || !matches!(write.action, Action::Put(_))
}

/// Whether a write makes the one directly before it, of the same record, superfluous: both replace the whole record
/// whatever is there. A condition, a patch and a delete are judged on what is there, so nothing is left out before or
/// after them.
pub fn supersedes(later: &Write, earlier: &Write) -> bool {
    !is_conditional(later) && !is_conditional(earlier)
}

/// What a failure to flush a write means for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushFailure {
    /// The truth refuses it for good: a dead letter.
    Refused,
    /// The truth could not be asked: tried again, with the rest.
    Unreachable,
    /// Nobody knows whether the write is to blame: tried again, alone, so that it holds up no other record.
    Suspect,
}

/// What a failure to flush a write means for it. Only what is said of the write itself makes it a dead letter.
pub fn flush_failure(error: &Error) -> FlushFailure {
    use ErrorKind::*;
    match error.kind() {
        NotFound | StreamClosed | AlreadyExists | VersionConflict | ConstraintViolated
        | InvalidInput | LimitExceeded | IdempotencyKeyReused => FlushFailure::Refused,
        Unavailable
        | Timeout
        | NotPrimary
        | Overloaded
        | Fenced
        | Cancelled
        | RateLimited
        | IdempotencyKeyInFlight => FlushFailure::Unreachable,
        InvalidConfig | SchemaMismatch | Unsupported | Unauthenticated | PermissionDenied
        | TooStale | QuorumNotReached | LogTruncated | CheckpointMoved | Diverged | Corrupt
        | Internal => FlushFailure::Suspect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_core::{Entity, Field, FieldType, Key, Record, Value, Version};

    fn write(action: Action, condition: Condition) -> Write {
        let fields = vec![Field::new("id", FieldType::Integer)];
        let entity = Arc::new(Entity::new("thing", "id", fields).unwrap());
        Write { entity, key: Key::Integer(1), action, condition }
    }

    fn put(condition: Condition) -> Write {
        write(Action::Put(Record::new(vec![Value::Integer(1)])), condition)
    }

    #[test]
    fn only_unconditional_puts_replace_each_other() {
        let plain = put(Condition::None);
        assert!(supersedes(&plain, &plain));
        for judged in [
            put(Condition::Absent),
            put(Condition::Present),
            put(Condition::Version(Some(Version::ZERO))),
            write(Action::Delete, Condition::None),
            write(Action::Patch(serde_json::json!({})), Condition::None),
        ] {
            assert!(!supersedes(&judged, &plain) && !supersedes(&plain, &judged), "{judged:?}");
        }
    }

    #[test]
    fn a_flush_waits_for_the_oldest_write_unless_there_is_much_to_do() {
        let millis = Duration::from_millis;
        let policy = BehindPolicy {
            journal: "queue".into(),
            flush_after: millis(50),
            pending_max: 10,
            age_alert: millis(1000),
        };
        for (pending, oldest, closing, expected) in [
            (1, 0, false, 50),
            (4, 20, false, 30),
            (4, 70, false, 0),
            (5, 0, false, 0),
            (1, 0, true, 0),
        ] {
            assert_eq!(policy.flush_in(pending, millis(oldest), closing), millis(expected));
        }
        let roomy = BehindPolicy { pending_max: 1_000_000, ..policy };
        assert_eq!(roomy.flush_in(1023, Duration::ZERO, false), millis(50));
        assert_eq!(roomy.flush_in(1024, Duration::ZERO, false), Duration::ZERO);
    }

    #[test]
    fn only_what_is_said_of_the_write_itself_makes_a_dead_letter() {
        let of = |kind| flush_failure(&Error::new(kind, "x"));
        assert_eq!(of(ErrorKind::VersionConflict), FlushFailure::Refused);
        assert_eq!(of(ErrorKind::Unavailable), FlushFailure::Unreachable);
        assert_eq!(of(ErrorKind::PermissionDenied), FlushFailure::Suspect);
    }
}
