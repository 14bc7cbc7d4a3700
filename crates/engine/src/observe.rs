//! Every metric of sources, logs, deliveries, `adaptive`, caches and journals, by name, with what it says. Set when somebody looks, so
//! that watching costs nothing else.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use serde::Serialize;
use unisono_core::Timestamp;

use crate::archive::ArchiveStatus;
use crate::status::{
    CacheStatistics, DeliveryState, DeliveryStatus, EntityStatus, JournalStatus, LogStatus,
    SamplerStatus, SourceStatus, Status, VerificationStatus,
};

/// What the gauges say.
const GAUGES: &[(&str, Unit, &str)] = &[
    ("unisono_source_up", Unit::Count, "Whether the source answers: 1 if so, else 0."),
    (
        "unisono_source_bytes",
        Unit::Bytes,
        "Bytes that the source occupies, where that is cheap to tell.",
    ),
    (
        "unisono_source_asked",
        Unit::Count,
        "Whether the source is asked: 0 while it is left alone after repeated failures.",
    ),
    ("unisono_source_in_flight", Unit::Count, "Questions to the source that are under way."),
    (
        "unisono_source_latency_seconds",
        Unit::Seconds,
        "What a question takes: the peak of late, slowly forgotten.",
    ),
    ("unisono_log_head", Unit::Count, "The newest position of the log."),
    ("unisono_log_retained_changes", Unit::Count, "Changes that the log keeps."),
    (
        "unisono_log_changes_max",
        Unit::Count,
        "A follower that lags by more changes than this no longer keeps them.",
    ),
    (
        "unisono_log_split_timestamp_seconds",
        Unit::Seconds,
        "When the truth was last found to have another log, or one that ends before what was committed; 0 if never.",
    ),
    (
        "unisono_delivery_lag_changes",
        Unit::Count,
        "Changes of the log that the delivery has not come to yet.",
    ),
    (
        "unisono_delivery_lag_seconds",
        Unit::Seconds,
        "Time since the oldest change that is not applied was committed.",
    ),
    (
        "unisono_delivery_stalled_seconds",
        Unit::Seconds,
        "For how long there has been something to do and nothing was achieved.",
    ),
    ("unisono_delivery_held_changes", Unit::Count, "Changes that the log keeps for this follower."),
    (
        "unisono_delivery_live",
        Unit::Count,
        "Whether the delivery is at the head of the log: 1 if so, else 0.",
    ),
    (
        "unisono_delivery_last_success_timestamp_seconds",
        Unit::Seconds,
        "When the follower last took something in or confirmed its checkpoint; 0 if it has not since the start.",
    ),
    (
        "unisono_delivery_batch_changes_max",
        Unit::Count,
        "The most changes that the next batch has.",
    ),
    ("unisono_delivery_lanes", Unit::Count, "Batches that the follower takes at the same time."),
    (
        "unisono_delivery_dead_letters",
        Unit::Count,
        "Dead letters that wait; each holds up its own key.",
    ),
    (
        "unisono_delivery_dead_letter_oldest_seconds",
        Unit::Seconds,
        "Age of the oldest dead letter; 0 if there is none.",
    ),
    (
        "unisono_delivery_copy_ratio",
        Unit::Count,
        "How much of the copy under way is done, from 0 to 1; 1 if none is, NaN while its size is not known.",
    ),
    (
        "unisono_delivery_copy_remaining_seconds",
        Unit::Seconds,
        "How long the copy under way still takes at the pace so far; 0 if none is, NaN while that is not known.",
    ),
    (
        "unisono_delivery_split_timestamp_seconds",
        Unit::Seconds,
        "When the follower was last found to be ahead of its truth, or one of another log; 0 if never.",
    ),
    (
        "unisono_verification_completed_timestamp_seconds",
        Unit::Seconds,
        "When the last complete comparison of the follower with the truth ended; 0 if none has since the start.",
    ),
    (
        "unisono_verification_records",
        Unit::Count,
        "Records that the last complete comparison compared.",
    ),
    (
        "unisono_verification_different_records",
        Unit::Count,
        "Records that it found to differ and were not repaired, by class.",
    ),
    (
        "unisono_cache_wanted",
        Unit::Count,
        "Records and answers to take in because the cache began empty.",
    ),
    (
        "unisono_adaptive_level",
        Unit::Count,
        "Where the strategy `adaptive` is: 2 for all followers, 1 for a quorum, 0 for the truth alone.",
    ),
    ("unisono_journal_pending", Unit::Count, "Acknowledged writes that wait for the truth."),
    (
        "unisono_journal_oldest_seconds",
        Unit::Seconds,
        "Age of the oldest of them; 0 if none waits.",
    ),
    (
        "unisono_journal_alert",
        Unit::Count,
        "Whether that is longer than declared (`age_alert`): 1 if so, else 0.",
    ),
    (
        "unisono_delivery_repaired_often_records",
        Unit::Count,
        "Records that had to be repaired three times or more: somebody else writes there.",
    ),
    ("unisono_archive_lag_changes", Unit::Count, "Changes that are not archived yet."),
    (
        "unisono_archive_failing",
        Unit::Count,
        "Whether the log cannot be archived at present: 1 if so, else 0.",
    ),
    (
        "unisono_backup_timestamp_seconds",
        Unit::Seconds,
        "When the newest backup of the log was begun; 0 if there is none.",
    ),
    ("unisono_samples_pending", Unit::Count, "Samples of consistency that wait for a look."),
    (
        "unisono_consistency_nines",
        Unit::Count,
        "The nines of the share of looks that found a change so long after it, since the start; at most 9.",
    ),
];

