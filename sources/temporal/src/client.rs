//! [`Client`]: the calls to the server, with the rules that each of them keeps.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use temporalio_client::grpc::WorkflowService;
use temporalio_client::tonic::{IntoRequest, Request, Response, Status};
use temporalio_client::{
    ClientTlsOptions, Connection, ConnectionOptions, RetryOptions, TlsOptions,
};
use temporalio_common::protos::temporal::api::common::v1::{Payloads, WorkflowExecution};
use temporalio_common::protos::temporal::api::enums::v1::HistoryEventFilterType;
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use temporalio_common::protos::temporal::api::operatorservice::v1::{
    ListSearchAttributesRequest, ListSearchAttributesResponse,
};
use temporalio_common::protos::temporal::api::query::v1::WorkflowQuery;
use temporalio_common::protos::temporal::api::workflow::v1::WorkflowExecutionInfo;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    DescribeNamespaceRequest, DescribeWorkflowExecutionRequest, GetSystemInfoRequest,
    GetWorkflowExecutionHistoryRequest, ListWorkflowExecutionsRequest, QueryWorkflowRequest,
    RequestCancelWorkflowExecutionRequest, SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest, TerminateWorkflowExecutionRequest,
};
use unisono_core::{Effect, Error, ErrorKind, Result};

use crate::codec::payload;
use crate::config::Settings;
use crate::error::{not_connected, slow, translate};

const IDENTITY: &str = "unisono";
/// With which each part of a PEM file begins.
const PEM: &[u8] = b"-----BEGIN ";
/// The most workflows that the server lists in one answer.
const PAGE: i32 = 1000;

/// The connection to one namespace of a server. It is made anew by itself when it was lost.
pub(crate) struct Client {
    name: Arc<str>,
    connection: Connection,
    namespace: String,
    request_timeout: Duration,
    query_timeout: Duration,
    closed: AtomicBool,
}

/// Workflows that the visibility store lists, and where to go on.
pub(crate) struct Listed {
    /// In the order of the store.
    pub(crate) found: Vec<WorkflowExecutionInfo>,
    /// Empty after the last page.
    pub(crate) next: Vec<u8>,
}

impl Client {
    /// Connects, which fails within the connect timeout, and looks whether the namespace is there.
    pub(crate) async fn open(name: &str, settings: &Settings) -> Result<Self> {
        let tls = tls(settings).await?;
        let options = ConnectionOptions::new(settings.url.clone())
            .identity(IDENTITY)
            .maybe_tls_options(tls)
            .maybe_api_key(settings.api_key.clone())
            .connect_timeout(settings.connect_timeout)
            .retry_options(RetryOptions::no_retries())
            .dns_load_balancing(None)
            .build();
        let connecting = tokio::time::timeout(
            settings.connect_timeout.saturating_mul(2),
            Connection::connect(options),
        );
        let connection = match connecting.await {
            Ok(connected) => connected.map_err(not_connected)?,
            Err(_) => {
                return Err(Error::new(ErrorKind::Unavailable, "the server does not answer")
                    .hint("check that `url` names the gRPC port of the frontend"));
            }
        };
        let client = Client {
            name: name.into(),
            connection,
            namespace: settings.namespace.clone(),
            request_timeout: settings.request_timeout,
            query_timeout: settings.query_timeout,
            closed: AtomicBool::new(false),
        };
        let namespace = client.namespace.clone();
        let request = DescribeNamespaceRequest { namespace, ..Default::default() };
        client.read(client.workflows().describe_namespace(client.request(request))).await?;
        Ok(client)
    }

