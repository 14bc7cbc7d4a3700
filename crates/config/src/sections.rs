//! Every option of the configuration, once: known keys, defaults, bounds, the JSON Schema and the example come from here.

use std::time::Duration;

use unisono_core::Role;
use unisono_policy::strategy;

use crate::options::{Key, Section, Shape};

mod personal;
mod projections;
mod replicating;
mod streams;
mod watching;

pub(crate) use personal::{PERSONAL, PERSONAL_FIELDS};
pub(crate) use projections::{PROJECTED, PROJECTION, TARGET};
pub(crate) use replicating::{ADAPTIVE, BATCH, FOLLOWER, RESIDENCY, SYNC};
pub(crate) use streams::STREAM;
pub(crate) use watching::{ARCHIVE, HOOK, SAMPLER, SWEEP};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
pub(crate) const YEARS: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const MEGABYTE: i64 = 1 << 20;

/// The whole file.
pub(crate) static FILE: Section = Section::new(
    "Configuration of Unisono.",
    &[
        Key::defaulting(
            "data",
            Shape::Path,
            ".",
            "Folder below which embedded sources live; a relative one is below the folder of this file.",
        ),
        Key::optional(
            "region",
            Shape::Text,
            "Where this process runs, in the words that sources name their `region` with.",
        ),
        Key::optional("server", Shape::Table(&SERVER), SERVER.doc),
        Key::optional("log", Shape::Table(&LOG), LOG.doc),
        Key::optional("archive", Shape::Table(&ARCHIVE), ARCHIVE.doc),
        Key::optional("sweep", Shape::Table(&SWEEP), SWEEP.doc),
        Key::optional("sampler", Shape::Table(&SAMPLER), SAMPLER.doc),
        Key::optional("personal", Shape::Table(&PERSONAL), PERSONAL.doc),
        Key::optional("hooks", Shape::Named(&HOOK), "Who is told of what is found, by name."),
        Key::optional("sources", Shape::Sources, "The stores, by name."),
        Key::optional("outlets", Shape::Outlets, "Where messages are sent, by name."),
        Key::optional("entities", Shape::Named(&ENTITY), "The kinds of records, by name."),
        Key::optional("streams", Shape::Named(&STREAM), "The types of streams of events, by name."),
        Key::optional("projections", Shape::Named(&PROJECTION), "The projections, by name."),
    ],
    &["cluster", "regions", "residency", "strategies", "telemetry", "defaults"],
);

/// `[server]`
pub(crate) static SERVER: Section = Section::new(
    "The HTTP server.",
    &[
        Key::defaulting(
            "listen",
            Shape::Text,
            "127.0.0.1:3000",
            "Address and port. One that is not loopback needs tokens and TLS.",
        ),
        Key::defaulting(
            "body_bytes_max",
            Shape::Size { min: 1 << 10, max: 1 << 30 },
            "8MB",
            "The largest body of a request.",
        ),
        Key::defaulting(
            "header_bytes_max",
            Shape::Size { min: 4 << 10, max: MEGABYTE },
            "16KB",
            "The largest head of a request.",
        ),
        Key::defaulting(
            "request_timeout",
            Shape::Duration { min: Duration::from_millis(10), max: DAY },
            "30s",
            "How long a request may take.",
        ),
        Key::defaulting(
            "header_timeout",
            Shape::Duration { min: Duration::from_millis(10), max: DAY },
            "10s",
            "How long a client may take to send the head of a request.",
        ),
        Key::defaulting(
            "connections_max",
            Shape::Integer { min: 1, max: 1_000_000 },
            "1024",
            "The most open connections; more wait to be accepted.",
        ),
        Key::defaulting(
            "requests_max",
            Shape::Integer { min: 1, max: 1_000_000 },
            "512",
            "The most requests in progress; more are answered with `overloaded`.",
        ),
        Key::defaulting(
            "plain_http",
            Shape::Boolean,
            "false",
            "Allows an address that is not loopback without TLS, for use behind a proxy that encrypts. Tokens are needed all the same.",
        ),
        Key::optional("tls", Shape::Table(&TLS), TLS.doc),
        Key::optional("tokens", Shape::Tables(&TOKEN), TOKEN.doc),
        Key::optional("routes", Shape::Tables(&ROUTE), ROUTE.doc),
    ],
    &["cors", "oidc", "http3", "rate_limit", "unix", "console"],
);

