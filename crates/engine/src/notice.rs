//! [`Notice`]: what somebody outside may want to be told of, handed to those who listen, in bounded queues.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use unisono_core::Timestamp;
use unisono_policy::hook::Occasion;
use xxhash_rust::xxh3::xxh3_128;

use crate::delivery::dead_letter::DeadLetter;
use crate::verify::report::Comparison;

/// One thing to tell.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The same whenever the same thing is told, so that who is told can tell repetitions. Letters, digits and `_`.
    pub id: Arc<str>,
    /// What it is about.
    pub occasion: Occasion,
    /// The entity.
    pub entity: Arc<str>,
    /// When it was found.
    pub time: Timestamp,
    /// What there is to say, without the data of records.
    pub data: Json,
}

impl Notice {
    /// The most records that a notice of a divergence names.
    pub const DIFFERENCES_MAX: usize = 20;

    /// Of a dead letter.
    pub fn of_dead_letter(letter: &DeadLetter) -> Self {
        let subject = format!("{} {}", letter.name(), letter.version);
        Notice {
            id: format!("dl_{:032x}", xxh3_128(subject.as_bytes())).into(),
            occasion: Occasion::DeadLetter,
            entity: Arc::clone(&letter.entity),
            time: letter.since,
            // What was written is in the dead letter, for those who may read it.
            data: json!({
                "entity": letter.entity, "source": letter.source, "key": letter.key, "version": letter.version,
                "reason": letter.reason, "attempts": letter.attempts, "since": letter.since,
                "write": letter.write.as_ref().map(|write| write.accepted.id),
            }),
        }
    }

    /// Of a comparison that found differences.
    pub(crate) fn of_divergence(found: &Comparison, number: u128, time: Timestamp) -> Self {
        let differences = found.differences.iter().take(Self::DIFFERENCES_MAX).collect::<Vec<_>>();
        Notice {
            id: format!("dv_{number:032x}").into(),
            occasion: Occasion::Divergence,
            entity: Arc::clone(&found.entity),
            time,
            data: json!({
                "entity": found.entity, "source": found.source, "records": found.records,
                "different": found.different, "repaired": found.repaired, "differences": differences,
            }),
        }
    }
}

/// Whether a listener wants a notice.
type Wants = Box<dyn Fn(&Notice) -> bool + Send + Sync>;

/// Those who listen.
#[derive(Default)]
pub(crate) struct Notices(Mutex<Vec<(Wants, mpsc::Sender<Notice>)>>);

impl Notices {
    /// Adds a listener with room for so many notices that it has not taken yet; further ones are dropped and counted.
    pub(crate) fn listen(&self, wants: Wants, room: usize) -> mpsc::Receiver<Notice> {
        let (sender, receiver) = mpsc::channel(room);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((wants, sender));
        receiver
    }

    /// Tells those who want to know. Nobody waits for them.
    pub(crate) fn tell(&self, notice: impl FnOnce() -> Notice) {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.is_empty() {
            return;
        }
        let notice = notice();
        for (_, sender) in listeners.iter().filter(|(wants, _)| wants(&notice)) {
            if sender.try_send(notice.clone()).is_err() {
                counter!("unisono_notices_dropped_total").increment(1);
                tracing::warn!(id = %notice.id, entity = %notice.entity, "a notice found no room and is dropped");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(version: u64) -> DeadLetter {
        DeadLetter {
            entity: "e".into(),
            source: "s".into(),
            key: "k".into(),
            version: unisono_core::Position::new(version).unwrap(),
            reason: "no".into(),
            attempts: 1,
            since: Timestamp::EPOCH,
            write: None,
        }
    }

    #[test]
    fn the_same_refusal_has_the_same_id() {
        let id = |letter: &DeadLetter| Notice::of_dead_letter(letter).id;
        assert_eq!(id(&letter(1)), id(&DeadLetter { attempts: 9, ..letter(1) }));
        assert_ne!(id(&letter(1)), id(&letter(2)));
        assert!(id(&letter(1)).chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    }

    #[test]
    fn who_does_not_listen_holds_nobody_up() {
        let notices = Notices::default();
        let mut all = notices.listen(Box::new(|_| true), 2);
        let mut none = notices.listen(Box::new(|_| false), 2);
        (0..5).for_each(|n| notices.tell(|| Notice::of_dead_letter(&letter(n))));
        assert!(all.try_recv().is_ok() && all.try_recv().is_ok() && all.try_recv().is_err());
        assert!(none.try_recv().is_err());
    }
}
