//! Every metric of deliveries, `adaptive`, caches, journals and logs, by name. Set when somebody looks, so that watching costs nothing else.

use metrics::{counter, gauge};
use unisono_core::Position;

use crate::status::{
    AdaptiveStatus, CacheStatistics, DeliveryState, DeliveryStatus, JournalStatus, LoadStatus,
};

/// Sets the metrics of one delivery.
pub(crate) fn delivery(status: &DeliveryStatus) {
    let labels = [("entity", status.entity.to_string()), ("source", status.source.to_string())];
    gauge!("unisono_delivery_lag_changes", &labels).set(status.lag_changes as f64);
    gauge!("unisono_delivery_lag_seconds", &labels).set(status.lag_seconds);
    gauge!("unisono_delivery_stalled_seconds", &labels).set(status.stalled_seconds);
    gauge!("unisono_delivery_live", &labels)
        .set(f64::from(u8::from(status.state == DeliveryState::Live)));
    gauge!("unisono_delivery_dead_letters", &labels).set(status.dead_letters as f64);
    counter!("unisono_delivery_applied_total", &labels).absolute(status.applied);
    counter!("unisono_delivery_stale_total", &labels).absolute(status.stale);
    counter!("unisono_delivery_folded_total", &labels).absolute(status.folded);
    counter!("unisono_delivery_copied_total", &labels).absolute(status.copied);
    counter!("unisono_delivery_failures_total", &labels).absolute(status.retries);
}

/// Sets the metrics of the strategy `adaptive` of one entity.
pub(crate) fn adaptive(entity: &str, status: &AdaptiveStatus) {
    gauge!("unisono_adaptive_level", "entity" => entity.to_owned()).set(f64::from(status.rank));
    let moves = counter!("unisono_adaptive_moves_total", "entity" => entity.to_owned());
    moves.absolute(status.moves_total);
}

/// Sets the metrics of one source.
pub(crate) fn source(name: &str, breaker: &str, load: &[LoadStatus]) {
    let asked = f64::from(u8::from(breaker == "closed"));
    gauge!("unisono_source_asked", "source" => name.to_owned()).set(asked);
    for class in load {
        let labels = [("source", name.to_owned()), ("class", class.class.to_owned())];
        gauge!("unisono_source_in_flight", &labels).set(f64::from(class.in_flight));
        gauge!("unisono_source_latency_seconds", &labels).set(class.latency_seconds);
        counter!("unisono_source_questions_total", &labels).absolute(class.asked);
        counter!("unisono_source_failures_total", &labels).absolute(class.failed);
    }
}

/// Sets the metrics of one cache.
pub(crate) fn cache(statistics: &CacheStatistics) {
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

/// Sets the metrics of one journal.
pub(crate) fn journal(status: &JournalStatus) {
    let labels = [("entity", status.entity.to_string()), ("source", status.source.to_string())];
    gauge!("unisono_journal_pending", &labels).set(status.pending as f64);
    gauge!("unisono_journal_oldest_seconds", &labels).set(status.oldest_seconds);
    gauge!("unisono_journal_alert", &labels).set(f64::from(u8::from(status.alert)));
    counter!("unisono_journal_accepted_total", &labels).absolute(status.accepted);
    counter!("unisono_journal_flushed_total", &labels).absolute(status.flushed);
    counter!("unisono_journal_coalesced_total", &labels).absolute(status.coalesced);
    counter!("unisono_journal_refused_total", &labels).absolute(status.refused);
}

/// Sets the metrics of one log.
pub(crate) fn log(name: &str, head: Position) {
    gauge!("unisono_log_head", "log" => name.to_owned()).set(head.as_u64() as f64);
}