/// What the counters say.
const COUNTERS: &[(&str, &str)] = &[
    ("unisono_source_questions_total", "Questions that the source was asked."),
    ("unisono_source_failures_total", "Questions that failed because of the source."),
    ("unisono_delivery_applied_total", "Changes that the follower took in."),
    ("unisono_delivery_stale_total", "Changes that the follower had already."),
    ("unisono_delivery_folded_total", "Superseded changes that were folded away."),
    ("unisono_delivery_copied_total", "Records copied by backfill."),
    ("unisono_delivery_batches_total", "Batches that the follower took in."),
    ("unisono_delivery_failures_total", "Attempts that failed and were made again."),
    ("unisono_verification_repaired_total", "Records that differed and were repaired."),
    ("unisono_verification_failures_total", "Comparisons that could not be finished."),
    ("unisono_cache_hits_total", "Reads that the cache answered."),
    ("unisono_cache_misses_total", "Reads that the cache could not answer."),
    ("unisono_cache_refused_total", "Answers offered to the cache and not taken in."),
    (
        "unisono_cache_stale_total",
        "Reads answered although newer data may exist, because nobody else could answer.",
    ),
    ("unisono_cache_refreshed_total", "Entries read again before their end, or soon after."),
    ("unisono_cache_warmed_total", "Records and answers that were seen to when the cache began."),
    ("unisono_adaptive_moves_total", "Changes of that level."),
    ("unisono_journal_accepted_total", "Writes acknowledged."),
    ("unisono_journal_flushed_total", "Commits made of them."),
    (
        "unisono_journal_coalesced_total",
        "Writes that a later one of the same commit made superfluous.",
    ),
    ("unisono_notices_dropped_total", "Notices for hooks that found no room."),
    ("unisono_samples_total", "Looks for a change in a source so long after it, by result."),
    ("unisono_samples_dropped_total", "Changes that would have been samples and found no room."),
    (
        "unisono_journal_refused_total",
        "Acknowledged writes that the truth refused: they are dead letters.",
    ),
    (
        "unisono_reads_hedged_total",
        "Reads that were sent to a second source because the first was slow.",
    ),
];

/// Tells the recorder what the metrics say; it need not be told twice, but it may.
fn describe() {
    for (name, unit, meaning) in GAUGES {
        describe_gauge!(*name, *unit, *meaning);
    }
    for (name, meaning) in COUNTERS {
        describe_counter!(*name, *meaning);
    }
    describe_histogram!("unisono_commit_units", Unit::Count, "Units of one group commit.");
    describe_histogram!("unisono_commit_seconds", Unit::Seconds, "What a group commit takes.");
}

