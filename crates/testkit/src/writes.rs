//! Random writes to few keys, so that they meet: creates, puts, patches and deletes under every condition.

use std::sync::Arc;

use rand::Rng;
use serde_json::{Map, Value as Json};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Entity, Key, Timestamp, Version, json};

use crate::Generator;

impl Generator {
    /// A write to one of the keys. Many fail: conditions and versions are guesses.
    pub fn write(&mut self, entity: &Arc<Entity>, keys: &[Key]) -> Write {
        let key = self.pick(keys).clone();
        let action = match self.rng.random_range(0..10) {
            0..=4 => Action::Put(self.record(entity, &key)),
            5..=7 => Action::Patch(self.patch(entity)),
            _ => Action::Delete,
        };
        let version = Version::new(self.rng.random_range(0..40)).unwrap_or_default();
        let condition = match self.rng.random_range(0..12) {
            0 => Condition::Absent,
            1 => Condition::Present,
            2 => Condition::Version(Some(version)),
            3 => Condition::Version(None),
            _ => Condition::None,
        };
        Write { entity: Arc::clone(entity), key, action, condition }
    }

    /// A unit of 1 to 3 writes.
    pub fn unit(&mut self, entity: &Arc<Entity>, keys: &[Key], time: Timestamp) -> Unit {
        let count = if self.rng.random_bool(0.7) { 1 } else { self.rng.random_range(2..4) };
        let writes = (0..count).map(|_| self.write(entity, keys)).collect();
        Unit { writes, idempotency: None, time, actor: None, trace: None }
    }

    /// Calls of a truth: each a batch of 1 to 5 units.
    pub fn units(
        &mut self,
        entity: &Arc<Entity>,
        keys: &[Key],
        calls: usize,
        time: Timestamp,
    ) -> Vec<Vec<Unit>> {
        let batch = |g: &mut Self| {
            let count = g.rng.random_range(1..6);
            (0..count).map(|_| g.unit(entity, keys, time)).collect()
        };
        (0..calls).map(|_| batch(self)).collect()
    }

    /// A merge patch of some fields other than the key.
    fn patch(&mut self, entity: &Entity) -> Json {
        let mut patch = Map::new();
        for (n, field) in entity.fields().iter().enumerate() {
            if n != entity.key_index() && self.rng.random_bool(0.4) {
                let value = self.field_value(field);
                patch.insert(field.name.to_string(), json::value_to_json(&field.ty, &value));
            }
        }
        Json::Object(patch)
    }
}
