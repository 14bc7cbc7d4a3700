//! `unisono erase`: what is personal about somebody is lost, everywhere.

use unisono::core::Result;

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::Target;

/// Erase a person: destroy the keys to everything personal that is about a subject
///
/// What `personal` fields hold of the subject cannot be read any more: not in the truth, in its log, in followers and caches, nor in
/// archives and backups. Followers that hold it in the clear get it without, as soon as they can be reached. There is no way back.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Whom it is about, as the `subject` of records says it
    subject: String,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let work = async |target: &dyn Target| target.erase(&args.subject).await;
    let erased = session.on_target(&args.connect, work).await?;
    if session.output.is_json() {
        session.output.json(&erased)?;
        return Ok(exit::OK);
    }
    let keys = erased["keys"].as_u64().unwrap_or_default();
    let name = erased["subject"].as_str().unwrap_or_default();
    session.output.line(format_args!("{}", told(keys, name)))?;
    for follower in erased["pending"].as_array().into_iter().flatten() {
        let text = |name: &str| follower[name].as_str().unwrap_or_default().to_owned();
        let (entity, source, reason) = (text("entity"), text("source"), text("reason"));
        session
            .output
            .line(format_args!("still to be delivered: {entity} in {source} ({reason})"))?;
    }
    Ok(exit::OK)
}

fn told(keys: u64, name: &str) -> String {
    match keys {
        0 => format!("there was no key of this subject; the audit trail calls it {name}"),
        _ => format!("erased; the audit trail calls the subject {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_whether_there_was_something_to_erase() {
        assert!(told(0, "ab").contains("no key"));
        assert!(told(1, "ab").starts_with("erased"));
    }
}
