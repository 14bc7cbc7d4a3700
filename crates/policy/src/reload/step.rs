//! [`Step`]: what a reload does to one source or one follower.

use std::fmt;
use std::sync::Arc;

/// What a reload does to one source or one follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A source is opened and prepared.
    AddSource {
        /// Its name.
        source: Arc<str>,
        /// Its kind.
        kind: Arc<str>,
    },
    /// A source that nothing is kept in any more is closed.
    RemoveSource {
        /// Its name.
        source: Arc<str>,
    },
    /// A follower gets a copy, and then what changes.
    AddFollower {
        /// The entity.
        entity: Arc<str>,
        /// The follower's source.
        source: Arc<str>,
        /// Whether it holds only what its `where` keeps.
        filtered: bool,
        /// About how many records the truth has, if that is known.
        records: Option<u64>,
    },
    /// A follower gets no more changes and answers no more reads.
    RemoveFollower {
        /// The entity.
        entity: Arc<str>,
        /// The follower's source.
        source: Arc<str>,
    },
    /// A follower is to hold other records than it does: it is compared with the truth and brought into line.
    ChangeWhere {
        /// The entity.
        entity: Arc<str>,
        /// The follower's source.
        source: Arc<str>,
        /// The rule so far, `none` for all records.
        from: String,
        /// The rule from now on.
        to: String,
        /// About how many records the truth has, if that is known.
        records: Option<u64>,
    },
    /// A follower is to keep records otherwise than it does: it is compared with the truth and brought into line.
    ChangeMap {
        /// The entity.
        entity: Arc<str>,
        /// The follower's source.
        source: Arc<str>,
        /// What is worked out so far, `none` if records are kept as they are.
        from: String,
        /// What is from now on.
        to: String,
        /// About how many records the truth has, if that is known.
        records: Option<u64>,
    },
    /// A follower becomes the truth, and the truth a follower.
    MoveTruth {
        /// The entity.
        entity: Arc<str>,
        /// The truth so far.
        from: Arc<str>,
        /// The truth from now on.
        to: Arc<str>,
    },
}

impl Step {
    /// The entity whose records are read for it, and where their number is to be noted.
    pub fn reads(&mut self) -> Option<(&Arc<str>, &mut Option<u64>)> {
        match self {
            Step::AddFollower { entity, records, .. }
            | Step::ChangeWhere { entity, records, .. }
            | Step::ChangeMap { entity, records, .. } => Some((entity, records)),
            Step::AddSource { .. }
            | Step::RemoveSource { .. }
            | Step::RemoveFollower { .. }
            | Step::MoveTruth { .. } => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::AddSource { source, kind } => write!(f, "+ source {source} ({kind})"),
            Step::RemoveSource { source } => write!(f, "- source {source} (is closed)"),
            Step::AddFollower { entity, source, filtered, records } => {
                let records = about(*records);
                let which = if *filtered { "what `where` keeps of " } else { "" };
                write!(f, "+ follower {source} of {entity} (copies {which}{records})")
            }
            Step::RemoveFollower { entity, source } => {
                write!(f, "- follower {source} of {entity} (what it holds stays as it is)")
            }
            Step::MoveTruth { entity, from, to } => {
                write!(f, "~ truth of {entity}: {from} -> {to} ({from} follows it)")
            }
            Step::ChangeMap { entity, source, from, to, records } => {
                let records = about(*records);
                write!(f, "~ follower {source} of {entity}: {from} -> {to} (compares {records})")
            }
            Step::ChangeWhere { entity, source, from, to, records } => {
                let records = about(*records);
                write!(
                    f,
                    "~ follower {source} of {entity}: where {from} -> {to} (compares {records})"
                )
            }
        }
    }
}

fn about(records: Option<u64>) -> String {
    let Some(records) = records else { return "all records".to_owned() };
    let digits = records.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("about {text} records")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_one_line() {
        let (entity, source) = (|| Arc::from("product"), || Arc::from("search"));
        let add = |filtered, records| {
            Step::AddFollower { entity: entity(), source: source(), filtered, records }.to_string()
        };
        assert_eq!(
            add(false, Some(92_331)),
            "+ follower search of product (copies about 92,331 records)"
        );
        assert_eq!(
            add(false, Some(999)),
            "+ follower search of product (copies about 999 records)"
        );
        assert_eq!(
            add(true, Some(1_000_000)),
            "+ follower search of product (copies what `where` keeps of about 1,000,000 records)"
        );
        assert_eq!(add(false, None), "+ follower search of product (copies all records)");
        let change = Step::ChangeWhere {
            entity: entity(),
            source: source(),
            from: "none".to_owned(),
            to: "record.price > 5".to_owned(),
            records: Some(12),
        };
        assert_eq!(
            change.to_string(),
            "~ follower search of product: where none -> record.price > 5 (compares about 12 records)"
        );
    }
}
