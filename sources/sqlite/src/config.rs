//! Options of a `sqlite` source.

use std::path::PathBuf;
use std::time::Duration;

use unisono_core::kind::{Environment, OptionSpec, OptionType, Options};
use unisono_core::{Error, ErrorKind, Result};

/// Every option, with its meaning.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "path",
        ty: OptionType::Path,
        default: None,
        optional: false,
        doc: "The database file; made if it is not there.",
    },
    OptionSpec {
        name: "cache_size",
        ty: OptionType::Size,
        default: Some("32MB"),
        optional: false,
        doc: "Memory for pages, for each of the connections (one writer and `readers`).",
    },
    OptionSpec {
        name: "readers",
        ty: OptionType::Integer { min: 1, max: 64 },
        default: Some("4"),
        optional: false,
        doc: "How many reads run at the same time, each on a thread and connection of its own.",
    },
    OptionSpec {
        name: "wal_size",
        ty: OptionType::Size,
        default: Some("16MB"),
        optional: false,
        doc: "Size at which the write-ahead log is copied into the database and used again from its start; it is made this big once, because writing into a growing file is slow.",
    },
    OptionSpec {
        name: "busy_timeout",
        ty: OptionType::Duration,
        default: Some("5s"),
        optional: false,
        doc: "How long a write waits for another process that is writing to the same file.",
    },
];

/// The options of one source, as Rust values.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The database file.
    pub(crate) path: PathBuf,
    /// Page cache of each connection, in bytes.
    pub(crate) cache_bytes: u64,
    /// Reader connections.
    pub(crate) readers: usize,
    /// Write-ahead log from which a checkpoint is made, in bytes.
    pub(crate) wal_bytes: u64,
    /// Longest wait for another writing process.
    pub(crate) busy_timeout: Duration,
}

impl Settings {
    /// From checked options.
    pub(crate) fn from_options(options: &Options, environment: &Environment) -> Result<Self> {
        let path = options.text("path").ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "a sqlite source needs a path")
                .with("option", "path")
        })?;
        let bytes = |name, default| {
            options.integer(name).and_then(|n| u64::try_from(n).ok()).unwrap_or(default)
        };
        Ok(Settings {
            path: environment.data.join(path),
            cache_bytes: bytes("cache_size", 32 << 20),
            readers: usize::try_from(bytes("readers", 4)).unwrap_or(4).clamp(1, 64),
            wal_bytes: bytes("wal_size", 16 << 20),
            busy_timeout: options.duration("busy_timeout").unwrap_or(Duration::from_secs(5)),
        })
    }
}

/// What is wrong with options that are each well formed.
pub(crate) fn check(options: &Options) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if let Some(path) = options.text("path")
        && (path.is_empty() || path.starts_with(':') || path.ends_with('/'))
    {
        problems.push((
            "path",
            "must name a file; for data that need not outlive the process use kind = \"memory\""
                .to_owned(),
        ));
    }
    if let Some(bytes) = options.integer("wal_size")
        && !(1 << 20..=4 << 30).contains(&bytes)
    {
        problems.push(("wal_size", "must be between 1MB and 4GB".to_owned()));
    }
    if let Some(bytes) = options.integer("cache_size")
        && bytes < 1 << 20
    {
        problems.push(("cache_size", "must be at least 1MB".to_owned()));
    }
    problems
}
