//! [`RowsOf`]: the rows of a projection as values of the application's own type, as they change.

use std::time::Duration;

use serde::de::DeserializeOwned;
use unisono_core::{Key, Position, Result};
use unisono_engine::RowsFollowed;

use crate::handle::Handle;

/// How long one wait for a step takes before it is begun again.
const WAIT: Duration = Duration::from_secs(15);

/// The rows of a projection as they change; see [`Handle::follow_rows`].
pub struct RowsOf<T> {
    handle: Handle<T>,
    followed: RowsFollowed,
}

/// One step of the rows of a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<T> {
    /// The position as of which the rows are after it.
    pub position: Position,
    /// Whether these are all rows that there are; otherwise they are those that changed.
    pub anew: bool,
    /// What they are now, by key; `None` for one that is gone.
    pub rows: Vec<(Key, Option<T>)>,
}

impl<T: DeserializeOwned> Handle<T> {
    /// Follows the rows of a projection. The first step has all rows, unless those as of a position are known already and it
    /// is remembered what changed since: `after` is the position of the last step that was seen.
    ///
    /// Fails with `not_found` if the entity of the handle is no projection, `invalid_input` for a position to come.
    pub async fn follow_rows(&self, after: Option<Position>) -> Result<RowsOf<T>> {
        let followed = self.engine().follow_rows(self.entity().name(), after).await?;
        Ok(RowsOf { handle: self.clone(), followed })
    }
}

impl<T: DeserializeOwned> RowsOf<T> {
    /// The next step; waits until there is one. After a failure it goes on where it was.
    pub async fn next(&mut self) -> Result<Step<T>> {
        loop {
            let Some(step) = self.followed.next(WAIT).await? else { continue };
            let rows = step.rows.iter().map(|(key, row)| {
                let row = row.as_ref().map(|row| self.handle.decode(row)).transpose()?;
                Ok((key.clone(), row))
            });
            let rows = rows.collect::<Result<_>>()?;
            return Ok(Step { position: step.position, anew: step.anew, rows });
        }
    }

    /// The position as of which the rows are that were given: where another follower goes on.
    pub fn position(&self) -> Option<Position> {
        self.followed.position()
    }
}
