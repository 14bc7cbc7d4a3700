//! The sweep: each follower is compared again and again without anybody's asking, and mended within a budget.

use std::time::Duration;

use unisono_core::Timestamp;
use unisono_policy::declaration::SweepDeclaration;

use crate::engine::Swept;
use crate::verify::report::{Comparison, Depth};

/// How often it is looked whether sweeps are wanted, where they are not.
const LOOK: Duration = Duration::from_secs(60);

/// Compares one follower for as long as the engine runs.
pub(crate) async fn run(swept: Swept) {
    let runtime = swept.runtime();
    let mut deep_at = runtime.now();
    loop {
        let Some(SweepDeclaration { every, .. }) = swept.declared() else { return };
        // Several nodes, and several followers, do not all begin at the same moment.
        let pause =
            if every.is_zero() { LOOK } else { every.mul_f64(0.9 + 0.2 * runtime.random()) };
        runtime.sleep(pause).await;
        let Some(declared) = swept.declared() else { return };
        if declared.every.is_zero() {
            continue;
        }
        let depth = due(&declared, deep_at, runtime.now());
        if depth == Depth::Deep {
            deep_at = runtime.now();
        }
        let Some(found) = swept.compare(depth, declared.rate, false).await else { continue };
        if found.different == 0 {
            continue;
        }
        let (entity, source, classes) = (&found.entity, &found.source, &found.classes);
        tracing::warn!(%entity, %source, ?classes, "a follower differs from its truth");
        if !declared.repair {
            continue;
        }
        if is_too_much(&found) {
            tracing::error!(%entity, %source, different = found.different, records = found.records,
                "so much differs that it is not repaired without being asked for: look at `unisono repair --dry-run`");
        } else {
            swept.compare(depth, declared.rate, true).await;
        }
    }
}

fn due(declared: &SweepDeclaration, last: Timestamp, now: Timestamp) -> Depth {
    let is_deep = !declared.deep.is_zero() && now >= last.plus(declared.deep);
    if is_deep { Depth::Deep } else { Depth::Observed }
}

/// Of few records, even one is a large share.
fn is_too_much(found: &Comparison) -> bool {
    const FEW: u64 = 10;
    let share = found.different as f64 / found.records.max(1) as f64;
    found.different > FEW && share > SweepDeclaration::REPAIRED_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_share_is_left_to_people_but_not_a_few_records() {
        let found = |different, records| {
            let found = Comparison::new(&"item".into(), &"copy".into(), Depth::Observed);
            Comparison { different, records, ..found }
        };
        assert!(!is_too_much(&found(10, 20)));
        assert!(!is_too_much(&found(100, 10_000)));
        assert!(is_too_much(&found(101, 10_000)));
    }

    #[test]
    fn the_data_is_compared_when_its_time_has_come() {
        let declared =
            SweepDeclaration { deep: Duration::from_secs(60), ..SweepDeclaration::default() };
        let begin = Timestamp::from_micros_clamped(0);
        let after = |seconds| due(&declared, begin, begin.plus(Duration::from_secs(seconds)));
        assert_eq!((after(59), after(60)), (Depth::Observed, Depth::Deep));
        let never =
            due(&SweepDeclaration::default(), begin, begin.plus(Duration::from_secs(1 << 40)));
        assert_eq!(never, Depth::Observed);
    }
}
