//! [`Layout`]: the names of all keys of one entity, and in which part of it a record is.
//!
//! An entity has one part, or in a cluster [`PARTS`]. What belongs to a part has the same hash tag, so that one script
//! can change it in one step; the parts are spread over the servers.

use std::collections::HashSet;
use std::sync::Arc;

use unisono_core::kind::Options;
use unisono_core::source::Binding;
use unisono_core::{Entity, Error, ErrorKind, FieldType, Key, Result, Uuid};

use crate::shown::Shown;

/// The parts of an entity in a cluster.
pub(crate) const PARTS: u16 = 16;
/// The slots of a cluster.
pub(crate) const SLOTS: u16 = 16_384;

/// The names of the keys of one entity.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Empty, or ends with a colon.
    prefix: String,
    place: Arc<str>,
    template: Template,
    shown: Shown,
    parts: u16,
}

/// The key of a record: what is before and after the record's own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    before: String,
    after: String,
}

impl Template {
    /// The declared template, or the place and the key.
    pub(crate) fn of(options: &Options, entity: &Entity, place: &str) -> Result<Self> {
        match options.text("key_template") {
            Some(text) => Template::parse("key_template", text, entity, place),
            None => Ok(Template { before: format!("{place}:"), after: String::new() }),
        }
    }

    /// From the text of an option.
    pub(crate) fn parse(
        option: &'static str,
        text: &str,
        entity: &Entity,
        place: &str,
    ) -> Result<Self> {
        let field = &entity.key_field().name;
        let wrong = |message: &'static str| {
            Error::new(ErrorKind::InvalidConfig, message)
                .with(option, text)
                .hint(format!("write it like {place}:{{{field}}}"))
        };
        let placeholder = format!("{{{field}}}");
        let (before, after) = text
            .split_once(&placeholder)
            .ok_or_else(|| wrong("must contain the key field in braces"))?;
        if before.contains(['{', '}']) || after.contains(['{', '}']) {
            return Err(wrong(
                "may contain the key field only, once: other fields of a record change",
            ));
        }
        if before.is_empty() || before.starts_with("unisono:") {
            return Err(wrong("must begin with text of its own, other than unisono:"));
        }
        Ok(Template { before: before.to_owned(), after: after.to_owned() })
    }

    /// The keys that it makes of the keys of an entity.
    pub(crate) fn claim(&self, entity: &Entity) -> Claim {
        let bytes = |text: &str| text.bytes().map(Part::Byte).collect::<Vec<_>>();
        let key = match entity.key_field().ty {
            FieldType::Integer => Part::Some(|c| c.is_ascii_digit() || c == b'-'),
            FieldType::Uuid => Part::Some(|c| c.is_ascii_hexdigit() || c == b'-'),
            _ => Part::Some(|_| true),
        };
        Claim([bytes(&self.before), vec![key], bytes(&self.after)].concat())
    }

    /// The key that it makes of a record's.
    pub(crate) fn key(&self, key: &Key) -> String {
        format!("{}{key}{}", self.before, self.after)
    }
}

impl Template {
    /// As an option says it.
    pub(crate) fn text(&self, field: &str) -> String {
        format!("{}{{{field}}}{}", self.before, self.after)
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text("key"))
    }
}

/// Keys that an entity has for itself: one, or all of a template.
#[derive(Clone, Debug)]
pub(crate) struct Claim(Vec<Part>);

/// A piece of the keys of a claim.
#[derive(Clone, Copy, Debug)]
enum Part {
    Byte(u8),
    /// One byte or more, each of which may be in a key. Every class has the digits.
    Some(fn(u8) -> bool),
}

impl Part {
    fn meets(self, other: Part) -> bool {
        match (self, other) {
            (Part::Byte(a), Part::Byte(b)) => a == b,
            (Part::Byte(byte), Part::Some(class)) | (Part::Some(class), Part::Byte(byte)) => {
                class(byte)
            }
            (Part::Some(_), Part::Some(_)) => true,
        }
    }
}

impl Claim {
    /// One key.
    pub(crate) fn one(key: &str) -> Self {
        Claim(key.bytes().map(Part::Byte).collect())
    }

    /// Whether a key can be of both: both are read byte by byte, in every way that they can be read.
    pub(crate) fn overlaps(&self, other: &Claim) -> bool {
        let next = |at: usize, part: Part| match part {
            Part::Byte(_) => at + 1..at + 2,
            Part::Some(_) => at..at + 2,
        };
        let (mut open, mut seen) = (vec![(0, 0)], HashSet::from([(0, 0)]));
        while let Some((a, b)) = open.pop() {
            match (self.0.get(a), other.0.get(b)) {
                (None, None) => return true,
                (Some(one), Some(two)) if one.meets(*two) => {
                    let both = next(a, *one).flat_map(|a| next(b, *two).map(move |b| (a, b)));
                    open.extend(both.filter(|both| seen.insert(*both)));
                }
                _ => {}
            }
        }
        false
    }
}

