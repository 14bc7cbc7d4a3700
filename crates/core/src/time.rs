//! [`Date`] and [`Timestamp`]: civil dates and UTC instants of the years 0000 to 9999; and how durations are written.
//!
//! The range is that of RFC 3339, so that the text form has a fixed width and sorts like the time itself.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use jiff::civil;

use crate::error::{Error, Result};

const MICROS_PER_DAY: i64 = 86_400_000_000;
const DAYS_MIN: i64 = -719_528; // 0000-01-01
const DAYS_MAX: i64 = 2_932_896; // 9999-12-31

/// A calendar day without time or zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i32);

impl Date {
    /// From days since 1970-01-01.
    pub fn from_days(days: i32) -> Result<Self> {
        if !(DAYS_MIN..=DAYS_MAX).contains(&i64::from(days)) {
            return Err(Error::invalid("date is outside the years 0000 to 9999"));
        }
        Ok(Date(days))
    }

    /// Days since 1970-01-01.
    pub fn days(self) -> i32 {
        self.0
    }

    fn civil(self) -> (i64, u32, u32) {
        civil_from_days(i64::from(self.0))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, m, d) = self.civil();
        write!(f, "{y:04}-{m:02}-{d:02}")
    }
}

impl FromStr for Date {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || Error::invalid("is not a date of the form 2026-12-31").with("value", clip(text));
        let shape = text.len() == 10 && text.as_bytes()[0].is_ascii_digit();
        let date: civil::Date =
            if shape { text.parse().map_err(|_| bad())? } else { return Err(bad()) };
        Ok(Date(days_of(date) as i32))
    }
}

/// An instant in UTC, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// From microseconds since 1970-01-01T00:00:00Z.
    pub fn from_micros(micros: i64) -> Result<Self> {
        if !(DAYS_MIN * MICROS_PER_DAY..(DAYS_MAX + 1) * MICROS_PER_DAY).contains(&micros) {
            return Err(Error::invalid("timestamp is outside the years 0000 to 9999"));
        }
        Ok(Timestamp(micros))
    }

    /// From microseconds, moved into the supported range if outside.
    pub fn from_micros_clamped(micros: i64) -> Self {
        Timestamp(micros.clamp(DAYS_MIN * MICROS_PER_DAY, (DAYS_MAX + 1) * MICROS_PER_DAY - 1))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Seconds from `earlier` to this instant; 0 if it is not later.
    pub fn seconds_since(self, earlier: Timestamp) -> f64 {
        (self.0.saturating_sub(earlier.0)).max(0) as f64 / 1e6
    }

    /// Later by `duration`, at most the end of the supported range.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros_clamped(self.0.saturating_add(micros))
    }

    /// Earlier by `duration`, at least the start of the supported range.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros_clamped(self.0.saturating_sub(micros))
    }

    /// How many digits of the second's fraction are in use, 0 to 6.
    pub fn fraction_digits(self) -> u8 {
        let mut micros = self.0.rem_euclid(1_000_000);
        let mut digits = 6;
        while digits > 0 && micros % 10 == 0 {
            micros /= 10;
            digits -= 1;
        }
        digits
    }

    /// RFC 3339 with exactly `digits` (0 to 6) digits of the second's fraction; further digits are cut.
    pub fn to_text(self, digits: u8) -> String {
        let (days, rest) = (self.0.div_euclid(MICROS_PER_DAY), self.0.rem_euclid(MICROS_PER_DAY));
        let (y, m, d) = civil_from_days(days);
        let (s, micros) = (rest / 1_000_000, rest % 1_000_000);
        let mut out = String::with_capacity(28);
        let _ =
            write!(out, "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
        if digits > 0 {
            let digits = usize::from(digits.min(6));
            let _ = write!(out, ".{}", &format!("{micros:06}")[..digits]);
        }
        out.push('Z');
        out
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(self.fraction_digits()))
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// RFC 3339 with a zone: `2026-12-31T23:59:59.999999Z` or `…+02:00`. More than six digits must be zeros.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid("is not a timestamp of the form 2026-12-31T23:59:59.123456Z")
                .with("value", clip(text))
        };
        let (local, offset_minutes) = split_zone(text).ok_or_else(bad)?;
        if local.len() < 19 || !local.as_bytes()[0].is_ascii_digit() {
            return Err(bad());
        }
        let (seconds, fraction) = local.split_once('.').map_or((local, ""), |(s, f)| (s, f));
        if local.contains('.')
            && (fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(bad());
        }
        let (kept, beyond) = fraction.split_at(fraction.len().min(6));
        if beyond.bytes().any(|b| b != b'0') {
            return Err(
                Error::invalid("has more than six digits of a second").with("value", clip(text))
            );
        }
        let micros: i64 = format!("{kept:0<6}").parse().map_err(|_| bad())?;
        let civil: civil::DateTime = seconds.parse().map_err(|_| bad())?;
        let time = civil.time();
        let of_day = (i64::from(time.hour()) * 3600
            + i64::from(time.minute()) * 60
            + i64::from(time.second()))
            * 1_000_000;
        Timestamp::from_micros(
            days_of(civil.date()) * MICROS_PER_DAY + of_day + micros - offset_minutes * 60_000_000,
        )
    }
}

