//! Slices of positions: how sets of records are compared without reading them.
//!
//! A version is the position of a record's last change, and no two records of one log have the same one, so the set of
//! versions that a source holds says which records it holds and in which state. Positions are divided into slices of
//! equal width; of the versions in each slice a source sums up how many there are, and two numbers into which each is
//! scrambled. Sources whose slices agree hold the same versions; of a slice that differs the keys are listed.
//! This is range-based set reconciliation (A. Meyer, "Range-Based Set Reconciliation", 2023) with a fingerprint that
//! every engine can sum up exactly, in whole numbers below 2^53, over what it stores anyway.
//!
//! The sums of two different sets of as many versions are equal by chance once in about four thousand million times. Who
//! fears somebody that makes them equal compares the records themselves.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::position::{Position, Version};

/// How positions are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    bits: u32,
}

/// What a source holds of one slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceDigest {
    /// Which slice: its first version divided by the width.
    pub slice: u64,
    /// How many records have a version in it.
    pub records: u64,
    /// The sums of their versions, scrambled in each way.
    pub sums: [u64; 2],
}

/// A number below 2^16 for each version, in no order that anybody would hit by accident: the cube in a prime field, times
/// a factor.
#[derive(Clone, Copy, Debug)]
pub struct Scramble {
    modulus: u64,
    factor: u64,
}

impl Scramble {
    /// Two ways that have nothing to do with each other.
    pub const BOTH: [Scramble; 2] = [
        Scramble { modulus: 65_521, factor: 40_503 },
        Scramble { modulus: 65_497, factor: 52_711 },
    ];

    /// The prime, below 2^16.
    pub fn modulus(self) -> u64 {
        self.modulus
    }

    /// The factor, below 2^16.
    pub fn factor(self) -> u64 {
        self.factor
    }

    /// The number of a version.
    pub fn of(self, version: Version) -> u64 {
        let Scramble { modulus, factor } = self;
        let place = version.as_u64() % modulus;
        place * place % modulus * place % modulus * factor % modulus
    }

    /// The same as an expression over a whole number of 64 bits, as SQL and most languages have it.
    pub fn expression(self, version: &str) -> String {
        let Scramble { modulus: m, factor } = self;
        let place = format!("({version} % {m})");
        format!("{place} * {place} % {m} * {place} % {m} * {factor} % {m}")
    }
}

impl Slices {
    /// A log has about so many slices: few enough to be sent, and each so small that its keys are listed in no time.
    const WANTED: u64 = 1 << 14;
    const BITS_MIN: u32 = 4;
    const BITS_MAX: u32 = 15;

    /// A division that fits a log with this head.
    pub fn of(head: Position) -> Self {
        let wide = (head.sequence() / Self::WANTED).max(1).ilog2() + 1;
        Slices { bits: wide.clamp(Self::BITS_MIN, Self::BITS_MAX) }
    }

    /// How many positions a slice has; a power of two.
    pub fn width(self) -> u64 {
        1 << self.bits
    }

    /// By how many bits a version is shifted for its slice.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// The slice of a version.
    pub fn of_version(self, version: Version) -> u64 {
        version.as_u64() >> self.bits
    }

    /// The versions of some slices, given in ascending order, as ranges with gaps between them.
    pub fn ranges(self, among: &[u64]) -> Vec<RangeInclusive<Version>> {
        let position = |number: u64| Position::new(number).unwrap_or(Position::MAX);
        among
            .chunk_by(|one, next| one + 1 == *next)
            .filter_map(|run| Some((run.first()?, run.last()?)))
            .map(|(first, last)| {
                position(first << self.bits)..=position((last << self.bits) + (self.width() - 1))
            })
            .collect()
    }

    /// The digests of some versions, in ascending order of slices.
    pub fn digests(self, versions: impl IntoIterator<Item = Version>) -> Vec<SliceDigest> {
        let mut sums = Sums::new(self);
        versions.into_iter().for_each(|version| sums.add(version));
        sums.finish()
    }

    /// The slices in which two sources do not, or may not, hold the same; both in ascending order.
    ///
    /// A slice with more records than positions has several with one version, as records have that were there before their
    /// table was captured: its sums do not tell which.
    pub fn differing(self, one: &[SliceDigest], other: &[SliceDigest]) -> Vec<u64> {
        let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
        let mut differing = Vec::new();
        loop {
            let slice = match (one.peek(), other.peek()) {
                (None, None) => return differing,
                (Some(a), Some(b)) => a.slice.min(b.slice),
                (Some(a), None) => a.slice,
                (None, Some(b)) => b.slice,
            };
            let (a, b) = (one.next_if(|d| d.slice == slice), other.next_if(|d| d.slice == slice));
            let crowded = a.is_some_and(|d| d.records > self.width());
            if a != b || crowded {
                differing.push(slice);
            }
        }
    }
}

