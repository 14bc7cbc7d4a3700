//! [`Layout`]: what each field of an entity stands for in a workflow.

use std::fmt;

use unisono_core::kind::Options;
use unisono_core::{Entity, Field, FieldType, Record, Value};

use crate::config::is_quotable;

/// What a field stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The workflow id without the prefix of the source.
    Key,
    /// The id of the current run.
    RunId,
    /// The workflow type.
    Type,
    /// One of the words of [`crate::codec::status_word`].
    Status,
    /// The task queue.
    TaskQueue,
    /// When the run began.
    StartTime,
    /// When its first task was due.
    ExecutionTime,
    /// When it ended.
    CloseTime,
    /// How many events its history has.
    HistoryLength,
    /// The memo, as an object.
    Memo,
    /// The arguments, as a list.
    Input,
    /// What it returned.
    Result,
    /// Why it did not return.
    Failure,
    /// Written to send a signal; null when read.
    Signal,
    /// The answer of the query with this name.
    Query(String),
    /// The search attribute with this name.
    Attribute(String),
}

impl Meaning {
    const WORDS: [(&str, Meaning); 13] = [
        ("run_id", Meaning::RunId),
        ("type", Meaning::Type),
        ("status", Meaning::Status),
        ("task_queue", Meaning::TaskQueue),
        ("start_time", Meaning::StartTime),
        ("execution_time", Meaning::ExecutionTime),
        ("close_time", Meaning::CloseTime),
        ("history_length", Meaning::HistoryLength),
        ("memo", Meaning::Memo),
        ("input", Meaning::Input),
        ("result", Meaning::Result),
        ("failure", Meaning::Failure),
        ("signal", Meaning::Signal),
    ];

    /// Why a field of this type cannot stand for it.
    fn refuses(&self, ty: &FieldType) -> Option<&'static str> {
        use FieldType::{Boolean, Float, Integer, Json, String, Text, Timestamp, Uuid};
        let (fits, needed) = match self {
            Meaning::Key => (matches!(ty, String), "is the workflow id, which is a string"),
            Meaning::RunId => (matches!(ty, String | Uuid), "must be a string or a uuid"),
            Meaning::Type | Meaning::Status | Meaning::TaskQueue => {
                (matches!(ty, String), "must be a string")
            }
            Meaning::StartTime | Meaning::ExecutionTime | Meaning::CloseTime => {
                (matches!(ty, Timestamp { .. }), "must be a timestamp")
            }
            Meaning::HistoryLength => (matches!(ty, Integer), "must be an integer"),
            Meaning::Attribute(_) => {
                let list = matches!(ty, FieldType::List(of) if **of == String);
                let scalar = matches!(ty, String | Text | Integer | Float | Boolean);
                (
                    list || scalar || matches!(ty, Timestamp { .. }),
                    "must be a string, text, integer, float, boolean, timestamp or list of strings",
                )
            }
            _ => (matches!(ty, Json), "must be json"),
        };
        (!fits).then_some(needed)
    }

    /// Whether a caller may give it when a workflow is started.
    pub(crate) fn is_given(&self) -> bool {
        use Meaning::{Attribute, Input, Key, Memo, TaskQueue, Type};
        matches!(self, Key | Type | TaskQueue | Memo | Input | Attribute(_))
    }

    /// Whether it takes requests of its own beside the description, and changes only when the history grows.
    pub(crate) fn is_fetched(&self) -> bool {
        matches!(self, Meaning::Input | Meaning::Result | Meaning::Failure | Meaning::Query(_))
    }
}

/// How workflows become records of one entity, and which workflows do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// One for each field, in their order.
    pub(crate) meanings: Vec<Meaning>,
    /// The only type, if any.
    pub(crate) workflow_type: Option<String>,
    /// The only task queue, if any.
    pub(crate) task_queue: Option<String>,
}

