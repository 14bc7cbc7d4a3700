//! [`Progress`]: a bar on a terminal, a plain line every few seconds elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use unisono::core::Timestamp;
use unisono::core::clock::{Clock as _, SystemClock};

use crate::terminal::output::note;
use crate::terminal::text;

const LINE_EVERY: Duration = Duration::from_secs(2);

/// How far some long work has come.
pub(crate) struct Progress {
    what: String,
    started: Timestamp,
    bar: Option<ProgressBar>,
    last_line: Timestamp,
    quiet: bool,
}

impl Progress {
    /// Begins to report on `what`. JSON output gets no progress at all.
    pub(crate) fn new(what: impl Into<String>, quiet: bool) -> Self {
        let now = SystemClock.now();
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
            // The template is a constant that is known to parse.
            bar.set_style(
                ProgressStyle::with_template("{prefix} {bar:28} {percent:>3} %  {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        let what = what.into();
        if let Some(bar) = &bar {
            bar.set_prefix(what.clone());
        }
        Progress { what, started: now, bar, last_line: now, quiet }
    }

    /// Says that `done` of `total` is reached (in any unit, 0 if unknown), which is `records` records.
    pub(crate) fn update(&mut self, done: u64, total: u64, records: u64) {
        if self.quiet {
            return;
        }
        let now = SystemClock.now();
        if self.bar.is_none() && between(self.last_line, now) < LINE_EVERY {
            return;
        }
        let message = describe(between(self.started, now), done, total, records);
        match &self.bar {
            Some(bar) => {
                bar.set_length(total.max(done));
                bar.set_position(done);
                bar.set_message(message);
            }
            None => {
                self.last_line = now;
                let percent = (done.min(total) * 100).checked_div(total);
                let percent = percent.map(|n| format!(" {n} %,")).unwrap_or_default();
                note(format_args!("{}:{percent} {message}", self.what));
            }
        }
    }

    /// How long it has been going on.
    pub(crate) fn elapsed(&self) -> Duration {
        between(self.started, SystemClock.now())
    }

    /// Takes the bar away, so that results can be printed.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(later.micros() - earlier.micros()).unwrap_or(0))
}

/// Records per second; 0 before anything can be said.
pub(crate) fn rate(records: u64, elapsed: Duration) -> u64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { (records as f64 / seconds) as u64 } else { 0 }
}

fn describe(elapsed: Duration, done: u64, total: u64, records: u64) -> String {
    let mut message =
        format!("{} records, {}/s", text::count(records), text::count(rate(records, elapsed)));
    if done > 0 && total > done {
        let left = elapsed.mul_f64((total - done) as f64 / done as f64);
        message.push_str(&format!(", {} left", text::duration(left)));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_the_rate_and_the_time_left() {
        let message = describe(Duration::from_secs(10), 25, 100, 200_000);
        assert_eq!(message, "200,000 records, 20,000/s, 30 s left");
        assert_eq!(describe(Duration::ZERO, 0, 0, 0), "0 records, 0/s");
    }
}
