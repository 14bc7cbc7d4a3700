//! Whether, when and how to try again: one table from the kind of an error, and the pause between attempts.

use std::time::Duration;

use unisono_core::{Effect, Error, ErrorKind, Retry};

/// The shortest ceiling of a pause.
pub const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Jitter never makes a pause shorter than this, so that a failing source is not asked in a tight loop.
const PAUSE_FLOOR: Duration = Duration::from_millis(10);

/// Whether trying the same thing again can help: the error's own word, else the default of its kind.
pub fn retry(error: &Error) -> Retry {
    error.retry_override().unwrap_or_else(|| by_kind(error.kind()))
}

/// Whether a failed write may be sent again by the one who sent it.
///
/// A write whose effect is unknown may have taken place; only an idempotency key makes repeating it safe. One that is
/// committed has nothing left to repeat.
pub fn may_repeat_write(error: &Error, idempotent: bool) -> bool {
    let safe = match error.effect_on_data() {
        Effect::None => true,
        Effect::Unknown => idempotent,
        Effect::Committed => false,
    };
    safe && retry(error) != Retry::Never
}

/// The default for errors of a kind.
pub fn by_kind(kind: ErrorKind) -> Retry {
    use ErrorKind::*;
    match kind {
        Timeout | NotPrimary | CheckpointMoved => Retry::Now,
        Unavailable | Overloaded | TooStale | IdempotencyKeyInFlight => Retry::After(PAUSE_MIN),
        RateLimited => Retry::After(Duration::from_secs(1)),
        NotFound | StreamClosed | AlreadyExists | VersionConflict | ConstraintViolated
        | InvalidInput | InvalidConfig | SchemaMismatch | Unsupported | Unauthenticated
        | PermissionDenied | LimitExceeded | Fenced | QuorumNotReached | LogTruncated
        | IdempotencyKeyReused | Diverged | Corrupt | Cancelled | Internal => Retry::Never,
    }
}

/// How long to wait before the next attempt, after `attempt` failures in a row (counted from 1).
///
/// Full jitter: the ceiling doubles from 100 ms up to 30 s, and the pause is the share `jitter` (0 to 1, given by the
/// caller, uniform) of it, so that callers that failed together do not return together.
pub fn backoff(attempt: u32, jitter: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let ceiling = (PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX);
    let share = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 1.0 };
    ceiling.mul_f64(share).max(PAUSE_FLOOR)
}

/// What the reader of an error can do about it, in one sentence.
pub fn remedy(kind: ErrorKind) -> &'static str {
    use ErrorKind::*;
    match kind {
        NotFound => "Check the name or key; list what exists.",
        StreamClosed => "Do not try again; use another name.",
        AlreadyExists => "Read the record and change it, or use another key.",
        VersionConflict => "Read the record again and repeat the change on its current version.",
        ConstraintViolated => "Change the value that the named constraint refuses.",
        InvalidInput => "Correct the request; the message names the field and the fix.",
        InvalidConfig => {
            "Correct the configuration; `unisono check` shows every problem at its line."
        }
        SchemaMismatch => {
            "Change the store or the declaration so that they agree; the hint names the way that keeps data."
        }
        Unsupported => "Ask a source that can do this, or declare a follower that can.",
        Unauthenticated => "Send a valid token.",
        PermissionDenied => "Ask for a token with the needed access.",
        RateLimited => "Slow down and try again after the pause.",
        Overloaded => "Try again after the pause; raise the named bound if this goes on.",
        LimitExceeded => "Make the item smaller, or split it.",
        Timeout => {
            "Try again; a write only with the same idempotency key, because it may have taken place."
        }
        Unavailable => "Try again after the pause; see whether the source is up.",
        NotPrimary => "Try again; the write goes to the current primary.",
        Fenced => "Stop writing from this process; another one is in charge.",
        TooStale => "Try again, or ask with a weaker consistency.",
        QuorumNotReached => {
            "If it is committed, do not repeat the write: the log brings it to the others. If not, try again after the pause."
        }
        LogTruncated => {
            "Begin with a fresh copy of the data, then follow the log from its position."
        }
        CheckpointMoved => "Read the checkpoint again and go on from it.",
        IdempotencyKeyReused => "Use a fresh idempotency key for another request.",
        IdempotencyKeyInFlight => "Wait for the first request, then try again with the same key.",
        Diverged => "Run `unisono repair`.",
        Corrupt => "Restore the source, or let it be rebuilt from the truth.",
        Cancelled => {
            "Try again when the process is up; a write only with the same idempotency key."
        }
        Internal => "Report it with the details; a write may have taken place.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_wins_over_the_table() {
        let error = Error::internal("x");
        assert_eq!(retry(&error), Retry::Never);
        assert_eq!(retry(&error.retry(Retry::Now)), Retry::Now);
    }

    #[test]
    fn a_write_that_may_have_happened_is_repeated_only_under_its_key() {
        let timeout = |effect| Error::new(ErrorKind::Timeout, "x").effect(effect);
        assert!(may_repeat_write(&timeout(Effect::None), false));
        assert!(!may_repeat_write(&timeout(Effect::Unknown), false));
        assert!(may_repeat_write(&timeout(Effect::Unknown), true));
        assert!(!may_repeat_write(&timeout(Effect::Committed), true));
        assert!(!may_repeat_write(&Error::invalid("x"), true));
    }

    #[test]
    fn pauses_double_from_100_ms_to_30_s() {
        let ceilings: Vec<u128> =
            [0, 1, 2, 3, 8, 9, 10, 40, u32::MAX].map(|n| backoff(n, 1.0).as_millis()).into();
        assert_eq!(ceilings, [100, 100, 200, 400, 12_800, 25_600, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn jitter_is_a_share_of_the_ceiling_and_any_number_is_safe() {
        assert_eq!(backoff(3, 0.5), Duration::from_millis(200));
        assert_eq!(backoff(3, 0.0), PAUSE_FLOOR);
        for jitter in [-1.0, 2.0, f64::NAN, f64::INFINITY] {
            assert!((PAUSE_FLOOR..=PAUSE_MAX).contains(&backoff(9, jitter)));
        }
    }

    #[test]
    fn every_kind_has_a_remedy_that_is_a_sentence() {
        for kind in ErrorKind::ALL {
            assert!(remedy(*kind).ends_with('.'), "{}", kind.code());
        }
    }
}