    /// The name of the source.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Later calls fail.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Unavailable, "the source is closed").at(&self.name));
        }
        Ok(())
    }

    /// The release of the server.
    pub(crate) async fn server_version(&self) -> Result<String> {
        let request = self.request(GetSystemInfoRequest::default());
        Ok(self.read(self.workflows().get_system_info(request)).await?.server_version)
    }

    /// The search attributes of the namespace; `None` if the server does not tell.
    pub(crate) async fn search_attributes(&self) -> Result<Option<ListSearchAttributesResponse>> {
        let request = ListSearchAttributesRequest { namespace: self.namespace.clone() };
        let mut service = self.connection.operator_service();
        match self.read(service.list_search_attributes(self.request(request))).await {
            Ok(known) => Ok(Some(known)),
            Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// What the server says of the current run of a workflow, if there is one.
    pub(crate) async fn describe(&self, id: &str) -> Result<Option<WorkflowExecutionInfo>> {
        let request = DescribeWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            execution: execution(id, ""),
        };
        let mut service = self.workflows();
        match self.read(service.describe_workflow_execution(self.request(request))).await {
            Ok(answer) => Ok(answer.workflow_execution_info),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The first event of a run, or its last if it has ended.
    pub(crate) async fn event(
        &self,
        id: &str,
        run: &str,
        which: HistoryEventFilterType,
    ) -> Result<Option<HistoryEvent>> {
        let request = GetWorkflowExecutionHistoryRequest {
            namespace: self.namespace.clone(),
            execution: execution(id, run),
            maximum_page_size: 1,
            history_event_filter_type: which.into(),
            skip_archival: true,
            ..Default::default()
        };
        let mut service = self.workflows();
        let answer =
            self.read(service.get_workflow_execution_history(self.request(request))).await?;
        Ok(answer.history.and_then(|history| history.events.into_iter().next()))
    }

    /// The answer of a worker to a query without arguments.
    pub(crate) async fn query(&self, id: &str, run: &str, name: &str) -> Result<Option<Payloads>> {
        let query = WorkflowQuery { query_type: name.to_owned(), ..Default::default() };
        let request = QueryWorkflowRequest {
            namespace: self.namespace.clone(),
            execution: execution(id, run),
            query: Some(query),
            ..Default::default()
        };
        let mut service = self.workflows();
        let answer = service.query_workflow(request.into_request());
        Ok(self.within(self.query_timeout, answer).await?.query_result)
    }

    /// A page of the workflows that a visibility query finds.
    pub(crate) async fn list(&self, query: &str, page: Vec<u8>) -> Result<Listed> {
        let request = ListWorkflowExecutionsRequest {
            namespace: self.namespace.clone(),
            page_size: PAGE,
            next_page_token: page,
            query: query.to_owned(),
        };
        let answer =
            self.read(self.workflows().list_workflow_executions(self.request(request))).await?;
        Ok(Listed { found: answer.executions, next: answer.next_page_token })
    }

    /// Starts a workflow; `already_exists` if there is or was one with its id, other than by the same request.
    pub(crate) async fn start(&self, mut request: StartWorkflowExecutionRequest) -> Result<()> {
        request.namespace = self.namespace.clone();
        request.identity = IDENTITY.to_owned();
        let mut service = self.workflows();
        self.write(service.start_workflow_execution(self.request(request))).await.map(drop)
    }

    /// Sends a signal to the current run.
    pub(crate) async fn signal(
        &self,
        id: &str,
        name: &str,
        input: Option<Payloads>,
        request_id: String,
    ) -> Result<()> {
        let request = SignalWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_execution: execution(id, ""),
            signal_name: name.to_owned(),
            input,
            identity: IDENTITY.to_owned(),
            request_id,
            ..Default::default()
        };
        let mut service = self.workflows();
        self.write(service.signal_workflow_execution(self.request(request))).await.map(drop)
    }

    /// Asks the current run to cancel itself.
    pub(crate) async fn cancel(&self, id: &str, request_id: String) -> Result<()> {
        let request = RequestCancelWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_execution: execution(id, ""),
            identity: IDENTITY.to_owned(),
            request_id,
            ..Default::default()
        };
        let mut service = self.workflows();
        let asked = service.request_cancel_workflow_execution(self.request(request));
        self.write(asked).await.map(drop)
    }

    /// Ends the current run, whatever it does. The history keeps the id of the request, if there is one.
    pub(crate) async fn terminate(&self, id: &str, request_id: Option<&str>) -> Result<()> {
        let request = TerminateWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_execution: execution(id, ""),
            reason: "terminated through Unisono".to_owned(),
            details: request_id.map(|id| Payloads { payloads: vec![payload(&id.into())] }),
            identity: IDENTITY.to_owned(),
            ..Default::default()
        };
        let mut service = self.workflows();
        self.write(service.terminate_workflow_execution(self.request(request))).await.map(drop)
    }

    fn workflows(&self) -> Box<dyn WorkflowService> {
        self.connection.workflow_service()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = message.into_request();
        // The server gives up at the same time as the caller.
        request.set_timeout(self.request_timeout);
        request
    }

    /// Waits for the answer of a call that changes nothing.
    async fn read<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        self.write(answer).await.map_err(|e| e.effect(Effect::None))
    }

    /// Waits for the answer of a call; the effect of a failure says whether it can have taken place.
    async fn write<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        self.within(self.request_timeout, answer).await
    }

    async fn within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        self.check_open()?;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(translate(&status)),
            Err(_) => Err(slow()),
        }
    }
}

fn execution(id: &str, run: &str) -> Option<WorkflowExecution> {
    Some(WorkflowExecution { workflow_id: id.to_owned(), run_id: run.to_owned() })
}

async fn tls(settings: &Settings) -> Result<Option<TlsOptions>> {
    if settings.url.scheme() != "https" {
        return Ok(None);
    }
    let mut tls = TlsOptions::default();
    if let Some(path) = &settings.tls_ca {
        tls.server_root_ca_cert = Some(file("tls_ca", path).await?);
    }
    if let Some((certificate, key)) = &settings.tls_identity {
        let certificate = file("tls_certificate", certificate).await?;
        let key = file("tls_key", key).await?;
        let identity = ClientTlsOptions::builder().client_cert(certificate);
        tls.client_tls_options = Some(identity.client_private_key(key).build());
    }
    Ok(Some(tls))
}

async fn file(option: &'static str, path: &Path) -> Result<Vec<u8>> {
    let wrong = |message| {
        Error::new(ErrorKind::InvalidConfig, message)
            .with("option", option)
            .with("file", path.display())
    };
    let read = tokio::fs::read(path).await;
    let read = read.map_err(|e| wrong("the file of an option cannot be read").caused_by(e))?;
    // Without a certificate in it, the client would trust nobody and say no more than that.
    if !read.windows(PEM.len()).any(|part| part == PEM) {
        return Err(wrong("the file of an option is not in PEM form"));
    }
    Ok(read)
}
