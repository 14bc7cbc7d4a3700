//! [`Personal`]: which values of a record are about a person, and who that is. Pure: where such values are in a record or a
//! patch, so that the engine can put others in their place. What is put there is its own matter.

use serde_json::Value as Json;

use crate::entity::{Entity, FieldType};
use crate::error::{Error, ErrorKind, Result};
use crate::query::{Path, Step};
use crate::record::Record;
use crate::value::Value;

/// What the text of a sealed value begins with.
pub const SEALED: &str = "unisono:p1:";
/// The fields of events that can hold what is personal.
const OF_EVENTS: [&str; 2] = ["data", "metadata"];

/// The personal values of an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Personal {
    /// Where they are: whole fields of type string, text or json, or members below a json field. None is within another.
    pub fields: Vec<Path>,
    /// Where it says whom they are about.
    pub subject: Path,
}

impl Personal {
    /// Checks a declaration: fields and subject as paths such as `name` or `data.address`.
    ///
    /// Fails with `invalid_config`, naming the path and what is wrong with it.
    pub fn new(entity: &Entity, fields: &[&str], subject: &str) -> Result<Self> {
        let fields = fields.iter().map(|text| field(entity, text)).collect::<Result<Vec<_>>>()?;
        if fields.is_empty() {
            return Err(wrong("fields", "names no field"));
        }
        let subject_path = path(entity, subject)?;
        let ty = subject_path.ty(entity);
        let has_text = matches!(ty, FieldType::String | FieldType::Integer | FieldType::Uuid);
        let is_member = matches!(subject_path.step, Step::Json(_));
        if !(has_text || is_member) {
            return Err(wrong(
                subject,
                "must be of type string, integer or uuid, or below a json field",
            ));
        }
        for (n, path) in fields.iter().enumerate() {
            if overlap(path, &subject_path) {
                return Err(wrong(
                    subject,
                    "is personal itself, and must be readable to find the key",
                ));
            }
            if fields[..n].iter().any(|other| overlap(other, path)) {
                return Err(wrong(&path.to_text(entity), "is named twice, or within another"));
            }
        }
        Ok(Personal { fields, subject: subject_path })
    }

    /// Whether a question that looks there would look at what is personal.
    pub fn covers(&self, path: &Path) -> bool {
        self.fields.iter().any(|field| overlap(field, path))
    }

    /// Whether a place is personal, or within what is.
    pub fn contains(&self, field: usize, steps: &[&str]) -> bool {
        self.fields.iter().any(|path| match &path.step {
            Step::Json(of) => {
                path.field == field
                    && of.len() <= steps.len()
                    && of.iter().zip(steps).all(|(a, b)| a == b)
            }
            _ => path.field == field,
        })
    }

    /// Whom a record is about; `None` if it does not say.
    pub fn subject_of(&self, record: &Record) -> Option<String> {
        let value = record.values().get(self.subject.field)?;
        match (&self.subject.step, value) {
            (Step::Whole, value) => text_of(value),
            (Step::Json(steps), Value::Json(json)) => {
                steps.iter().try_fold(json, |json, step| json.get(step)).and_then(text_of_json)
            }
            _ => None,
        }
    }

    /// `invalid_input` if a member is declared below something in a record that is no object, where it would not be found.
    pub fn check(&self, entity: &Entity, record: &Record) -> Result<()> {
        for path in &self.fields {
            if let (Step::Json(steps), Some(Value::Json(json))) =
                (&path.step, record.values().get(path.field))
            {
                reachable(entity, path, json, steps)?;
            }
        }
        Ok(())
    }

    /// The same of a JSON merge patch.
    pub fn check_patch(&self, entity: &Entity, patch: &Json) -> Result<()> {
        for path in &self.fields {
            let json = patch.get(&*entity.fields()[path.field].name);
            if let (Step::Json(steps), Some(json)) = (&path.step, json) {
                reachable(entity, path, json, steps)?;
            }
        }
        Ok(())
    }

