//! The ledger's comparison: what the follower has acknowledged, by its own word. Free: no record is read.

use unisono_core::{Error, ErrorKind, Result};

use crate::verify::audit::Audit;

impl Audit<'_> {
    /// Asks the follower for its checkpoint, and looks at the records that it is known to refuse.
    pub(super) async fn ledger(&mut self) -> Result<()> {
        let target = self.delivery.target();
        let acknowledged = self.delivery.saved_position();
        let kept = target.follower.checkpoint(self.entity).await?;
        let is_kept =
            kept.is_some_and(|kept| kept.backfill.is_none() && kept.position >= acknowledged);
        if !is_kept {
            return Err(Error::new(
                ErrorKind::CheckpointMoved,
                "the follower no longer has what it acknowledged",
            )
            .with("acknowledged", acknowledged)
            .hint("its delivery brings it what is missing; see `unisono status`"));
        }
        let refused = self.delivery.refused_keys()?;
        self.judge(refused).await
    }
}
