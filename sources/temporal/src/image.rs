//! A workflow as the server describes it to a record, as far as the description goes.

use temporalio_common::protos::temporal::api::workflow::v1::WorkflowExecutionInfo;
use unisono_core::{Entity, Field, FieldType, Key, Record, Result, Uuid, Value};

use crate::codec::{attribute, json_value, object_to_json, status_word, time};
use crate::layout::{Layout, Meaning};

/// The record, with null in the fields that take requests of their own.
pub(crate) fn described(
    entity: &Entity,
    layout: &Layout,
    key: &Key,
    info: &WorkflowExecutionInfo,
) -> Result<Record> {
    let pairs = entity.fields().iter().zip(&layout.meanings);
    let values = pairs.map(|(field, meaning)| value(field, meaning, key, info));
    Ok(Record::new(values.collect::<Result<_>>()?))
}

fn value(
    field: &Field,
    meaning: &Meaning,
    key: &Key,
    info: &WorkflowExecutionInfo,
) -> Result<Value> {
    let text = |text: &str| Value::String(text.to_owned());
    Ok(match meaning {
        Meaning::Key => key.to_value(),
        Meaning::RunId => run_id(&field.ty, info),
        Meaning::Type => text(info.r#type.as_ref().map_or("", |t| t.name.as_str())),
        Meaning::Status => text(status_word(info.status)),
        Meaning::TaskQueue => text(&info.task_queue),
        Meaning::StartTime => at(info.start_time.map(|t| time(&field.ty, t.seconds, t.nanos))),
        Meaning::CloseTime => at(info.close_time.map(|t| time(&field.ty, t.seconds, t.nanos))),
        Meaning::ExecutionTime => {
            at(info.execution_time.map(|t| time(&field.ty, t.seconds, t.nanos)))
        }
        Meaning::HistoryLength => Value::Integer(info.history_length),
        Meaning::Memo => {
            let fields = info.memo.as_ref().map(|memo| &memo.fields).filter(|all| !all.is_empty());
            fields.map_or(Value::Null, |all| json_value(object_to_json(all.iter())))
        }
        Meaning::Attribute(name) => {
            let all = info.search_attributes.as_ref().map(|all| &all.indexed_fields);
            match all.and_then(|all| all.get(name)) {
                Some(payload) => {
                    attribute(&field.ty, payload).map_err(|e| e.with("field", &field.name))?
                }
                None => Value::Null,
            }
        }
        Meaning::Input
        | Meaning::Result
        | Meaning::Failure
        | Meaning::Query(_)
        | Meaning::Signal => Value::Null,
    })
}

fn at(time: Option<Value>) -> Value {
    time.unwrap_or_default()
}

fn run_id(ty: &FieldType, info: &WorkflowExecutionInfo) -> Value {
    let text = info.execution.as_ref().map_or("", |e| e.run_id.as_str());
    match ty {
        FieldType::Uuid => Uuid::try_parse(text).map_or(Value::Null, Value::Uuid),
        _ => Value::String(text.to_owned()),
    }
}

/// Whether the workflow is one of the entity's.
pub(crate) fn is_covered(layout: &Layout, info: &WorkflowExecutionInfo) -> bool {
    let name = info.r#type.as_ref().map_or("", |t| t.name.as_str());
    layout.workflow_type.as_deref().is_none_or(|wanted| wanted == name)
        && layout.task_queue.as_deref().is_none_or(|wanted| wanted == info.task_queue)
}
