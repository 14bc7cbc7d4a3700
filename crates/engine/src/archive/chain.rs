//! Checking the chain: whether the archived log is as it was written, and the log in the truth as it was archived.

use serde::Serialize;
use unisono_core::json::change;
use unisono_core::source::LogBounds;
use unisono_core::{Position, Result};

use super::segment::Segment;
use super::{Archive, Last};

/// What was found of one archived log.
#[derive(Clone, Debug, Serialize)]
pub struct ChainReport {
    /// The truth whose log it is.
    pub truth: String,
    /// How many segments there are.
    pub segments: u64,
    /// How many changes are in them.
    pub changes: u64,
    /// The last archived position.
    pub through: Position,
    /// SHA-256 of the newest segment. If it is the one that was noted elsewhere, everything before is as it was then.
    pub sha256: Option<String>,
    /// How many of the changes are still in the truth's log, and are the same there.
    pub compared: u64,
    /// What is not as it was written; empty if everything is.
    pub problems: Vec<String>,
}

impl Archive {
    /// Reads the whole archive, and the log in the truth as far as it reaches back.
    pub(crate) async fn check(&self) -> Result<ChainReport> {
        let mut report = ChainReport {
            truth: self.log.name.truth.to_string(),
            segments: 0,
            changes: 0,
            through: Position::ZERO,
            sha256: None,
            compared: 0,
            problems: Vec::new(),
        };
        let bounds = self.log.truth.bounds().await?;
        let mut before: Option<Last> = None;
        for name in self.segments_after(Position::ZERO).await? {
            let segment = match self.segment(&name).await {
                Ok(segment) => segment,
                Err(error) => {
                    report.problems.push(format!("{name}: {error}"));
                    before = None;
                    continue;
                }
            };
            let header = &segment.header;
            report.segments += 1;
            report.through = header.through;
            if let Some(before) = &before {
                if header.previous != before.hash {
                    let problem =
                        format!("{name}: the segment before it is not the one that was archived");
                    report.problems.push(problem);
                }
                if header.log == before.log && header.after > before.through {
                    let lost = header.after.since(before.through);
                    report.problems.push(format!("{name}: {lost} changes before it are missing"));
                }
            } else if header.previous.is_some() && report.segments == 1 {
                report.problems.push(format!("{name}: segments before it are missing"));
            }
            self.compare(&segment, &name, &bounds, &mut report).await?;
            report.sha256 = Some(segment.hash.clone());
            before = Some(segment.end());
        }
        let newest = self.state.get().last.clone().filter(|last| last.hash.is_some());
        if newest.is_some_and(|newest| before.as_ref().is_none_or(|b| b.through < newest.through)) {
            report.problems.push("the newest segments are missing".to_owned());
        }
        Ok(report)
    }

    /// Compares a segment with what the truth's log holds of the same positions.
    async fn compare(
        &self,
        segment: &Segment,
        name: &str,
        bounds: &LogBounds,
        report: &mut ChainReport,
    ) -> Result<()> {
        let (header, mut at) = (&segment.header, segment.header.after);
        let mut kept = Vec::new();
        let is_kept = header.log == bounds.log && at >= bounds.trimmed;
        while is_kept && at < header.through {
            let changes =
                self.log.truth.read_log(at, super::writer::CHANGES_MAX, usize::MAX).await?;
            let Some(last) = changes.last() else { break };
            at = last.position;
            kept.extend(changes.into_iter().filter(|change| change.position <= header.through));
        }
        let mut kept = kept.into_iter();
        for line in segment.lines() {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    report.problems.push(format!("{name}: {error}"));
                    return Ok(());
                }
            };
            report.changes += 1;
            let Some(kept) = kept.next() else { continue };
            let entity = self.by_name.get(&kept.entity).map(|entity| &**entity);
            if change::to_json(entity, &kept) != line {
                let text = "is not in the truth's log as it was archived";
                report.problems.push(format!("the change at {} {text}", line["position"]));
            }
            report.compared += 1;
        }
        Ok(())
    }
}
