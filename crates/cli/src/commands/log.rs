//! `unisono log`: the changes of a log, or of one record.

use serde_json::Value as Json;
use unisono::core::{Error, Position, Result};

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::{Log, Target};
use crate::terminal::text;

/// Show the change log: who changed what when
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only changes of this entity
    #[arg(long)]
    entity: Option<String>,
    /// Only changes of this record, newest first
    #[arg(long, requires = "entity")]
    key: Option<String>,
    /// Which log, if there are several: the name of its truth
    #[arg(long, value_name = "SOURCE")]
    truth: Option<String>,
    /// From the change after this position on; without it, the newest ones
    #[arg(long, value_name = "POSITION", conflicts_with = "key")]
    after: Option<Position>,
    /// Go on with changes as they happen, until Ctrl-C
    #[arg(long, conflicts_with = "key")]
    follow: bool,
    /// How many changes at most; 0 for all
    #[arg(long, value_name = "CHANGES", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    connect: Connect,
}

/// Changes asked for at once.
const PAGE: usize = 1000;

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let work = async |target: &dyn Target| match (&args.entity, &args.key) {
        (Some(entity), Some(key)) => {
            let limit = if args.limit == 0 { usize::MAX } else { args.limit };
            let changes = target.history(entity, key, limit).await?;
            changes.iter().try_for_each(|change| show(change, session))
        }
        _ => walk(&args, target, session).await,
    };
    match session.on_target(&args.connect, work).await {
        // Ctrl-C is how following ends.
        Err(_) if args.follow && session.interrupt.asked() => Ok(exit::OK),
        result => result.map(|()| exit::OK),
    }
}

async fn walk(args: &Args, target: &dyn Target, session: &Session) -> Result<()> {
    let log = choose(args.truth.as_deref(), target.logs().await?)?;
    let mut after = args.after.unwrap_or_else(|| newest(&log, args.limit));
    let mut left = if args.limit == 0 || args.follow { usize::MAX } else { args.limit };
    while left > 0 {
        let changes = target.changes(&log.name, after, PAGE, args.follow).await?;
        if changes.is_empty() && !args.follow {
            break;
        }
        for change in &changes {
            after = position(change)?;
            let wanted = args.entity.as_ref().is_none_or(|entity| change["entity"] == **entity);
            if wanted && left > 0 {
                show(change, session)?;
                left -= 1;
            }
        }
    }
    Ok(())
}

fn choose(truth: Option<&str>, logs: Vec<Log>) -> Result<Log> {
    let names = logs.iter().map(|log| log.name.as_str()).collect::<Vec<_>>().join(",");
    let mut chosen = logs.into_iter().filter(|log| truth.is_none_or(|truth| truth == log.name));
    match (chosen.next(), chosen.next()) {
        (Some(log), None) => Ok(log),
        _ => Err(Error::invalid("this does not say which log")
            .with("logs", names)
            .hint("say which one with --truth")),
    }
}

/// The position before the newest `limit` changes; 0 for all.
fn newest(log: &Log, limit: usize) -> Position {
    let limit = if limit == 0 { u64::MAX } else { limit as u64 };
    let before = Position::new(log.head.as_u64().saturating_sub(limit)).unwrap_or_default();
    before.max(log.trimmed)
}

fn position(change: &Json) -> Result<Position> {
    let text = change["position"].as_str();
    text.ok_or_else(|| Error::internal("a change came without its position"))?.parse()
}

fn show(change: &Json, session: &Session) -> Result<()> {
    if session.output.is_json() {
        return session.output.json(change);
    }
    let of = |name: &str| change.get(name).map(text::cell).unwrap_or_default();
    let actor = match of("actor") {
        actor if actor.is_empty() => String::new(),
        actor => format!("  by {actor}"),
    };
    let operation = match (of("operation"), change["replaced"].is_null()) {
        (operation, true) if operation == "put" => "create".to_owned(),
        (operation, _) => operation,
    };
    session.output.line(format_args!(
        "{:>8}  {}  {operation:<6}  {} {}{actor}",
        of("position"),
        of("time"),
        of("entity"),
        of("key"),
    ))
}
