//! [`Table`]: reads one TOML table by its [`Section`], reporting what is unknown, missing or malformed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use unisono_core::kind::{OptionSpec, OptionValue, Options, SourceKind};
use unisono_core::spelling::closest;

use crate::document::{Data, Item, Name};
use crate::options::{Key, Section, Shape};
use crate::problem::{Report, Spot, meant};
use crate::quantity;

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) spot: Spot,
}

/// A table that is being read.
pub(crate) struct Table<'a> {
    pub(crate) report: &'a Report<'a>,
    pub(crate) spot: Spot,
    section: &'a Section,
    entries: &'a [(Name, Item)],
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Table<'a> {
    /// The table in `item`; anything else is reported.
    pub(crate) fn new(
        report: &'a Report<'a>,
        section: &'a Section,
        item: &'a Item,
        spot: Spot,
    ) -> Option<Self> {
        let entries = entries(report, item, &spot)?;
        Some(Table { report, spot, section, entries, asked: RefCell::default() })
    }

    /// The spot of a key, also of one that is not there: then that of the table.
    pub(crate) fn spot_of(&self, name: &str) -> Spot {
        match self.entries.iter().find(|(n, _)| n.text == name) {
            Some((_, item)) => self.spot.below(name, &item.span),
            None => self.spot.clone(),
        }
    }

    /// Whether a key is there with a table below it.
    pub(crate) fn has_table(&self, name: &str) -> bool {
        self.entries.iter().any(|(n, item)| n.text == name && matches!(item.data, Data::Table(_)))
    }

    /// The text of a key that names a source, whether or not there is one.
    pub(crate) fn source_named(&self, name: &str) -> Option<&'a str> {
        let (_, item) = self.entries.iter().find(|(n, _)| n.text == name)?;
        match &item.data {
            Data::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether its section has a key.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.section.key(name).is_some()
    }

    /// The value of a key as it stands, with its place.
    pub(crate) fn item(&self, name: &'static str) -> Option<Found<&'a Item>> {
        let key = self.key(name);
        match self.entries.iter().find(|(n, _)| n.text == name) {
            Some((_, item)) => Some(Found { value: item, spot: self.spot.below(name, &item.span) }),
            None => {
                if key.is_some_and(|k| k.required) {
                    self.report.error(&self.spot, format!("`{name}` is missing"));
                }
                None
            }
        }
    }

    /// The value of a key of a scalar shape, or its default.
    pub(crate) fn value(&self, name: &'static str) -> Option<Found<OptionValue>> {
        let key = *self.key(name)?;
        let found = self.item(name);
        if let Some(found) = found {
            if matches!(key.shape, Shape::Secret) {
                self.report.hide(&found.value.span);
            }
            let value = scalar(self.report, &key, found.value, &found.spot)?;
            return Some(Found { value, spot: found.spot });
        }
        let default = Item::of_default(&key.default_toml()?, &self.spot.span);
        let value = scalar(self.report, &key, &default, &self.spot)?;
        Some(Found { value, spot: self.spot.clone() })
    }

    pub(crate) fn text(&self, name: &'static str) -> Option<Found<String>> {
        match self.value(name)? {
            Found { value: OptionValue::Text(value), spot } => Some(Found { value, spot }),
            _ => None,
        }
    }

    pub(crate) fn integer(&self, name: &'static str) -> Option<i64> {
        match self.value(name)?.value {
            OptionValue::Integer(n) => Some(n),
            _ => None,
        }
    }

    pub(crate) fn boolean(&self, name: &'static str) -> Option<bool> {
        match self.value(name)?.value {
            OptionValue::Boolean(b) => Some(b),
            _ => None,
        }
    }

    /// The values of the options of a kind, defaults filled in.
    pub(crate) fn options(&self, specs: &[OptionSpec]) -> Options {
        let one = |spec: &OptionSpec| {
            let value = match self.key(spec.name)?.shape {
                Shape::Texts => {
                    let texts = self.texts(spec.name);
                    // Addresses in a list can carry passwords.
                    texts
                        .iter()
                        .filter(|t| t.value.contains('@'))
                        .for_each(|t| self.report.hide(&t.spot.span));
                    OptionValue::List(texts.into_iter().map(|found| found.value).collect())
                }
                _ => self.value(spec.name)?.value,
            };
            Some((spec.name.to_owned(), value))
        };
        Options(specs.iter().filter_map(one).collect())
    }

    /// What a kind adds for an entity in the role of the section; of an unknown kind nothing is read or reported.
    pub(crate) fn entity_options(&self, kind: Option<&dyn SourceKind>) -> Options {
        match (kind, self.section.role) {
            (Some(kind), Some(role)) => self.options(kind.entity_options(role)),
            _ => {
                self.asked.borrow_mut().extend(self.section.keys.iter().map(|k| k.name));
                Options::default()
            }
        }
    }

    /// Keeps values of unknown keys from being shown: they may be misspelt secrets.
    pub(crate) fn hide_unknown(&self) {
        for (_, item) in self.entries.iter().filter(|(n, _)| self.section.key(&n.text).is_none()) {
            if !matches!(item.data, Data::Integer(_) | Data::Float(_) | Data::Boolean(_)) {
                self.report.hide(&item.span);
            }
        }
    }

    /// Zero stands for a value that was reported.
    pub(crate) fn duration(&self, name: &'static str) -> Duration {
        match self.value(name).map(|found| found.value) {
            Some(OptionValue::Duration(d)) => d,
            _ => Duration::ZERO,
        }
    }

    /// A list of texts, or its default.
    pub(crate) fn texts(&self, name: &'static str) -> Vec<Found<String>> {
        let Some(key) = self.key(name) else { return Vec::new() };
        let default = key.default_toml().map(|toml| Item::of_default(&toml, &self.spot.span));
        let (item, spot) = match (self.item(name), &default) {
            (Some(found), _) => (found.value, found.spot),
            (None, Some(item)) => (item, self.spot.clone()),
            (None, None) => return Vec::new(),
        };
        let items = list(self.report, item, &spot);
        let text = |item: &Item| {
            let spot = Spot { span: item.span.clone(), key: spot.key.clone() };
            match &item.data {
                Data::Text { text, .. } => Some(Found { value: text.clone(), spot }),
                Data::Broken => None,
                _ => {
                    self.report.error(&spot, format!("takes text, not {}", item.describe()));
                    None
                }
            }
        };
        items.iter().filter_map(text).collect()
    }

    /// The table below a key.
    pub(crate) fn table(&self, name: &'static str, section: &'a Section) -> Option<Table<'a>> {
        let found = self.item(name)?;
        Table::new(self.report, section, found.value, found.spot)
    }

    /// The tables of a list below a key.
    pub(crate) fn tables(&self, name: &'static str, section: &'a Section) -> Vec<Table<'a>> {
        let table =
            |found: Found<&'a Item>| Table::new(self.report, section, found.value, found.spot);
        self.items(name).into_iter().filter_map(table).collect()
    }

    /// The elements of a list below a key.
    pub(crate) fn items(&self, name: &'static str) -> Vec<Found<&'a Item>> {
        let Some(found) = self.item(name) else { return Vec::new() };
        let items = list(self.report, found.value, &found.spot);
        let item = |item: &'a Item| {
            let spot = Spot { span: item.span.clone(), key: found.spot.key.clone() };
            Found { value: item, spot }
        };
        items.iter().map(item).collect()
    }

    /// The entries below a key whose names the user chose.
    pub(crate) fn named(&self, name: &'static str) -> Vec<(&'a Name, Found<&'a Item>)> {
        let Some(found) = self.item(name) else { return Vec::new() };
        let entries = entries(self.report, found.value, &found.spot).unwrap_or_default();
        let entry = |(name, item): &'a (Name, Item)| {
            (name, Found { value: item, spot: found.spot.below(&name.text, &item.span) })
        };
        entries.iter().map(entry).collect()
    }

    /// Reports keys that the section does not have.
    pub(crate) fn finish(self) {
        let asked = self.asked.borrow();
        debug_assert!(
            self.section.keys.iter().all(|k| asked.contains(k.name)),
            "a key of {:?} is declared and never read",
            self.spot.key
        );
        for (name, _) in self.entries {
            if self.section.key(&name.text).is_some() {
                continue;
            }
            let spot = self.spot.below(&name.text, &name.span);
            if self.section.unavailable.contains(&name.text.as_str()) {
                self.report.error_with(
                    &spot,
                    format!("`{}` is not available in this release", name.text),
                    "remove it; a later release will have it",
                );
                continue;
            }
            let elsewhere = self.section.elsewhere.iter().filter(|(key, _)| *key == name.text);
            let kinds: Vec<_> = elsewhere.map(|(_, kind)| *kind).collect();
            if !kinds.is_empty() {
                self.report.error_with(
                    &spot,
                    format!("`{}` is not for the kind of this source", name.text),
                    format!("it is for {}", kinds.join(", ")),
                );
                continue;
            }
            let known = self.section.keys.iter().map(|k| k.name);
            let hint = meant(&name.text, known.clone(), || {
                format!("known here are {}", known.collect::<Vec<_>>().join(", "))
            });
            self.report.error_with(&spot, format!("unknown key `{}`", name.text), hint);
        }
    }

    fn key(&self, name: &'static str) -> Option<&'a Key> {
        self.asked.borrow_mut().insert(name);
        let key = self.section.key(name);
        debug_assert!(key.is_some(), "`{name}` is read and not declared");
        key
    }
}

