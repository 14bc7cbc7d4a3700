//! `unisono get`: one record.

use unisono::core::{Error, ErrorKind, Result};

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::Found;
use crate::terminal::Object;
use crate::terminal::output::note;

/// Print one record
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The entity
    entity: String,
    /// The key of the record
    key: String,
    /// Also tell its version, the source that answered and its age
    #[arg(long)]
    meta: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let found =
        session.on_target(&args.connect, async |t| t.get(&args.entity, &args.key).await).await?;
    let found = found.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "there is no record with this key")
            .of(&args.entity)
            .with("key", &args.key)
    })?;
    let output = session.output;
    match (output.is_json(), args.meta) {
        (true, true) => output.json(&found)?,
        (true, false) => output.line(found.record.get())?,
        (false, meta) => {
            if meta {
                let stale = if found.stale { ", perhaps stale" } else { "" };
                let Found { version, source, age, .. } = &found;
                note(format_args!("version {version} from {source}, {age:.1} s old{stale}"));
            }
            output.pretty(&Object::of(&found.record)?)?;
        }
    }
    Ok(exit::OK)
}
