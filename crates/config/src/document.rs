//! The TOML text as a tree in which every value knows its place, with `${…}` already replaced.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::interpolate::{Lookup, interpolate};
use crate::problem::{Report, Spot};

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) span: Range<usize>,
    pub(crate) data: Data,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Text {
        text: String,
        /// Whether part of it came from `${…}`: such a text may stand for a number or a switch.
        replaced: bool,
    },
    Integer(i64),
    /// As written.
    Float(String),
    Boolean(bool),
    /// A date or time, as written.
    Time(String),
    List(Vec<Item>),
    Table(Vec<(Name, Item)>),
    /// A problem was reported; nothing more is said about it.
    Broken,
}

/// A key with its place.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

impl Item {
    /// What it is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match self.data {
            Data::Text { .. } => "text",
            Data::Integer(_) => "a whole number",
            Data::Float(_) => "a number with a point",
            Data::Boolean(_) => "true or false",
            Data::Time(_) => "a date or time",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
            Data::Broken => "a value",
        }
    }

    /// A default, as it is written in a file.
    pub(crate) fn of_default(toml: &str, span: &Range<usize>) -> Item {
        let text = |t: &str| Data::Text { text: t.to_owned(), replaced: false };
        let data = match DeValue::parse(toml).map(Spanned::into_inner) {
            Ok(DeValue::Integer(n)) => n.as_str().parse().map_or(Data::Broken, Data::Integer),
            Ok(DeValue::Boolean(b)) => Data::Boolean(b),
            Ok(DeValue::String(t)) => text(&t),
            Ok(DeValue::Array(items)) => {
                let texts = items.iter().filter_map(|i| i.get_ref().as_str());
                Data::List(texts.map(|t| Item { span: span.clone(), data: text(t) }).collect())
            }
            _ => Data::Broken,
        };
        Item { span: span.clone(), data }
    }
}

/// Parses the text. Syntax errors are reported, and then there is no tree.
pub(crate) fn parse(text: &str, lookup: &dyn Lookup, report: &Report<'_>) -> Option<Item> {
    const SYNTAX_ERRORS_MAX: usize = 10;
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(SYNTAX_ERRORS_MAX) {
        let spot = Spot { span: error.span().unwrap_or(0..0), key: String::new() };
        report.error(&spot, format!("this is not TOML: {}", error.message()));
    }
    if !errors.is_empty() {
        return None;
    }
    let root = Spot { span: 0..0, key: String::new() };
    let entries = entries(table.get_ref(), &root, lookup, report);
    Some(Item { span: 0..0, data: Data::Table(entries) })
}

fn entries(
    table: &DeTable<'_>,
    spot: &Spot,
    lookup: &dyn Lookup,
    report: &Report<'_>,
) -> Vec<(Name, Item)> {
    table
        .iter()
        .map(|(key, value)| {
            let name = Name { text: key.get_ref().to_string(), span: key.span() };
            let spot = spot.below(&name.text, &value.span());
            let item = convert(value, &spot, lookup, report);
            (name, item)
        })
        .collect()
}

fn convert(
    value: &Spanned<DeValue<'_>>,
    spot: &Spot,
    lookup: &dyn Lookup,
    report: &Report<'_>,
) -> Item {
    let data = match value.get_ref() {
        DeValue::String(text) => match interpolate(text, lookup) {
            Ok((text, replaced)) => Data::Text { text, replaced },
            Err(message) => {
                report.error(spot, message);
                Data::Broken
            }
        },
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Data::Integer(n),
            Err(_) => {
                report.error(spot, "the number does not fit into 64 bits");
                Data::Broken
            }
        },
        DeValue::Float(f) => Data::Float(f.as_str().to_owned()),
        DeValue::Boolean(b) => Data::Boolean(*b),
        DeValue::Datetime(time) => Data::Time(time.to_string()),
        DeValue::Array(items) => Data::List(
            items
                .iter()
                .map(|item| convert(item, &spot.below("", &item.span()), lookup, report))
                .collect(),
        ),
        DeValue::Table(table) => Data::Table(entries(table, spot, lookup, report)),
    };
    Item { span: value.span(), data }
}
