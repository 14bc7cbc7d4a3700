//! [`DeliveryPolicy`]: what is declared of the delivery to one follower, and the decisions that it asks for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::time::duration_text;
use unisono_core::{Error, ErrorKind, Result};

use crate::declaration::FollowerDeclaration;

/// What is declared of the delivery to one follower.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// The follower of the same entity that must have a change, durably, before this one gets it.
    pub after: Option<Arc<str>>,
    /// While a delivery of the same truth with a greater priority works through a backlog, this one waits before each
    /// batch, for at most [`YIELD_MAX`].
    pub priority: i64,
    /// How much goes in one batch, and how long it may gather.
    pub batch: BatchPolicy,
}

impl fmt::Display for DeliveryPolicy {
    /// What is not as it is without any policy; nothing if all of it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BatchPolicy { size, bytes, age } = self.batch;
        let parts = [
            self.after.as_ref().map(|after| format!("after {after}")),
            (self.priority != 0).then(|| format!("priority {}", self.priority)),
            size.map(|size| format!("batches of {size}")),
            bytes.map(|bytes| format!("of {bytes} bytes")),
            (!age.is_zero()).then(|| format!("gathered for {}", duration_text(age))),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// How long a delivery waits at most before each batch for more urgent ones, so that none is held up for ever.
pub const YIELD_MAX: Duration = Duration::from_millis(250);

/// The followers of an entity, each behind the one that it comes `after`.
///
/// Fails with `invalid_config` if one comes after what is no follower, or after itself by whatever way.
pub fn in_order(followers: &[FollowerDeclaration]) -> Result<Vec<&FollowerDeclaration>> {
    let mut ordered: Vec<&FollowerDeclaration> = Vec::with_capacity(followers.len());
    let mut left: Vec<&FollowerDeclaration> = followers.iter().collect();
    while !left.is_empty() {
        let is_placed = |name: &Arc<str>| ordered.iter().any(|f| f.source == *name);
        let (next, later): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|f| f.delivery.after.as_ref().is_none_or(is_placed));
        if let (true, Some(stuck)) = (next.is_empty(), later.first()) {
            let message = "comes `after` what is no follower, or after itself";
            return Err(Error::new(ErrorKind::InvalidConfig, message).at(&stuck.source));
        }
        ordered.extend(next);
        left = later;
    }
    Ok(ordered)
}

/// How much goes in one batch, and how long it may gather.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchPolicy {
    /// The most changes; what the follower takes if absent.
    pub size: Option<usize>,
    /// The most bytes; what the follower takes if absent.
    pub bytes: Option<usize>,
    /// How long a change waits at most for others to fill its batch; zero for not at all.
    pub age: Duration,
}

impl BatchPolicy {
    /// The most changes of a batch of which the follower would take `most`.
    pub fn changes_max(&self, most: usize) -> usize {
        self.size.map_or(most, |size| size.clamp(1, most.max(1)))
    }

    /// The most bytes of a batch of which the follower would take `most`.
    pub fn bytes_max(&self, most: usize) -> usize {
        self.bytes.map_or(most, |bytes| bytes.clamp(1, most.max(1)))
    }

    /// How much longer a batch gathers; `None` if it is to go now. `waiting` changes are there of the `full` that it
    /// holds, and the oldest has waited for `oldest`.
    pub fn gathers_for(&self, waiting: usize, full: usize, oldest: Duration) -> Option<Duration> {
        let left = self.age.saturating_sub(oldest);
        (waiting < full && !left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(source: &str, after: Option<&str>) -> FollowerDeclaration {
        let after = after.map(Into::into);
        FollowerDeclaration {
            source: source.into(),
            place: None,
            options: Default::default(),
            filter: None,
            map: None,
            delivery: DeliveryPolicy { after, ..DeliveryPolicy::default() },
            clear: false,
        }
    }

    #[test]
    fn each_follower_stands_behind_the_one_before_it() {
        let order = |followers: &[(&str, Option<&str>)]| {
            let all: Vec<_> =
                followers.iter().map(|(name, after)| follower(name, *after)).collect();
            let order = in_order(&all).ok()?;
            Some(order.iter().map(|f| f.source.to_string()).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(order(&[]).as_deref(), Some(""));
        assert_eq!(order(&[("b", Some("a")), ("a", None)]).as_deref(), Some("a b"));
        let chain = [("c", Some("b")), ("b", Some("a")), ("a", None), ("d", None)];
        assert_eq!(order(&chain).as_deref(), Some("a d b c"));
        assert_eq!(order(&[("a", Some("a"))]), None);
        assert_eq!(order(&[("a", Some("b")), ("b", Some("a")), ("c", None)]), None);
        assert_eq!(order(&[("a", Some("x"))]), None);
    }

    #[test]
    fn what_is_declared_is_told() {
        assert_eq!(DeliveryPolicy::default().to_string(), "");
        let batch = BatchPolicy { size: Some(5), bytes: None, age: Duration::from_secs(1) };
        let policy = DeliveryPolicy { after: Some("a".into()), priority: -2, batch };
        let told = "after a, priority -2, batches of 5, gathered for 1s";
        assert_eq!(policy.to_string(), told);
    }

    #[test]
    fn a_batch_is_no_larger_than_its_follower_takes() {
        let of = |size| BatchPolicy { size, bytes: size, ..BatchPolicy::default() };
        for (size, most, expected) in [
            (None, 10, 10),
            (Some(3), 10, 3),
            (Some(30), 10, 10),
            (Some(0), 10, 1),
            (Some(5), 0, 1),
        ] {
            assert_eq!(of(size).changes_max(most), expected);
            assert_eq!(of(size).bytes_max(most), expected);
        }
    }

    #[test]
    fn a_batch_goes_when_it_is_full_or_old() {
        let millis = Duration::from_millis;
        let policy = BatchPolicy { age: millis(100), ..BatchPolicy::default() };
        for (waiting, oldest, expected) in [
            (1, 0, Some(millis(100))),
            (1, 30, Some(millis(70))),
            (1, 100, None),
            (1, 500, None),
            (9, 0, Some(millis(100))),
            (10, 0, None),
        ] {
            assert_eq!(policy.gathers_for(waiting, 10, millis(oldest)), expected);
        }
        assert_eq!(BatchPolicy::default().gathers_for(1, 10, millis(0)), None);
    }
}
