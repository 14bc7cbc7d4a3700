//! The protocols: ours, those it was developed from, and what teams write by hand.

/// How a cache is kept in agreement with its truth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    pub(crate) name: &'static str,
    pub(crate) feed: Feed,
    /// Log-fed: changes bring keys up to date that are cached; otherwise they also cache what is not.
    pub(crate) cached_only: bool,
}

/// What tells the cache of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// The writer deletes the entry behind its commit.
    Deletes {
        /// And once more later.
        twice: bool,
        /// Whether a filler needs a lease, which the deletion takes away.
        leases: Leases,
    },
    /// The log, in order.
    Log {
        /// Whether the position that was applied is kept beside the entries, and lost with them.
        beside: bool,
        /// Whether a fill is checked against that position.
        fenced: bool,
        /// Whether entries belong to a life of the cache, and mean nothing in another one.
        epochs: bool,
        /// Whether changes are only taken at the position behind which they are.
        in_order: bool,
        /// Whether a fill is checked against the last change of its key instead of the position.
        window: bool,
    },
}

/// Whether fillers need leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leases {
    /// They do not.
    None,
    /// A deletion takes the lease away, but not where no entry is.
    WithEntry,
    /// A deletion takes the lease away.
    Always,
}

const fn deletes(name: &'static str, twice: bool, leases: Leases) -> Protocol {
    Protocol { name, feed: Feed::Deletes { twice, leases }, cached_only: false }
}

const fn log(
    name: &'static str,
    [beside, fenced, epochs, in_order, window]: [bool; 5],
) -> Protocol {
    let feed = Feed::Log { beside, fenced, epochs, in_order, window };
    Protocol { name, feed, cached_only: false }
}

/// The protocol of the caches in `sources/redis` and `sources/memory`: entries are brought up to date where they are
/// cached, and a fill is checked against the last change of its key.
pub(crate) const OURS: Protocol = Protocol { cached_only: true, ..WINDOW };
/// The same, also caching what nobody asked for.
pub(crate) const WINDOW: Protocol = log("changed keys, epochs", [true, true, true, true, true]);
pub(crate) const EPOCHS: Protocol = log("fence, epochs", [true, true, true, true, false]);
pub(crate) const ANY_ORDER: Protocol =
    log("fence, epochs, any order", [true, true, true, false, false]);
pub(crate) const FENCE: Protocol = log("fence", [true, true, false, false, false]);
pub(crate) const POSITION: Protocol =
    log("versions, position beside", [true, false, false, false, false]);
pub(crate) const VERSIONS: Protocol = log("versions", [false, false, false, false, false]);
pub(crate) const LEASES: Protocol = deletes("leases", false, Leases::Always);
pub(crate) const LEASES_WITH_ENTRY: Protocol =
    deletes("leases that outlive a deletion", false, Leases::WithEntry);
pub(crate) const TWICE: Protocol = deletes("deleted twice", true, Leases::None);
pub(crate) const NAIVE: Protocol = deletes("deleted once", false, Leases::None);

impl Protocol {
    /// The same, bringing up to date only what is cached.
    pub(crate) const fn cached_only(self) -> Self {
        Protocol { cached_only: true, ..self }
    }

    pub(crate) fn needs_lease(&self) -> bool {
        matches!(self.feed, Feed::Deletes { leases: Leases::WithEntry | Leases::Always, .. })
    }

    pub(crate) fn has_epochs(&self) -> bool {
        matches!(self.feed, Feed::Log { epochs: true, .. })
    }

    pub(crate) fn is_log_fed(&self) -> bool {
        matches!(self.feed, Feed::Log { .. })
    }

    pub(crate) fn has_window(&self) -> bool {
        matches!(self.feed, Feed::Log { window: true, .. })
    }
}

/// What may go wrong, each once at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Fault {
    /// The entry is evicted.
    Evict = 1,
    /// The entry's time is up.
    Expire = 2,
    /// The cache loses everything.
    Flush = 4,
    /// A replica with an older state takes over.
    Failover = 8,
    /// The fence is evicted, and the entry is not.
    FenceEvict = 16,
    /// A deletion is lost on its way.
    LostDelete = 32,
    /// Fillers read from a replica that lags behind.
    Lag = 64,
    /// A commit becomes visible before an earlier one.
    Gap = 128,
    /// A worker that was deposed applies a change again.
    Zombie = 256,
}

pub(crate) const FAULTS: [Fault; 9] = [
    Fault::Evict,
    Fault::Expire,
    Fault::Flush,
    Fault::Failover,
    Fault::FenceEvict,
    Fault::LostDelete,
    Fault::Lag,
    Fault::Gap,
    Fault::Zombie,
];
