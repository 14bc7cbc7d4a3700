//! A batch and its checkpoint in one transaction, for replica sets and sharded clusters.

use mongodb::ClientSession;
use mongodb::error::{
    Error as Native, Result as NativeResult, TRANSIENT_TRANSACTION_ERROR,
    UNKNOWN_TRANSACTION_COMMIT_RESULT,
};
use mongodb::options::{ReadConcern, WriteConcern};
use unisono_core::source::{Applied, Batch, Outcome};
use unisono_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::collection::{Place, moved};
use crate::follower::{self, all_in, passed, settled};
use crate::writes::{self, Command, STATEMENTS_MAX};

/// How often a transaction begins again after a conflict, and a commit is asked for again.
const ATTEMPTS: usize = 5;

/// What a transaction came to before its commit.
enum Work {
    /// To be committed.
    Done(Applied),
    /// A statement was refused, which ends the transaction: each must be answered for by itself.
    Refused,
}

/// Takes in a batch in one transaction.
pub(crate) async fn apply(client: &Client, place: &Place, batch: &Batch) -> Result<Applied> {
    let mut session = client.session().await?;
    for _ in 0..ATTEMPTS {
        let begin = session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::majority());
        client.call(begin).await?;
        let failure = match work(client, place, batch, &mut session).await {
            Ok(Work::Done(applied)) => match commit(client, &mut session).await {
                Ok(()) => return Ok(applied),
                Err(failure) => failure,
            },
            Ok(Work::Refused) => {
                abort(&mut session).await;
                return follower::apply(client, place, batch).await;
            }
            Err(failure) => failure,
        };
        abort(&mut session).await;
        if !is_transient(&failure) {
            return Err(failure);
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "other writers were in the way of the transaction"))
}

async fn work(
    client: &Client,
    place: &Place,
    batch: &Batch,
    session: &mut ClientSession,
) -> Result<Work> {
    if let Some(advance) = &batch.advance {
        let stored = place.checkpoint(client, Some(session)).await?;
        if stored != advance.from {
            return Err(moved(stored.as_ref(), advance));
        }
    }
    let (statements, mut outcomes) = writes::statements(place, &batch.changes, batch.copied);
    let versions = match statements.is_empty() {
        true => Default::default(),
        false => writes::versions(client, place, &statements, Some(session)).await?,
    };
    // A statement that meets its newer version would end the transaction.
    let (mut inserts, mut updates) = (Vec::new(), Vec::new());
    for statement in statements {
        let stored = versions.get(&statement.key).copied();
        let stale = statement.stale_beside(stored);
        if let Some(outcome) = outcomes.get_mut(statement.index()) {
            *outcome = Some(if stale { Outcome::Stale } else { Outcome::Applied });
        }
        match stored {
            None => inserts.push(statement),
            Some(_) if !stale => updates.push(statement),
            Some(_) => {}
        }
    }
    for (how, all) in [(Command::Insert, inserts), (Command::Update, updates)] {
        for some in writes::commands(all, STATEMENTS_MAX) {
            if !writes::send(client, place, how, &some, Some(session)).await?.is_empty() {
                return Ok(Work::Refused);
            }
        }
    }
    if let Some(passed) = passed(batch.advance.as_ref()) {
        place.forget(client, passed, Some(session)).await?;
    }
    let outcomes = settled(outcomes);
    let advance = batch.advance.as_ref().filter(|_| all_in(&outcomes));
    if let Some(advance) = advance {
        place.advance(client, advance, Some(session)).await?;
    }
    Ok(Work::Done(Applied { outcomes, advanced: advance.is_some() }))
}

/// Commits; asks again while the server does not know whether it has.
async fn commit(client: &Client, session: &mut ClientSession) -> Result<()> {
    let mut attempts = 1;
    loop {
        match client.write(session.commit_transaction()).await {
            Err(e) if has_label(&e, UNKNOWN_TRANSACTION_COMMIT_RESULT) && attempts < ATTEMPTS => {
                attempts += 1;
            }
            committed => return committed,
        }
    }
}

/// Ends a transaction that failed; the server does so itself when it does not hear of it.
async fn abort(session: &mut ClientSession) {
    let _: NativeResult<()> = session.abort_transaction().await;
}

fn is_transient(error: &Error) -> bool {
    has_label(error, TRANSIENT_TRANSACTION_ERROR)
}

fn has_label(error: &Error, label: &str) -> bool {
    let cause = std::error::Error::source(error).and_then(|c| c.downcast_ref::<Native>());
    cause.is_some_and(|native| native.contains_label(label))
}
