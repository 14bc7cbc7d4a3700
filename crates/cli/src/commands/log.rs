//! `unisono log`: the changes of a log, or of one record.

use std::collections::VecDeque;

use serde_json::{Map, Value as Json, json};
use unisono::core::{Error, Position, Result, Timestamp};

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
    /// Only changes by this actor
    #[arg(long)]
    actor: Option<String>,
    /// Only changes from this time on, such as 2026-11-22T10:15:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only changes before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// With each change, the fields that it changed and what was in them before
    #[arg(long)]
    diff: bool,
    /// Look whether the archived log is as it was written, and the log as it was archived, instead; exit code 1 if not
    #[arg(long, conflicts_with_all = ["entity", "actor", "since", "until", "after", "follow", "diff"])]
    check: bool,
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
    if args.check {
        return check(&args, session).await;
    }
    let work = async |target: &dyn Target| match (&args.entity, &args.key) {
        (Some(entity), Some(key)) => {
            let limit = if args.limit == 0 { usize::MAX } else { args.limit };
            let changes = target.history(entity, key, None, usize::MAX).await?;
            let wanted: Vec<_> = changes.into_iter().filter(|change| args.wants(change)).collect();
            for change in wanted.iter().take(limit) {
                show(change, &args, target, session).await?;
            }
            Ok(())
        }
        _ => walk(&args, target, session).await,
    };
    match session.on_target(&args.connect, work).await {
        // Ctrl-C is how following ends.
        Err(_) if args.follow && session.interrupt.asked() => Ok(exit::OK),
        result => result.map(|()| exit::OK),
    }
}

impl Args {
    fn wants(&self, change: &Json) -> bool {
        let time = change["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        self.entity.as_ref().is_none_or(|entity| change["entity"] == **entity)
            && self.actor.as_ref().is_none_or(|actor| change["actor"] == **actor)
            && self.since.is_none_or(|since| time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| time.is_some_and(|time| time < until))
    }

    /// Whether the whole log has to be looked through.
    fn searches(&self) -> bool {
        let Args { entity, actor, since, until, .. } = self;
        entity.is_some() || actor.is_some() || since.is_some() || until.is_some()
    }
}

async fn walk(args: &Args, target: &dyn Target, session: &Session) -> Result<()> {
    let log = choose(args.truth.as_deref(), target.logs().await?)?;
    let mut after = match args.after {
        Some(after) => after,
        None if args.searches() => log.trimmed,
        None => newest(&log, args.limit),
    };
    // Without a place to begin at, the newest ones are asked for.
    let newest = !args.follow && args.after.is_none() && args.since.is_none();
    let limit = if args.limit == 0 || args.follow { usize::MAX } else { args.limit };
    let (mut shown, mut last) = (0, VecDeque::new());
    while shown < limit {
        let changes = target.changes(&log.name, after, PAGE, args.follow).await?;
        if changes.is_empty() && !args.follow {
            break;
        }
        for change in changes {
            after = position(&change)?;
            if !args.wants(&change) || shown == limit {
                continue;
            }
            if newest {
                last.push_back(change);
                if last.len() > limit {
                    last.pop_front();
                }
            } else {
                show(&change, args, target, session).await?;
                shown += 1;
            }
        }
    }
    for change in last {
        show(&change, args, target, session).await?;
    }
    Ok(())
}

async fn check(args: &Args, session: &Session) -> Result<u8> {
    let work = async |target: &dyn Target| target.check_archive(args.truth.as_deref()).await;
    let reports = session.on_target(&args.connect, work).await?;
    let is_whole = |report: &Json| report["problems"].as_array().is_some_and(Vec::is_empty);
    if session.output.is_json() {
        session.output.json(&Json::Array(reports.clone()))?;
    } else {
        for report in &reports {
            let of = |name: &str| text::cell(&report[name]);
            session.output.line(format_args!(
                "{}: {} changes in {} segments, up to {}; {} of them compared with the truth's log",
                of("truth"),
                of("changes"),
                of("segments"),
                of("through"),
                of("compared")
            ))?;
            let newest = report["sha256"].as_str().unwrap_or("none");
            session.output.line(format_args!("  sha256 of the newest segment: {newest}"))?;
            for problem in report["problems"].as_array().into_iter().flatten() {
                session.output.line(format_args!("  ✗ {}", text::cell(problem)))?;
            }
        }
    }
    Ok(if reports.iter().all(is_whole) { exit::OK } else { exit::FAILED })
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

async fn show(change: &Json, args: &Args, target: &dyn Target, session: &Session) -> Result<()> {
    let differences = match args.diff {
        true => Some(differences(change, target).await?),
        false => None,
    };
    if session.output.is_json() {
        let mut change = change.clone();
        if let (Some(differences), Json::Object(members)) = (differences, &mut change) {
            members.insert("changed".to_owned(), Json::Object(differences));
        }
        return session.output.json(&change);
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
    ))?;
    for (field, [before, after]) in differences.iter().flatten().filter_map(pair) {
        session.output.line(format_args!("          {field}: {before} -> {after}"))?;
    }
    Ok(())
}

fn pair((field, values): (&String, &Json)) -> Option<(String, [Json; 2])> {
    let values = values.as_array()?;
    Some((field.clone(), [values.first()?.clone(), values.get(1)?.clone()]))
}

/// The fields that a change made different, each with what it held before and after.
async fn differences(change: &Json, target: &dyn Target) -> Result<Map<String, Json>> {
    let mut before = Json::Null;
    if let (Some(entity), Some(key), false) =
        (change["entity"].as_str(), change["key"].as_str(), change["replaced"].is_null())
    {
        let changes = target.history(entity, key, Some(position(change)?), 1).await?;
        before = changes.into_iter().next().map(|mut c| c["record"].take()).unwrap_or_default();
    }
    let after = &change["record"];
    let mut names: Vec<&String> =
        [&before, after].into_iter().filter_map(Json::as_object).flat_map(Map::keys).collect();
    names.sort_unstable();
    names.dedup();
    let differ = names.into_iter().filter(|name| before[name.as_str()] != after[name.as_str()]);
    Ok(differ
        .map(|name| (name.clone(), json!([before[name.as_str()], after[name.as_str()]])))
        .collect())
}
