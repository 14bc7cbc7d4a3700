//! `unisono source`: the sources, and what becomes of them while a server runs.

use std::fs;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value as Json, json};
use unisono::config::Configuration;
use unisono::core::{Error, ErrorKind, Result};
use unisono::policy::declaration::Declaration;
use unisono::policy::reload::{self, Step};

use super::Connect;
use crate::exit;
use crate::lock::DataLock;
use crate::open;
use crate::rewrite;
use crate::session::Session;
use crate::target::{Remote, Target};
use crate::terminal::text;

/// List, pause, resume, add, promote or remove sources
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the sources, what they are for, and how they are doing
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Leave a source alone until it is resumed, also after a restart
    ///
    /// Nothing is delivered to it, and it is not asked; a cache is passed by. Its checkpoint stays, and the log keeps what
    /// it lacks, up to `log.changes_max`. A truth or a journal cannot be paused.
    Pause {
        /// The source
        name: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Go on with a source that was paused
    Resume {
        /// The source
        name: String,
        #[command(flatten)]
        connect: Connect,
    },
    /// Add sources and followers to the configuration, and have a running server take them in
    ///
    /// The file has [sources.NAME] and [[entities.ENTITY.followers]] tables, as in the configuration, at the end of which
    /// they are written. If the server that --url names cannot take them in, the configuration stays as it was. Run it
    /// where the server's configuration is.
    Add {
        /// The tables to add
        file: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Move the truth of an entity to a follower that has everything; the truth then follows it
    ///
    /// Writes of the entity wait meanwhile, for 5 seconds at most; if it takes longer, nothing has changed. The way back is
    /// the same command with the other source. The configuration is changed with it; without --url, the next start
    /// moves the truth. Run it where the server's configuration is.
    Promote {
        /// The follower that becomes the truth
        name: String,
        /// The entity
        #[arg(long)]
        entity: String,
        #[command(flatten)]
        how: How,
    },
    /// Remove a source and its followers from the configuration, and have a running server let go of them
    ///
    /// What the source holds stays as it is. One that is a truth, a cache or a journal cannot be removed so.
    Remove {
        /// The source
        name: String,
        #[command(flatten)]
        how: How,
    },
}

#[derive(clap::Args)]
struct How {
    /// Only tell what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    match args.action {
        Action::List { connect } => {
            let work = async |target: &dyn Target| target.status().await;
            let status = session.on_target(&connect, work).await?;
            list(&status, session)?;
        }
        Action::Pause { name, connect } => {
            let work = async |target: &dyn Target| target.pause_source(&name).await;
            let paused = session.on_target(&connect, work).await?;
            tell(session, &name, &paused, &format!("{name}: paused {}", since(&paused)))?;
        }
        Action::Resume { name, connect } => {
            let work = async |target: &dyn Target| target.resume_source(&name).await;
            let was_paused = session.on_target(&connect, work).await?;
            let said = if was_paused { "goes on" } else { "was not paused" };
            tell(session, &name, &Json::Null, &format!("{name}: {said}"))?;
        }
        Action::Add { file, how } => {
            let fragment = fs::read_to_string(&file).map_err(|e| {
                Error::invalid("the file cannot be read").with("file", file.display()).caused_by(e)
            })?;
            change(&how, session, |text, _| rewrite::with(text, &fragment)).await?;
        }
        Action::Promote { name, entity, how } => {
            change(&how, session, |text, _| rewrite::promoted(text, &entity, &name)).await?;
        }
        Action::Remove { name, how } => {
            change(&how, session, |text, declared| {
                refuse_if_needed(declared, &name)?;
                rewrite::without(text, &name)
            })
            .await?;
        }
    }
    Ok(exit::OK)
}

fn tell(session: &Session, name: &str, paused: &Json, line: &str) -> Result<()> {
    match session.output.is_json() {
        true => session.output.json(&json!({ "source": name, "paused": paused })),
        false => session.output.line(line),
    }
}

fn since(paused: &Json) -> String {
    let by = paused["by"].as_str().map_or(String::new(), |by| format!(" by {by}"));
    format!("since {}{by}", text::cell(&paused["since"]))
}