impl Layout {
    /// The layout of a binding.
    pub(crate) fn new(prefix: &str, cluster: bool, binding: &Binding) -> Result<Self> {
        if binding.place.is_empty() || binding.place.contains(['{', '}']) {
            return Err(Error::new(ErrorKind::InvalidConfig, "the place has braces or is empty")
                .with("place", &binding.place));
        }
        let template = Template::of(&binding.options, &binding.entity, &binding.place)?;
        let shown = Shown::of(&binding.options, &binding.entity)?;
        let parts = if cluster { PARTS } else { 1 };
        if parts > 1 && !shown.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "values and sorted_sets would be in other slots of the cluster than the records that they belong to, so that no script could change both",
            )
            .with("place", &binding.place)
            .hint("remove values and sorted_sets, or use one server or a primary with sentinels"));
        }
        let (prefix, place) = (prefix.to_owned(), Arc::clone(&binding.place));
        let layout = Layout { prefix, place, template, shown, parts };
        layout.check_claims(&binding.entity)?;
        Ok(layout)
    }

    /// The same for what was shown in another way.
    pub(crate) fn showing(mut self, shown: Shown) -> Self {
        self.shown = shown;
        self
    }

    /// The fields that are kept beside the records.
    pub(crate) fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Everything that it has for itself but for what begins with `unisono:`.
    pub(crate) fn claims(&self, entity: &Entity) -> Vec<Claim> {
        let mut claims = vec![self.template.claim(entity)];
        claims.extend(self.shown.claims(entity));
        claims
    }

    fn check_claims(&self, entity: &Entity) -> Result<()> {
        let claims = self.claims(entity);
        let mut others = claims.as_slice();
        while let Some((claim, rest)) = others.split_first() {
            if rest.iter().any(|other| claim.overlaps(other)) {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "a record, a value and a sorted set of the entity could have the same key",
                )
                .with("key_template", &self.template)
                .hint("begin the keys with different words; keys of text could end like another template"));
            }
            others = rest;
        }
        Ok(())
    }

    /// The keys of the fields of a record that are kept beside it.
    pub(crate) fn values(&self, key: &Key) -> impl Iterator<Item = Vec<u8>> {
        self.shown.keys(key).map(|own| format!("{}{own}", self.prefix).into_bytes())
    }

    /// The keys of the sorted sets.
    pub(crate) fn sets(&self) -> impl Iterator<Item = Vec<u8>> {
        self.shown.sets().map(|own| format!("{}{own}", self.prefix).into_bytes())
    }

    /// How keys of records are made.
    pub(crate) fn template(&self) -> &Template {
        &self.template
    }

    /// How many parts there are.
    pub(crate) fn parts(&self) -> u16 {
        self.parts
    }

    /// The part of a record: the checksum of its key as other programs write it, without prefix and tag.
    pub(crate) fn part(&self, key: &Key) -> u16 {
        if self.parts == 1 { 0 } else { crc16(self.template.key(key).as_bytes()) % self.parts }
    }

    /// The key of a record. In a cluster it begins with the tag of its part.
    pub(crate) fn record(&self, key: &Key) -> Vec<u8> {
        let (prefix, place, own) = (&self.prefix, &self.place, self.template.key(key));
        match self.parts {
            1 => format!("{prefix}{own}"),
            _ => format!("{prefix}{{{place}.{}}}:{own}", self.part(key)),
        }
        .into_bytes()
    }

    /// A key of the source's own in a part.
    pub(crate) fn control(&self, part: u16, name: &str) -> Vec<u8> {
        let Layout { prefix, place, .. } = self;
        format!("{prefix}unisono:{{{place}.{part}}}:{name}").into_bytes()
    }
}

/// A key in a form whose bytes sort as keys do.
pub(crate) fn id(key: &Key) -> Vec<u8> {
    match key {
        // Adding 2^63 makes every integer a number of up to 20 digits without a sign.
        Key::Integer(n) => format!("{:020}", i128::from(*n) + (1 << 63)).into_bytes(),
        Key::String(text) => text.as_bytes().to_vec(),
        Key::Uuid(uuid) => uuid.simple().to_string().into_bytes(),
    }
}

/// The key of an id.
pub(crate) fn key_of(entity: &Entity, id: &[u8]) -> Result<Key> {
    let wrong = || crate::error::corrupt("the index holds something that is no key");
    let text = std::str::from_utf8(id).map_err(|_| wrong())?;
    match entity.key_field().ty {
        FieldType::Integer => {
            let number = text.parse::<i128>().map_err(|_| wrong())? - (1 << 63);
            i64::try_from(number).map(Key::Integer).map_err(|_| wrong())
        }
        FieldType::Uuid => Uuid::try_parse(text).map(Key::Uuid).map_err(|_| wrong()),
        _ => Key::from_text(text).map_err(|_| wrong()),
    }
}

