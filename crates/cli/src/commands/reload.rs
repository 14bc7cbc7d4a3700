//! `unisono reload`: has a running server read its configuration again.

use serde_json::Value as Json;
use unisono::core::{Error, Result};

use super::Connect;
use crate::exit;
use crate::open;
use crate::session::Session;
use crate::target::Remote;

/// Have a running server read its configuration again: all of it takes effect, or nothing
///
/// Which sources and followers there are, how entities are read, written and cached, and how long the log is kept, can be
/// changed while it runs; anything else that differs is named, takes a restart, and keeps the rest from taking effect.
/// SIGHUP does the same.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tell what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let url = args.connect.url.as_deref().ok_or_else(|| {
        Error::invalid("only a running server can be reloaded")
            .hint("name it with --url, or send it SIGHUP")
    })?;
    let server = Remote::new(url, args.connect.token.as_deref())?;
    let answer = session.interrupt.or(server.reload(args.dry_run)).await.map_err(open::told)?;
    let output = session.output;
    if output.is_json() {
        output.json(&answer)?;
        return Ok(exit::OK);
    }
    let changes: Vec<&str> =
        answer["changes"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    for change in &changes {
        output.line(change)?;
    }
    if changes.is_empty() {
        output.line("nothing is different")?;
    }
    Ok(exit::OK)
}