/// Sets the metrics to what is so now.
pub(crate) fn all(status: &Status) {
    describe();
    status.sources.iter().for_each(source);
    status.logs.iter().for_each(log);
    status.deliveries.iter().for_each(delivery);
    status.caches.iter().for_each(cache);
    status.entities.iter().for_each(adaptive);
    status.journals.iter().for_each(journal);
    status.archives.iter().for_each(archive);
    status.sampler.iter().for_each(sampler);
}

fn adaptive(status: &EntityStatus) {
    if let Some(adaptive) = &status.adaptive {
        let labels = [("entity", status.entity.to_string())];
        gauge!("unisono_adaptive_level", &labels).set(f64::from(adaptive.rank));
        counter!("unisono_adaptive_moves_total", &labels).absolute(adaptive.moves_total);
    }
}

fn source(status: &SourceStatus) {
    let name = status.name.to_string();
    gauge!("unisono_source_up", "source" => name.clone()).set(flag(status.state == "up"));
    gauge!("unisono_source_asked", "source" => name.clone()).set(flag(status.breaker == "closed"));
    if let Some(bytes) = status.bytes {
        gauge!("unisono_source_bytes", "source" => name.clone()).set(bytes as f64);
    }
    for class in &status.load {
        let labels = [("source", name.clone()), ("class", class.class.to_owned())];
        gauge!("unisono_source_in_flight", &labels).set(f64::from(class.in_flight));
        gauge!("unisono_source_latency_seconds", &labels).set(class.latency_seconds);
        counter!("unisono_source_questions_total", &labels).absolute(class.asked);
        counter!("unisono_source_failures_total", &labels).absolute(class.failed);
    }
}

fn log(status: &LogStatus) {
    let labels = [("log", status.log.clone())];
    gauge!("unisono_log_head", &labels).set(status.head.as_u64() as f64);
    gauge!("unisono_log_retained_changes", &labels).set(status.retained as f64);
    gauge!("unisono_log_changes_max", &labels).set(status.changes_max as f64);
    gauge!("unisono_log_split_timestamp_seconds", &labels).set(time(status.split));
}

fn delivery(status: &DeliveryStatus) {
    let labels = [("entity", status.entity.to_string()), ("source", status.source.to_string())];
    let set = |name: &'static str, value: f64| gauge!(name, &labels).set(value);
    set("unisono_delivery_lag_changes", status.lag_changes as f64);
    set("unisono_delivery_lag_seconds", status.lag_seconds);
    set("unisono_delivery_stalled_seconds", status.stalled_seconds);
    set("unisono_delivery_held_changes", status.held_changes as f64);
    set("unisono_delivery_live", flag(status.state == DeliveryState::Live));
    set("unisono_delivery_last_success_timestamp_seconds", time(status.last_success));
    set("unisono_delivery_batch_changes_max", status.batch_changes_max as f64);
    set("unisono_delivery_lanes", status.lanes as f64);
    set("unisono_delivery_repaired_often_records", status.repaired_often as f64);
    set("unisono_delivery_dead_letters", status.dead_letters as f64);
    set("unisono_delivery_dead_letter_oldest_seconds", status.dead_letter_seconds);
    set("unisono_delivery_split_timestamp_seconds", time(status.split));
    let copy = status.copy.as_ref();
    let share = |done: u64, of: u64| if of == 0 { 1.0 } else { done as f64 / of as f64 };
    let ratio = |c: &crate::status::CopyStatus| Some(share(c.records, c.records_total?));
    set("unisono_delivery_copy_ratio", copy.map_or(1.0, |c| ratio(c).unwrap_or(f64::NAN)));
    let left = copy.map_or(0.0, |c| c.seconds_left.unwrap_or(f64::NAN));
    set("unisono_delivery_copy_remaining_seconds", left);
    let count = |name: &'static str, value: u64| counter!(name, &labels).absolute(value);
    count("unisono_delivery_applied_total", status.applied);
    count("unisono_delivery_stale_total", status.stale);
    count("unisono_delivery_folded_total", status.folded);
    count("unisono_delivery_copied_total", status.copied);
    count("unisono_delivery_batches_total", status.batches);
    count("unisono_delivery_failures_total", status.retries);
    status.verification.iter().for_each(|found| compared(found, &labels));
}

