//! [`Capture`]: how a truth learns of what other programs write to its tables; [`Described`]: what such a table is like.

use std::sync::Arc;

use crate::entity::Field;
use crate::kind::{OptionSpec, OptionType, Options};

/// How the writes of other programs to an entity's table come into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// Triggers note them down in the transaction of each writer.
    Trigger,
    /// The writers note them down themselves, by the kind's `record_in`.
    Record,
}

impl Capture {
    /// The option of an entity, for the kinds that capture.
    pub const OPTION: OptionSpec = OptionSpec {
        name: "capture",
        ty: OptionType::Choice(&["trigger", "record"]),
        default: None,
        optional: true,
        doc: "Other programs write the table too, and get no column added: `trigger` notes their writes down by triggers, `record` leaves that to them (`record_in`).",
    };

    /// What the options of an entity say; `None` if nobody else writes.
    pub fn of(options: &Options) -> Option<Self> {
        match options.text(Self::OPTION.name)? {
            "trigger" => Some(Capture::Trigger),
            "record" => Some(Capture::Record),
            _ => None,
        }
    }

    /// Its word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Capture::Trigger => "trigger",
            Capture::Record => "record",
        }
    }
}

/// A table that an application made, as an entity would be declared over it.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// Its name.
    pub place: String,
    /// The column that can be the key; `None` if there is none.
    pub key: Option<Arc<str>>,
    /// The columns that can be kept, in their order.
    pub fields: Vec<Field>,
    /// The columns that cannot, each with the reason.
    pub left_out: Vec<(String, String)>,
    /// What else must be known or done before the table is captured.
    pub notes: Vec<String>,
}
