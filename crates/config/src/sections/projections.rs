//! Options of projections.

use unisono_core::Role;

use super::READ;
use super::replicating::BATCH;
use crate::options::{Key, Section, Shape};

/// `[projections.NAME]`
pub(crate) static PROJECTION: Section = Section::new(
    "Rows that are worked out from the records of an entity or from the events of streams. They are read as an entity of this name.",
    &[
        Key::optional("from", Shape::Text, "The entity whose records contribute to the rows."),
        Key::optional(
            "streams",
            Shape::Text,
            "Instead of an entity: the type of streams whose events contribute.",
        ),
        Key::optional(
            "where",
            Shape::Text,
            "Condition in CEL over the record; only records that satisfy it contribute.",
        ),
        Key::optional(
            "each",
            Shape::Text,
            "A list of the record, in CEL: each of its elements contributes by itself, and is called `item`.",
        ),
        Key::optional(
            "key",
            Shape::Expressions,
            "What contributions are grouped by: fields of the rows, each with its value in CEL. Without any there is one row, `all`.",
        ),
        Key::optional("fields", Shape::Named(&PROJECTED), PROJECTED.doc),
        Key::optional("read", Shape::Table(&READ), READ.doc),
        Key::optional("targets", Shape::Tables(&TARGET), TARGET.doc),
    ],
    &["version", "having", "order", "limit"],
);

/// `[projections.NAME.fields.FIELD]`
pub(crate) static PROJECTED: Section = Section::new(
    "What the rows hold of the contributions to them: for each field one of count, sum, avg, min, max, latest and distinct.",
    &[
        Key::optional("count", Shape::Boolean, "How many contributions there are."),
        Key::optional(
            "sum",
            Shape::Text,
            "The exact sum of a value in CEL, an integer or a decimal.",
        ),
        Key::optional(
            "avg",
            Shape::Text,
            "The mean of a value, with four digits more than it has.",
        ),
        Key::optional("min", Shape::Text, "The least of the values."),
        Key::optional("max", Shape::Text, "The greatest of the values."),
        Key::optional("latest", Shape::Text, "The value of the record that changed last."),
        Key::optional(
            "distinct",
            Shape::Text,
            "How many different values there are, at most 10000.",
        ),
        Key::optional(
            "where",
            Shape::Text,
            "Condition in CEL; other contributions are left out of this field.",
        ),
        Key::optional(
            "type",
            Shape::Text,
            "The type of the values, where it does not follow from declared fields: below `json`, or of a quotient.",
        ),
    ],
    &[],
);

/// `[[projections.NAME.targets]]`
pub(crate) static TARGET: Section = Section::of_role(
    Role::Follower,
    "A source that keeps the rows.",
    &[
        Key::required("source", Shape::Text, "The source."),
        Key::defaulting(
            "priority",
            Shape::Integer { min: -1000, max: 1000 },
            "0",
            "As of a follower: what is more urgent goes first.",
        ),
        Key::optional("batch", Shape::Table(&BATCH), BATCH.doc),
        Key::optional(
            "table",
            Shape::Text,
            "Name of the table of the rows; the projection's name if not given.",
        ),
        Key::optional("index", Shape::Text, "Name of their index, in a source with indexes."),
        Key::optional("folder", Shape::Text, "Name of their folder, in a source with folders."),
        Key::optional(
            "collection",
            Shape::Text,
            "Name of their collection, in a source with collections.",
        ),
    ],
    &["where", "after"],
);
