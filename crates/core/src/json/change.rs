//! A change as JSON: what callers of the log see, and a line of the archived log.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::change::{Change, Operation};
use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::json;
use crate::key::Key;
use crate::position::Position;

/// A change with its record by the declared types; without the record if the entity is not declared any more.
pub fn to_json(entity: Option<&Entity>, change: &Change) -> Json {
    let image = change.image.as_ref().zip(entity);
    let record = image.map(|(image, entity)| json::to_json(entity, image));
    json!({
        "position": change.position, "entity": change.entity, "key": change.key,
        "operation": change.operation.as_str(), "replaced": change.replaced, "record": record,
        "time": change.time, "actor": change.actor, "trace": change.trace,
    })
}

/// The change that [`to_json`] wrote, by the entity as it is declared now.
///
/// Fails with `invalid_input`, naming the member, if the two do not fit.
pub fn parse(entity: &Entity, json: &Json) -> Result<Change> {
    let wrong = |member: &'static str| {
        Error::invalid("is not a change as the log has it").with("member", member)
    };
    let text = |member: &'static str| json[member].as_str().ok_or_else(|| wrong(member));
    let optional = |member: &str| json[member].as_str().map(Arc::from);
    let operation = Operation::parse(text("operation")?).ok_or_else(|| wrong("operation"))?;
    let image = match operation {
        Operation::Put => Some(Arc::new(json::parse(entity, &json["record"])?)),
        Operation::Delete => None,
    };
    let replaced = json["replaced"].as_str().map(str::parse::<Position>).transpose()?;
    Ok(Change {
        position: text("position")?.parse()?,
        entity: Arc::clone(entity.name()),
        key: Key::parse(entity, text("key")?)?,
        operation,
        replaced,
        image,
        time: text("time")?.parse()?,
        actor: optional("actor"),
        trace: optional("trace"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures;
    use crate::record::Record;

    proptest! {
        #[test]
        fn a_change_is_the_same_after_it_was_written(values in fixtures::values(fixtures::entity().fields())) {
            let entity = fixtures::entity();
            let put = Change {
                position: Position::new(7).unwrap().next_generation(),
                entity: Arc::clone(entity.name()),
                key: Key::from_text("a b").unwrap(),
                operation: Operation::Put,
                replaced: Position::new(3).ok(),
                image: Some(Arc::new(Record::new(values))),
                time: "2026-11-22T10:00:00.000001Z".parse().unwrap(),
                actor: Some("mia".into()),
                trace: None,
            };
            let delete = Change { operation: Operation::Delete, image: None, ..put.clone() };
            for change in [put, delete] {
                let text = to_json(Some(&entity), &change).to_string();
                let read = parse(&entity, &serde_json::from_str(&text).unwrap()).unwrap();
                prop_assert_eq!(read, change);
            }
        }
    }

    #[test]
    fn what_is_no_change_is_named() {
        let entity = fixtures::entity();
        let error = parse(&entity, &json!({"operation": "merge"})).unwrap_err();
        assert!(error.to_string().contains("operation"), "{error}");
    }
}
