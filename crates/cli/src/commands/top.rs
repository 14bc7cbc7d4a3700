//! `unisono top`: a live view of the sources.

use std::time::Duration;

use serde_json::Value as Json;
use unisono::core::{Error, Result};

use super::Connect;
use super::status::{number, of, rows};
use crate::exit;
use crate::session::Session;
use crate::target::Target;
use crate::terminal::output::table;
use crate::terminal::text;

/// Watch the sources: what they do, how far they lag, how long answers take, whether they are asked
///
/// Latency is the peak of late, slowly forgotten, for each class of questions: what the choice between sources goes by.
/// Without --url the sources are opened by this command, and only its own questions are seen.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// How many looks; without it, until Ctrl-C
    #[arg(long, value_name = "LOOKS")]
    count: Option<u64>,
    #[command(flatten)]
    connect: Connect,
}

fn interval(given: &str) -> std::result::Result<f64, String> {
    match given.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds between 0.1 and 3600".to_owned()),
    }
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let work = async |target: &dyn Target| watch(&args, target, session).await;
    match session.on_target(&args.connect, work).await {
        // Ctrl-C is how watching ends.
        Err(_) if session.interrupt.asked() => Ok(exit::OK),
        result => result.map(|()| exit::OK),
    }
}

async fn watch(args: &Args, target: &dyn Target, session: &Session) -> Result<()> {
    let pause = Duration::from_secs_f64(args.interval);
    let mut before: Option<Json> = None;
    let mut left = args.count.unwrap_or(u64::MAX);
    loop {
        let status = target.status().await?;
        if session.output.is_json() {
            session.output.json(&status)?;
        } else {
            let view = View { status: &status, before: before.as_ref() };
            session.output.screen([view.sources(), view.deliveries()].into_iter().flatten())?;
        }
        before = Some(status);
        left = left.saturating_sub(1);
        if left == 0 {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        if session.interrupt.asked() {
            return Err(Error::new(unisono::core::ErrorKind::Cancelled, "ended by Ctrl-C"));
        }
    }
}

/// One look, and the one before it, from which rates are worked out.
struct View<'a> {
    status: &'a Json,
    before: Option<&'a Json>,
}

impl View<'_> {
    fn sources(&self) -> Option<comfy_table::Table> {
        let rows = rows(self.status, "sources", &|row| {
            let name = of(row, "name");
            vec![
                name.clone(),
                self.roles(&name),
                of(row, "kind"),
                of(row, "state"),
                of(row, "breaker"),
                self.lag(&name),
                self.rate(&name, "asked"),
                self.rate(&name, "failed"),
                latency(row),
                total(row, "in_flight").to_string(),
                self.hits(&name),
            ]
        });
        let heading = [
            "source",
            "role",
            "kind",
            "state",
            "breaker",
            "lag",
            "asked/s",
            "failed/s",
            "latency",
            "in flight",
            "hits",
        ];
        table(&heading, rows)
    }

    fn deliveries(&self) -> Option<comfy_table::Table> {
        let rows = rows(self.status, "deliveries", &|row| {
            vec![
                of(row, "entity"),
                of(row, "source"),
                of(row, "state"),
                number(row, "lag_changes"),
                seconds(row["lag_seconds"].as_f64().unwrap_or(0.0)),
                number(row, "dead_letters"),
                of(row, "last_error"),
            ]
        });
        let heading = [
            "entity",
            "follower",
            "state",
            "changes behind",
            "lag",
            "dead letters",
            "last failure",
        ];
        table(&heading, rows)
    }

    fn of_source<'j>(part: &'j Json, list: &str, key: &str, name: &str) -> Vec<&'j Json> {
        let all = part[list].as_array().into_iter().flatten();
        all.filter(|row| row[key].as_str() == Some(name)).collect()
    }

    /// What the source does, for whichever entity.
    fn roles(&self, name: &str) -> String {
        let is_truth = self.status["logs"].as_array().into_iter().flatten().any(|log| {
            let log = log["log"].as_str().unwrap_or_default();
            log.split('.').next() == Some(name)
        });
        let plays = |list| !Self::of_source(self.status, list, "source", name).is_empty();
        let roles =
            [("truth", is_truth), ("follower", plays("deliveries")), ("cache", plays("caches"))];
        let roles: Vec<_> = roles.iter().filter(|(_, is)| *is).map(|(role, _)| *role).collect();
        roles.join(", ")
    }

    /// The greatest lag of its deliveries.
    fn lag(&self, name: &str) -> String {
        let deliveries = Self::of_source(self.status, "deliveries", "source", name);
        let lags = deliveries.iter().filter_map(|d| d["lag_seconds"].as_f64());
        lags.reduce(f64::max).map(seconds).unwrap_or_default()
    }

    /// How many times a second a counter of the source rose since the look before.
    fn rate(&self, name: &str, counter: &str) -> String {
        let of = |status: &Json| {
            let rows = Self::of_source(status, "sources", "name", name);
            rows.first().map_or(0, |row| total(row, counter))
        };
        let Some(before) = self.before else { return String::new() };
        let rose = of(self.status).saturating_sub(of(before));
        let passed = elapsed(before, self.status);
        if passed <= 0.0 { String::new() } else { format!("{:.0}", rose as f64 / passed) }
    }

    /// The share of reads that the source answered as a cache, since the look before.
    fn hits(&self, name: &str) -> String {
        let of = |status: &Json, counter: &str| -> u64 {
            let caches = Self::of_source(status, "caches", "source", name);
            caches.iter().filter_map(|c| c[counter].as_u64()).sum()
        };
        let since = |counter| {
            of(self.status, counter).saturating_sub(self.before.map_or(0, |b| of(b, counter)))
        };
        let (hits, misses) = (since("hits"), since("misses"));
        (hits * 100)
            .checked_div(hits + misses)
            .map(|share| format!("{share} %"))
            .unwrap_or_default()
    }
}

