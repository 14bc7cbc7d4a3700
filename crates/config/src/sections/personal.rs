//! Options of what is kept of persons.

use std::time::Duration;

use super::DAY;
use crate::options::{Key, Section, Shape};

/// `[personal]`
pub(crate) static PERSONAL: Section = Section::new(
    "How the `personal` fields of entities and streams are kept: encrypted with a key for each person, which `unisono erase` destroys.",
    &[
        Key::required(
            "keys",
            Shape::Text,
            "The source that keeps the keys, such as a SQLite file of its own: a kind that can be a truth, and the truth of nothing that is personal. Whoever restores it from an old copy brings keys back.",
        ),
        Key::required(
            "secret",
            Shape::Secret,
            "32 to 64 bytes in Base64, with which the keys are encrypted: `openssl rand -base64 32`. Without it nothing personal can be read.",
        ),
        Key::defaulting(
            "remembered",
            Shape::Duration { min: Duration::ZERO, max: DAY },
            "30s",
            "How long a process remembers a key: another process than the one that erases goes on reading for at most so long.",
        ),
    ],
    &[],
);

/// `[entities.NAME.personal]` and `[streams.NAME.personal]`
pub(crate) static PERSONAL_FIELDS: Section = Section::new(
    "Fields that are about a person. Sources, followers, caches, journals and archives hold them encrypted, and readers get them until the person is erased; then they are null.",
    &[
        Key::required(
            "fields",
            Shape::Texts,
            "Fields of type string, text or json, or members below a json field such as data.address; not unique, indexed or with a default.",
        ),
        Key::required(
            "subject",
            Shape::Text,
            "The field, or member below a json field, that says whom a record is about. It is not encrypted.",
        ),
    ],
    &[],
);
