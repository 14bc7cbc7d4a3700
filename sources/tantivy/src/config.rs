//! The options of a `tantivy` source.

use std::path::PathBuf;

use unisono_core::kind::{Environment, OptionSpec, OptionType, Options};
use unisono_core::{Error, ErrorKind, Result};

const MEGABYTE: i64 = 1_000_000;
/// The engine refuses less than 15 MB for a thread.
const MEMORY_MIN: i64 = 15 * MEGABYTE;
const MEMORY_MAX: i64 = 4_000 * MEGABYTE;

/// What can be set, for the manual, the schema and the check.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "path",
        ty: OptionType::Path,
        default: None,
        optional: false,
        doc: "Folder of the indexes, one folder in it for each entity.",
    },
    OptionSpec {
        name: "writer_memory",
        ty: OptionType::Size,
        default: Some("16MB"),
        optional: false,
        doc: "Memory in which one index gathers changes before it writes a segment, 15MB to 4GB; used only while \
              changes arrive.",
    },
];

/// The options of one source, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Folder of the indexes.
    pub(crate) path: PathBuf,
    /// Bytes for the writer of one index.
    pub(crate) writer_memory: usize,
}

impl Config {
    /// Reads the options.
    pub(crate) fn read(options: &Options, environment: &Environment) -> Result<Self> {
        let path = options.text("path").filter(|p| !p.is_empty()).ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "has no path").with("option", "path")
        })?;
        let memory = options.integer("writer_memory").unwrap_or(16 * MEGABYTE);
        let memory = memory.clamp(MEMORY_MIN, MEMORY_MAX);
        Ok(Config {
            path: environment.data.join(path),
            writer_memory: usize::try_from(memory).unwrap_or(MEMORY_MIN as usize),
        })
    }
}

/// What is wrong with well formed options.
pub(crate) fn check(options: &Options) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    if options.text("path").is_some_and(str::is_empty) {
        wrong.push(("path", "is empty".to_owned()));
    }
    if let Some(memory) = options.integer("writer_memory")
        && !(MEMORY_MIN..=MEMORY_MAX).contains(&memory)
    {
        wrong.push(("writer_memory", "must be between 15MB and 4GB".to_owned()));
    }
    wrong
}