/// A duration such as `500ms` or `7d`: a number with `ms`, `s`, `m`, `h` or `d`, at most a hundred years.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let millis = number.parse::<u64>().ok()?.checked_mul(millis)?;
    (millis <= 100 * 366 * 86_400_000).then_some(Duration::from_millis(millis))
}

/// Splits `…Z` or `…+02:00` into the local part and the offset in minutes.
fn split_zone(text: &str) -> Option<(&str, i64)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    if !text.is_ascii() || text.len() < 25 {
        return None;
    }
    let (local, zone) = text.split_at(text.len() - 6);
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let (hours, minutes) = (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?);
    (hours < 24 && minutes < 60).then_some((local, sign * (hours * 60 + minutes)))
}

/// A duration as configurations write it: `500ms`, `60s`, `7d`. What is less than a millisecond is left out.
pub fn duration_text(duration: std::time::Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let exact = units.into_iter().find(|(n, _)| millis > 0 && millis.is_multiple_of(*n));
    exact.map_or_else(|| format!("{millis}ms"), |(n, unit)| format!("{}{unit}", millis / n))
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Days since 1970-01-01 of a proleptic Gregorian date: the algorithm of Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms" (days_from_civil).
fn days_of(date: civil::Date) -> i64 {
    let (m, d) = (i64::from(date.month()), i64::from(date.day()));
    let y = i64::from(date.year()) - i64::from(m <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((m + 9) % 12) + 2) / 5 + d - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// The inverse of [`days_of`] (civil_from_days of the same text).
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let d = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let m = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(m <= 2), m as u32, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_survive_their_text() {
        for text in [
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "1969-12-31T23:59:59.999999Z",
            "1970-01-01T00:00:00Z",
            "2024-02-29T12:30:00.5Z",
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        for text in ["0000-01-01", "9999-12-31", "2024-02-29"] {
            assert_eq!(text.parse::<Date>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn offsets_are_taken_into_account() {
        let t: Timestamp = "2026-01-01T01:00:00+02:00".parse().unwrap();
        assert_eq!(t.to_string(), "2025-12-31T23:00:00Z");
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "2026-01-01",
            "2026-13-01T00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T25:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567Z",
            "-001-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        for text in ["", "2026-1-1", "2026-02-30", "20260101", "2026-01-01T00:00:00Z"] {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }

    #[test]
    fn text_order_is_time_order() {
        let times = [-62_000_000_000_000_000, -1, 0, 1, 1_700_000_000_123_456]
            .map(|m| Timestamp::from_micros(m).unwrap());
        let texts = times.map(|t| t.to_text(6));
        assert!(texts.is_sorted());
    }
}