/// `[server.tls]`
pub(crate) static TLS: Section = Section::new(
    "Encrypts connections.",
    &[
        Key::required("certificate", Shape::Path, "PEM file with the certificate and its chain."),
        Key::required("key", Shape::Path, "PEM file with the private key."),
    ],
    &["client_ca", "acme"],
);

/// `[[server.tokens]]`
pub(crate) static TOKEN: Section = Section::new(
    "Who may do what. Without any token, every caller on this machine may do everything.",
    &[
        Key::required("name", Shape::Text, "Whom it belongs to; recorded as the actor of changes."),
        Key::required(
            "hash",
            Shape::Text,
            "`sha256:` and the SHA-256 of the token in 64 hexadecimal digits; the token itself is not stored.",
        ),
        Key::optional(
            "expires",
            Shape::Time,
            "When it ends to be valid, in RFC 3339; never if not given.",
        ),
        Key::defaulting(
            "entities",
            Shape::Texts,
            "[\"*\"]",
            "The entities it is for: names, or beginnings of names such as `order_*`.",
        ),
        Key::defaulting(
            "access",
            Shape::Choice(&["read", "write", "admin"]),
            "read",
            "What it allows; each word includes those before it.",
        ),
    ],
    &["fields", "where", "rate"],
);

/// `[[server.routes]]`
pub(crate) static ROUTE: Section = Section::new(
    "A further path for the records of an entity, beside /v1/ENTITY: GET and POST at the path, GET, PUT, PATCH and DELETE at a key below it.",
    &[
        Key::required(
            "path",
            Shape::Text,
            "Where the records are, such as /products; one record is at /products/KEY.",
        ),
        Key::required("entity", Shape::Text, "The entity whose records they are."),
        Key::defaulting(
            "envelope",
            Shape::Boolean,
            "false",
            "Whether an answer is {\"source\": …, \"data\": …}, where source is cache, replica, primary or follower.",
        ),
    ],
    &["methods", "filter", "fields"],
);

/// `[log]`
pub(crate) static LOG: Section = Section::new(
    "The change log that every truth keeps.",
    &[
        Key::defaulting(
            "retention",
            Shape::Duration { min: SECOND, max: YEARS },
            "7d",
            "How long changes are kept, for the audit trail and for readers of the log.",
        ),
        Key::defaulting(
            "changes_max",
            Shape::Integer { min: 1_000, max: i64::MAX },
            "10000000",
            "A follower that lags by more changes than this no longer keeps them; it is copied anew when it returns.",
        ),
        Key::defaulting(
            "outcomes",
            Shape::Duration { min: SECOND, max: YEARS },
            "24h",
            "How long the outcome of a write with an idempotency key is remembered.",
        ),
    ],
    &["partitions"],
);

/// `[entities.NAME]`
pub(crate) static ENTITY: Section = Section::of_role(
    Role::Truth,
    "A kind of record and where it is kept.",
    &[
        Key::defaulting(
            "key",
            Shape::Text,
            "id",
            "The field that identifies a record: of type string, integer or uuid.",
        ),
        Key::required("truth", Shape::Text, "The source whose transaction decides."),
        Key::optional(
            "table",
            Shape::Text,
            "Name of its table in the truth; the entity's name if not given.",
        ),
        Key::required(
            "fields",
            Shape::Fields(&FIELD),
            "Its fields: a type, or a table with a type and rules.",
        ),
        Key::optional("personal", Shape::Table(&PERSONAL_FIELDS), PERSONAL_FIELDS.doc),
        Key::optional("cache", Shape::Table(&CACHE), CACHE.doc),
        Key::optional("read", Shape::Table(&READ), READ.doc),
        Key::optional("write", Shape::Table(&WRITE), WRITE.doc),
        Key::optional(
            "strategy",
            Shape::Choice(strategy::NAMES),
            "A name for how changes reach the followers and when a writer is answered: it sets `ack`, and `after`, `priority` and `batch` of followers.",
        ),
        Key::defaulting(
            "ack",
            Shape::Ack,
            "truth",
            "Which sources must have a write before it is answered: truth, all, a number of sources (the truth is one of them), or a list of followers. The log brings it to the others.",
        ),
        Key::defaulting(
            "ack_timeout",
            Shape::Duration { min: Duration::from_millis(1), max: DAY },
            "5s",
            "How long the answer to a committed write waits for them before it is `quorum_not_reached`.",
        ),
        Key::optional("adaptive", Shape::Table(&ADAPTIVE), ADAPTIVE.doc),
        Key::optional("followers", Shape::Tables(&FOLLOWER), FOLLOWER.doc),
        Key::optional("residency", Shape::Tables(&RESIDENCY), RESIDENCY.doc),
        Key::optional("sync", Shape::Table(&SYNC), SYNC.doc),
    ],
    &["repair", "history", "partitions", "priority", "soft_delete"],
);

