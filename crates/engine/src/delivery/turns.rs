//! [`Turns`]: which deliveries of one truth work through a backlog, so that less urgent ones let them go first.

use std::collections::BTreeMap;

use unisono_policy::delivery::YIELD_MAX;

use crate::runtime::Runtime;
use crate::watched::Watched;

/// How many deliveries work through a backlog, by their priority.
#[derive(Default)]
pub(crate) struct Turns(Watched<BTreeMap<i64, usize>>);

/// That a delivery works through a backlog, until it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    priority: i64,
}

impl Turns {
    /// Tells that a delivery works through a backlog.
    pub(crate) fn begin(&self, priority: i64) -> Turn<'_> {
        self.0.change(|busy| {
            *busy.entry(priority).or_default() += 1;
            false
        });
        Turn { turns: self, priority }
    }

    /// Waits while a more urgent delivery works through a backlog, for a while.
    pub(crate) async fn give_way(&self, priority: i64, runtime: &Runtime) {
        let free = async {
            self.0.until(|busy| busy.keys().next_back().is_none_or(|most| *most <= priority)).await;
            Ok(())
        };
        // Who has waited long enough goes, too.
        let _ = runtime.within(YIELD_MAX, free).await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.0.change(|busy| {
            let left = busy.get(&self.priority).copied().unwrap_or_default().saturating_sub(1);
            match left {
                0 => busy.remove(&self.priority),
                left => busy.insert(self.priority, left),
            };
            left == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_less_urgent_waits_but_not_for_ever() {
        let (turns, runtime) = (Turns::default(), Runtime::system());
        let waited = async |priority| {
            let watch = runtime.stopwatch();
            turns.give_way(priority, &runtime).await;
            watch.elapsed()
        };
        assert!(waited(0).await.is_zero(), "nobody is at work");
        let (urgent, other) = (turns.begin(5), turns.begin(5));
        assert!(waited(5).await.is_zero() && waited(9).await.is_zero(), "nobody is more urgent");
        assert_eq!(waited(4).await, YIELD_MAX);
        drop(other);
        let ends = async {
            runtime.sleep(YIELD_MAX / 2).await;
            drop(urgent);
        };
        assert_eq!(futures::join!(waited(4), ends).0, YIELD_MAX / 2);
        assert!(waited(4).await.is_zero());
    }
}
