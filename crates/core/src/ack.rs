//! [`Ack`]: which sources must have a write before its writer is answered.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Which sources must have a write before its writer is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// The truth, which has committed it.
    #[default]
    Truth,
    /// So many sources, the truth among them; or all that are to hold the record, where those are fewer.
    Count(usize),
    /// The truth and every follower.
    All,
    /// The truth and these followers.
    Named(Vec<Arc<str>>),
}

impl Ack {
    /// The words that are not names of followers.
    pub const WORDS: [&str; 2] = ["truth", "all"];

    /// From `truth`, `all`, a number from 1, or names of followers with spaces between them.
    ///
    /// Fails with `invalid_input` for anything else; whether there are such followers is not known here.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &'static str| {
            Error::invalid(what)
                .with("value", text.chars().take(40).collect::<String>())
                .hint("ack is truth, all, a number of sources, or names of followers")
        };
        match text.trim() {
            "" => Err(wrong("ack names nothing")),
            "truth" => Ok(Ack::Truth),
            "all" => Ok(Ack::All),
            text if text.bytes().all(|b| b.is_ascii_digit()) => match text.parse() {
                Ok(0) | Err(_) => Err(wrong("ack counts at least the truth, so it is 1 or more")),
                Ok(count) => Ok(Ack::Count(count)),
            },
            names => Ok(Ack::Named(names.split_ascii_whitespace().map(Into::into).collect())),
        }
    }

    /// Whether the commit of the truth is all that is demanded.
    pub fn is_truth(&self) -> bool {
        match self {
            Ack::Truth | Ack::Count(0 | 1) => true,
            Ack::Named(names) => names.is_empty(),
            Ack::Count(_) | Ack::All => false,
        }
    }
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ack::Truth => f.write_str("truth"),
            Ack::Count(count) => write!(f, "{count}"),
            Ack::All => f.write_str("all"),
            Ack::Named(names) => f.write_str(&names.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in ["truth", "all", "1", "3", "search", "search redis"] {
            assert_eq!(Ack::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Ack::parse(" all ").unwrap(), Ack::All);
        for wrong in ["", " ", "0", "99999999999999999999"] {
            assert!(Ack::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_source_is_the_truth() {
        let truth = ["truth", "1"].map(|text| Ack::parse(text).unwrap().is_truth());
        assert_eq!(truth, [true, true]);
        assert!(["2", "all", "search"].iter().all(|text| !Ack::parse(text).unwrap().is_truth()));
    }
}