/// `[entities.NAME.fields.FIELD]`
pub(crate) static FIELD: Section = Section::new(
    "A field: what it can hold, and its rules.",
    &[
        Key::required(
            "type",
            Shape::Text,
            "string, text, integer, decimal(12,2), boolean, float, date, timestamp, timestamp(3), uuid, bytes, json or list.",
        ),
        Key::optional(
            "of",
            Shape::Elements,
            "For a list: the type of its elements, or the fields of its objects.",
        ),
        Key::defaulting("required", Shape::Boolean, "false", "Whether null is refused."),
        Key::defaulting(
            "unique",
            Shape::Boolean,
            "false",
            "Whether no two records may share a value; nulls do not count.",
        ),
        Key::defaulting(
            "index",
            Shape::Boolean,
            "false",
            "Whether sources that can should index it.",
        ),
        Key::optional(
            "search",
            Shape::Boolean,
            "Whether full-text search looks at it; true for type text, else false, if not given.",
        ),
        Key::optional(
            "default",
            Shape::Value,
            "The value that a new record gets when none is given.",
        ),
        Key::optional("enum", Shape::Values, "The only values allowed."),
        Key::optional(
            "max_length",
            Shape::Integer { min: 1, max: 16 << 20 },
            "Greatest length in characters (text), bytes (bytes) or elements (list).",
        ),
    ],
    &["pattern", "min", "max", "references", "generated", "compute", "secret", "column"],
);

/// `[entities.NAME.cache]`
pub(crate) static CACHE: Section = Section::of_role(
    Role::Cache,
    "Holds recently read records; it follows the log, so that it never serves what it knows to be old.",
    &[
        Key::required("source", Shape::Text, "The source that holds them."),
        Key::defaulting(
            "ttl",
            Shape::Duration { min: Duration::from_millis(1), max: YEARS },
            "60s",
            "How long an entry is served.",
        ),
        Key::defaulting(
            "negative_ttl",
            Shape::Duration { min: Duration::from_millis(1), max: YEARS },
            "10s",
            "How long the absence of a record is remembered.",
        ),
        Key::defaulting(
            "stale",
            Shape::Duration { min: Duration::ZERO, max: YEARS },
            "0s",
            "How long beyond its time an entry is still served, while it is read again.",
        ),
        Key::defaulting(
            "refresh",
            Shape::Boolean,
            "true",
            "Whether an entry that is asked for is read again shortly before its time is over, so that nobody waits at the end.",
        ),
        Key::defaulting(
            "misses_max",
            Shape::Integer { min: 1, max: 100_000 },
            "128",
            "The most reads at once that go to the sources because the cache cannot answer; further ones wait.",
        ),
        Key::defaulting(
            "lease",
            Shape::Duration { min: Duration::ZERO, max: Duration::from_secs(60) },
            "2s",
            "How long at most one process reads a record that a shared cache does not have while the others wait for its entry; with 0s each reads for itself.",
        ),
        Key::defaulting(
            "results",
            Shape::Duration { min: Duration::ZERO, max: DAY },
            "0s",
            "How long the answer to a query, search, count or aggregate is kept in the process, unless a record of the entity changes before.",
        ),
        Key::optional(
            "where",
            Shape::Text,
            "Condition in CEL over the record, and `now`; only records that satisfy it are held, such as \"record.created_at > now - duration('1h')\".",
        ),
        Key::defaulting(
            "warm",
            Shape::Integer { min: 0, max: 1_000_000 },
            "0",
            "How many of the records that changed last are taken in from the log when the cache begins empty.",
        ),
        Key::defaulting(
            "warm_hot",
            Shape::Integer { min: 0, max: 100_000 },
            "0",
            "How many of the records that were read most lately are read when the cache begins empty, also after a restart.",
        ),
        Key::optional("warm_questions", Shape::Tables(&WARM_QUESTION), WARM_QUESTION.doc),
    ],
    &["strategy", "read", "write"],
);

