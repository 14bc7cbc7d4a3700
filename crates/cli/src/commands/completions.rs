//! `unisono completions`: what a shell needs to complete commands and options.

use clap::CommandFactory as _;
use clap_complete::Shell;
use unisono::core::Result;

use super::Cli;
use crate::exit;

/// Print completions for a shell
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<u8> {
    clap_complete::generate(args.shell, &mut Cli::command(), "unisono", &mut std::io::stdout());
    Ok(exit::OK)
}
