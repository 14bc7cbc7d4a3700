//! `unisono man`: manual pages.

use std::path::PathBuf;

use clap::CommandFactory as _;
use unisono::core::{Error, ErrorKind, Result};

use super::Cli;
use crate::exit;
use crate::session::Session;

/// Write the manual pages into a folder
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder, made if needed
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<u8> {
    std::fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.folder))
        .map_err(|e| {
            Error::new(ErrorKind::Unavailable, "the manual pages cannot be written")
                .with("folder", args.folder.display())
                .caused_by(e)
        })?;
    session.output.line(format_args!("manual pages are in {}", args.folder.display()))?;
    Ok(exit::OK)
}
