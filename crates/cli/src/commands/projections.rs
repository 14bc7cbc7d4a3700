//! `unisono projections`: which there are, and the versions of each.

use std::time::Duration;

use clap::Subcommand;
use serde_json::Value as Json;
use unisono::core::{Error, ErrorKind, Result};
use unisono::engine::verify::report::{Depth, VerifyOptions};

use super::{Connect, verify};
use crate::exit;
use crate::session::Session;
use crate::target::Target;
use crate::terminal::text;

/// List, compare and rebuild projections
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the projections, and how each is doing in its targets
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Show one projection: what is worked out, its versions, and how they are doing
    Show(One),
    /// Make a further version beside the one that answers, and have it take its place
    ///
    /// It is made from the truth while the present one goes on answering and following. When it has caught up, its rows are
    /// compared with a fold of the truth; only if they are equal it answers, from one moment to the next. The former
    /// version stays and follows, until it is discarded. Waits until that is so; what was begun is carried on
    /// by the server, or by the next one to start, also if this command ends before.
    Rebuild(One),
    /// Have the version answer again that did before the last rebuild
    Back(One),
    /// Discard the version that does not answer: the former one, or one that is being made
    ///
    /// If the former one is in the declared place, the version that answers is made there first, and answers from there.
    Discard(One),
    /// Compare the rows of all versions with a fold of the truth; exit code 1 if anything differs
    Verify(One),
}

#[derive(clap::Args)]
struct One {
    /// The projection
    name: String,
    #[command(flatten)]
    connect: Connect,
}

/// How often it is looked whether a version answers.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    match args.action {
        Action::List { connect } => {
            let work = async |target: &dyn Target| target.projections().await;
            list(&session.on_target(&connect, work).await?, session)?;
        }
        Action::Show(One { name, connect }) => {
            let work = async |target: &dyn Target| one(target, &name).await;
            show(&session.on_target(&connect, work).await?, session)?;
        }
        Action::Rebuild(One { name, connect }) => {
            let work = async |target: &dyn Target| {
                target.change_projection(&name, "rebuild").await?;
                settled(target, &name, "building", session).await
            };
            show(&session.on_target(&connect, work).await?, session)?;
        }
        Action::Back(One { name, connect }) => {
            let work = async |target: &dyn Target| target.change_projection(&name, "back").await;
            show(&session.on_target(&connect, work).await?, session)?;
        }
        Action::Discard(One { name, connect }) => {
            let work = async |target: &dyn Target| {
                target.change_projection(&name, "discard").await?;
                settled(target, &name, "", session).await
            };
            show(&session.on_target(&connect, work).await?, session)?;
        }
        Action::Verify(One { name, connect }) => {
            let options = VerifyOptions {
                entity: Some(name.as_str().into()),
                depth: Depth::Deep,
                ..VerifyOptions::default()
            };
            let work = async |target: &dyn Target| {
                one(target, &name).await?;
                verify::compare(&options, target, session).await
            };
            let report = session.on_target(&connect, work).await?;
            verify::show(&report, session.output)?;
            return Ok(if verify::agrees(&report) { exit::OK } else { exit::FAILED });
        }
    }
    Ok(exit::OK)
}

async fn one(target: &dyn Target, name: &str) -> Result<Json> {
    let all = target.projections().await?;
    let names: Vec<_> = all.iter().filter_map(|p| p["name"].as_str().map(str::to_owned)).collect();
    all.into_iter().find(|projection| projection["name"] == *name).ok_or_else(|| {
        let error =
            Error::new(ErrorKind::NotFound, "there is no projection with this name").of(name);
        match unisono::core::spelling::closest(name, names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error,
        }
    })
}

/// Waits until the version beside is in no state but the one that stays: being made, or there at all.
async fn settled(target: &dyn Target, name: &str, passes: &str, session: &Session) -> Result<Json> {
    let mut progress = session.progress(name.to_owned());
    loop {
        let found = one(target, name).await?;
        let state = found["beside"]["state"].as_str().unwrap_or_default();
        let goes_on = match passes {
            "" => matches!(state, "returning" | "discarded"),
            passes => matches!(state, "returning") || state == passes,
        };
        if !goes_on {
            return Ok(found);
        }
        let made = targets(&found).filter(|t| t["version"] == found["beside"]["version"]);
        let copies: Vec<&Json> = made.map(|t| &t["copy"]).collect();
        let sum = |member: &str| copies.iter().filter_map(|copy| copy[member].as_u64()).sum();
        progress.update(sum("records"), sum("records_total"), sum("records"));
        session.runtime.sleep(LOOK_EVERY).await;
    }
}

fn targets(projection: &Json) -> impl Iterator<Item = &Json> {
    projection["targets"].as_array().into_iter().flatten()
}

fn list(all: &[Json], session: &Session) -> Result<()> {
    if session.output.is_json() {
        return all.iter().try_for_each(|projection| session.output.json(projection));
    }
    let rows = all.iter().flat_map(|projection| {
        targets(projection).map(|target| {
            let mut row = vec![text::cell(&projection["name"]), text::cell(&projection["from"])];
            row.extend(line(projection, target));
            row
        })
    });
    let mut columns = vec!["projection", "from"];
    columns.extend(COLUMNS);
    session.output.table(&columns, rows.collect())
}

/// What is said of a version in a target.
const COLUMNS: [&str; 7] = ["target", "version", "is", "state", "lag", "rows", "last verified"];

fn line(projection: &Json, target: &Json) -> [String; 7] {
    let is = match target["live"] == true {
        true => "live".to_owned(),
        false => text::cell(&projection["beside"]["state"]),
    };
    let lag = format!("{:.1}s", target["lag_seconds"].as_f64().unwrap_or_default());
    let checks = target["verification"].as_array().into_iter().flatten();
    let times = checks.filter_map(|check| check["completed"].as_str());
    let verified = times.max().unwrap_or("never").to_owned();
    let [source, version, state, rows] =
        ["source", "version", "state", "rows"].map(|name| text::cell(&target[name]));
    [source, version, is, state, lag, rows, verified]
}

fn show(projection: &Json, session: &Session) -> Result<()> {
    if session.output.is_json() {
        return session.output.json(projection);
    }
    let [name, from, definition, version] =
        ["name", "from", "definition", "version"].map(|member| text::cell(&projection[member]));
    session.output.line(format_args!("{name}: version {version}, worked out from {from}"))?;
    session.output.line(format_args!("  {definition}"))?;
    let beside = &projection["beside"];
    if beside.is_object() {
        let [version, state] = ["version", "state"].map(|member| text::cell(&beside[member]));
        session.output.line(format_args!("  beside it version {version}: {state}"))?;
    }
    let rows = targets(projection).map(|target| line(projection, target).to_vec());
    session.output.table(&COLUMNS, rows.collect())?;
    for target in targets(projection).filter(|target| target["last_error"].is_string()) {
        let error = text::cell(&target["last_error"]);
        session.output.line(format_args!("  {}: {error}", text::cell(&target["source"])))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_a_version_is_for() {
        let projection = json!({ "beside": { "version": 2, "state": "building" } });
        let target = json!({ "source": "redis", "version": 2, "live": false, "state": "live",
            "rows": 7, "lag_seconds": 0.25, "verification": [] });
        assert_eq!(
            line(&projection, &target),
            ["redis", "2", "building", "live", "0.2s", "7", "never"]
        );
    }
}
