//! `unisono restore`: fills empty truths from a backup and the archived log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use unisono::core::{Position, Result, Timestamp};
use unisono::engine::Engine;
use unisono::engine::archive::restore::{RestoreTo, Restored};

use crate::exit;
use crate::open;
use crate::session::Session;
use crate::terminal::text;

/// Fill an empty truth from its newest backup and the archived log
///
/// Needs the configuration that the archive was made with, and databases in which nothing was written yet. Followers
/// and caches fill themselves from the restored truth. A restore that was interrupted goes on when it is repeated. Stop
/// every server of this configuration first.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this truth: the name of a source
    #[arg(long, value_name = "SOURCE")]
    truth: Option<String>,
    /// As everything was at this time, such as 2026-11-22T10:15:00Z; without it, at the end of the archive
    #[arg(long, value_name = "TIME", conflicts_with = "position")]
    at: Option<Timestamp>,
    /// As everything was after the change at this position
    #[arg(long, value_name = "POSITION", requires = "truth")]
    position: Option<Position>,
    /// End when the truth is restored; its followers are filled once a server runs
    #[arg(long)]
    no_wait: bool,
}

/// How long followers may take to be filled.
const FOLLOWERS_MAX: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let mut configuration = open::configuration(&session.common)?;
    // What is not restored yet is nothing to make a backup of.
    if let Some(archive) = &mut configuration.declaration.archive {
        archive.backups = Duration::ZERO;
    }
    let (engine, _lock) = open::engine(configuration).await?;
    let restored = session.interrupt.or(restore(&args, &engine, session)).await;
    let closed = engine.close().await;
    let restored = restored?;
    closed?;
    show(&restored, session)?;
    Ok(exit::OK)
}

async fn restore(args: &Args, engine: &Engine, session: &Session) -> Result<Vec<Restored>> {
    let to = match (args.at, args.position) {
        (Some(time), _) => RestoreTo::Time(time),
        (_, Some(position)) => RestoreTo::Position(position),
        _ => RestoreTo::End,
    };
    let progress = Mutex::new(session.progress("restore"));
    let written = |count| {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.update(count, count, count);
    };
    let restored = engine.restore(args.truth.as_deref(), to, &written).await?;
    drop(progress);
    if !args.no_wait {
        engine.wait_applied(&engine.head_token().await?, FOLLOWERS_MAX).await?;
    }
    Ok(restored)
}

fn show(restored: &[Restored], session: &Session) -> Result<()> {
    if session.output.is_json() {
        return session.output.json(&json!({ "restored": restored }));
    }
    for of in restored {
        let (records, changes) = (text::count(of.records), text::count(of.changes));
        let time = of.time.map_or(String::new(), |time| format!(", of {time}"));
        session.output.line(format_args!(
            "{}: {records} records of the backup {} and {changes} changes after it, up to {}{time}",
            of.truth, of.backup, of.through,
        ))?;
        if let Some(log) = of.beyond {
            session.output.line(format_args!(
                "  the archive also holds changes of the log {log}, which began later and has no backup"
            ))?;
        }
    }
    Ok(())
}
