//! `unisono verify`: compares every follower with its truth.

use std::sync::{Mutex, PoisonError};

use serde_json::Value as Json;
use unisono::core::Result;
use unisono::engine::verify::report::{Depth, VerifyOptions};

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::Target;
use crate::terminal::{Output, text};

/// Compare every follower with its truth
///
/// Both sides sum up which records they hold at which versions, and where the sums differ the records are compared: in
/// about a second for a million of them. What somebody changed by hand without touching the version takes --deep. Reads
/// and writes go on meanwhile. Exit code 1 if anything differs.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) scope: Scope,
    #[command(flatten)]
    connect: Connect,
}

/// What to compare.
#[derive(clap::Args)]
pub(crate) struct Scope {
    /// Only this entity
    #[arg(long)]
    pub(super) entity: Option<String>,
    /// Only this follower
    #[arg(long)]
    pub(super) source: Option<String>,
    /// Read every record back from both sides and compare its data
    #[arg(long)]
    pub(super) deep: bool,
    /// Compare only what followers have acknowledged, which reads no record
    #[arg(long, conflicts_with = "deep")]
    pub(super) ledger: bool,
}

impl Scope {
    /// As the engine takes it.
    pub(super) fn options(&self) -> VerifyOptions {
        let depth = match (self.deep, self.ledger) {
            (true, _) => Depth::Deep,
            (_, true) => Depth::Ledger,
            _ => Depth::Observed,
        };
        VerifyOptions {
            depth,
            entity: self.entity.as_deref().map(Into::into),
            source: self.source.as_deref().map(Into::into),
            ..VerifyOptions::default()
        }
    }
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let options = args.scope.options();
    let work = async |target: &dyn Target| compare(&options, target, session).await;
    let report = session.on_target(&args.connect, work).await?;
    show(&report, session.output)?;
    Ok(if agrees(&report) { exit::OK } else { exit::FAILED })
}

/// Runs the comparison with a progress bar.
pub(super) async fn compare(
    options: &VerifyOptions,
    target: &dyn Target,
    session: &Session,
) -> Result<Json> {
    let progress = Mutex::new((String::new(), session.progress("")));
    let on_progress = |entity: &str, source: &str, records: u64, total: u64| {
        let what = format!("{entity} in {source}");
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.0 != what {
            *progress = (what.clone(), session.progress(what));
        }
        progress.1.update(records, total, records);
    };
    target.verify(options, &on_progress).await
}

/// Whether nothing differs any more.
pub(super) fn agrees(report: &Json) -> bool {
    comparisons(report)
        .all(|c| c["error"].is_null() && number(c, "different") == number(c, "repaired"))
}

/// Records compared and records that differ, over everything.
pub(super) fn totals(report: &Json) -> (u64, u64) {
    comparisons(report).fold((0, 0), |(records, different), c| {
        (records + number(c, "records"), different + number(c, "different"))
    })
}

/// The report as a table, with the first differences named.
pub(super) fn show(report: &Json, output: Output) -> Result<()> {
    const DIFFERENCES_SHOWN: usize = 10;
    if output.is_json() {
        return output.json(report);
    }
    let rows = comparisons(report).map(|c| {
        let result = match (&c["error"], number(c, "different"), number(c, "repaired")) {
            (Json::String(error), _, _) => format!("✗ not finished: {error}"),
            (_, 0, _) => "✓ agrees".to_owned(),
            (_, different, repaired) if different == repaired => "✓ agrees after repair".to_owned(),
            (_, different, 0) => format!("✗ {} differ", text::count(different)),
            (_, different, repaired) => {
                format!(
                    "✗ {} of {} still differ",
                    text::count(different - repaired),
                    text::count(different)
                )
            }
        };
        let records = text::count(number(c, "records"));
        vec![
            text::cell(&c["entity"]),
            text::cell(&c["source"]),
            records,
            text::cell(&c["position"]),
            result,
        ]
    });
    output.table(&["entity", "follower", "records", "at position", "result"], rows.collect())?;
    for comparison in comparisons(report) {
        let differences = comparison["differences"].as_array().into_iter().flatten();
        for difference in differences.take(DIFFERENCES_SHOWN) {
            let of = |name: &str| text::cell(&difference[name]);
            output.line(format_args!(
                "  {} {} in {}: {}{}",
                text::cell(&comparison["entity"]),
                of("key"),
                text::cell(&comparison["source"]),
                of("class"),
                if difference["repaired"] == true { ", repaired" } else { "" },
            ))?;
        }
    }
    Ok(())
}

fn comparisons(report: &Json) -> impl Iterator<Item = &Json> {
    report["comparisons"].as_array().into_iter().flatten()
}

fn number(comparison: &Json, name: &str) -> u64 {
    comparison[name].as_u64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_comparison_that_failed_does_not_agree() {
        let report = |different: u64, repaired: u64, error: Json| json!({"comparisons": [{"records": 9, "different": different, "repaired": repaired, "error": error}]});
        assert!(agrees(&report(0, 0, Json::Null)));
        assert!(agrees(&report(2, 2, Json::Null)));
        assert!(!agrees(&report(2, 1, Json::Null)));
        assert!(!agrees(&report(0, 0, json!("timeout"))));
        assert_eq!(totals(&report(2, 1, Json::Null)), (9, 2));
    }
}
