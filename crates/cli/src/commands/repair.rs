//! `unisono repair`: makes followers agree with their truth again.

use std::io::{IsTerminal as _, Write as _};

use unisono::core::{Error, ErrorKind, Result};
use unisono::engine::verify::report::VerifyOptions;

use super::Connect;
use super::verify::{self, Scope};
use crate::exit;
use crate::session::Session;
use crate::target::Target;
use crate::terminal::output::note;
use crate::terminal::text;

/// Make followers agree with their truth again, by delivering its current records
///
/// Compares first. If more than 1 % of the records differ, it asks before it repairs them: so many differences are
/// rather a wrong configuration than damage.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// Only compare and report
    #[arg(long)]
    dry_run: bool,
    /// Repair at most so many records a second
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Repair without asking, however much differs
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let work = async |target: &dyn Target| {
        let report = verify::compare(&args.scope.options(), target, session).await?;
        let (records, different) = verify::totals(&report);
        if args.dry_run || different == 0 {
            return Ok(report);
        }
        if !args.yes && different.saturating_mul(100) > records {
            confirm(records, different, session).await?;
        }
        let options = VerifyOptions { repair: true, rate: args.rate, ..args.scope.options() };
        verify::compare(&options, target, session).await
    };
    let report = session.on_target(&args.connect, work).await?;
    verify::show(&report, session.output)?;
    Ok(if verify::agrees(&report) { exit::OK } else { exit::FAILED })
}

async fn confirm(records: u64, different: u64, session: &Session) -> Result<()> {
    let refuse = |message: &'static str| {
        Err(Error::invalid(message)
            .with("different", different)
            .with("records", records)
            .hint("look at them with --dry-run, then repeat with --yes"))
    };
    if !std::io::stdin().is_terminal() {
        return refuse("more than 1 % of the records differ, and there is nobody to ask");
    }
    note(format_args!("{} of {} records differ.", text::count(different), text::count(records)));
    let _ = write!(std::io::stderr(), "Repair them? [y/N] ");
    match answer(session).await?.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => refuse("not repaired"),
    }
}

/// A line from the terminal, read by a thread of its own so that Ctrl-C is heard meanwhile.
async fn answer(session: &Session) -> Result<String> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line).map(|_| line);
        // Nobody waits for the answer after Ctrl-C.
        let _ = sender.send(read);
    });
    let unanswered = || Error::new(ErrorKind::Cancelled, "the question was not answered");
    session
        .interrupt
        .or(async { receiver.await.ok().and_then(|r| r.ok()).ok_or_else(unanswered) })
        .await
}
