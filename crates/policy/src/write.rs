//! [`WritePolicy`]: what is declared of an entity's writes.

use std::time::Duration;

/// What has happened when a write is answered, besides its commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteStrategy {
    /// Nothing: the cache learns of the write from the log, moments later.
    #[default]
    WriteAround,
    /// The cache holds the new record.
    WriteThrough,
}

impl WriteStrategy {
    /// Every strategy.
    pub const ALL: [WriteStrategy; 2] = [WriteStrategy::WriteAround, WriteStrategy::WriteThrough];

    /// The word used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            WriteStrategy::WriteAround => "write_around",
            WriteStrategy::WriteThrough => "write_through",
        }
    }
}

/// What is declared of an entity's writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WritePolicy {
    /// What has happened when a write is answered.
    pub strategy: WriteStrategy,
    /// For how long a write is held while the truth cannot be reached.
    pub hold: Duration,
}
