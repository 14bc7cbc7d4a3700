//! The one table from what went wrong to the exit code of the program.

use unisono::core::{Error, ErrorKind};

/// Everything was done.
pub(crate) const OK: u8 = 0;
/// It failed while running, a record was refused, or a follower differs from the truth.
pub(crate) const FAILED: u8 = 1;
/// The command line or the given data is wrong.
pub(crate) const USAGE: u8 = 2;
/// A source, a server or the machine is not in a state to do it.
pub(crate) const ENVIRONMENT: u8 = 3;
/// The configuration is wrong (`EX_CONFIG` of sysexits).
pub(crate) const CONFIGURATION: u8 = 78;
/// It was ended by Ctrl-C or SIGTERM before it was done.
pub(crate) const INTERRUPTED: u8 = 130;

/// Shown at the end of `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    failed while running, a record was refused, or `verify` found differences
  2    wrong command line or wrong input
  3    a source, a server or the machine is not ready
  78   wrong configuration
  130  ended by Ctrl-C or SIGTERM before it was done";

/// The exit code for an error.
pub(crate) fn code(error: &Error) -> u8 {
    use ErrorKind::*;
    match error.kind() {
        InvalidInput | LimitExceeded | Unsupported => USAGE,
        Unavailable | NotPrimary | Fenced | Overloaded | RateLimited | Timeout | SchemaMismatch => {
            ENVIRONMENT
        }
        InvalidConfig => CONFIGURATION,
        Cancelled => INTERRUPTED,
        NotFound
        | StreamClosed
        | AlreadyExists
        | VersionConflict
        | ConstraintViolated
        | Unauthenticated
        | PermissionDenied
        | TooStale
        | QuorumNotReached
        | LogTruncated
        | CheckpointMoved
        | IdempotencyKeyReused
        | IdempotencyKeyInFlight
        | Diverged
        | Corrupt
        | Internal => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_never_zero_and_every_code_is_documented() {
        for kind in ErrorKind::ALL {
            let code = code(&Error::new(*kind, "x"));
            assert_ne!(code, OK);
            assert!(HELP.contains(&format!("\n  {code} ")), "{code} of {}", kind.code());
        }
    }
}