/// The slot of a key: of what is between the first braces, if there is something.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|b| *b == b'{')? + 1;
        let length = key.get(open..)?.iter().position(|b| *b == b'}')?;
        key.get(open..open + length).filter(|tag| !tag.is_empty())
    };
    crc16(tag().unwrap_or(key)) % SLOTS
}

/// CRC16-XMODEM, the checksum that clusters use.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use unisono_core::kind::OptionValue;
    use unisono_core::{Field, Role};

    fn entity(key: FieldType) -> Arc<Entity> {
        let fields = vec![Field::new("id", key), Field::new("name", FieldType::String)];
        Arc::new(Entity::new("order", "id", fields).unwrap())
    }

    fn binding(template: Option<&str>) -> Binding {
        let option = |t: &str| ("key_template".to_owned(), OptionValue::Text(t.to_owned()));
        Binding {
            entity: entity(FieldType::String),
            role: Role::Follower,
            place: "order".into(),
            options: Options(template.map(option).into_iter().collect::<BTreeMap<_, _>>()),
        }
    }

    #[test]
    fn keys_are_as_the_template_says() {
        let key = Key::from_text("42").unwrap();
        let text = |layout: &Layout| String::from_utf8(layout.record(&key)).unwrap();
        let plain = Layout::new("", false, &binding(None)).unwrap();
        assert_eq!(text(&plain), "order:42");
        let given = Layout::new("shop:", false, &binding(Some("o:{id}:v1"))).unwrap();
        assert_eq!(text(&given), "shop:o:42:v1");
        assert_eq!(given.control(0, "ledger"), b"shop:unisono:{order.0}:ledger");
        let cluster = Layout::new("shop:", true, &binding(None)).unwrap();
        let part = cluster.part(&key);
        assert_eq!(text(&cluster), format!("shop:{{order.{part}}}:order:42"));
        assert_eq!(slot(&cluster.record(&key)), slot(&cluster.control(part, "ledger")));
    }

    #[test]
    fn a_template_needs_the_key_and_nothing_else() {
        for bad in [
            "order",
            "order:{name}",
            "{id}",
            "order:{id}:{name}",
            "order:{id}:{id}",
            "unisono:{id}",
        ] {
            let error = Layout::new("", false, &binding(Some(bad))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{bad}");
            assert!(error.hint_text().is_some(), "{bad}");
        }
    }

    #[test]
    fn templates_that_could_claim_the_same_key_collide() {
        let (text, number) = (entity(FieldType::String), entity(FieldType::Integer));
        let collide = |a: &str, b: &str, entity: &Entity| {
            let claim = |text: &str| match text.split_once("{id}") {
                Some((before, after)) => {
                    Template { before: before.to_owned(), after: after.to_owned() }.claim(entity)
                }
                None => Claim::one(text),
            };
            let found = claim(a).overlaps(&claim(b));
            assert_eq!(found, claim(b).overlaps(&claim(a)), "{a} {b}");
            found
        };
        assert!(collide("order:{id}", "order:{id}", &number));
        assert!(collide("order:{id}", "order:item:{id}", &text));
        assert!(!collide("order:{id}", "order:item:{id}", &number));
        assert!(collide("order:{id}", "order:1{id}", &number));
        assert!(!collide("order:{id}", "product:{id}", &text));
        assert!(collide("order:{id}", "order:{id}:sold", &text), "of an order named 7:sold");
        assert!(!collide("order:{id}", "order:{id}:sold", &number));
        assert!(collide("a:{id}:7", "a:5:{id}", &number));
        assert!(collide("best_{id}", "best_sellers", &text));
        assert!(!collide("best_{id}", "best_sellers", &number));
        assert!(!collide("best_{id}", "best_", &text), "no key is empty");
    }

    #[test]
    fn ids_sort_as_keys_and_come_back() {
        let numbers = [i64::MIN, -10, -9, -1, 0, 1, 9, 10, i64::MAX].map(Key::Integer);
        let ids: Vec<_> = numbers.iter().map(id).collect();
        assert!(ids.is_sorted());
        for (number, id) in numbers.iter().zip(&ids) {
            assert_eq!(key_of(&entity(FieldType::Integer), id).unwrap(), *number);
        }
        let uuid = Key::Uuid(Uuid::from_u128(1 << 127));
        assert_eq!(key_of(&entity(FieldType::Uuid), &id(&uuid)).unwrap(), uuid);
    }

    #[test]
    fn slots_are_those_of_the_cluster() {
        // The checksum's published test value, and the specification's examples of tags.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
    }
}
