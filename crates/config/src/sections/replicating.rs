//! Options of how changes reach followers: followers themselves, batches, residency, and what `adaptive` affords.

use std::time::Duration;

use unisono_core::Role;
use unisono_policy::conflict::merge;

use super::{DAY, YEARS};
use crate::options::{Key, Section, Shape};

/// `[entities.NAME.adaptive]`
pub(crate) static ADAPTIVE: Section = Section::new(
    "For the strategy adaptive: a writer waits for all followers, for more than half of the sources, or for the truth alone, by what is measured of the followers. One beyond a limit is not counted on until it is below half of each.",
    &[
        Key::defaulting(
            "latency",
            Shape::Duration { min: Duration::from_millis(1), max: DAY },
            "100ms",
            "The most that a follower may take for a batch.",
        ),
        Key::defaulting(
            "lag",
            Shape::Duration { min: Duration::from_millis(1), max: DAY },
            "5s",
            "The most that a follower may lag.",
        ),
        Key::defaulting(
            "dwell",
            Shape::Duration { min: Duration::from_millis(1), max: DAY },
            "10s",
            "How long more must have been possible before more is demanded; doubled each time that this proves to be too early.",
        ),
    ],
    &[],
);

/// `[[entities.NAME.followers]]`
pub(crate) static FOLLOWER: Section = Section::of_role(
    Role::Follower,
    "A source that is fed from the log of the entity.",
    &[
        Key::required("source", Shape::Text, "The source."),
        Key::optional(
            "where",
            Shape::Text,
            "Condition in CEL over the record, as the truth has it; only records that satisfy it are held.",
        ),
        Key::defaulting(
            "default",
            Shape::Boolean,
            "false",
            "Whether it holds the records that no follower with a `where` holds.",
        ),
        Key::defaulting(
            "clear",
            Shape::Boolean,
            "false",
            "Whether it gets `personal` fields as they are, so that they can be searched and filtered there, and only there. An erasure is delivered to it.",
        ),
        Key::optional(
            "map",
            Shape::Expressions,
            "Fields that it keeps otherwise than the truth, and their values in CEL over `record`: behind `after`, over what that follower keeps. A value that the field does not take makes a dead letter. It answers only reads whose rule names it and nobody else.",
        ),
        Key::optional(
            "after",
            Shape::Text,
            "Another follower of the entity: this one gets a change when that one has it durably, and stops where that one stops.",
        ),
        Key::defaulting(
            "priority",
            Shape::Integer { min: -1000, max: 1000 },
            "0",
            "While a delivery of the same truth with a greater priority works through a backlog, this one waits before each batch, for at most 250ms.",
        ),
        Key::optional("batch", Shape::Table(&BATCH), BATCH.doc),
        Key::optional(
            "table",
            Shape::Text,
            "Name of its table, in a source with tables; the entity's name if not given.",
        ),
        Key::optional(
            "index",
            Shape::Text,
            "Name of its index, in a source with indexes; the entity's name if not given.",
        ),
        Key::optional(
            "folder",
            Shape::Text,
            "Name of its folder, in a source with folders; the entity's name if not given.",
        ),
        Key::optional(
            "collection",
            Shape::Text,
            "Name of its collection, in a source with collections; the entity's name if not given.",
        ),
    ],
    &["strategy", "region", "mode", "atomic"],
);

/// `[[entities.NAME.residency]]`
pub(crate) static RESIDENCY: Section = Section::new(
    "Records that a follower or a cache must never hold, whatever its `where` says. It may know their keys and versions, to have them removed.",
    &[
        Key::optional("source", Shape::Text, "The follower's or cache's source."),
        Key::optional(
            "region",
            Shape::Text,
            "Instead of a source: all that keep the entity in this region.",
        ),
        Key::required(
            "forbid",
            Shape::Text,
            "Condition in CEL over the record; what satisfies it, or of which that cannot be decided, is not held there.",
        ),
    ],
    &[],
);

/// `[entities.NAME.followers.batch]`
pub(crate) static BATCH: Section = Section::new(
    "How much goes to the follower in one batch; without it, what has gathered meanwhile, as much as the follower takes quickly.",
    &[
        Key::optional(
            "size",
            Shape::Integer { min: 1, max: 1_000_000 },
            "The most changes; never more than the kind takes.",
        ),
        Key::optional(
            "bytes",
            Shape::Size { min: 1, max: 1 << 40 },
            "The most bytes, unless one change has more.",
        ),
        Key::defaulting(
            "age",
            Shape::Duration { min: Duration::ZERO, max: DAY },
            "0s",
            "How long a change waits at most for others to fill its batch.",
        ),
    ],
    &[],
);

/// `[entities.NAME.sync]`
pub(crate) static SYNC: Section = Section::new(
    "Another truth that this one follows, while a process whose configuration is the mirror image of this one follows this one: both are written.",
    &[
        Key::required("with", Shape::Text, "The source that is the other truth."),
        Key::optional(
            "table",
            Shape::Text,
            "Name of the entity's table there; the entity's name if not given.",
        ),
        Key::optional(
            "prefer",
            Shape::Text,
            "The source, one of the two truths, whose write wins over one that had not seen it; the later one does if not given.",
        ),
        Key::optional(
            "older_wins",
            Shape::Text,
            "Condition in CEL over the records `older` and `newer`: where it holds, the older of two such writes wins.",
        ),
        Key::defaulting(
            "delete",
            Shape::Choice(&["wins", "loses"]),
            "wins",
            "Whether a deletion wins over a write that had not seen it.",
        ),
        Key::optional(
            "fields",
            Shape::Words(merge::NAMES),
            "How two such values of a field are brought together, by its name: last_writer, counter (what both added), max, min, or union of lists. These fields are resolved apart from the rest of the record.",
        ),
        Key::optional(
            "groups",
            Shape::Groups,
            "Fields that travel together, apart from the rest of the record.",
        ),
        Key::defaulting(
            "max_drift",
            Shape::Duration { min: Duration::from_millis(1), max: YEARS },
            "500ms",
            "How far the clock of the other side may be ahead; what is further in the future waits until then.",
        ),
        Key::defaulting(
            "conflicts",
            Shape::Duration { min: Duration::ZERO, max: YEARS },
            "90d",
            "How long it stays recorded what gave way; 0s for good. Each side forgets its own records.",
        ),
    ],
    &[],
);
