//! `unisono check`: everything that is wrong with a configuration, without opening anything.

use serde_json::json;
use unisono::Registry;
use unisono::config::{self, Process};
use unisono::core::Result;

use crate::exit;
use crate::open;
use crate::session::Session;

/// Check a configuration: every problem with its line, without opening anything
///
/// Exit code 78 if there are errors.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the JSON Schema of configurations, for editors
    #[arg(long, conflicts_with = "print_example")]
    print_schema: bool,
    /// Print an example that names every option
    #[arg(long)]
    print_example: bool,
}

pub(super) fn run(args: &Args, session: &Session) -> Result<u8> {
    let (registry, output) = (Registry::builtin(), session.output);
    if args.print_schema {
        output.line(format_args!("{:#}", config::schema(registry.kinds())))?;
        return Ok(exit::OK);
    }
    if args.print_example {
        output.line(config::example(registry.kinds()).trim_end())?;
        return Ok(exit::OK);
    }
    let path = &session.common.config;
    if !path.exists() {
        // Said there in one place, with the ways out.
        open::configuration(&session.common)?;
    }
    let (problems, ok) = match config::load(path, &registry, &Process) {
        Ok(configuration) => (configuration.warnings, true),
        Err(problems) => (problems, false),
    };
    if output.is_json() {
        output.json(&json!({"ok": ok, "file": path, "problems": problems}))?;
    } else if problems.0.is_empty() {
        output.line(format_args!("{}: no problems", path.display()))?;
    } else {
        output.line(&problems)?;
    }
    Ok(if ok { exit::OK } else { exit::CONFIGURATION })
}
