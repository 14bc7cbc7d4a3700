//! When a writer is answered: what is declared of it, and the verdict from how far the followers are.
//!
//! | `ack` | demanded besides the commit of the truth |
//! |---|---|
//! | `truth` | nothing |
//! | a number n | n - 1 of the followers that are to hold the record have it; all of them, if they are fewer |
//! | `all` | every follower has it, or has come past it if its `where` leaves the record out |
//! | names | the same of these followers |

use std::time::Duration;

use unisono_core::Ack;

/// What is declared of the answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckPolicy {
    /// Which sources must have a write before its writer is answered.
    pub ack: Ack,
    /// How long the answer waits for them after the commit.
    pub timeout: Duration,
}

impl Default for AckPolicy {
    fn default() -> Self {
        AckPolicy { ack: Ack::Truth, timeout: Duration::from_secs(5) }
    }
}

/// How far a follower is with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has applied it, or has come past what its `where` leaves out.
    Has,
    /// It has not come to it.
    Pending,
    /// It will not have it in time: it refuses the record, cannot be reached, or is being copied.
    Hopeless,
}

/// One follower and one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower<'a> {
    /// The source.
    pub source: &'a str,
    /// Whether it is to hold the record, as far as is known.
    pub wanted: bool,
    /// How far it is.
    pub standing: Standing,
}

/// Whether a write can be answered; of several, the greatest is that of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Enough sources have it.
    Reached,
    /// Enough may come to have it.
    Wait,
    /// Too many will not have it in time.
    Impossible,
}

/// Whether `ack` demands that this follower has a write, by name or as one of all or of several.
pub fn is_demanded(ack: &Ack, follower: &Follower<'_>) -> bool {
    match ack {
        Ack::Truth => false,
        Ack::Count(_) => follower.wanted,
        Ack::All => true,
        Ack::Named(names) => names.iter().any(|name| **name == *follower.source),
    }
}

/// Whether a committed write can be answered, or one that is not can come to be.
pub fn verdict(ack: &Ack, followers: &[Follower<'_>]) -> Verdict {
    if ack.is_truth() {
        return Verdict::Reached;
    }
    let demanded = followers.iter().filter(|f| is_demanded(ack, f));
    let of = |standing| demanded.clone().filter(|f| f.standing == standing).count();
    let (has, pending) = (of(Standing::Has), of(Standing::Pending));
    let needed = match ack {
        Ack::Count(count) => demanded.count().min(count - 1),
        Ack::Truth | Ack::All | Ack::Named(_) => demanded.count(),
    };
    if has >= needed {
        Verdict::Reached
    } else if has + pending >= needed {
        Verdict::Wait
    } else {
        Verdict::Impossible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Followers `a`, `b`, `c`: `h` has, `p` pending, `x` hopeless; upper case if they are not to hold the record.
    fn of(ack: &str, standings: &str) -> Verdict {
        let followers: Vec<_> = standings
            .chars()
            .zip(["a", "b", "c"])
            .map(|(letter, source)| Follower {
                source,
                wanted: letter.is_ascii_lowercase(),
                standing: match letter.to_ascii_lowercase() {
                    'h' => Standing::Has,
                    'p' => Standing::Pending,
                    _ => Standing::Hopeless,
                },
            })
            .collect();
        verdict(&Ack::parse(ack).unwrap(), &followers)
    }

    #[test]
    fn verdicts() {
        use Verdict::*;
        for (ack, standings, expected) in [
            ("truth", "xxx", Reached),
            ("1", "xxx", Reached),
            ("all", "", Reached),
            ("2", "", Reached),
            ("2", "ppp", Wait),
            ("2", "hpp", Reached),
            ("2", "hxx", Reached),
            ("2", "xxx", Impossible),
            ("3", "hpp", Wait),
            ("3", "hhp", Reached),
            ("3", "hxx", Impossible),
            ("3", "pxp", Wait),
            ("9", "hhp", Wait),
            ("9", "hhh", Reached),
            // Who is not to hold the record counts neither way, but `all` waits until it has come past.
            ("3", "hHx", Impossible),
            ("3", "hH", Reached),
            ("2", "PP", Reached),
            ("all", "hhH", Reached),
            ("all", "hhP", Wait),
            ("all", "hhX", Impossible),
            ("a c", "hph", Reached),
            ("a c", "hhp", Wait),
            ("a c", "xhh", Impossible),
        ] {
            assert_eq!(of(ack, standings), expected, "{ack} of {standings:?}");
        }
    }
}