/// Digests as they are summed up.
#[derive(Debug)]
pub struct Sums {
    slices: Slices,
    sums: BTreeMap<u64, SliceDigest>,
}

impl Sums {
    /// Of nothing yet.
    pub fn new(slices: Slices) -> Self {
        Sums { slices, sums: BTreeMap::new() }
    }

    /// One more record.
    pub fn add(&mut self, version: Version) {
        let slice = self.slices.of_version(version);
        let sum = self.sums.entry(slice).or_default();
        sum.slice = slice;
        sum.records += 1;
        for (sum, scramble) in sum.sums.iter_mut().zip(Scramble::BOTH) {
            *sum += scramble.of(version);
        }
    }

    /// In ascending order of slices.
    pub fn finish(self) -> Vec<SliceDigest> {
        self.sums.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(number: u64) -> Position {
        Position::new(number).unwrap()
    }

    #[test]
    fn slices_are_as_wide_as_the_log_is_long() {
        let widths = |head: u64| Slices::of(position(head)).width();
        assert_eq!([0, 1_000, 1 << 20, 1 << 24, 1 << 40].map(widths), [16, 16, 128, 2048, 1 << 15]);
        // A generation is no length.
        assert_eq!(widths((5 << 48) + 1_000), 16);
    }

    #[test]
    fn many_records_of_one_version_are_never_told_to_agree() {
        let slices = Slices::of(Position::ZERO);
        let digests = slices.digests(vec![position(3); 17]);
        assert_eq!(slices.differing(&digests, &digests), [0]);
    }

    #[test]
    fn versions_are_scrambled_as_the_engines_do_it() {
        let first = Scramble::BOTH[0];
        assert_eq!(
            first.expression("v"),
            "(v % 65521) * (v % 65521) % 65521 * (v % 65521) % 65521 * 40503 % 65521"
        );
        assert_eq!([0, 1, 65_521, 65_522].map(|v| first.of(position(v))), [0, 40_503, 0, 40_503]);
        assert!(Scramble::BOTH.iter().all(|s| s.of(Position::MAX) < 1 << 16));
    }

    /// An exchange that sums of versions and of their squares do not see.
    #[test]
    fn equal_powers_are_told_apart() {
        let slices = Slices::of(Position::ZERO);
        let digests = |versions: [u64; 3]| slices.digests(versions.map(position));
        assert_eq!(slices.differing(&digests([1, 5, 6]), &digests([2, 3, 7])), [0]);
    }

    #[test]
    fn neighbours_are_one_range() {
        let slices = Slices::of(Position::ZERO);
        let range = |from, to| position(from)..=position(to);
        assert_eq!(slices.ranges(&[1, 2, 5]), [range(16, 47), range(80, 95)]);
        assert_eq!(
            slices.ranges(&[i64::MAX as u64 >> 4]),
            [range(i64::MAX as u64 & !15, i64::MAX as u64)]
        );
    }

    proptest! {
        #[test]
        fn exactly_the_slices_of_what_only_one_has_differ(
            common in prop::collection::btree_set(0u64..4_000, 0..300),
            missing in prop::collection::btree_set(0u64..4_000, 0..5),
        ) {
            let slices = Slices::of(position(4_000));
            let one = slices.digests(common.iter().map(|v| position(*v)));
            let other = slices.digests(common.difference(&missing).map(|v| position(*v)));
            let mut expected: Vec<_> =
                common.intersection(&missing).map(|v| slices.of_version(position(*v))).collect();
            expected.dedup();
            prop_assert_eq!(&slices.differing(&one, &other), &expected);
            prop_assert_eq!(&slices.differing(&other, &one), &expected);
        }

        #[test]
        fn a_version_in_place_of_another_is_noticed(
            mut versions in prop::collection::btree_set(0u64..4_000, 1..300), other in 0u64..4_000,
        ) {
            let slices = Slices::of(position(4_000));
            prop_assume!(!versions.contains(&other));
            let before = slices.digests(versions.iter().map(|v| position(*v)));
            versions.pop_first();
            versions.insert(other);
            let after = slices.digests(versions.iter().map(|v| position(*v)));
            prop_assert!(slices.differing(&before, &after).contains(&slices.of_version(position(other))));
        }
    }
}