fn entries<'a>(report: &Report<'_>, item: &'a Item, spot: &Spot) -> Option<&'a [(Name, Item)]> {
    match &item.data {
        Data::Table(entries) => Some(entries),
        Data::Broken => None,
        _ => {
            report.error(spot, format!("takes a table, not {}", item.describe()));
            None
        }
    }
}

pub(crate) fn list<'a>(report: &Report<'_>, item: &'a Item, spot: &Spot) -> &'a [Item] {
    match &item.data {
        Data::List(items) => items,
        Data::Broken => &[],
        _ => {
            report.error(spot, format!("takes a list, not {}", item.describe()));
            &[]
        }
    }
}

/// Whether a key holds `true`, `false`, a number, …: converts and checks bounds, or reports.
fn scalar(report: &Report<'_>, key: &Key, item: &Item, spot: &Spot) -> Option<OptionValue> {
    let text = match &item.data {
        Data::Text { text, .. } => Some(text.as_str()),
        _ => None,
    };
    let replaced = matches!(&item.data, Data::Text { replaced: true, .. });
    match (key.shape, &item.data) {
        (_, Data::Broken) => None,
        (Shape::Text | Shape::Path | Shape::Secret, Data::Text { text, .. }) => {
            if text.is_empty() {
                report.error(spot, format!("`{}` is empty", key.name));
                return None;
            }
            Some(OptionValue::Text(text.clone()))
        }
        (Shape::Choice(words), Data::Text { text, .. }) => choice(report, words, text, spot),
        (Shape::Time, Data::Text { text, .. } | Data::Time(text)) => {
            Some(OptionValue::Text(text.clone()))
        }
        (Shape::Boolean, Data::Boolean(b)) => Some(OptionValue::Boolean(*b)),
        (Shape::Boolean, _) if replaced && matches!(text, Some("true" | "false")) => {
            Some(OptionValue::Boolean(text == Some("true")))
        }
        (Shape::Integer { min, max }, data) => {
            let number = match data {
                Data::Integer(n) => Some(*n),
                _ if replaced => text.and_then(|t| t.parse().ok()),
                _ => None,
            };
            let Some(number) = number else { return mismatch(report, key, item, spot) };
            within(report, number, min, max, |n| n.to_string(), spot)
                .then_some(OptionValue::Integer(number))
        }
        (Shape::Duration { min, max }, _) => {
            let Some(value) = text.and_then(quantity::duration) else {
                return mismatch(report, key, item, spot);
            };
            within(report, value, min, max, quantity::show_duration, spot)
                .then_some(OptionValue::Duration(value))
        }
        (Shape::Size { min, max }, _) => {
            let Some(bytes) = text.and_then(quantity::size) else {
                return mismatch(report, key, item, spot);
            };
            within(report, bytes, min, max, quantity::show_size, spot)
                .then_some(OptionValue::Integer(bytes))
        }
        _ => mismatch(report, key, item, spot),
    }
}

