//! Random filters that are valid for an entity and often satisfied, since most values come from its records.

use rand::Rng;
use serde_json::Value as Json;
use unisono_core::query::{Comparison, Filter, Like, Path, Step};
use unisono_core::{Entity, FieldType, Record, Value};

use crate::Generator;
use crate::values::WORDS;

const COMPARISONS: &[Comparison] = &[
    Comparison::Eq,
    Comparison::Ne,
    Comparison::Lt,
    Comparison::Lte,
    Comparison::Gt,
    Comparison::Gte,
];

const JSON_PATHS: &[&[&str]] = &[
    &["colour"],
    &["size"],
    &["colour", "name"],
    &["colour", "list", "0"],
    &["1", "colour"],
    &["0"],
    &["quote\""],
    &["nowhere", "x"],
];

impl Generator {
    /// A filter of at most `depth` levels of connectives.
    pub fn filter(&mut self, entity: &Entity, records: &[&Record], depth: usize) -> Filter {
        let leaf = depth == 0 || self.rng.random_bool(0.5);
        if leaf {
            return self.test(entity, records);
        }
        let count = self.rng.random_range(0..4);
        let parts =
            |g: &mut Self| (0..count).map(|_| g.filter(entity, records, depth - 1)).collect();
        match self.rng.random_range(0..3) {
            0 => Filter::And(parts(self)),
            1 => Filter::Or(parts(self)),
            _ => Filter::Not(Box::new(self.filter(entity, records, depth - 1))),
        }
    }

    fn test(&mut self, entity: &Entity, records: &[&Record]) -> Filter {
        let index = self.rng.random_range(0..entity.fields().len());
        let ty = &entity.fields()[index].ty;
        if self.rng.random_bool(0.1) {
            return Filter::IsNull(self.path_below(index, ty));
        }
        match ty {
            FieldType::Json => self.json_test(index),
            FieldType::List(of) => {
                let element = match self.existing(records, index) {
                    Value::List(items) if !items.is_empty() => self.pick(&items).clone(),
                    _ => self.value(of),
                };
                Filter::Contains(Path::whole(index), element)
            }
            FieldType::Objects(fields) => {
                let n = self.rng.random_range(0..fields.len());
                let existing = match self.existing(records, index) {
                    Value::Objects(rows) if !rows.is_empty() => self.pick(&rows)[n].clone(),
                    _ => Value::Null,
                };
                self.scalar_test(
                    Path { field: index, step: Step::Each(n) },
                    &fields[n].ty,
                    existing,
                )
            }
            ty => {
                let existing = self.existing(records, index);
                self.scalar_test(Path::whole(index), ty, existing)
            }
        }
    }

    fn path_below(&mut self, index: usize, ty: &FieldType) -> Path {
        match ty {
            FieldType::Objects(fields) if self.rng.random_bool(0.7) => {
                Path { field: index, step: Step::Each(self.rng.random_range(0..fields.len())) }
            }
            FieldType::Json if self.rng.random_bool(0.7) => self.json_path(index),
            _ => Path::whole(index),
        }
    }

    fn scalar_test(&mut self, path: Path, ty: &FieldType, existing: Value) -> Filter {
        let value = |g: &mut Self| match existing.is_null() || g.rng.random_bool(0.3) {
            true => g.value(ty),
            false => existing.clone(),
        };
        if ty.is_text() && self.rng.random_bool(0.4) {
            let Value::String(text) = value(self) else { return Filter::IsNull(path) };
            return self.text_test(path, false, &text);
        }
        match self.rng.random_range(0..6) {
            0 => {
                let count = self.rng.random_range(1..4);
                Filter::In(path, (0..count).map(|_| value(self)).collect())
            }
            1 => Filter::Between(path, value(self), value(self)),
            _ => Filter::Compare(path, *self.pick(COMPARISONS), value(self)),
        }
    }

    fn text_test(&mut self, path: Path, of_json: bool, text: &str) -> Filter {
        let chars: Vec<_> = text.chars().take(12).collect();
        let start = self.rng.random_range(0..=chars.len());
        let end = self.rng.random_range(start..=chars.len());
        let part: String = chars[start..end].iter().collect();
        match self.rng.random_range(0..3) {
            0 => Filter::Prefix(path, chars[..end].iter().collect()),
            1 if of_json => Filter::Contains(path, Value::Json(part.into())),
            1 => Filter::Contains(path, Value::String(part)),
            _ => {
                let pattern = match self.rng.random_range(0..5) {
                    0 => format!("%{}%", escape(&part)),
                    1 => format!("{}%", escape(&part)),
                    2 => format!("_%{}", escape(&part)),
                    3 => escape(text),
                    // A `\` at the very end is refused when a pattern is parsed.
                    _ => text.trim_end_matches('\\').to_owned(),
                };
                Filter::Like(path, Like(pattern))
            }
        }
    }

    /// A path to a member of a `json` field, or to the field itself.
    pub(crate) fn json_path(&mut self, field: usize) -> Path {
        if self.rng.random_bool(0.1) {
            return Path::whole(field);
        }
        let steps = *self.pick(JSON_PATHS);
        Path { field, step: Step::Json(steps.iter().map(|s| (*s).to_owned()).collect()) }
    }

    fn json_test(&mut self, field: usize) -> Filter {
        let path = self.json_path(field);
        let word = |g: &mut Self| (*g.pick(WORDS)).to_owned();
        let value = |g: &mut Self| match g.rng.random_bool(0.5) {
            true => Value::Json(Json::String(word(g))),
            false => Value::Json(g.json_scalar()),
        };
        match self.rng.random_range(0..10) {
            0 => Filter::In(path, (0..3).map(|_| value(self)).collect()),
            1 => Filter::Between(path, value(self), value(self)),
            2 => Filter::Contains(path, value(self)),
            3 => {
                let text = word(self);
                self.text_test(path, true, &text)
            }
            _ => Filter::Compare(path, *self.pick(COMPARISONS), value(self)),
        }
    }

    fn existing(&mut self, records: &[&Record], index: usize) -> Value {
        if records.is_empty() {
            return Value::Null;
        }
        self.pick(records).values()[index].clone()
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}
