//! [`Intent`]: what a write asks of the server. Pure: the write and the entity decide, nothing else.

use serde_json::{Map, Value as Json};
use temporalio_common::protos::temporal::api::common::v1::{
    Memo, Payload, Payloads, SearchAttributes, WorkflowType,
};
use temporalio_common::protos::temporal::api::enums::v1::{
    WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
};
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::StartWorkflowExecutionRequest;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{Error, Record, Result, Value, json};

use crate::codec::{arguments, payload};
use crate::layout::{Layout, Meaning};

/// What a write asks of the server.
#[derive(Debug, PartialEq)]
pub(crate) enum Intent {
    /// Start a workflow; the request lacks what only the source knows.
    Start(Box<StartWorkflowExecutionRequest>),
    /// Send a signal.
    Signal(String, Option<Payloads>),
    /// Ask it to cancel itself.
    Cancel,
    /// End it.
    Terminate,
}

impl Intent {
    /// What a write asks, or why it asks for what workflows do not have.
    pub(crate) fn of(layout: &Layout, write: &Write) -> Result<Self> {
        match &write.action {
            Action::Put(record) => {
                if !matches!(
                    write.condition,
                    Condition::None | Condition::Absent | Condition::Version(None)
                ) {
                    return Err(not_replaced());
                }
                start(layout, write, record).map(|request| Intent::Start(Box::new(request)))
            }
            Action::Patch(patch) => {
                check_condition(write.condition)?;
                patched(layout, write, patch)
            }
            Action::Delete => {
                check_condition(write.condition)?;
                Ok(Intent::Terminate)
            }
            Action::Append(_) => Err(Error::unsupported("workflows are no streams of events")
                .hint("name a SQL database as the truth of the streams")),
        }
    }
}

/// The error of a put where a workflow is already.
pub(crate) fn not_replaced() -> Error {
    Error::unsupported("a workflow cannot be replaced")
        .hint("create it under a fresh key, or patch it: {\"signal\": {\"name\": …}} or {\"status\": \"canceled\"}")
}

/// A workflow goes on while a request is under way, so no request can depend on its version.
fn check_condition(condition: Condition) -> Result<()> {
    match condition {
        Condition::None | Condition::Present => Ok(()),
        Condition::Absent | Condition::Version(_) | Condition::Until(_) => {
            Err(Error::unsupported("a workflow takes no request that depends on its version")
                .hint("send the request without a version: Temporal cannot check one"))
        }
    }
}

fn start(layout: &Layout, write: &Write, record: &Record) -> Result<StartWorkflowExecutionRequest> {
    let mut memo = None;
    let mut input = None;
    let mut attributes = SearchAttributes::default();
    let fields = write.entity.fields();
    for ((field, meaning), value) in fields.iter().zip(&layout.meanings).zip(record.values()) {
        let at = |e: Error| e.with("field", &field.name);
        match (meaning, value) {
            (_, Value::Null) => {}
            (Meaning::Memo, Value::Json(Json::Object(members))) => memo = Some(memo_of(members)),
            (Meaning::Memo, _) => return Err(at(Error::invalid("must be an object"))),
            (Meaning::Input, value) => input = arguments(value).map_err(at)?,
            (Meaning::Attribute(name), value) => {
                let json = json::value_to_json(&field.ty, value);
                attributes.indexed_fields.insert(name.clone(), payload(&json));
            }
            (meaning, _) if meaning.is_given() => {}
            _ => {
                return Err(at(Error::unsupported("the server decides what the field holds"))
                    .hint("leave it out when a workflow is started"));
            }
        }
    }
    let name = chosen(layout, record, &Meaning::Type, layout.workflow_type.as_deref())?;
    let queue = chosen(layout, record, &Meaning::TaskQueue, layout.task_queue.as_deref())?;
    Ok(StartWorkflowExecutionRequest {
        workflow_type: Some(WorkflowType { name }),
        task_queue: Some(TaskQueue { name: queue, ..Default::default() }),
        input,
        memo,
        search_attributes: (!attributes.indexed_fields.is_empty()).then_some(attributes),
        workflow_id_reuse_policy: WorkflowIdReusePolicy::RejectDuplicate.into(),
        workflow_id_conflict_policy: WorkflowIdConflictPolicy::Fail.into(),
        ..Default::default()
    })
}

fn memo_of(members: &Map<String, Json>) -> Memo {
    let pairs = members.iter().map(|(name, value)| (name.clone(), payload(value)));
    Memo { fields: pairs.collect::<std::collections::HashMap<String, Payload>>() }
}

/// What the record says, or else the entity.
fn chosen(
    layout: &Layout,
    record: &Record,
    meaning: &Meaning,
    only: Option<&str>,
) -> Result<String> {
    match (layout.value(record, meaning).as_str(), only) {
        (Some(text), Some(only)) if text != only => {
            Err(Error::invalid("workflows of this entity have another value here")
                .with("field", meaning)
                .with("expected", only)
                .hint("leave the field out"))
        }
        (Some(text), _) if !text.is_empty() => Ok(text.to_owned()),
        (_, Some(only)) => Ok(only.to_owned()),
        _ => Err(Error::invalid("is needed to start a workflow").with("field", meaning).hint(
            "give it in the record, or declare it for the entity: `workflow_type`, `task_queue`",
        )),
    }
}

fn patched(layout: &Layout, write: &Write, patch: &Json) -> Result<Intent> {
    let only = patch.as_object().filter(|members| members.len() == 1);
    let (name, value) = only.and_then(|members| members.iter().next()).ok_or_else(|| {
        Error::unsupported("a workflow takes one request at a time")
            .hint("patch one of {\"signal\": {\"name\": …, \"input\": […]}} and {\"status\": \"canceled\"}")
    })?;
    let index = write
        .entity
        .index_of(name)
        .ok_or_else(|| Error::invalid("has a field that is not declared").with("field", name))?;
    match (layout.meanings.get(index), value) {
        (Some(Meaning::Signal), Json::Object(signal)) => signal_of(signal),
        (Some(Meaning::Signal), _) => Err(bad_signal()),
        (Some(Meaning::Status), Json::String(word)) if word == "canceled" => Ok(Intent::Cancel),
        (Some(Meaning::Status), Json::String(word)) if word == "terminated" => {
            Ok(Intent::Terminate)
        }
        (Some(Meaning::Status), _) => {
            Err(Error::unsupported("a caller can only cancel or terminate a workflow")
                .with("field", name)
                .hint("the status can be set to \"canceled\" or \"terminated\""))
        }
        _ => Err(Error::unsupported("the field of a workflow cannot be changed")
            .with("field", name)
            .hint("send the workflow a signal that makes it change")),
    }
}

fn signal_of(signal: &Map<String, Json>) -> Result<Intent> {
    if signal.keys().any(|member| member != "name" && member != "input") {
        return Err(bad_signal());
    }
    let name = signal.get("name").and_then(Json::as_str).filter(|name| !name.is_empty());
    let name = name.ok_or_else(bad_signal)?.to_owned();
    let input = match signal.get("input") {
        None | Some(Json::Null) => None,
        Some(input) => {
            arguments(&Value::Json(input.clone())).map_err(|e| e.with("field", "signal.input"))?
        }
    };
    Ok(Intent::Signal(name, input))
}

fn bad_signal() -> Error {
    Error::invalid("a signal is an object with its name and the list of its arguments")
        .with("field", "signal")
        .hint("write {\"name\": \"approve\", \"input\": [true]}")
}
