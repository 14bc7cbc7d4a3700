//! [`Company`]: whether other processes read an entity through the same cache, so that leases are worth what they cost.
//!
//! A process that reads says so in the server, once a second, and learns who did before it. One that meets its own name twice
//! in a row was alone in between, and takes no leases until it looks again. Who comes meanwhile reads some
//! records that this one reads too, for two seconds at most, and no more than once in each process: leases are about nothing else.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use unisono_core::Timestamp;

/// How often a process that reads looks.
const LOOK: Duration = Duration::from_secs(1);
/// How long what it saw holds.
const HOLDS: Duration = Duration::from_secs(2);
/// How long the server keeps who read last: who looks less often learns nothing.
pub(crate) const KEPT: Duration = Duration::from_secs(5);

/// What one process knows; times in microseconds.
pub(crate) struct Company {
    next_look: AtomicI64,
    last_look: AtomicI64,
    alone_until: AtomicI64,
}

impl Default for Company {
    fn default() -> Self {
        let never = || AtomicI64::new(i64::MIN);
        Company { next_look: never(), last_look: never(), alone_until: never() }
    }
}

impl Company {
    /// Whether nobody else read of late.
    pub(crate) fn is_alone(&self, now: Timestamp) -> bool {
        now.micros() < self.alone_until.load(Ordering::Relaxed)
    }

    /// Whether it is the caller, and nobody else of this process, who looks now.
    pub(crate) fn is_to_look(&self, now: Timestamp) -> bool {
        let due = self.next_look.load(Ordering::Relaxed);
        let next = now.plus(LOOK).micros();
        due <= now.micros()
            && self
                .next_look
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Takes note of who read last before a look at `now`; nobody can tell if the look failed.
    pub(crate) fn saw(&self, last: Option<&[u8]>, me: &[u8], now: Timestamp) {
        let before = self.last_look.swap(now.micros(), Ordering::Relaxed);
        // What is from long ago says nothing of the time since, whatever the server's clock made of it.
        let is_recent = now.micros().saturating_sub(before) <= KEPT.as_micros() as i64;
        let alone = last == Some(me) && is_recent;
        let until = if alone { now.plus(HOLDS).micros() } else { i64::MIN };
        self.alone_until.store(until, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &[u8] = b"me";

    #[test]
    fn who_meets_its_own_name_is_alone_for_a_while() {
        let company = Company::default();
        let at = |ms: i64| Timestamp::from_micros_clamped(1_000_000_000 + ms * 1000);
        assert!(!company.is_alone(at(0)));
        assert!(company.is_to_look(at(0)));
        assert!(!company.is_to_look(at(999)));
        company.saw(None, ME, at(0));
        assert!(!company.is_alone(at(1)), "others may only have been quiet");
        assert!(company.is_to_look(at(1000)));
        company.saw(Some(ME), ME, at(1000));
        assert!(company.is_alone(at(2999)));
        assert!(!company.is_alone(at(3000)), "nobody looked since");
        company.saw(Some(ME), ME, at(3000));
        company.saw(Some(b"other"), ME, at(4000));
        assert!(!company.is_alone(at(4001)));
        company.saw(Some(ME), ME, at(60_000));
        assert!(!company.is_alone(at(60_001)), "the last look is too long ago");
    }
}