/// The sum of a counter over the classes of questions.
fn total(source: &Json, counter: &str) -> u64 {
    let classes = source["load"].as_array().into_iter().flatten();
    classes.filter_map(|class| class[counter].as_u64()).sum()
}

fn latency(source: &Json) -> String {
    let classes = source["load"].as_array().into_iter().flatten();
    let texts = classes.map(|class| {
        let latency = class["latency_seconds"].as_f64().unwrap_or(0.0);
        format!("{} {}", of(class, "class"), seconds(latency))
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn seconds(seconds: f64) -> String {
    if seconds == 0.0 {
        return "0".to_owned();
    }
    match seconds < 0.1 {
        true => format!("{:.1} ms", seconds * 1e3),
        false => text::duration(Duration::from_secs_f64(seconds)),
    }
}

/// Seconds between two looks, by their own times.
fn elapsed(before: &Json, after: &Json) -> f64 {
    let time = |status: &Json| status["time"].as_str()?.parse::<unisono::core::Timestamp>().ok();
    match (time(before), time(after)) {
        (Some(before), Some(after)) => after.seconds_since(before),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(time: &str, asked: u64, hits: u64) -> Json {
        json!({
            "time": time,
            "sources": [
                {"name": "main", "kind": "sqlite", "state": "up", "breaker": "closed", "load": [
                    {"class": "get", "latency_seconds": 0.0004, "in_flight": 2, "asked": asked, "failed": 0},
                    {"class": "query", "latency_seconds": 0.25, "in_flight": 1, "asked": asked, "failed": 0},
                ]},
                {"name": "near", "kind": "memory", "state": "up", "breaker": "open", "load": []},
            ],
            "logs": [{"log": "main.1", "head": "7"}],
            "deliveries": [{"entity": "a", "source": "near", "lag_seconds": 1.5}, {"entity": "b", "source": "near", "lag_seconds": 0.5}],
            "caches": [{"entity": "c", "source": "near", "hits": hits, "misses": 10}],
        })
    }

    #[test]
    fn a_look_tells_rates_since_the_one_before() {
        let (before, after) =
            (status("2026-01-01T00:00:00Z", 10, 0), status("2026-01-01T00:00:02Z", 60, 30));
        let view = View { status: &after, before: Some(&before) };
        assert_eq!(view.rate("main", "asked"), "50");
        assert_eq!(
            (view.roles("main").as_str(), view.roles("near").as_str()),
            ("truth", "follower, cache")
        );
        assert_eq!(view.lag("near"), "1.5 s");
        assert_eq!(view.hits("near"), "100 %", "no miss since the look before");
        assert_eq!(latency(&after["sources"][0]), "get 0.4 ms, query 0.2 s");
        let text = view.sources().unwrap().to_string();
        assert!(text.contains("open") && text.contains("in flight"), "{text}");
    }

    #[test]
    fn the_first_look_has_no_rates() {
        let first = status("2026-01-01T00:00:00Z", 10, 30);
        let view = View { status: &first, before: None };
        assert_eq!((view.rate("main", "asked").as_str(), view.hits("near").as_str()), ("", "75 %"));
    }
}
