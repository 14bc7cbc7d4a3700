//! The lease of the sequencer: a row that says which process follows the intake, until when, and in which epoch.
//!
//! The lease is renewed in the very transaction that sequences, which holds its row until the commit: whoever lost it
//! meanwhile changes nothing. That no two transactions give out the same positions is up to the head row anyway; the
//! lease keeps many processes from waiting for each other there.

use tokio_postgres::types::Type;
use unisono_core::Uuid;

use crate::error::Failed;
use crate::parameter::Parameter;
use crate::session::{Session, Use};

/// How long the intake is left to a process that is not heard of. By the server's clock.
const TERM: &str = "2 seconds";

/// Takes or renews the lease for the current transaction; answers whether this process has it.
pub(super) async fn renew(session: &Session, schema: &str, holder: Uuid) -> Result<bool, Failed> {
    let sql = format!(
        "UPDATE {schema}.unisono_sequencer SET until = clock_timestamp() + interval '{TERM}', \
         epoch = epoch + (holder IS DISTINCT FROM $1)::int, holder = $1 \
         WHERE \"only\" IN (SELECT \"only\" FROM {schema}.unisono_sequencer \
          WHERE holder = $1 OR until < clock_timestamp() FOR UPDATE SKIP LOCKED)"
    );
    let holder = Parameter::new(Type::UUID, Some(holder.as_bytes().to_vec()));
    Ok(session.execute(Use::Often, &sql, &[holder]).await? > 0)
}
