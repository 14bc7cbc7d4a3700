//! `unisono status`: how sources, logs, deliveries, caches and journals are doing.

use std::time::Duration;

use serde_json::Value as Json;
use unisono::core::Result;

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::terminal::Output;
use crate::terminal::text;

/// Show how sources, logs, deliveries, caches and journals are doing
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let status = session.on_target(&args.connect, async |target| target.status().await).await?;
    if session.output.is_json() {
        session.output.json(&status)?;
    } else {
        show(&status, session.output)?;
    }
    Ok(exit::OK)
}

fn show(status: &Json, output: Output) -> Result<()> {
    let size = |row: &Json| row["bytes"].as_u64().map(text::size).unwrap_or_default();
    let sources = rows(status, "sources", &|row| {
        let state = of(row, "state") + asked(row);
        vec![of(row, "name"), of(row, "kind"), state, of(row, "engine"), size(row)]
    });
    output.table(&["source", "kind", "state", "engine", "size"], sources)?;
    logs(status, output)?;
    let deliveries = rows(status, "deliveries", &|row| {
        let seconds = format!("{:.1} s", row["lag_seconds"].as_f64().unwrap_or(0.0));
        let lag = format!("{} changes, {seconds}", number(row, "lag_changes"));
        let letters = number(row, "dead_letters");
        vec![
            of(row, "entity"),
            of(row, "source"),
            of(row, "state") + &copied(&row["copy"]),
            of(row, "position"),
            lag,
            letters,
        ]
    });
    let heading = ["entity", "follower", "state", "position", "lag", "dead letters"];
    output.table(&heading, deliveries)?;
    let caches = rows(status, "caches", &|row| {
        let (hits, misses) =
            (row["hits"].as_u64().unwrap_or(0), row["misses"].as_u64().unwrap_or(0));
        let share = (hits * 100).checked_div(hits + misses).map(|n| format!("{n} %"));
        // A server of an earlier version does not say how much it wants.
        let wanted = row["wanted"].as_u64().filter(|wanted| *wanted > 0);
        let warmed = wanted.map(|n| format!("{} of {}", number(row, "warmed"), text::count(n)));
        let (share, warmed) = (share.unwrap_or_default(), warmed.unwrap_or_default());
        vec![of(row, "entity"), of(row, "source"), of(row, "applied"), share, warmed]
    });
    output.table(&["entity", "cache", "applied", "hits", "warmed"], caches)?;
    replication(status, output)?;
    adaptive(status, output)?;
    let journals = rows(status, "journals", &|row| {
        let mut age = format!("{:.1} s", row["oldest_seconds"].as_f64().unwrap_or(0.0));
        if row["alert"] == true {
            age += ", too long";
        }
        let pending = number(row, "pending");
        let (flushed, refused) = (number(row, "flushed"), number(row, "refused"));
        vec![of(row, "entity"), of(row, "source"), pending, age, flushed, refused]
    });
    if !journals.is_empty() {
        let heading = ["entity", "journal", "pending", "oldest", "flushed", "refused"];
        output.table(&heading, journals)?;
    }
    consistency(status, output)?;
    syncs(status, output)?;
    let failing = rows(status, "deliveries", &|row| vec![of(row, "last_error")]);
    for (error, row) in
        failing.iter().flatten().zip(status["deliveries"].as_array().into_iter().flatten())
    {
        if !error.is_empty() {
            let (entity, source) = (of(row, "entity"), of(row, "source"));
            output.line(format_args!("{entity} in {source}: last failure: {error}"))?;
        }
    }
    Ok(())
}

/// Where logs begin and end, and for whom they are kept.
fn logs(status: &Json, output: Output) -> Result<()> {
    let logs = rows(status, "logs", &|row| {
        let held = &row["held_by"];
        let whom = format!(
            "{} of {} ({})",
            of(held, "source"),
            of(held, "entity"),
            number(held, "changes")
        );
        let held = if held.is_object() { whom } else { String::new() };
        vec![of(row, "log"), of(row, "head"), of(row, "trimmed"), number(row, "retained"), held]
    });
    output.table(&["log", "head", "trimmed", "changes kept", "of these for"], logs)
}