    /// Gives each personal value of a record that is not null to `each`, with the number of its path.
    pub fn visit(
        &self,
        entity: &Entity,
        record: &mut Record,
        mut each: impl FnMut(usize, Slot<'_>) -> Result<()>,
    ) -> Result<()> {
        for (n, path) in self.fields.iter().enumerate() {
            let text = entity.fields()[path.field].ty.is_text();
            let Some(value) = record.values_mut().get_mut(path.field) else { continue };
            let slot = match (&path.step, value) {
                (Step::Json(steps), Value::Json(json)) => {
                    member(json, steps).map(|json| Slot { text: false, place: Place::Json(json) })
                }
                (Step::Json(_), _) => None,
                (_, value) => Some(Slot { text, place: Place::Value(value) }),
            };
            if let Some(slot) = slot.filter(|slot| !slot.is_null()) {
                each(n, slot)?;
            }
        }
        Ok(())
    }

    /// The same of a JSON merge patch: what it sets of these.
    pub fn visit_patch(
        &self,
        entity: &Entity,
        patch: &mut Json,
        mut each: impl FnMut(usize, Slot<'_>) -> Result<()>,
    ) -> Result<()> {
        for (n, path) in self.fields.iter().enumerate() {
            let field = &entity.fields()[path.field];
            let Some(json) = patch.get_mut(&*field.name) else { continue };
            let found = match &path.step {
                Step::Json(steps) => member(json, steps),
                _ => Some(json),
            };
            if let Some(json) = found.filter(|json| !json.is_null()) {
                each(n, Slot { text: field.ty.is_text(), place: Place::Json(json) })?;
            }
        }
        Ok(())
    }

    /// Whether a patch names a place, or something around it.
    pub fn is_named(entity: &Entity, patch: &Json, path: &Path) -> bool {
        let Some(mut json) = patch.get(&*entity.fields()[path.field].name) else { return false };
        let Step::Json(steps) = &path.step else { return true };
        for step in steps {
            match json {
                Json::Object(map) => match map.get(step) {
                    Some(below) => json = below,
                    None => return false,
                },
                _ => return true,
            }
        }
        true
    }
}

/// A personal value, where it is.
pub struct Slot<'a> {
    /// Whether the field holds text, and not any JSON.
    text: bool,
    place: Place<'a>,
}

enum Place<'a> {
    Value(&'a mut Value),
    Json(&'a mut Json),
}

impl Slot<'_> {
    fn is_null(&self) -> bool {
        match &self.place {
            Place::Value(value) => value.is_null(),
            Place::Json(json) => json.is_null(),
        }
    }

    /// What is there as one text: of a field of text the text itself, else JSON.
    pub fn clear(&self) -> String {
        match &self.place {
            Place::Value(Value::String(text)) => text.clone(),
            Place::Value(Value::Json(json)) => json.to_string(),
            Place::Json(Json::String(text)) if self.text => text.clone(),
            Place::Json(json) => json.to_string(),
            // Fields of other types are not declared personal.
            Place::Value(_) => String::new(),
        }
    }

    /// The text of a sealed value behind [`SEALED`], if there is one.
    pub fn sealed(&self) -> Option<&str> {
        let text = match &self.place {
            Place::Value(Value::String(text)) | Place::Value(Value::Json(Json::String(text))) => {
                text
            }
            Place::Json(Json::String(text)) => text,
            _ => return None,
        };
        text.strip_prefix(SEALED)
    }

    /// Puts a sealed value in its place; its text without [`SEALED`].
    pub fn seal(self, sealed: &str) {
        let text = format!("{SEALED}{sealed}");
        match self.place {
            Place::Value(value) if self.text => *value = Value::String(text),
            Place::Value(value) => *value = Value::Json(Json::String(text)),
            Place::Json(json) => *json = Json::String(text),
        }
    }

    /// Puts back what [`Slot::clear`] gave; null if that is lost.
    pub fn open(self, clear: Option<String>) -> Result<()> {
        let json = |text: String| {
            serde_json::from_str::<Json>(&text).map_err(|e| {
                Error::new(ErrorKind::Corrupt, "a personal value is not what was sealed")
                    .caused_by(e)
            })
        };
        match (self.place, clear) {
            (Place::Value(value), None) => *value = Value::Null,
            (Place::Json(place), None) => *place = Json::Null,
            (Place::Value(value), Some(text)) if self.text => *value = Value::String(text),
            (Place::Value(value), Some(text)) => *value = Value::Json(json(text)?),
            (Place::Json(place), Some(text)) if self.text => *place = Json::String(text),
            (Place::Json(place), Some(text)) => *place = json(text)?,
        }
        Ok(())
    }
}

/// Whether a value is a sealed one.
pub(crate) fn is_sealed(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with(SEALED))
}

