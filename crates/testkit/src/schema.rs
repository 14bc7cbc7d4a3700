//! Random entities with every field type, keys and records of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::seq::SliceRandom;
use unisono_core::{Entity, Field, FieldType, Key, Record, Uuid, Value};

use crate::Generator;

/// Field names, among them words that stores keep for themselves.
const NAMES: &[&str] = &[
    "select",
    "group",
    "order_",
    "rowid",
    "version",
    "data",
    "value",
    "deleted",
    "index_",
    "name",
    "position",
    "a",
    "b2",
    "long_name_with_many_parts_and_digits_0123456789",
];

impl Generator {
    /// An entity of 2 to 11 fields. Fields that `keep` refuses are left out.
    pub fn entity(&mut self, name: &str, keep: &dyn Fn(&Field) -> bool) -> Arc<Entity> {
        let key_type = self.pick(&[FieldType::String, FieldType::Integer, FieldType::Uuid]).clone();
        let mut names = NAMES.to_vec();
        names.shuffle(&mut self.rng);
        names.truncate(self.rng.random_range(1..11));
        let mut fields: Vec<_> = names.iter().map(|n| self.field(n)).filter(|f| keep(f)).collect();
        let at = self.rng.random_range(0..=fields.len());
        fields.insert(at, Field::new("id", key_type));
        let entity = Entity::new(name, "id", fields);
        Arc::new(entity.unwrap_or_else(|e| unreachable!("the names above are good: {e}")))
    }

    fn field(&mut self, name: &str) -> Field {
        let ty = match self.rng.random_range(0..16) {
            0 => FieldType::List(Box::new(self.scalar_type())),
            1 | 2 => {
                let count = self.rng.random_range(1..4);
                let part = |(g, n): (&mut Self, usize)| {
                    Field::new(["product_id", "count", "of"][n], g.scalar_type())
                };
                FieldType::Objects((0..count).map(|n| part((self, n))).collect())
            }
            3 => FieldType::Json,
            _ => self.scalar_type(),
        };
        let search = ty.is_text() && self.rng.random_bool(0.5);
        let index = ty.is_scalar() && self.rng.random_bool(0.3);
        Field { required: self.rng.random_bool(0.2), search, index, ..Field::new(name, ty) }
    }

    /// A type that is a single value.
    pub fn scalar_type(&mut self) -> FieldType {
        match self.rng.random_range(0..12) {
            0 | 1 => FieldType::String,
            2 => FieldType::Text,
            3 => FieldType::Integer,
            4 => FieldType::Decimal { precision: 12, scale: 2 },
            5 => {
                let precision = self.rng.random_range(1..=28);
                FieldType::Decimal { precision, scale: self.rng.random_range(0..=precision) }
            }
            6 => FieldType::Boolean,
            7 => FieldType::Float,
            8 => FieldType::Date,
            9 => FieldType::Timestamp { precision: self.rng.random_range(0..=6) },
            10 => FieldType::Uuid,
            _ => FieldType::Bytes,
        }
    }

    /// A value that a field accepts; null now and then, if it may be.
    pub fn field_value(&mut self, field: &Field) -> Value {
        match !field.required && self.rng.random_bool(0.15) {
            true => Value::Null,
            false => self.value(&field.ty),
        }
    }

    /// A key: one of few, so that writes meet.
    pub fn key(&mut self, entity: &Entity) -> Key {
        loop {
            let value = self.value(&entity.key_field().ty);
            if let Ok(key) = Key::from_value(&value) {
                return key;
            }
        }
    }

    /// A key that is one of very many.
    pub fn distinct_key(&mut self, entity: &Entity) -> Key {
        if self.rng.random_bool(0.2) {
            return self.key(entity);
        }
        match entity.key_field().ty {
            FieldType::Integer => Key::Integer(self.rng.random()),
            FieldType::Uuid => Key::Uuid(Uuid::from_u128(self.rng.random())),
            _ => Key::String(
                format!(
                    "{}{:x}",
                    self.pick(&["k", "K", "é", "\u{1f600}"]),
                    self.rng.random::<u32>()
                )
                .into(),
            ),
        }
    }

    /// A record with a key.
    pub fn record(&mut self, entity: &Entity, key: &Key) -> Record {
        let mut values: Vec<_> = entity.fields().iter().map(|f| self.field_value(f)).collect();
        values[entity.key_index()] = key.to_value();
        Record::new(values)
    }

    /// At most `count` records, by key.
    pub fn records(&mut self, entity: &Entity, count: usize) -> BTreeMap<Key, Record> {
        let keys: Vec<_> = (0..count).map(|_| self.distinct_key(entity)).collect();
        keys.into_iter().map(|key| (key.clone(), self.record(entity, &key))).collect()
    }
}
