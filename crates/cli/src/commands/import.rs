//! `unisono import`: JSON Lines into an entity.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::core::{Error, ErrorKind, Result};

use super::Connect;
use crate::exit;
use crate::import::lines::{Lines, unreadable};
use crate::import::resume::Resume;
use crate::import::{Ended, Import, Refusal};
use crate::open;
use crate::session::Session;
use crate::target::Target;
use crate::terminal::output::note;
use crate::terminal::progress::rate;
use crate::terminal::text;

/// Load records from a file of JSON Lines, plain or gzip
///
/// Records are put whole, so importing a file twice does no harm. An import that was stopped goes on where it stopped
/// when the same command is run again.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The entity
    entity: String,
    /// The file, or `-` for standard input
    file: PathBuf,
    /// Start at the first line even if an earlier import of this file was stopped
    #[arg(long)]
    restart: bool,
    /// Also write refused lines and their reasons to this file, as JSON Lines
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Do not wait until the followers have caught up
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Refusals that are told one by one on standard error.
const REFUSALS_SHOWN: u64 = 20;

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let lines = Lines::open(&args.file)?;
    let target = session.interrupt.or(session.target(&args.connect)).await?;
    let result = import(&args, lines, &*target, session).await;
    let closed = target.close().await;
    let code = result?;
    closed?;
    Ok(code)
}

async fn import(args: &Args, lines: Lines, target: &dyn Target, session: &Session) -> Result<u8> {
    let resume = resume(args, session)?;
    let mut errors = errors_file(args.errors.as_deref())?;
    let mut shown = 0;
    let mut on_refusal = |refusal: Refusal| {
        shown += 1;
        tell(&refusal, shown, errors.as_mut())
    };
    let mut progress = session.progress(&args.entity);
    let import = Import {
        target,
        entity: &args.entity,
        lines,
        bytes: fs::metadata(&args.file).map_or(0, |m| m.len()),
        resume: resume.as_ref(),
        runtime: &session.runtime,
    };
    let ended = import.run(&mut progress, &session.interrupt, &mut on_refusal).await?;
    let elapsed = progress.elapsed();
    progress.finish();
    if let Some(error) = ended.stopped {
        let lines = text::count(ended.done.lines);
        let again = if resume.is_some() { "; run the same command again to go on" } else { "" };
        note(format_args!("{}: stopped after line {lines}{again}", args.entity));
        return Err(error);
    }
    let lag = if args.no_wait { None } else { catch_up(target, &args.entity, session).await? };
    summarise(&args.entity, &ended, elapsed, lag, session)?;
    Ok(if ended.done.refused > 0 { exit::FAILED } else { exit::OK })
}

/// The progress file, unless the lines come from standard input.
fn resume(args: &Args, session: &Session) -> Result<Option<Resume>> {
    if args.file == Path::new("-") {
        return Ok(None);
    }
    let folder = open::progress_folder(&session.common, args.connect.url.as_deref())?;
    let resume = Resume::of(&folder, &args.entity, &args.file)?;
    if args.restart {
        resume.clear();
    } else if let Some(done) = resume.begun().filter(|done| done.lines > 0) {
        note(format_args!(
            "{}: goes on after line {} (--restart starts over)",
            args.entity,
            text::count(done.lines)
        ));
    }
    Ok(Some(resume))
}

fn errors_file(path: Option<&Path>) -> Result<Option<File>> {
    let open = |path| {
        File::options().create(true).append(true).open(path).map_err(|e| unreadable(path, e))
    };
    path.map(open).transpose()
}

fn tell(refusal: &Refusal, shown: u64, errors: Option<&mut File>) -> Result<()> {
    if shown <= REFUSALS_SHOWN {
        note(format_args!("line {}: {}", refusal.line, refusal.reason));
    } else if shown == REFUSALS_SHOWN + 1 {
        note("further refused lines are only counted; --errors FILE keeps all of them");
    }
    let Some(errors) = errors else { return Ok(()) };
    let line = json!({
        "line": refusal.line,
        "code": refusal.reason.kind().code(),
        "reason": refusal.reason.to_string(),
    });
    writeln!(errors, "{line}").map_err(|e| {
        Error::new(ErrorKind::Unavailable, "the file of refused lines cannot be written")
            .caused_by(e)
    })
}

/// Waits until the followers have the records, if that would otherwise stop with this program; answers what is left.
async fn catch_up(target: &dyn Target, entity: &str, session: &Session) -> Result<Option<u64>> {
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    let mut progress = session.progress(format!("{entity}: followers"));
    let mut most = 0;
    loop {
        let lag = lag(&target.status().await?, entity);
        most = lag.max(most);
        let waits = target.ends_with_program() && lag > 0 && !session.interrupt.asked();
        if !waits {
            return Ok(Some(lag));
        }
        progress.update(most - lag, most, most - lag);
        session.runtime.sleep(LOOK_EVERY).await;
    }
}

/// Changes that the slowest working follower of an entity has not come to yet.
fn lag(status: &Json, entity: &str) -> u64 {
    let deliveries = status.get("deliveries").and_then(Json::as_array).into_iter().flatten();
    let of_entity = deliveries.filter(|d| d["entity"] == entity);
    let working = of_entity.filter(|d| d["state"] != "waiting" && d["state"] != "stopped");
    working.filter_map(|d| d["lag_changes"].as_u64()).max().unwrap_or(0)
}

fn summarise(
    entity: &str,
    ended: &Ended,
    elapsed: Duration,
    lag: Option<u64>,
    session: &Session,
) -> Result<()> {
    let per_second = rate(ended.stored, elapsed);
    if session.output.is_json() {
        return session.output.json(&json!({
            "entity": entity,
            "records": ended.done.records,
            "refused": ended.done.refused,
            "seconds": elapsed.as_secs_f64(),
            "records_per_second": per_second,
            "lag_changes": lag,
        }));
    }
    let followers = match lag {
        Some(0) => "; all followers have them".to_owned(),
        Some(lag) => format!("; the slowest follower is {} changes behind", text::count(lag)),
        None => String::new(),
    };
    session.output.line(format_args!(
        "{entity}: {} records stored, {} lines refused, {}, {}/s{followers}",
        text::count(ended.done.records),
        text::count(ended.done.refused),
        text::duration(elapsed),
        text::count(per_second),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_that_is_down_is_not_waited_for() {
        let status = json!({"deliveries": [
            {"entity": "product", "state": "waiting", "lag_changes": 900},
            {"entity": "product", "state": "catching_up", "lag_changes": 7},
            {"entity": "order", "state": "live", "lag_changes": 50},
        ]});
        assert_eq!(lag(&status, "product"), 7);
        assert_eq!(lag(&status, "nothing"), 0);
    }
}
