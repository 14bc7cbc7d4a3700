//! [`HedgeBudget`]: how many reads may be asked twice.

/// For each read that is asked twice there are so many that are not.
const READS: u32 = 20;
/// The most reads asked twice in a row.
const SAVED_MAX: u32 = 10 * READS;

/// Bounds the reads that are asked of a second source because the first is slow, to a twentieth of all: when
/// everything is slow, asking twice would only make it slower (Dean, Barroso, "The Tail at Scale", CACM 2013).
#[derive(Clone, Copy, Debug)]
pub struct HedgeBudget(u32);

impl Default for HedgeBudget {
    /// Enough for a few.
    fn default() -> Self {
        HedgeBudget(SAVED_MAX)
    }
}

impl HedgeBudget {
    /// A read was asked.
    pub fn earn(&mut self) {
        self.0 = (self.0 + 1).min(SAVED_MAX);
    }

    /// Whether a read may be asked twice now; if so, it counts.
    pub fn spend(&mut self) -> bool {
        let enough = self.0 >= READS;
        if enough {
            self.0 -= READS;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_of_the_reads_may_be_asked_twice() {
        let mut budget = HedgeBudget::default();
        while budget.spend() {}
        let spent = (0..1000).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(spent.count(), 50);
    }
}
