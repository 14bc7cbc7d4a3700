//! `unisono conflicts`: writes that gave way where two truths follow each other.

use unisono::core::Result;

use super::Connect;
use crate::exit;
use crate::session::Session;

/// Show writes that gave way to concurrent ones of the other truth, the newest first
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only those of this entity
    #[arg(long)]
    entity: Option<String>,
    /// Only those of this record
    #[arg(long, requires = "entity")]
    key: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let Args { entity, key, connect } = args;
    let found = session
        .on_target(&connect, async |target| {
            target.conflicts(entity.as_deref(), key.as_deref()).await
        })
        .await?;
    if session.output.is_json() {
        found.iter().try_for_each(|conflict| session.output.json(conflict))?;
        return Ok(exit::OK);
    }
    if found.is_empty() {
        session.output.line("no conflicts")?;
    }
    let cell =
        |image: Option<serde_json::Value>| image.map_or("deleted".to_owned(), |i| i.to_string());
    let rows = found.into_iter().map(|conflict| {
        let time = conflict.found_at.to_string();
        let (local, remote) = (cell(conflict.local), cell(conflict.remote));
        vec![conflict.entity.to_string(), conflict.key, time, conflict.winner, local, remote]
    });
    let heading = ["entity", "key", "found", "winner", "here", "there"];
    session.output.table(&heading, rows.collect())?;
    Ok(exit::OK)
}
