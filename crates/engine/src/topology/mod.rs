//! What is connected to what: the sources that are open, and the deliveries and readers of each entity.
//!
//! It is one immutable value beside the policies that it was made for ([`Policies`](crate::policies::Policies)), and is
//! replaced together with them, so that a call works with one of both to its end. What goes on from one value to the
//! next is shared by both: handles, and deliveries whose declaration is the same.

mod bindings;
mod build;
pub(crate) mod moved;
pub(crate) mod pause;
pub(crate) mod rules;
pub(crate) mod versions;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use unisono_core::{Error, ErrorKind, Result};

use crate::delivery::Delivery;
use crate::log::Log;
use crate::read::handle::SourceHandle;
use crate::read::serving::{Answering, Serving};

pub(crate) use bindings::{bindings, with_those_before};
pub(crate) use build::{Blueprint, build};

/// The sources by name.
pub(crate) type Handles = BTreeMap<Arc<str>, Arc<SourceHandle>>;

/// The logs by the names of their truths.
pub(crate) type Logs = BTreeMap<Arc<str>, Arc<Log>>;

/// The entities with their logs, by name.
pub(crate) type Servings = HashMap<Arc<str>, Arc<Serving>>;

/// What is connected to what at present.
#[derive(Default)]
pub(crate) struct Topology {
    pub(crate) logs: Arc<Logs>,
    pub(crate) servings: Arc<Servings>,
    pub(crate) sources: Handles,
    /// All of them, those that come before others first.
    pub(crate) deliveries: Vec<Arc<Delivery>>,
    /// What can answer for each entity, in the order of the declaration.
    pub(crate) answering: Vec<BTreeMap<Arc<str>, Answering>>,
}

/// A source by its name.
pub(crate) fn named<'h>(handles: &'h Handles, name: &Arc<str>) -> Result<&'h Arc<SourceHandle>> {
    handles
        .get(name)
        .ok_or_else(|| Error::new(ErrorKind::InvalidConfig, "the source is not declared").at(name))
}