fn mismatch(report: &Report<'_>, key: &Key, item: &Item, spot: &Spot) -> Option<OptionValue> {
    let takes = match key.shape {
        Shape::Boolean => "true or false",
        Shape::Integer { .. } => "a whole number",
        Shape::Duration { .. } => "a duration such as \"500ms\", \"60s\" or \"7d\"",
        Shape::Size { .. } => "a size such as \"64MB\"",
        Shape::Time => "a time such as 2026-12-31T00:00:00Z",
        _ => "text in quotes",
    };
    let given = match (&item.data, key.shape) {
        (Data::Text { .. }, Shape::Secret) => String::new(),
        (Data::Text { text, replaced: false }, _) => format!(", not \"{text}\""),
        (Data::Text { .. }, _) => ", which the replaced text is not".to_owned(),
        _ => format!(", not {}", item.describe()),
    };
    report.error(spot, format!("`{}` takes {takes}{given}", key.name));
    None
}

fn choice(
    report: &Report<'_>,
    words: &[&'static str],
    text: &str,
    spot: &Spot,
) -> Option<OptionValue> {
    if words.contains(&text) {
        return Some(OptionValue::Text(text.to_owned()));
    }
    let hint = closest(text, words.iter().copied()).map(|meant| format!("did you mean `{meant}`?"));
    report.error_maybe(spot, format!("`{text}` is not one of {}", words.join(", ")), hint);
    None
}

fn within<T: PartialOrd + Copy>(
    report: &Report<'_>,
    value: T,
    min: T,
    max: T,
    show: fn(T) -> String,
    spot: &Spot,
) -> bool {
    let inside = min <= value && value <= max;
    if !inside {
        report
            .error(spot, format!("{} is not between {} and {}", show(value), show(min), show(max)));
    }
    inside
}