/// `[[entities.NAME.cache.warm_questions]]`
pub(crate) static WARM_QUESTION: Section = Section::new(
    "A question that is asked when the cache begins empty, so that its answer is among the kept `results`: one of these.",
    &[
        Key::optional("query", Shape::Body, "For records: the body of `_query`."),
        Key::optional(
            "count",
            Shape::Body,
            "For how many match: `where` and `search` of `_query`.",
        ),
        Key::optional("aggregate", Shape::Body, "For groups and totals: the body of `_aggregate`."),
    ],
    &[],
);

/// `[entities.NAME.read]`
pub(crate) static READ: Section = Section::new(
    "How the entity is read: in which order its cache and sources are asked.",
    &[
        Key::defaulting(
            "strategy",
            Shape::Choice(&["cache_first", "database_first", "parallel"]),
            "cache_first",
            "For one record: the cache and then the sources; the sources, and the cache when they fail; or both at once.",
        ),
        Key::defaulting(
            "fallback",
            Shape::Boolean,
            "true",
            "Whether another source answers when the first choice fails.",
        ),
        Key::optional(
            "lag_max",
            Shape::Duration { min: Duration::from_millis(1), max: YEARS },
            "A follower that lags by more is asked only if nobody else answers.",
        ),
        Key::optional(
            "hedge",
            Shape::Duration { min: Duration::from_millis(1), max: DAY },
            "After how long without an answer to a read by key a second source is asked as well, for at most one read in twenty.",
        ),
        Key::optional(
            "quorum",
            Shape::Integer { min: 1, max: 64 },
            "How many sources are asked for one record at the same time, the cache not among them: the newest answer counts, and followers that have an older one get the current state again.",
        ),
        Key::optional("rules", Shape::Tables(&READ_RULE), READ_RULE.doc),
    ],
    &["region", "coalesce"],
);

/// `[[entities.NAME.read.rules]]`
pub(crate) static READ_RULE: Section = Section::new(
    "Whom to ask first. The first rule whose condition holds decides; without any rule, `critical` reads ask the truth alone, words and several criteria a search index, the rest the cache.",
    &[
        Key::required("name", Shape::Text, "How answers name it."),
        Key::optional(
            "when",
            Shape::Text,
            "Condition in CEL over the request: its operation, search, criteria, fields, hints, consistency and actor; every read if not given.",
        ),
        Key::required(
            "ask",
            Shape::Texts,
            "Whom to ask, in order: cache, truth, followers, search (followers with a search index), or names of sources.",
        ),
        Key::defaulting(
            "only",
            Shape::Boolean,
            "false",
            "Whether nobody else is asked when these fail.",
        ),
    ],
    &[],
);

/// `[entities.NAME.write]`
pub(crate) static WRITE: Section = Section::new(
    "How the entity is written.",
    &[
        Key::defaulting(
            "strategy",
            Shape::Choice(&["write_around", "write_through", "write_behind"]),
            "write_around",
            "Whether a write is answered when the truth has committed it and the cache learns of it from the log, moments later, or holds it by then; or when the `journal` has it, from which it is flushed to the truth.",
        ),
        Key::defaulting(
            "hold",
            Shape::Duration { min: Duration::ZERO, max: DAY },
            "0s",
            "For how long a write is held while the truth cannot be reached, before it fails; written behind, while there is no room for it.",
        ),
        Key::optional(
            "journal",
            Shape::Text,
            "The source that keeps acknowledged writes until they are flushed, for the strategy write_behind and no other; it keeps nothing else of the entity.",
        ),
        Key::defaulting(
            "flush_after",
            Shape::Duration { min: Duration::ZERO, max: DAY },
            "50ms",
            "The longest time that an acknowledged write waits for others to be flushed with it.",
        ),
        Key::defaulting(
            "pending_max",
            Shape::Integer { min: 1, max: 10_000_000 },
            "10000",
            "The most acknowledged writes that wait for the truth; further ones are refused with `overloaded`.",
        ),
        Key::defaulting(
            "age_alert",
            Shape::Duration { min: Duration::from_millis(1), max: YEARS },
            "30s",
            "The age of the oldest waiting write from which on the node calls itself degraded.",
        ),
    ],
    &[],
);