fn list(status: &Json, session: &Session) -> Result<()> {
    let sources = status["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
    if session.output.is_json() {
        return sources.iter().try_for_each(|source| session.output.json(source));
    }
    let rows = sources.iter().map(|source| {
        let uses = source["uses"].as_array().into_iter().flatten();
        let uses =
            uses.map(|u| format!("{} of {}", text::cell(&u["role"]), text::cell(&u["entity"])));
        let state = match source["paused"].is_object() {
            true => format!("paused {}", since(&source["paused"])),
            false => text::cell(&source["state"]),
        };
        let uses = uses.collect::<Vec<_>>().join(", ");
        vec![text::cell(&source["name"]), text::cell(&source["kind"]), uses, state]
    });
    session.output.table(&["source", "kind", "is", "state"], rows.collect())
}

/// Writes the configuration anew, and has the server take it in if one is named; afterwards both are as the text says, or
/// both as before.
async fn change(
    how: &How,
    session: &Session,
    edit: impl FnOnce(&str, &Declaration) -> Result<String>,
) -> Result<()> {
    let file = &session.common.config;
    let present = open::configuration(&session.common)?;
    let before = fs::read_to_string(file).map_err(|e| {
        Error::invalid("the configuration cannot be read").with("file", file.display()).caused_by(e)
    })?;
    let after = edit(&before, &present.declaration)?;
    let wanted = checked(&after, session)?;
    let plan = reload::plan(&present.declaration, &wanted.declaration);
    let Some(url) = &how.connect.url else {
        let lines: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        show(&lines, session)?;
        // What a start refuses is not written.
        let moves = |step: &Step| matches!(step, Step::MoveTruth { .. });
        if plan.steps.iter().any(moves) {
            plan.outcome()?;
        }
        if how.dry_run {
            return Ok(());
        }
        // Held while the file is written: a server that runs must be told.
        let _lock = DataLock::take(&present.data)?;
        return rewrite::replace(file, &after);
    };
    let lines = plan.outcome()?;
    if how.dry_run {
        return show(&lines, session);
    }
    let server = Remote::new(url, how.connect.token.as_deref())?;
    rewrite::replace(file, &after)?;
    let reloaded = server.reload(false).await.and_then(|answer| {
        let changes = answer["changes"].as_array().into_iter().flatten();
        let changes: Vec<String> = changes.filter_map(Json::as_str).map(str::to_owned).collect();
        match changes.is_empty() {
            true => Err(Error::new(
                ErrorKind::InvalidConfig,
                "the server found nothing different: it reads another configuration",
            )
            .with("file", file.display())
            .hint("name the configuration of the server with --config")),
            false => Ok(changes),
        }
    });
    match reloaded {
        Ok(changes) => show(&changes, session),
        Err(error) => {
            rewrite::replace(file, &before)?;
            Err(open::told(error))
        }
    }
}

fn show(lines: &[String], session: &Session) -> Result<()> {
    match session.output.is_json() {
        true => session.output.json(&json!({ "changes": lines })),
        false => lines.iter().try_for_each(|line| session.output.line(line)),
    }
}

/// The configuration that a text is, read beside the file that it is to replace.
fn checked(text: &str, session: &Session) -> Result<Configuration> {
    let beside = rewrite::beside(&session.common.config);
    let failed = |e| {
        Error::new(ErrorKind::Unavailable, "nothing can be written beside the configuration")
            .with("file", beside.display())
            .caused_by(e)
    };
    fs::write(&beside, text).map_err(failed)?;
    let read = open::read(&beside).map_err(open::told);
    fs::remove_file(&beside).map_err(failed)?;
    Ok(open::place(read?, &session.common))
}

/// A source without which nothing could be written, or that caches, takes more than this to be removed.
fn refuse_if_needed(declaration: &Declaration, name: &str) -> Result<()> {
    for (entity, declared) in &declaration.entities {
        let journal = declared.write.behind.as_ref().map(|behind| &behind.journal);
        let cache = declared.cache.as_ref().map(|cache| &cache.source);
        let roles = [("truth", Some(&declared.truth)), ("journal", journal), ("cache", cache)];
        if let Some((role, _)) =
            roles.iter().find(|(_, source)| source.is_some_and(|s| **s == *name))
        {
            return Err(Error::new(ErrorKind::InvalidConfig, "only a follower can be removed so")
                .at(name)
                .of(entity)
                .with("role", role)
                .hint("change the configuration and restart"));
        }
    }
    Ok(())
}
