//! The options of the kind, and what it declares that it can do.

use unisono_core::capability::{ApplyCapability, Capability, QueryCapability, Role};
use unisono_core::kind::{OptionSpec, OptionType, Options};

/// The declared options.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "capacity",
        ty: OptionType::Size,
        default: Some("64MB"),
        optional: false,
        doc: "How many bytes its caches may occupy, about; the least useful entries make room.",
    },
    OptionSpec {
        name: "lanes",
        ty: OptionType::Integer { min: 1, max: 64 },
        default: Some("4"),
        optional: false,
        doc: "How many batches it takes at the same time as a follower.",
    },
];

/// The options of one source.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How many bytes its caches may occupy, about.
    pub capacity: u64,
    /// How many batches it takes at the same time as a follower, at least 1.
    pub lanes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { capacity: 64_000_000, lanes: 4 }
    }
}

impl Settings {
    /// From checked options.
    pub(crate) fn from_options(options: &Options) -> Self {
        let default = Settings::default();
        let number = |name| options.integer(name).and_then(|n| u64::try_from(n).ok());
        Settings {
            capacity: number("capacity").unwrap_or(default.capacity),
            lanes: number("lanes").map_or(default.lanes, |n| n.clamp(1, 64) as usize),
        }
    }

    /// What a source with these settings can do.
    pub(crate) fn capability(self) -> Capability {
        Capability {
            roles: &[Role::Truth, Role::Follower, Role::Cache, Role::Journal],
            durable: false,
            naming: &[],
            query: QueryCapability {
                get: true,
                filter: true,
                aggregate: true,
                search: true,
                scans: true,
            },
            apply: ApplyCapability {
                lanes: self.lanes,
                copy_lanes: self.lanes,
                batch_changes_max: 1000,
                batch_bytes_max: 16_000_000,
                history: false,
            },
            refuses: |_, _| None,
        }
    }
}
