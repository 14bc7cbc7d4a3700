//! [`SourceKind`]: how a source of one kind is declared, checked and opened.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::capability::{Capability, Role};
use crate::clock::Clock;
use crate::entity::Entity;
use crate::error::Result;
use crate::source::Source;

/// What an option of a source can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionType {
    /// Text.
    String,
    /// A path; relative ones are below the data directory.
    Path,
    /// A whole number within bounds.
    Integer {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// True or false.
    Boolean,
    /// A duration such as `500ms` or `7d`.
    Duration,
    /// A size such as `64MB`.
    Size,
    /// Text that is never shown.
    Secret,
    /// A list of texts.
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// One option of a source kind: the manual, the schema and the check are made from it.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Its name in the configuration.
    pub name: &'static str,
    /// What it can be.
    pub ty: OptionType,
    /// The value if none is given, as it would be written in TOML; `None` makes the option required unless optional.
    pub default: Option<&'static str>,
    /// Whether it can be left out although it has no default.
    pub optional: bool,
    /// What it does, in one sentence.
    pub doc: &'static str,
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionValue {
    /// Of `String`, `Path`, `Secret` and `Choice`.
    Text(String),
    /// Of `Integer`, and of `Size` in bytes.
    Integer(i64),
    /// Of `Boolean`.
    Boolean(bool),
    /// Of `Duration`.
    Duration(Duration),
    /// Of `List`.
    List(Vec<String>),
}

/// The options of one source, or of one entity in it, checked against the kind's [`OptionSpec`]s, defaults filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options(pub BTreeMap<String, OptionValue>);

impl Options {
    /// Takes those of the given names out.
    pub fn take(&mut self, names: &[&str]) -> Options {
        Options(names.iter().filter_map(|name| self.0.remove_entry(*name)).collect())
    }

    /// These and others.
    pub fn with(&self, others: &Options) -> Options {
        Options(self.0.iter().chain(&others.0).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    /// A text option.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(OptionValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A number option.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.0.get(name) {
            Some(OptionValue::Integer(n)) => Some(*n),
            _ => None,
        }
    }

    /// A switch; off when absent.
    pub fn boolean(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(OptionValue::Boolean(true)))
    }

    /// A list option; empty when absent.
    pub fn list(&self, name: &str) -> &[String] {
        match self.0.get(name) {
            Some(OptionValue::List(all)) => all,
            _ => &[],
        }
    }

    /// A duration option.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        match self.0.get(name) {
            Some(OptionValue::Duration(d)) => Some(*d),
            _ => None,
        }
    }
}

/// What a source gets from the process that opens it.
#[derive(Clone)]
pub struct Environment {
    /// Where embedded sources live; relative paths are below it.
    pub data: PathBuf,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// One kind of source: one folder, one registry line.
#[async_trait]
pub trait SourceKind: Send + Sync {
    /// Its name in configurations.
    fn name(&self) -> &'static str;

    /// What it is, in one sentence.
    fn summary(&self) -> &'static str;

    /// Its options.
    fn options(&self) -> &'static [OptionSpec];

    /// The options of one entity that such a source keeps in a role: they stand where the entity names the source.
    fn entity_options(&self, _role: Role) -> &'static [OptionSpec] {
        &[]
    }

    /// The names of those options of a cached entity that a source takes over while it runs
    /// ([`Cache::adjust`](crate::source::Cache::adjust)).
    fn live_options(&self) -> &'static [&'static str] {
        &[]
    }

    /// What sources of this kind can do.
    fn capability(&self) -> Capability;

    /// What is wrong with options that are each well formed: pairs of option name and message. Does no I/O.
    fn check(&self, _options: &Options) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The same for the options of one entity in a role. Does no I/O.
    fn check_entity(
        &self,
        _role: Role,
        _entity: &Entity,
        _options: &Options,
    ) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Opens a source. Makes folders and files as needed, but no tables: that is `prepare`.
    async fn open(
        &self,
        name: &str,
        options: &Options,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>>;
}
