//! [`Position`]: the one number that orders changes, versions records and serves as token.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// Place of a change in its log: 15 bits of generation above 48 bits of sequence.
///
/// Positions of one log are dense within a generation and follow commit order. The generation is raised when a
/// truth is restored from a backup, so that positions never repeat. Zero is "before everything". In JSON it is a
/// string, because JavaScript numbers cannot hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

/// Version of a record: the position of its last change.
pub type Version = Position;

impl Position {
    /// Before every change.
    pub const ZERO: Position = Position(0);
    /// The greatest position that fits in 63 bits.
    pub const MAX: Position = Position(i64::MAX as u64);
    const SEQUENCE_BITS: u32 = 48;

    /// From its number; values above 63 bits are an error.
    pub fn new(number: u64) -> Result<Self> {
        if number > Self::MAX.0 {
            return Err(Error::invalid("position is above 63 bits").with("position", number));
        }
        Ok(Position(number))
    }

    /// From a signed store column; negative numbers are corrupt data.
    pub fn from_i64(number: i64) -> Result<Self> {
        u64::try_from(number).map(Position).map_err(|_| {
            Error::new(crate::error::ErrorKind::Corrupt, "stored position is negative")
                .with("position", number)
        })
    }

    /// As a number that fits a signed 64-bit column.
    pub fn as_i64(self) -> i64 {
        self.0 as i64
    }

    /// As a number.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The generation of the log in which the position was taken.
    pub fn generation(self) -> u16 {
        (self.0 >> Self::SEQUENCE_BITS) as u16
    }

    /// Its place within its generation.
    pub fn sequence(self) -> u64 {
        self.0 & ((1 << Self::SEQUENCE_BITS) - 1)
    }

    /// The position directly after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Position(self.0 + 1)
    }

    /// The position `n` changes later.
    #[must_use]
    pub fn plus(self, n: u64) -> Self {
        Position(self.0 + n)
    }

    /// How many changes lie between `earlier` and this position; 0 if it is not later.
    pub fn since(self, earlier: Position) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The first position of the next generation.
    #[must_use]
    pub fn next_generation(self) -> Self {
        Position(((self.0 >> Self::SEQUENCE_BITS) + 1) << Self::SEQUENCE_BITS)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.parse::<u64>() {
            Ok(number) => Position::new(number),
            Err(_) => Err(Error::invalid("position is not a whole number").with("position", text)),
        }
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Name of one log: the source that is the truth, and the partition of its log (0 unless it was split).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName {
    /// The truth's source name.
    pub truth: Arc<str>,
    /// The partition, 0 for a log that is not split.
    pub partition: u16,
}

impl LogName {
    /// The only log of a truth that is not split.
    pub fn of(truth: &Arc<str>) -> Self {
        LogName { truth: Arc::clone(truth), partition: 0 }
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            0 => f.write_str(&self.truth),
            n => write!(f, "{}.{n}", self.truth),
        }
    }
}

/// What a caller gets with a write and sends with a read, to see at least that write.
///
/// Holds one position for each log that its bearer has touched. Text form: `main:17` or `main:17,other.3:5`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token(BTreeMap<LogName, Position>);

impl Token {
    const LOGS_MAX: usize = 64;

    /// A token for one position of one log.
    pub fn at(log: LogName, position: Position) -> Self {
        Token(BTreeMap::from([(log, position)]))
    }

    /// The least position of `log` that an answer must contain.
    pub fn position(&self, log: &LogName) -> Position {
        self.0.get(log).copied().unwrap_or_default()
    }

    /// Takes in another token: each log keeps its greater position.
    pub fn merge(&mut self, other: &Token) {
        for (log, position) in &other.0 {
            let mine = self.0.entry(log.clone()).or_default();
            *mine = (*mine).max(*position);
        }
    }

    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (log, position)) in self.0.iter().enumerate() {
            write!(f, "{}{log}:{position}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid("token is not of the form source:position")
                .with("token", text.chars().take(80).collect::<String>())
                .hint("send back the Unisono-Token header exactly as it came")
        };
        let mut token = Token::default();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (log, position) = part.rsplit_once(':').ok_or_else(bad)?;
            let (truth, partition) = match log.split_once('.') {
                Some((truth, n)) => (truth, n.parse().map_err(|_| bad())?),
                None => (log, 0),
            };
            if truth.is_empty() || token.0.len() >= Self::LOGS_MAX {
                return Err(bad());
            }
            let position = position.parse().map_err(|_| bad())?;
            token.0.insert(LogName { truth: truth.into(), partition }, position);
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_above_every_earlier_position() {
        let p = Position::new(123_456).unwrap();
        assert!(p.next_generation() > Position::new((1 << 48) - 1).unwrap());
        assert_eq!(p.next_generation().generation(), 1);
    }

    #[test]
    fn tokens_survive_their_text_and_merge_upwards() {
        let mut t: Token = "main:17,other.3:5".parse().unwrap();
        assert_eq!(t.to_string(), "main:17,other.3:5");
        t.merge(&"main:9,other.3:8".parse().unwrap());
        assert_eq!(t.to_string(), "main:17,other.3:8");
    }

    #[test]
    fn bad_tokens_are_refused() {
        for text in ["main", "main:x", ":5", "main.z:5", "main:99999999999999999999"] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
    }
}