fn compared(status: &VerificationStatus, of: &[(&'static str, String); 2]) {
    let labels = [of[0].clone(), of[1].clone(), ("depth", word(&status.depth))];
    gauge!("unisono_verification_completed_timestamp_seconds", &labels).set(time(status.completed));
    gauge!("unisono_verification_records", &labels).set(status.records as f64);
    counter!("unisono_verification_repaired_total", &labels).absolute(status.repaired);
    counter!("unisono_verification_failures_total", &labels).absolute(status.failed);
    let different = |class: String, records: u64| {
        let [entity, source, depth] = labels.clone();
        let labels = [entity, source, depth, ("class", class)];
        gauge!("unisono_verification_different_records", &labels).set(records as f64);
    };
    status.different.iter().for_each(|(class, records)| different(word(class), *records));
    different("unlisted".to_owned(), status.different_unlisted);
}

/// The word that reports have for something.
fn word(of: &impl Serialize) -> String {
    let word = serde_json::to_value(of).ok();
    word.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn cache(statistics: &CacheStatistics) {
    let labels =
        [("entity", statistics.entity.to_string()), ("source", statistics.source.to_string())];
    counter!("unisono_cache_hits_total", &labels).absolute(statistics.hits);
    counter!("unisono_cache_misses_total", &labels).absolute(statistics.misses);
    counter!("unisono_cache_refused_total", &labels).absolute(statistics.refused);
    counter!("unisono_cache_stale_total", &labels).absolute(statistics.stale);
    counter!("unisono_cache_refreshed_total", &labels).absolute(statistics.refreshed);
    counter!("unisono_cache_warmed_total", &labels).absolute(statistics.warmed);
    gauge!("unisono_cache_wanted", &labels).set(statistics.wanted as f64);
}

fn journal(status: &JournalStatus) {
    let labels = [("entity", status.entity.to_string()), ("source", status.source.to_string())];
    gauge!("unisono_journal_pending", &labels).set(status.pending as f64);
    gauge!("unisono_journal_oldest_seconds", &labels).set(status.oldest_seconds);
    gauge!("unisono_journal_alert", &labels).set(flag(status.alert));
    counter!("unisono_journal_accepted_total", &labels).absolute(status.accepted);
    counter!("unisono_journal_flushed_total", &labels).absolute(status.flushed);
    counter!("unisono_journal_coalesced_total", &labels).absolute(status.coalesced);
    counter!("unisono_journal_refused_total", &labels).absolute(status.refused);
}

fn archive(status: &ArchiveStatus) {
    let labels = [("log", status.truth.to_string()), ("source", status.source.to_string())];
    gauge!("unisono_archive_lag_changes", &labels).set(status.lag_changes as f64);
    gauge!("unisono_archive_failing", &labels).set(flag(status.error.is_some()));
    gauge!("unisono_backup_timestamp_seconds", &labels).set(time(status.backup));
}

fn sampler(status: &SamplerStatus) {
    gauge!("unisono_samples_pending").set(status.pending as f64);
    counter!("unisono_samples_dropped_total").absolute(status.dropped);
    for found in &status.consistency {
        let labels =
            [("source", found.source.to_string()), ("delay", format!("{}s", found.delay_seconds))];
        gauge!("unisono_consistency_nines", &labels).set(found.nines);
    }
    for sample in &status.samples {
        let results = [
            ("consistent", sample.consistent),
            ("inconsistent", sample.inconsistent),
            ("unavailable", sample.unavailable),
        ];
        for (result, count) in results {
            let labels = [
                ("source", sample.source.to_string()),
                ("entity", sample.entity.to_string()),
                ("delay", format!("{}s", sample.delay_seconds)),
                ("result", result.to_owned()),
            ];
            counter!("unisono_samples_total", &labels).absolute(count);
        }
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// As Prometheus writes a time; 0 for none.
fn time(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, |at| at.micros() as f64 / 1e6)
}