/// How changes reach followers, where that is declared.
fn replication(status: &Json, output: Output) -> Result<()> {
    let written = rows(status, "entities", &|row| {
        let followers = row["followers"].as_array().into_iter().flatten().map(text::cell);
        let strategy = of(row, "strategy");
        vec![of(row, "entity"), strategy, of(row, "ack"), followers.collect::<Vec<_>>().join("; ")]
    });
    let is_declared =
        |row: &Vec<String>| !row[1].is_empty() || row[2] != "truth" || !row[3].is_empty();
    let written: Vec<_> = written.into_iter().filter(is_declared).collect();
    if !written.is_empty() {
        output.table(&["entity", "strategy", "ack", "followers"], written)?;
    }
    Ok(())
}

/// The level of each entity whose strategy is `adaptive`, and below it those that it had before, the newest first.
fn adaptive(status: &Json, output: Output) -> Result<()> {
    let entities = status["entities"].as_array().into_iter().flatten();
    let levels = entities.filter(|row| row["adaptive"].is_object()).flat_map(|row| {
        let now = &row["adaptive"];
        let present = vec![of(row, "entity"), of(now, "level"), of(now, "since"), of(now, "why")];
        let moves = now["moves"].as_array().into_iter().flatten().rev().skip(1);
        let before = |made| vec![String::new(), of(made, "to"), of(made, "time"), of(made, "why")];
        std::iter::once(present).chain(moves.map(before))
    });
    output.table(&["entity", "level", "since", "why"], levels.collect())
}

/// How consistent sources were, where that is sampled.
fn consistency(status: &Json, output: Output) -> Result<()> {
    let found = rows(&status["sampler"], "consistency", &|row| {
        let nines = row["nines"].as_f64().unwrap_or_default();
        vec![
            of(row, "source"),
            format!("{} s", number(row, "delay_seconds")),
            format!("{nines:.1}"),
        ]
    });
    match found.is_empty() {
        true => Ok(()),
        false => output.table(&["source", "after a change", "nines of consistency"], found),
    }
}

/// How truths follow each other.
fn syncs(status: &Json, output: Output) -> Result<()> {
    let found = rows(status, "syncs", &|row| {
        let (behind, held) = (number(row, "behind"), number(row, "held"));
        let conflicts = number(row, "conflicts");
        vec![of(row, "entity"), of(row, "with"), of(row, "state"), behind, conflicts, held]
    });
    if !found.is_empty() {
        output.table(&["entity", "follows", "state", "behind", "conflicts", "waiting"], found)?;
    }
    for row in status["syncs"].as_array().into_iter().flatten() {
        let entity = of(row, "entity");
        if !row["last_error"].is_null() {
            output.line(format_args!("{entity}: last failure: {}", of(row, "last_error")))?;
        }
        for held in row["held_records"].as_array().into_iter().flatten() {
            output.line(format_args!(
                "{entity} {} waits: {}",
                of(held, "key"),
                of(held, "text")
            ))?;
        }
    }
    Ok(())
}

/// How far a copy has come, if one is under way and its size is known.
fn copied(copy: &Json) -> String {
    let (done, total) = (copy["records"].as_u64(), copy["records_total"].as_u64());
    let share = done.zip(total).and_then(|(done, total)| (done * 100).checked_div(total));
    let Some(share) = share else { return String::new() };
    let left = copy["seconds_left"].as_f64().map(Duration::from_secs_f64).map(text::duration);
    let left = left.map(|left| format!(", {left} left")).unwrap_or_default();
    format!(", {share} %{left}")
}

/// A remark about a source that is not asked at present.
fn asked(row: &Json) -> &'static str {
    match row["breaker"].as_str() {
        Some("open") => ", not asked for a while",
        Some("half_open") => ", tried again",
        _ => "",
    }
}

/// The rows of a part of the status.
pub(super) fn rows(
    status: &Json,
    part: &str,
    row: &dyn Fn(&Json) -> Vec<String>,
) -> Vec<Vec<String>> {
    status[part].as_array().into_iter().flatten().map(row).collect()
}

/// A member of a row as a cell.
pub(super) fn of(row: &Json, name: &str) -> String {
    row.get(name).map(text::cell).unwrap_or_default()
}

/// A whole number of a row as a cell.
pub(super) fn number(row: &Json, name: &str) -> String {
    row[name].as_u64().map(text::count).unwrap_or_default()
}
