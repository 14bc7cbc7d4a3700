//! `unisono dead-letters`: changes that a follower refuses for good, and acknowledged writes that the truth refuses.

use serde_json::json;
use unisono::core::{Error, ErrorKind, Result};
use unisono::engine::delivery::dead_letter::DeadLetter;

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::Target;

/// Look at changes that a follower refuses and acknowledged writes that the truth refuses, try them again, or forget them
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List them
    List(Which),
    /// Deliver the current state of their records again, or flush the refused writes again
    Replay(Which),
    /// Forget them; `verify` will find their records different, refused writes are gone
    Discard(Discard),
}

/// Which dead letters; all of them if nothing is given.
#[derive(clap::Args)]
struct Which {
    /// Only those of this entity
    #[arg(long)]
    entity: Option<String>,
    /// Only those of this follower or journal
    #[arg(long)]
    source: Option<String>,
    /// Only that of this record
    #[arg(long, requires = "entity")]
    key: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(clap::Args)]
struct Discard {
    #[command(flatten)]
    which: Which,
    /// Discard all dead letters, if none are chosen by entity, source or key
    #[arg(long)]
    all: bool,
}

impl Which {
    fn chooses(&self, letter: &DeadLetter) -> bool {
        let is = |asked: &Option<String>, actual: &str| asked.as_ref().is_none_or(|a| a == actual);
        is(&self.entity, &letter.entity)
            && is(&self.source, &letter.source)
            && is(&self.key, &letter.key)
    }

    fn is_everything(&self) -> bool {
        self.entity.is_none() && self.source.is_none()
    }

    async fn letters(&self, target: &dyn Target) -> Result<Vec<DeadLetter>> {
        let letters =
            target.dead_letters().await?.into_iter().filter(|letter| self.chooses(letter));
        Ok(letters.collect())
    }
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    match args.command {
        Command::List(which) => list(which, session).await,
        Command::Replay(which) => replay(which, session).await,
        Command::Discard(Discard { which, all }) => {
            if which.is_everything() && !all {
                return Err(Error::invalid("nothing says which dead letters to discard")
                    .hint("choose by --entity, --source and --key, or say --all"));
            }
            discard(which, session).await
        }
    }
}

async fn list(which: Which, session: &Session) -> Result<u8> {
    let letters =
        session.on_target(&which.connect, async |target| which.letters(target).await).await?;
    if session.output.is_json() {
        letters.iter().try_for_each(|letter| session.output.json(letter))?;
        return Ok(exit::OK);
    }
    if letters.is_empty() {
        session.output.line("no dead letters")?;
    }
    let rows = letters.into_iter().map(|letter| {
        let (since, attempts) = (letter.since.to_string(), letter.attempts.to_string());
        vec![
            letter.entity.to_string(),
            letter.key,
            letter.source.to_string(),
            since,
            attempts,
            letter.reason,
        ]
    });
    session
        .output
        .table(&["entity", "key", "source", "since", "attempts", "reason"], rows.collect())?;
    Ok(exit::OK)
}

async fn replay(which: Which, session: &Session) -> Result<u8> {
    let work = async |target: &dyn Target| {
        let (mut accepted, mut refused) = (0u64, 0u64);
        for letter in which.letters(target).await? {
            match target.replay(&letter).await? {
                true => accepted += 1,
                false => refused += 1,
            }
        }
        Ok((accepted, refused))
    };
    let (accepted, refused) = session.on_target(&which.connect, work).await?;
    if session.output.is_json() {
        session.output.json(&json!({"accepted": accepted, "refused": refused}))?;
    } else {
        session.output.line(format_args!("{accepted} accepted, {refused} refused again"))?;
    }
    Ok(if refused > 0 { exit::FAILED } else { exit::OK })
}

async fn discard(which: Which, session: &Session) -> Result<u8> {
    let work = async |target: &dyn Target| {
        let mut discarded = 0u64;
        for letter in which.letters(target).await? {
            match target.discard(&letter).await {
                // A newer state of the record superseded it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => result.map(|()| discarded += 1)?,
            }
        }
        Ok(discarded)
    };
    let discarded = session.on_target(&which.connect, work).await?;
    if session.output.is_json() {
        session.output.json(&json!({"discarded": discarded}))?;
    } else {
        session.output.line(format_args!("{discarded} discarded"))?;
    }
    Ok(exit::OK)
}