/// A value as the name of whom it is about.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Uuid(uuid) => Some(uuid.to_string()),
        _ => None,
    }
}

fn text_of_json(json: &Json) -> Option<String> {
    match json {
        Json::String(text) if !text.is_empty() => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A member below a json field, if it is there.
fn member<'j>(json: &'j mut Json, steps: &[String]) -> Option<&'j mut Json> {
    steps.iter().try_fold(json, |json, step| json.as_object_mut()?.get_mut(step))
}

/// Whether a member below a json field is where it is declared to be, or not there at all.
fn reachable(entity: &Entity, path: &Path, json: &Json, steps: &[String]) -> Result<()> {
    let mut json = json;
    for step in steps {
        match json {
            Json::Object(map) => match map.get(step) {
                Some(below) => json = below,
                None => return Ok(()),
            },
            Json::Null => return Ok(()),
            _ => {
                return Err(Error::invalid("a member of it is personal, so it must be an object")
                    .of(entity.name())
                    .with("field", path.to_text(entity)));
            }
        }
    }
    Ok(())
}

/// A path that can hold what is personal.
fn field(entity: &Entity, text: &str) -> Result<Path> {
    let path = path(entity, text)?;
    let field = &entity.fields()[path.field];
    if path.field == entity.key_index() {
        return Err(wrong(text, "is the key, which every source must be able to read"));
    }
    if entity.is_of_events() && !OF_EVENTS.contains(&&*field.name) {
        return Err(wrong(
            text,
            "is not below `data` or `metadata`, where events hold what is told",
        ));
    }
    if !matches!(field.ty, FieldType::String | FieldType::Text | FieldType::Json) {
        return Err(wrong(text, "is not of type string, text or json, which hold encrypted text"));
    }
    if field.unique || field.index || field.default.is_some() {
        return Err(wrong(
            text,
            "cannot be unique or indexed or have a default: sources see it encrypted",
        ));
    }
    Ok(path)
}

fn path(entity: &Entity, text: &str) -> Result<Path> {
    let (name, rest) = text.split_once('.').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let index = entity.index_of(name).ok_or_else(|| wrong(text, "is not a field of the entity"))?;
    let Some(rest) = rest else { return Ok(Path::whole(index)) };
    let steps: Vec<String> = rest.split('.').map(str::to_owned).collect();
    if entity.fields()[index].ty != FieldType::Json || steps.iter().any(String::is_empty) {
        return Err(wrong(text, "has members only below a field of type json"));
    }
    Ok(Path { field: index, step: Step::Json(steps) })
}

/// Whether one of two places is within the other.
fn overlap(a: &Path, b: &Path) -> bool {
    let steps = |path: &Path| match &path.step {
        Step::Json(steps) => steps.clone(),
        _ => Vec::new(),
    };
    let (a_steps, b_steps) = (steps(a), steps(b));
    a.field == b.field && a_steps.iter().zip(&b_steps).all(|(a, b)| a == b)
}

fn wrong(path: &str, what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, what).with("path", path)
}

#[cfg(test)]
mod tests;
