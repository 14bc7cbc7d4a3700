//! [`Shelf`]: the names of the keys of one cached entity.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use unisono_core::entity::Field;
use unisono_core::{Entity, FieldType, Key};

use crate::company::Company;
use crate::compression::Compression;
use crate::keys::{Layout, id};

/// How many changed keys of an entity are known one by one, twice as many for a while. A read that is older than all of
/// them cannot be filled. At 5,000 writes a second that is a read from more than 3 seconds ago.
const RECENT_KEYS_MAX: usize = 16_384;

/// How one entity is cached.
pub(crate) struct Shelf {
    pub(crate) entity: Arc<Entity>,
    pub(crate) layout: Layout,
    /// Whether other programs read the records too, at the keys that the layout names.
    pub(crate) is_shown: bool,
    pub(crate) compression: Compression,
    /// Whether lookups of late found what they wanted.
    pub(crate) trend: Trend,
    pub(crate) company: Company,
    /// Where a process says that it reads.
    readers: Vec<u8>,
    /// Where the dictionary of its entries is.
    dictionary: Vec<u8>,
    parts: Vec<Part>,
}

/// Whether the next lookup is more likely to find an entry than not, by those of late: a counter that hits lower and
/// misses raise, up to a bound, as processors predict branches (J. E. Smith, "A Study of Branch Prediction Strategies").
#[derive(Default)]
pub(crate) struct Trend(AtomicU8);

/// How far the counter goes: a handful of misses among hits change nothing.
const TREND_MAX: u8 = 15;

impl Trend {
    pub(crate) fn expects_hits(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= TREND_MAX / 2
    }

    /// Takes note of a lookup. Some are forgotten where threads meet: it is a guess in either case.
    pub(crate) fn note(&self, hit: bool) {
        let before = self.0.load(Ordering::Relaxed);
        let after = if hit { before.saturating_sub(1) } else { TREND_MAX.min(before + 1) };
        if after != before {
            self.0.store(after, Ordering::Relaxed);
        }
    }
}

/// The names of the keys of one part.
struct Part {
    /// Fence and lists of changed keys.
    controls: [Vec<u8>; 3],
    /// What the names of entries begin with.
    entries: Vec<u8>,
    /// What the names of leases begin with.
    leases: Vec<u8>,
}

impl Shelf {
    pub(crate) fn new(
        entity: &Arc<Entity>,
        layout: Layout,
        is_shown: bool,
        compression: Compression,
    ) -> Self {
        let mut text = entity.key_field().name.to_string();
        describe(entity.fields(), &mut text);
        if is_shown {
            text.push_str(&format!(";shown at {}", layout.template()));
        }
        // Stands for the declared fields and how they are shown: processes that declare them differently, such as
        // during a deployment, cache apart from each other, each with a life of its own.
        let shape = xxhash_rust::xxh3::xxh3_64(text.as_bytes()) as u32;
        let named = |part, name| layout.control(part, &format!("cache:{shape:08x}:{name}"));
        let of = |part| Part {
            controls: ["fence", "recent", "previous"].map(|name| named(part, name)),
            entries: named(part, "="),
            leases: named(part, "lease:"),
        };
        let parts = (0..layout.parts()).map(of).collect();
        let (readers, dictionary) = (named(0, "readers"), named(0, "dictionary"));
        let (trend, company) = (Trend::default(), Company::default());
        let entity = Arc::clone(entity);
        Shelf { entity, layout, is_shown, compression, trend, company, readers, dictionary, parts }
    }

    /// Fence and lists of changed keys of a part.
    pub(crate) fn controls(&self, part: u16) -> &[Vec<u8>; 3] {
        &self.part(part).controls
    }

    /// What says how far the entries of a part have come.
    pub(crate) fn fence(&self, part: u16) -> &[u8] {
        let [fence, ..] = self.controls(part);
        fence
    }

    /// The entry of a key of a part.
    pub(crate) fn entry(&self, part: u16, key: &Key) -> Vec<u8> {
        [self.part(part).entries.as_slice(), &id(key)].concat()
    }

    /// Where a process that reads says so.
    pub(crate) fn readers(&self) -> &[u8] {
        &self.readers
    }

    /// The dictionary that all processes compress entries with.
    pub(crate) fn dictionary(&self) -> &[u8] {
        &self.dictionary
    }

    /// The lease of a key of a part.
    pub(crate) fn lease(&self, part: u16, key: &Key) -> Vec<u8> {
        [self.part(part).leases.as_slice(), &id(key)].concat()
    }

    fn part(&self, part: u16) -> &Part {
        // One was made for each part of the layout, which is where numbers of parts come from.
        &self.parts[usize::from(part)]
    }

    /// Where other programs read the record, if they do.
    pub(crate) fn shown(&self, key: &Key) -> Option<Vec<u8>> {
        self.is_shown.then(|| self.layout.record(key))
    }

    /// How many changed keys a part knows.
    pub(crate) fn recent_max(&self) -> usize {
        RECENT_KEYS_MAX / usize::from(self.layout.parts())
    }
}

fn describe(fields: &[Field], text: &mut String) {
    for field in fields {
        text.push_str(&format!(";{} {}", field.name, field.ty));
        if let FieldType::Objects(inner) = &field.ty {
            text.push('(');
            describe(inner, text);
            text.push(')');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_core::Role;
    use unisono_core::kind::Options;
    use unisono_core::source::Binding;
    use unisono_testkit::Sample;

    #[test]
    fn a_trend_turns_with_what_prevails() {
        let trend = Trend::default();
        assert!(trend.expects_hits());
        (0..5).for_each(|_| trend.note(false));
        assert!(trend.expects_hits());
        (0..100).for_each(|_| trend.note(false));
        assert!(!trend.expects_hits());
        (0..8).for_each(|_| trend.note(true));
        assert!(trend.expects_hits());
    }

    #[test]
    fn another_declaration_has_other_keys() {
        let shown = |fields: Vec<Field>, is_shown| {
            let entity = Arc::new(Entity::new("product", "id", fields).unwrap());
            let binding = Binding {
                entity: Arc::clone(&entity),
                role: Role::Cache,
                place: "product".into(),
                options: Options::default(),
            };
            let layout = Layout::new("t:", true, &binding).unwrap();
            Shelf::new(&entity, layout, is_shown, Compression::new(None))
        };
        let shelf = |fields| shown(fields, false);
        let id = || Field::new("id", FieldType::String);
        let line = |ty| FieldType::Objects([Field::new("a", ty)].into());
        let one = shelf(vec![id(), Field::new("lines", line(FieldType::String))]);
        let other = shelf(vec![id(), Field::new("lines", line(FieldType::Integer))]);
        assert_ne!(one.controls(0), other.controls(0));
        assert_ne!(one.entry(0, &Sample::key("a")), other.entry(0, &Sample::key("a")));
        assert_ne!(one.controls(0), one.controls(1));
        assert_ne!(one.dictionary(), other.dictionary());
        // Changes that only a process knows of that shows nothing would leave what is shown as it is.
        let open = shown(vec![id(), Field::new("lines", line(FieldType::String))], true);
        assert_ne!(one.controls(0), open.controls(0));
        assert_eq!(
            (one.shown(&Sample::key("a")), open.shown(&Sample::key("a")).is_some()),
            (None, true)
        );
    }
}