impl Layout {
    /// The layout of a declared entity, or what is wrong with the declaration: pairs of option and message.
    pub(crate) fn of(
        entity: &Entity,
        options: &Options,
    ) -> Result<Self, Vec<(&'static str, String)>> {
        let mut problems = Vec::new();
        let queries = names(entity, options, "queries", &mut problems);
        let attributes = names(entity, options, "search_attributes", &mut problems);
        let mut meanings = Vec::with_capacity(entity.fields().len());
        for (n, field) in entity.fields().iter().enumerate() {
            let named = |all: &[(String, String)]| {
                all.iter().find(|(of, _)| **of == *field.name).map(|(_, name)| name.clone())
            };
            let word = || Meaning::WORDS.into_iter().find(|(word, _)| *word == &*field.name);
            let meaning = if n == entity.key_index() {
                Some(Meaning::Key)
            } else if let Some(query) = named(&queries) {
                Some(Meaning::Query(query))
            } else if let Some(attribute) = named(&attributes) {
                Some(Meaning::Attribute(attribute))
            } else {
                word().map(|(_, meaning)| meaning)
            };
            match meaning {
                Some(meaning) => {
                    problems.extend(check_field(field, &meaning));
                    meanings.push(meaning);
                }
                None => problems.push(("fields", unknown(field))),
            }
        }
        for needed in [Meaning::RunId, Meaning::Status, Meaning::HistoryLength] {
            if !meanings.contains(&needed) {
                problems.push(("fields", format!("must have `{needed}`: a change of the workflow is told by `run_id`, `status` and `history_length`")));
            }
        }
        let text = |name| options.text(name).map(str::to_owned);
        for name in ["workflow_type", "task_queue"] {
            if options.text(name).is_some_and(|t| t.is_empty() || !is_quotable(t)) {
                problems.push((
                    name,
                    "must be 1 to 200 characters without quotes and backslashes".to_owned(),
                ));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Layout {
            meanings,
            workflow_type: text("workflow_type"),
            task_queue: text("task_queue"),
        })
    }

    /// The index of the field with a meaning.
    pub(crate) fn index_of(&self, meaning: &Meaning) -> Option<usize> {
        self.meanings.iter().position(|m| m == meaning)
    }

    /// The value of the field with a meaning; null if there is no such field.
    pub(crate) fn value<'a>(&self, record: &'a Record, meaning: &Meaning) -> &'a Value {
        self.index_of(meaning).and_then(|n| record.values().get(n)).unwrap_or(&Value::Null)
    }

    /// Whether a worker is asked for any field.
    pub(crate) fn has_queries(&self) -> bool {
        self.meanings.iter().any(|meaning| matches!(meaning, Meaning::Query(_)))
    }

    /// Whether two records are of the same run with the same history.
    pub(crate) fn is_same_state(&self, a: &Record, b: &Record) -> bool {
        [Meaning::RunId, Meaning::Status, Meaning::HistoryLength]
            .iter()
            .all(|meaning| self.value(a, meaning) == self.value(b, meaning))
    }

    /// The conditions by which the visibility store finds the workflows of the entity.
    pub(crate) fn scope(&self, prefix: &str) -> Vec<String> {
        let mut scope = Vec::new();
        if let Some(name) = &self.workflow_type {
            scope.push(format!("WorkflowType = '{name}'"));
        }
        if let Some(name) = &self.task_queue {
            scope.push(format!("TaskQueue = '{name}'"));
        }
        if !prefix.is_empty() {
            scope.push(format!("WorkflowId STARTS_WITH '{prefix}'"));
        }
        scope
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meaning::Key => f.write_str("key"),
            Meaning::Query(name) => write!(f, "query {name}"),
            Meaning::Attribute(name) => write!(f, "search attribute {name}"),
            meaning => {
                let word = Meaning::WORDS.iter().find(|(_, m)| m == meaning);
                f.write_str(word.map_or("", |(word, _)| word))
            }
        }
    }
}

/// The fields that an option lists, with the names that they have in Temporal.
fn names(
    entity: &Entity,
    options: &Options,
    option: &'static str,
    problems: &mut Vec<(&'static str, String)>,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for text in options.list(option) {
        let (field, name) = text.split_once('=').unwrap_or((text, text));
        let (field, name) = (field.trim(), name.trim());
        if entity.field(field).is_none() || *entity.key_field().name == *field {
            problems.push((option, format!("names `{field}`, which is no field besides the key")));
        } else if name.is_empty() {
            problems.push((option, format!("gives `{field}` an empty name")));
        } else {
            found.push((field.to_owned(), name.to_owned()));
        }
    }
    found
}

fn check_field(field: &Field, meaning: &Meaning) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let mut report = |message: &str| {
        problems.push(("fields", format!("holds `{}`, which {message}", field.name)));
    };
    if let Some(message) = meaning.refuses(&field.ty) {
        report(message);
    }
    let is_key = *meaning == Meaning::Key;
    if field.unique && !is_key {
        report("cannot be unique: Temporal keeps only workflow ids apart");
    }
    if field.required && !is_key && !matches!(meaning, Meaning::Type | Meaning::TaskQueue) {
        report("cannot be required: the server decides what it holds");
    }
    if !field.allowed.is_empty() || field.max_length.is_some() {
        report("cannot have rules: others start workflows, too");
    }
    if field.default.is_some() && !meaning.is_given() {
        report("cannot have a default: the server decides what it holds");
    }
    problems
}

fn unknown(field: &Field) -> String {
    let words: Vec<_> = Meaning::WORDS.iter().map(|(word, _)| *word).collect();
    format!(
        "holds `{}`, which means nothing here: a field is one of {}, or is listed in `queries` or `search_attributes`",
        field.name,
        words.join(", ")
    )
}
