//! A worker for one kind of workflow: it waits for signals, says by a query how many came, and ends as they ask.

use serde_json::{Value as Json, json};
use temporalio_client::grpc::WorkflowService;
use temporalio_client::tonic::IntoRequest;
use temporalio_common::protos::temporal::api::command::v1::command::Attributes as Ask;
use temporalio_common::protos::temporal::api::command::v1::{
    CancelWorkflowExecutionCommandAttributes, Command, CompleteWorkflowExecutionCommandAttributes,
    ContinueAsNewWorkflowExecutionCommandAttributes, FailWorkflowExecutionCommandAttributes,
};
use temporalio_common::protos::temporal::api::common::v1::{Payload, Payloads};
use temporalio_common::protos::temporal::api::enums::v1::{CommandType, QueryResultType};
use temporalio_common::protos::temporal::api::failure::v1::Failure;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes as Event;
use temporalio_common::protos::temporal::api::history::v1::{
    HistoryEvent, WorkflowExecutionSignaledEventAttributes as Signal,
};
use temporalio_common::protos::temporal::api::query::v1::WorkflowQueryResult;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    PollWorkflowTaskQueueRequest, PollWorkflowTaskQueueResponse as Task,
    RespondQueryTaskCompletedRequest, RespondWorkflowTaskCompletedRequest,
};
use tokio::task::JoinSet;

use crate::support::Server;

/// Works until it is dropped.
pub(crate) struct Worker(#[expect(dead_code, reason = "held, not read")] JoinSet<()>);

impl Worker {
    /// On the task queue of a server's entity.
    pub(crate) fn of(server: &Server) -> Worker {
        let mut tasks = JoinSet::new();
        tasks.spawn(work(server.workflows(), server.namespace(), server.queue()));
        Worker(tasks)
    }
}

async fn work(mut service: Box<dyn WorkflowService>, namespace: String, queue: String) {
    loop {
        let request = PollWorkflowTaskQueueRequest {
            namespace: namespace.clone(),
            task_queue: Some(TaskQueue { name: queue.clone(), ..Default::default() }),
            identity: "worker".to_owned(),
            ..Default::default()
        };
        let Ok(task) = service.poll_workflow_task_queue(request.into_request()).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let task = task.into_inner();
        if !task.task_token.is_empty() {
            // A task whose workflow has ended meanwhile is refused.
            let _ = answer(&mut *service, &namespace, task).await;
        }
    }
}

async fn answer(
    service: &mut dyn WorkflowService,
    namespace: &str,
    task: Task,
) -> Result<(), temporalio_client::tonic::Status> {
    let events = task.history.map(|history| history.events).unwrap_or_default();
    let progress = Some(payloads(&json!({ "signals": signals(&events).count() })));
    let (namespace, task_token) = (namespace.to_owned(), task.task_token);
    let completed_type = QueryResultType::Answered.into();
    if task.query.is_some() {
        let request = RespondQueryTaskCompletedRequest {
            task_token,
            completed_type,
            query_result: progress,
            namespace,
            poller_group_id: task.poller_group_id,
            ..Default::default()
        };
        return service.respond_query_task_completed(request.into_request()).await.map(drop);
    }
    let result = |_| WorkflowQueryResult {
        result_type: completed_type,
        answer: progress.clone(),
        ..Default::default()
    };
    let request = RespondWorkflowTaskCompletedRequest {
        task_token,
        namespace,
        commands: commands(&events),
        query_results: task.queries.into_iter().map(|(id, query)| (id, result(query))).collect(),
        ..Default::default()
    };
    service.respond_workflow_task_completed(request.into_request()).await.map(drop)
}

fn signals(events: &[HistoryEvent]) -> impl Iterator<Item = &Signal> {
    events.iter().filter_map(|event| match &event.attributes {
        Some(Event::WorkflowExecutionSignaledEventAttributes(signal)) => Some(signal),
        _ => None,
    })
}

/// What a workflow with this history does next.
fn commands(events: &[HistoryEvent]) -> Vec<Command> {
    let canceled = events.iter().any(|event| {
        matches!(event.attributes, Some(Event::WorkflowExecutionCancelRequestedEventAttributes(_)))
    });
    if canceled {
        let ask = CancelWorkflowExecutionCommandAttributes::default();
        return vec![command(
            CommandType::CancelWorkflowExecution,
            Ask::CancelWorkflowExecutionCommandAttributes(ask),
        )];
    }
    let end = |signal: &Signal| match signal.signal_name.as_str() {
        "finish" => {
            let result = signal.input.clone();
            let ask = CompleteWorkflowExecutionCommandAttributes { result };
            Some(command(
                CommandType::CompleteWorkflowExecution,
                Ask::CompleteWorkflowExecutionCommandAttributes(ask),
            ))
        }
        "fail" => {
            let failure = Failure { message: "out of stock".to_owned(), ..Default::default() };
            let ask = FailWorkflowExecutionCommandAttributes { failure: Some(failure) };
            Some(command(
                CommandType::FailWorkflowExecution,
                Ask::FailWorkflowExecutionCommandAttributes(ask),
            ))
        }
        "again" => {
            let ask = ContinueAsNewWorkflowExecutionCommandAttributes::default();
            Some(command(
                CommandType::ContinueAsNewWorkflowExecution,
                Ask::ContinueAsNewWorkflowExecutionCommandAttributes(ask),
            ))
        }
        _ => None,
    };
    signals(events).find_map(end).into_iter().collect()
}

fn command(kind: CommandType, attributes: Ask) -> Command {
    Command { command_type: kind.into(), attributes: Some(attributes), ..Default::default() }
}

fn payloads(value: &Json) -> Payloads {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    let payload = Payload { metadata, data: value.to_string().into_bytes(), ..Default::default() };
    Payloads { payloads: vec![payload] }
}
