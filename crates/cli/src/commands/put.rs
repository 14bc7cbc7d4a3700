//! `unisono put`: store one record.

use std::io::Read as _;

use serde_json::{Value as Json, json};
use unisono::core::{Error, Position, Result};

use super::Connect;
use crate::exit;
use crate::import::lines::unreadable;
use crate::session::Session;
use crate::target::PutCondition;

/// Store one record
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The entity
    entity: String,
    /// The record as a JSON object, `-` to read it from standard input, or `@FILE` to read it from a file
    #[arg(value_name = "RECORD")]
    record: String,
    /// Refuse if a record with this key is already there
    #[arg(long, conflicts_with = "if_match")]
    create: bool,
    /// Refuse unless the record is at this version
    #[arg(long, value_name = "VERSION")]
    if_match: Option<Position>,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let record = parse(&read(&args.record)?)?;
    let condition = match (args.create, args.if_match) {
        (true, _) => PutCondition::Absent,
        (false, Some(version)) => PutCondition::Version(version),
        (false, None) => PutCondition::None,
    };
    let put = async |t: &dyn crate::target::Target| t.put(&args.entity, &record, condition).await;
    let version = session.on_target(&args.connect, put).await?;
    if session.output.is_json() {
        session.output.json(&json!({"version": version, "pending": version.is_none()}))?;
    } else {
        match version {
            Some(version) => session.output.line(format_args!("stored at version {version}"))?,
            None => session.output.line("accepted; it waits to be flushed to the truth")?,
        }
    }
    Ok(exit::OK)
}

fn read(record: &str) -> Result<String> {
    let mut text = String::new();
    if record == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|e| Error::invalid("standard input cannot be read").caused_by(e))?;
    } else if let Some(file) = record.strip_prefix('@') {
        text = std::fs::read_to_string(file).map_err(|e| unreadable(file.as_ref(), e))?;
    } else {
        record.clone_into(&mut text);
    }
    Ok(text)
}

fn parse(text: &str) -> Result<Json> {
    let json: Json = serde_json::from_str(text)
        .map_err(|e| Error::invalid("the record is not valid JSON").with("reason", e))?;
    if !json.is_object() {
        return Err(Error::invalid("a record is a JSON object"));
    }
    Ok(json)
}
