//! Options of what watches: the sweep, the sampler and hooks.

use std::time::Duration;

use super::{DAY, YEARS};
use crate::options::{Key, Section, Shape};

/// `[sweep]`
pub(crate) static SWEEP: Section = Section::new(
    "How often followers are compared with their truth without anybody's asking.",
    &[
        Key::defaulting(
            "every",
            Shape::Duration { min: Duration::ZERO, max: YEARS },
            "10m",
            "How often each is compared by sums of versions, which the engines make: about a second for a million records. 0s for never.",
        ),
        Key::defaulting(
            "deep",
            Shape::Duration { min: Duration::ZERO, max: YEARS },
            "0s",
            "How often the data of every record is read back from both sides instead, which also finds what was changed without its version. 0s for never.",
        ),
        Key::defaulting(
            "rate",
            Shape::Integer { min: 1, max: 1_000_000 },
            "1000",
            "The most records a second that are read back for that from one follower, or repaired.",
        ),
        Key::defaulting(
            "repair",
            Shape::Choice(&["auto", "report"]),
            "auto",
            "Whether what differs is repaired, up to 1 % of the records, or only reported.",
        ),
    ],
    &[],
);

/// `[archive]`
pub(crate) static ARCHIVE: Section = Section::new(
    "Keeps every log as a chain of files, and backups of every truth, from which a lost truth is restored to its last moment or an earlier one.",
    &[
        Key::required(
            "source",
            Shape::Text,
            "The source that keeps the files, of the kind files or s3.",
        ),
        Key::defaulting(
            "every",
            Shape::Duration { min: Duration::from_millis(10), max: DAY },
            "10s",
            "How long changes gather before they are archived: what is lost with the truth at most.",
        ),
        Key::defaulting(
            "backups",
            Shape::Duration { min: Duration::ZERO, max: YEARS },
            "1d",
            "How old the newest backup becomes before another one is made; 0s to make them only when asked.",
        ),
    ],
    &[],
);

/// `[sampler]`
pub(crate) static SAMPLER: Section = Section::new(
    "Measures how consistent the sources are: one change in so many is looked for again in every source after 1, 10, 60 and 300 seconds. Without this section nothing is.",
    &[
        Key::defaulting(
            "one_in",
            Shape::Integer { min: 1, max: 1_000_000_000 },
            "100",
            "How many changes there are for each that is looked for.",
        ),
        Key::defaulting(
            "pending_max",
            Shape::Integer { min: 1, max: 1_000_000 },
            "10000",
            "The most that wait to be looked for; a change that finds no room is not looked for.",
        ),
    ],
    &[],
);

/// `[hooks.NAME]`
pub(crate) static HOOK: Section = Section::new(
    "A URL that is told of divergences and dead letters by signed requests, as Standard Webhooks has it; at least once while the process lives, and of dead letters that still wait again at its start.",
    &[
        Key::required(
            "url",
            Shape::Secret,
            "Where messages are posted; https:// unless it is on this machine.",
        ),
        Key::required(
            "secret",
            Shape::Secret,
            "What they are signed with: `whsec_` and 24 to 64 bytes in Base64.",
        ),
        Key::defaulting(
            "on",
            Shape::Texts,
            "[\"divergence\", \"dead_letter\"]",
            "What they are about: divergence (a comparison found records that differ), dead_letter (a follower refused a change, or the truth an acknowledged write).",
        ),
        Key::defaulting(
            "entities",
            Shape::Texts,
            "[\"*\"]",
            "Of which entities: names, or beginnings of names such as `order_*`.",
        ),
        Key::defaulting(
            "timeout",
            Shape::Duration { min: Duration::from_millis(10), max: Duration::from_secs(300) },
            "10s",
            "How long the receiver may take to answer.",
        ),
        Key::defaulting(
            "retry_for",
            Shape::Duration { min: Duration::ZERO, max: DAY },
            "1h",
            "For how long a message is sent again that was not answered with 2xx; then it is given up, which is logged and counted.",
        ),
    ],
    &[],
);
