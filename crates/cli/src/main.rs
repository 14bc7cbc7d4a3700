//! The `unisono` program: serve, look, load, verify and repair.

mod commands;
mod exit;
mod import;
mod lock;
mod open;
mod reload;
mod rewrite;
mod session;
mod target;
mod telemetry;
mod terminal;
mod toml;

use std::process::ExitCode;

use clap::Parser as _;
use unisono::core::{Error, ErrorKind};
use unisono::policy::retry;

use crate::commands::Cli;
use crate::terminal::interrupt::is_stopped;
use crate::terminal::output::{is_closed_pipe, note};

/// Requests allocate little pieces on one thread and free them on another, at which the system's own is slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Fails only if a provider is installed already, and nothing ran before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let error = Error::new(ErrorKind::Unavailable, "no threads can be started");
            return ExitCode::from(report(&error.caused_by(e)));
        }
    };
    let code = match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => exit::OK,
        // Whoever pressed Ctrl-C needs no explanation.
        Err(error) if is_stopped(&error) => exit::code(&error),
        Err(error) => report(&error),
    };
    // What still runs, such as a read of standard input, must not hold up the end.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Says on standard error what went wrong and what to do, and gives the exit code.
fn report(error: &Error) -> u8 {
    note(format_args!("error: {error}"));
    note(format_args!(
        "  hint: {}",
        error.hint_text().unwrap_or_else(|| retry::remedy(error.kind()))
    ));
    note(format_args!("  more: unisono explain {}", error.kind().code()));
    exit::code(error)
}
