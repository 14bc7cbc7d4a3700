//! [`Pause`]: a source that is left alone on purpose. It is remembered in the truths of what it keeps, so that a restart
//! changes nothing about it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unisono_core::source::Truth;
use unisono_core::{Error, ErrorKind, Result, Timestamp};

/// The engine's own space of these in a truth.
const SPACE: &str = "paused_sources";

/// Since when, and by whom, a source is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// Who asked for it, if that is known.
    pub by: Option<Arc<str>>,
}

/// The sources that are left alone, by what a truth remembers.
pub(crate) async fn kept(truth: &dyn Truth) -> Result<Vec<(String, Pause)>> {
    let decode = |(name, json): (String, String)| {
        let pause = serde_json::from_str(&json).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "the pause of a source cannot be decoded")
                .with("name", &name)
                .caused_by(e)
        })?;
        Ok((name, pause))
    };
    truth.list_state(SPACE).await?.into_iter().map(decode).collect()
}

/// Remembers, or with `None` forgets, that a source is left alone.
pub(crate) async fn keep(truth: &dyn Truth, source: &str, pause: Option<&Pause>) -> Result<()> {
    let json = pause
        .map(serde_json::to_string)
        .transpose()
        .map_err(|e| Error::internal("the pause of a source cannot be encoded").caused_by(e))?;
    truth.put_state(SPACE, source, json).await
}

/// Has another truth remember the same.
pub(crate) async fn copy(from: &dyn Truth, to: &dyn Truth) -> Result<()> {
    for (name, pause) in from.list_state(SPACE).await? {
        to.put_state(SPACE, &name, Some(pause)).await?;
    }
    Ok(())
}
