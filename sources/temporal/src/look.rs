//! Looks: what the server says of a workflow now becomes its newest record in the journal.

use futures::future::join_all;
use serde_json::{Value as Json, json};
use temporalio_common::protos::temporal::api::enums::v1::HistoryEventFilterType;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;
use temporalio_common::protos::temporal::api::workflow::v1::WorkflowExecutionInfo;
use unisono_core::{ErrorKind, Key, Record, Result, Value};

use crate::codec::{arguments_to_json, has_ended, json_value, result_to_json};
use crate::image::{described, is_covered};
use crate::journal::news;
use crate::layout::Meaning;
use crate::source::{Place, Shared};

/// Which queries a look asks of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// None, so that nobody waits for a worker.
    Nothing,
    /// All, if the history has grown since the last look: it alone decides what they answer.
    Grown,
    /// Those, too, that had no answer.
    Missing,
    /// All; nothing that was known before is used.
    Anew,
}

/// The end of a workflow.
#[derive(Default)]
pub(crate) struct Ending {
    result: Json,
    failure: Json,
}

impl Ending {
    /// Whether a request of this id has ended the workflow.
    pub(crate) fn is_of_request(&self, id: &str) -> bool {
        self.failure["details"] == json!([id])
    }
}

impl Shared {
    /// Looks at some workflows, each key once, and records what is new. The first failure is reported after all
    /// others were recorded.
    pub(crate) async fn settle(&self, place: &Place, keys: &[Key], ask: Ask) -> Result<()> {
        let mut failed = None;
        for keys in keys.chunks(self.settings.parallel) {
            let _held = self.locks.hold(keys).await;
            let known = self.journal.known(&place.entity, keys).await?;
            let mut looks = Vec::with_capacity(keys.len());
            for (key, known) in keys.iter().zip(&known) {
                let record = known.as_ref().map(|known| known.record.as_ref());
                looks.push(self.look(place, key, record, ask));
            }
            let mut units = Vec::new();
            for ((key, known), seen) in keys.iter().zip(&known).zip(join_all(looks).await) {
                match seen {
                    Ok(seen) => {
                        let now = self.clock.now();
                        units.extend(news(&place.entity, key, known.as_ref(), seen, now));
                    }
                    Err(error) => {
                        failed.get_or_insert(error.with("key", key));
                    }
                }
            }
            if !units.is_empty() {
                for recorded in self.journal.truth.commit(units).await? {
                    recorded?;
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The record of a workflow as it is now; `None` if the entity has no such workflow.
    pub(crate) async fn look(
        &self,
        place: &Place,
        key: &Key,
        known: Option<&Record>,
        ask: Ask,
    ) -> Result<Option<Record>> {
        let id = self.workflow_id(key);
        let info = self.client.describe(&id).await?;
        let Some(info) = info.filter(|info| is_covered(&place.layout, info)) else {
            return Ok(None);
        };
        let mut record = described(&place.entity, &place.layout, key, &info)?;
        let is_current = |known: &&Record| place.layout.is_same_state(known, &record);
        let known = known.filter(|known| ask != Ask::Anew && is_current(known));
        match self.fetch(place, &id, &info, known, ask, &mut record).await {
            // It went away between the description and its history.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            fetched => fetched.map(|()| Some(record)),
        }
    }

    /// Fills the fields that take requests of their own, from the known record if its history has not grown.
    async fn fetch(
        &self,
        place: &Place,
        id: &str,
        info: &WorkflowExecutionInfo,
        known: Option<&Record>,
        ask: Ask,
        record: &mut Record,
    ) -> Result<()> {
        let run = info.execution.as_ref().map_or("", |e| e.run_id.as_str());
        let mut ending = None;
        for (n, meaning) in place.layout.meanings.iter().enumerate() {
            if !meaning.is_fetched() {
                continue;
            }
            let before = known.and_then(|known| known.values().get(n));
            let value = match (meaning, before) {
                (Meaning::Query(name), before) => match (ask, before) {
                    (Ask::Nothing, before) => before.cloned().unwrap_or_default(),
                    (Ask::Grown, Some(before)) => before.clone(),
                    (Ask::Missing, Some(before)) if !before.is_null() => before.clone(),
                    _ => self.ask(id, run, name).await,
                },
                (_, Some(before)) => before.clone(),
                (Meaning::Input, None) => json_value(self.input(id, run).await?),
                (meaning, None) => {
                    if ending.is_none() && has_ended(info.status) {
                        ending = Some(self.ending(id, run).await?);
                    }
                    let ending = ending.as_ref();
                    json_value(match meaning {
                        Meaning::Result => ending.map(|e| e.result.clone()).unwrap_or_default(),
                        _ => ending.map(|e| e.failure.clone()).unwrap_or_default(),
                    })
                }
            };
            if let Some(place) = record.values_mut().get_mut(n) {
                *place = value;
            }
        }
        Ok(())
    }

    /// The answer to a query; null without a worker that answers in time.
    async fn ask(&self, id: &str, run: &str, name: &str) -> Value {
        match self.client.query(id, run, name).await {
            Ok(answer) => json_value(result_to_json(answer.as_ref())),
            Err(error) => {
                tracing::debug!(workflow = id, query = name, %error, "a query has no answer");
                Value::Null
            }
        }
    }

    /// The arguments with which a run was started.
    async fn input(&self, id: &str, run: &str) -> Result<Json> {
        let first = self.client.event(id, run, HistoryEventFilterType::AllEvent).await?;
        Ok(match first.and_then(|event| event.attributes) {
            Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) => {
                arguments_to_json(started.input.as_ref())
            }
            _ => Json::Null,
        })
    }

    /// How a run ended.
    pub(crate) async fn ending(&self, id: &str, run: &str) -> Result<Ending> {
        let last = self.client.event(id, run, HistoryEventFilterType::CloseEvent).await?;
        let failure = |failure: Json| Ending { result: Json::Null, failure };
        Ok(match last.and_then(|event| event.attributes) {
            Some(Attributes::WorkflowExecutionCompletedEventAttributes(done)) => {
                Ending { result: result_to_json(done.result.as_ref()), failure: Json::Null }
            }
            Some(Attributes::WorkflowExecutionFailedEventAttributes(failed)) => {
                // Temporal's own JSON of a failure; it has no value that JSON lacks.
                failure(serde_json::to_value(&failed.failure).unwrap_or_default())
            }
            Some(Attributes::WorkflowExecutionCanceledEventAttributes(canceled)) => {
                let details = arguments_to_json(canceled.details.as_ref());
                failure(json!({ "message": "canceled", "details": details }))
            }
            Some(Attributes::WorkflowExecutionTerminatedEventAttributes(ended)) => {
                let details = arguments_to_json(ended.details.as_ref());
                failure(json!({ "message": ended.reason, "details": details }))
            }
            Some(Attributes::WorkflowExecutionTimedOutEventAttributes(_)) => {
                failure(json!({ "message": "timed out" }))
            }
            _ => Ending::default(),
        })
    }
}
