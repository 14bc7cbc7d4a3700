//! `unisono backup`: a backup of each truth, while everything goes on.

use std::sync::{Mutex, PoisonError};

use serde_json::json;
use unisono::core::Result;
use unisono::engine::archive::backup::Backup;

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::Target;
use crate::terminal::text;

/// Make a backup of each truth in the archive, while everything goes on
///
/// `[archive]` says where. With the log that is archived there as well, a truth can be restored to the end of a backup
/// or to any moment after it: see `unisono restore`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only of this truth: the name of a source
    #[arg(long, value_name = "SOURCE")]
    truth: Option<String>,
    /// Make none; list those that there are
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let truth = args.truth.as_deref();
    let work = async |target: &dyn Target| match args.list {
        true => target.backups(truth).await,
        false => {
            let progress = Mutex::new(session.progress("backup"));
            let read = |records| {
                let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                progress.update(records, records, records);
            };
            target.back_up(truth, &read).await
        }
    };
    let backups = session.on_target(&args.connect, work).await?;
    show(&backups, session)?;
    Ok(exit::OK)
}

fn show(backups: &[Backup], session: &Session) -> Result<()> {
    if session.output.is_json() {
        return session.output.json(&json!({ "backups": backups }));
    }
    let rows = backups.iter().map(|backup| {
        let records: u64 = backup.entities.values().map(|of| of.records).sum();
        vec![
            backup.truth.clone(),
            backup.time.to_string(),
            text::count(records),
            backup.end.to_string(),
            backup.name.clone(),
        ]
    });
    session.output.table(&["truth", "begun", "records", "whole at", "name"], rows.collect())
}
