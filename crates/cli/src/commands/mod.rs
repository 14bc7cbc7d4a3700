//! The commands: their arguments, and the way to the one that was asked for.

mod adopt;
mod backfill;
mod backup;
mod check;
mod completions;
mod conflicts;
mod dead_letters;
mod demo;
mod doctor;
mod erase;
mod events;
mod explain;
mod export;
mod find;
mod get;
mod import;
mod log;
mod man;
mod projections;
mod put;
mod reload;
mod repair;
mod restore;
mod serve;
mod source;
mod status;
mod top;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use unisono::core::Result;

use crate::exit;
use crate::session::Session;

/// One voice for many stores: keeps SQL, caches, search and files in agreement, and shows that they agree.
#[derive(Parser)]
#[command(name = "unisono", version, after_help = exit::HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EVERYWHERE: &str = "Options of every command";

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", env = "UNISONO_CONFIG", default_value = "unisono.toml", help_heading = EVERYWHERE)]
    pub(crate) config: PathBuf,
    /// Where embedded sources live, instead of where the configuration says
    #[arg(long, global = true, value_name = "DIR", env = "UNISONO_DATA", help_heading = EVERYWHERE)]
    pub(crate) data: Option<PathBuf>,
    /// Answers as JSON, one value per line
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as unisono_engine=debug
    #[arg(long, global = true, value_name = "FILTER", env = "UNISONO_LOG", help_heading = EVERYWHERE)]
    pub(crate) log: Option<String>,
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, help_heading = EVERYWHERE)]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// Which server to work on, instead of opening the sources.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connect {
    /// A running server to work on; without it, the command opens the sources itself
    #[arg(long, value_name = "URL", env = "UNISONO_URL")]
    pub(crate) url: Option<String>,
    /// The access token for the server
    #[arg(
        long,
        value_name = "TOKEN",
        env = "UNISONO_TOKEN",
        hide_env_values = true,
        requires = "url"
    )]
    pub(crate) token: Option<String>,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    Demo(demo::Args),
    Serve(serve::Args),
    Check(check::Args),
    Reload(reload::Args),
    Doctor(doctor::Args),
    Get(get::Args),
    Put(put::Args),
    Find(find::Args),
    Import(import::Args),
    Export(export::Args),
    Status(status::Args),
    Top(top::Args),
    Log(log::Args),
    Events(events::Args),
    Verify(verify::Args),
    Repair(repair::Args),
    Backfill(backfill::Args),
    Source(source::Args),
    Projections(projections::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Erase(erase::Args),
    DeadLetters(dead_letters::Args),
    Conflicts(conflicts::Args),
    Explain(explain::Args),
    Adopt(adopt::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Does what was asked for; answers the exit code.
pub(crate) async fn run(cli: Cli) -> Result<u8> {
    let session = Session::start(cli.common)?;
    match cli.command {
        Command::Demo(args) => demo::run(args, &session).await,
        Command::Serve(args) => serve::run(args, &session).await,
        Command::Check(args) => check::run(&args, &session),
        Command::Reload(args) => reload::run(args, &session).await,
        Command::Doctor(args) => doctor::run(args, &session).await,
        Command::Get(args) => get::run(args, &session).await,
        Command::Put(args) => put::run(args, &session).await,
        Command::Find(args) => find::run(args, &session).await,
        Command::Import(args) => import::run(args, &session).await,
        Command::Export(args) => export::run(args, &session).await,
        Command::Status(args) => status::run(args, &session).await,
        Command::Top(args) => top::run(args, &session).await,
        Command::Log(args) => log::run(args, &session).await,
        Command::Events(args) => events::run(args, &session).await,
        Command::Verify(args) => verify::run(args, &session).await,
        Command::Repair(args) => repair::run(args, &session).await,
        Command::Backfill(args) => backfill::run(args, &session).await,
        Command::Source(args) => source::run(args, &session).await,
        Command::Projections(args) => projections::run(args, &session).await,
        Command::Backup(args) => backup::run(args, &session).await,
        Command::Restore(args) => restore::run(args, &session).await,
        Command::Erase(args) => erase::run(args, &session).await,
        Command::DeadLetters(args) => dead_letters::run(args, &session).await,
        Command::Conflicts(args) => conflicts::run(args, &session).await,
        Command::Explain(args) => explain::run(args, &session).await,
        Command::Adopt(args) => adopt::run(args, &session).await,
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args, &session),
    }
}
