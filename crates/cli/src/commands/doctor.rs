//! `unisono doctor`: is everything there that is needed, and if not, what to do.

use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};
use unisono::core::clock::{Clock as _, SystemClock};
use unisono::core::{Error, ErrorKind, Result};
use unisono::engine::{Engine, Runtime};
use unisono::policy::retry;
use unisono::{Registry, open_sources};

use super::Connect;
use crate::exit;
use crate::lock::DataLock;
use crate::open;
use crate::session::Session;
use crate::terminal::Output;
use crate::terminal::text;

/// Check the machine, the configuration and every source, and say what to do about what is wrong
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    connect: Connect,
}

/// Free space below which a store may soon fail to write.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// 2026-01-01: a clock before it is certainly wrong.
const CLOCK_MICROS_MIN: i64 = 1_767_225_600_000_000;

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let mut findings = Findings { output: session.output, worst: exit::OK };
    findings.of("clock", clock())?;
    let looked = match args.connect.url {
        Some(_) => server(&args.connect, session, &mut findings).await,
        None => session.interrupt.or(here(session, &mut findings)).await,
    };
    looked?;
    Ok(findings.worst)
}

/// Tells each finding as soon as it is known.
struct Findings {
    output: Output,
    worst: u8,
}

impl Findings {
    /// Tells one; answers what was found, if it was good.
    fn of(&mut self, what: &str, finding: Result<String>) -> Result<()> {
        let (ok, text, hint) = match &finding {
            Ok(text) => (true, text.clone(), None),
            Err(error) => {
                self.worst = self.worst.max(exit::code(error));
                let hint = error.hint_text().unwrap_or_else(|| retry::remedy(error.kind()));
                (false, error.to_string(), Some(hint.to_owned()))
            }
        };
        if self.output.is_json() {
            return self
                .output
                .json(&json!({"check": what, "ok": ok, "found": text, "hint": hint}));
        }
        self.output.line(format_args!("{} {what}: {text}", if ok { '✓' } else { '✗' }))?;
        hint.map_or(Ok(()), |hint| self.output.line(format_args!("    {hint}")))
    }
}

fn clock() -> Result<String> {
    let now = SystemClock.now();
    if now.micros() < CLOCK_MICROS_MIN {
        return Err(Error::new(ErrorKind::Unavailable, "the clock of this machine is wrong")
            .with("now", now)
            .hint(
                "set the clock, best by a time service: times in the log and expiries come from it",
            ));
    }
    Ok(now.to_string())
}

async fn here(session: &Session, findings: &mut Findings) -> Result<()> {
    let configuration = match open::configuration(&session.common) {
        Ok(configuration) => configuration,
        Err(error) => return findings.of("configuration", Err(error)),
    };
    let counts =
        (configuration.declaration.sources.len(), configuration.declaration.entities.len());
    let text = format!(
        "{} with {} sources and {} entities",
        session.common.config.display(),
        counts.0,
        counts.1
    );
    findings.of("configuration", Ok(text))?;
    let lock = match DataLock::take(&configuration.data) {
        Ok(lock) => lock,
        Err(error) => return findings.of("data directory", Err(error)),
    };
    findings.of("data directory", Ok(format!("{} is ours", configuration.data.display())))?;
    if let Some(space) = free_space(&configuration.data) {
        findings.of("free space", space)?;
    }
    let runtime = Runtime::system();
    let sources = match open_sources(&configuration, &Registry::builtin(), &runtime).await {
        Ok(sources) => sources,
        Err(error) => return findings.of("sources", Err(error)),
    };
    for (name, source) in &sources {
        let probe = source.probe().await.map(|probe| {
            let size =
                probe.bytes.map(|bytes| format!(", {}", text::size(bytes))).unwrap_or_default();
            format!("{} {}{size}", source.kind(), probe.engine)
        });
        findings.of(&format!("source {name}"), probe)?;
    }
    let engine = match Engine::open(configuration.declaration, sources, runtime).await {
        Ok((engine, notes)) => {
            let changed = if notes.is_empty() {
                "match the configuration".to_owned()
            } else {
                notes.join("; ")
            };
            findings.of("tables, indexes and folders", Ok(changed))?;
            engine
        }
        Err(error) => return findings.of("tables, indexes and folders", Err(error)),
    };
    let status = serde_json::to_value(engine.status().await).unwrap_or_default();
    let told = deliveries(&status, findings);
    engine.close().await?;
    drop(lock);
    told
}

async fn server(connect: &Connect, session: &Session, findings: &mut Findings) -> Result<()> {
    let target = session.target(connect).await?;
    let status = match session.interrupt.or(target.status()).await {
        Ok(status) => status,
        Err(error) => return findings.of("server", Err(error)),
    };
    findings.of("server", Ok(connect.url.clone().unwrap_or_default()))?;
    for source in status["sources"].as_array().into_iter().flatten() {
        let what = format!("source {}", text::cell(&source["name"]));
        let engine = format!("{} {}", text::cell(&source["kind"]), text::cell(&source["engine"]));
        let finding = match source["state"].as_str() {
            Some("up") => Ok(engine),
            state => Err(Error::new(ErrorKind::Unavailable, state.unwrap_or("unknown").to_owned())),
        };
        findings.of(&what, finding)?;
    }
    deliveries(&status, findings)
}

fn deliveries(status: &Json, findings: &mut Findings) -> Result<()> {
    for delivery in status["deliveries"].as_array().into_iter().flatten() {
        let of = |name: &str| text::cell(&delivery[name]);
        let what = format!("{} in {}", of("entity"), of("source"));
        let finding = match (delivery["last_error"].as_str(), delivery["dead_letters"].as_u64()) {
            (Some(error), _) if delivery["state"] == "waiting" => {
                Err(Error::new(ErrorKind::Unavailable, error.to_owned()))
            }
            (_, Some(letters @ 1..)) => Err(Error::new(
                ErrorKind::Diverged,
                format!("{letters} changes are refused by the follower"),
            )
            .hint("unisono dead-letters list shows why; replay or discard them")),
            _ => Ok(format!("{}, {} changes behind", of("state"), of("lag_changes"))),
        };
        findings.of(&what, finding)?;
    }
    Ok(())
}

/// Free space where the data lies, as `df` tells it; `None` where there is no `df`.
fn free_space(data: &Path) -> Option<Result<String>> {
    let output = Command::new("df").arg("-Pk").arg(data).output().ok()?;
    let kilobytes = free_kilobytes(&String::from_utf8_lossy(&output.stdout))?;
    let bytes = kilobytes.saturating_mul(1024);
    if bytes < FREE_BYTES_MIN {
        return Some(Err(Error::new(ErrorKind::Unavailable, "the disk is almost full")
            .with("free", text::size(bytes))
            .hint("make room, or name a data directory on another disk with --data")));
    }
    Some(Ok(text::size(bytes)))
}

/// The fourth column of the second line (POSIX output format).
fn free_kilobytes(df: &str) -> Option<u64> {
    df.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_read_from_the_posix_format() {
        let df =
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 100 40 60 40% /\n";
        assert_eq!(free_kilobytes(df), Some(60));
        assert_eq!(free_kilobytes(""), None);
    }
}
