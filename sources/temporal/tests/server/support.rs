//! A running server for tests: a source over it, and what others do beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use temporalio_client::grpc::WorkflowService;
use temporalio_client::tonic::{Code, IntoRequest};
use temporalio_client::{
    ClientTlsOptions, Connection, ConnectionOptions, RetryOptions, TlsOptions, Url,
};
use temporalio_common::protos::temporal::api::common::v1::WorkflowExecution;
use temporalio_common::protos::temporal::api::enums::v1::IndexedValueType;
use temporalio_common::protos::temporal::api::operatorservice::v1::AddSearchAttributesRequest;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    DeleteWorkflowExecutionRequest, DescribeWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest, TerminateWorkflowExecutionRequest,
};
use unisono_core::clock::SystemClock;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::query::{Comparison, Filter, Path, Query};
use unisono_core::source::{Binding, Reader, Source, Truth};
use unisono_core::write::{Action, Committed, Condition, Idempotency, Unit, Write};
use unisono_core::{
    Change, Entity, Error, Field, FieldType, Key, Position, Result, Role, Timestamp, Value,
    json as records,
};
use unisono_source_sqlite::Sqlite;
use unisono_source_temporal::Temporal;

/// The search attribute that the tests add to the namespace.
pub(crate) const CUSTOMER: &str = "UnisonoCustomer";
/// How long anything may take to be seen.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked for.
const PAUSE: Duration = Duration::from_millis(20);
const KIND: Temporal = Temporal { journal: &Sqlite };

pub(crate) fn text(text: impl Into<String>) -> OptionValue {
    OptionValue::Text(text.into())
}

/// What `engines/up temporal` says of its server, with a prefix that no other test has.
pub(crate) fn options() -> Options {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let file = PathBuf::from(base).join("temporal/source.toml");
    let said = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}\n    start it: engines/up temporal", file.display()));
    let millis = |n| OptionValue::Duration(Duration::from_millis(n));
    let name = format!("s{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut options = BTreeMap::from([
        ("connect_timeout".to_owned(), millis(3_000)),
        ("request_timeout".to_owned(), millis(10_000)),
        ("query_timeout".to_owned(), millis(1_000)),
        ("look_interval".to_owned(), millis(50)),
        ("overlap".to_owned(), millis(5_000)),
    ]);
    for (option, value) in toml::from_str::<toml::Table>(&said).unwrap() {
        let value = value.as_str().unwrap().replace("{namespace}", &name);
        options.insert(option, text(value));
    }
    Options(options)
}

/// Workflows as records with every meaning that a field can have.
pub(crate) fn entity() -> Arc<Entity> {
    let time = FieldType::Timestamp { precision: 6 };
    let fields = vec![
        Field::new("id", FieldType::String),
        Field::new("run_id", FieldType::Uuid),
        Field::new("type", FieldType::String),
        Field::new("status", FieldType::String),
        Field::new("task_queue", FieldType::String),
        Field::new("start_time", time.clone()),
        Field::new("execution_time", time.clone()),
        Field::new("close_time", time),
        Field::new("history_length", FieldType::Integer),
        Field::new("memo", FieldType::Json),
        Field::new("input", FieldType::Json),
        Field::new("result", FieldType::Json),
        Field::new("failure", FieldType::Json),
        Field::new("signal", FieldType::Json),
        Field::new("customer", FieldType::String),
        Field::new("progress", FieldType::Json),
    ];
    Arc::new(Entity::new("order", "id", fields).unwrap())
}

/// A server, and a folder for the journals of sources over it.
pub(crate) struct Server {
    pub(crate) options: Options,
    pub(crate) folder: TempDir,
    connection: Connection,
}

impl Server {
    pub(crate) async fn new() -> Server {
        let options = options();
        let connection = connect(&options).await;
        add_attribute(&connection, options.text("namespace").unwrap()).await;
        Server { options, folder: tempfile::tempdir().unwrap(), connection }
    }

    /// The namespace in the server.
    pub(crate) fn namespace(&self) -> String {
        self.options.text("namespace").unwrap().to_owned()
    }

    /// A task queue of its own.
    pub(crate) fn queue(&self) -> String {
        self.id("queue")
    }

    /// What others know the workflow of a key by.
    pub(crate) fn id(&self, key: &str) -> String {
        format!("{}{key}", self.options.text("prefix").unwrap())
    }

    pub(crate) fn workflows(&self) -> Box<dyn WorkflowService> {
        self.connection.workflow_service()
    }

    /// A source with its journal in the folder.
    pub(crate) async fn source(&self) -> Result<Arc<dyn Source>> {
        open(&self.options, &self.folder).await
    }

    /// The entity opened and prepared.
    pub(crate) async fn orders(&self) -> Orders {
        Orders::of(self.source().await.unwrap(), &self.declared()).await
    }

    /// The options of the entity.
    pub(crate) fn declared(&self) -> Options {
        let list = |item: &str| OptionValue::List(vec![item.to_owned()]);
        Options(BTreeMap::from([
            ("task_queue".to_owned(), text(self.queue())),
            ("queries".to_owned(), list("progress")),
            ("search_attributes".to_owned(), list(&format!("customer={CUSTOMER}"))),
        ]))
    }

    /// Another program sends a signal.
    pub(crate) async fn signal(&self, key: &str, name: &str) {
        let request = SignalWorkflowExecutionRequest {
            namespace: self.namespace(),
            workflow_execution: self.execution(key),
            signal_name: name.to_owned(),
            ..Default::default()
        };
        self.workflows().signal_workflow_execution(request.into_request()).await.unwrap();
    }

    /// Another program ends a workflow.
    pub(crate) async fn terminate(&self, key: &str) {
        let request = TerminateWorkflowExecutionRequest {
            namespace: self.namespace(),
            workflow_execution: self.execution(key),
            reason: "by others".to_owned(),
            ..Default::default()
        };
        self.workflows().terminate_workflow_execution(request.into_request()).await.unwrap();
    }

    /// An operator deletes a workflow, as the server itself does after the retention.
    pub(crate) async fn delete(&self, key: &str) {
        let request = DeleteWorkflowExecutionRequest {
            namespace: self.namespace(),
            workflow_execution: self.execution(key),
        };
        self.workflows().delete_workflow_execution(request.into_request()).await.unwrap();
        // The server takes its time.
        let is_gone = async || {
            let request = DescribeWorkflowExecutionRequest {
                namespace: self.namespace(),
                execution: self.execution(key),
            };
            let described =
                self.workflows().describe_workflow_execution(request.into_request()).await;
            described.is_err_and(|status| status.code() == Code::NotFound)
        };
        until(is_gone, |is_gone| *is_gone).await;
    }

    fn execution(&self, key: &str) -> Option<WorkflowExecution> {
        Some(WorkflowExecution { workflow_id: self.id(key), run_id: String::new() })
    }
}

/// Opens a source of these options, called `flows`.
pub(crate) async fn open(options: &Options, folder: &TempDir) -> Result<Arc<dyn Source>> {
    let environment = Environment { data: folder.path().into(), clock: Arc::new(SystemClock) };
    KIND.open("flows", options, &environment).await
}

async fn connect(options: &Options) -> Connection {
    let file = |option| std::fs::read(options.text(option).unwrap()).unwrap();
    let identity = ClientTlsOptions::builder().client_cert(file("tls_certificate"));
    let mut tls = TlsOptions::default();
    tls.server_root_ca_cert = Some(file("tls_ca"));
    tls.client_tls_options = Some(identity.client_private_key(file("tls_key")).build());
    let options = ConnectionOptions::new(Url::parse(options.text("url").unwrap()).unwrap())
        .identity("test")
        .tls_options(tls)
        .retry_options(RetryOptions::no_retries())
        .dns_load_balancing(None)
        .build();
    Connection::connect(options).await.unwrap()
}

async fn add_attribute(connection: &Connection, namespace: &str) {
    let request = AddSearchAttributesRequest {
        search_attributes: [(CUSTOMER.to_owned(), IndexedValueType::Keyword.into())].into(),
        namespace: namespace.to_owned(),
    };
    let added = connection.operator_service().add_search_attributes(request.into_request()).await;
    let there = added.as_ref().err().is_some_and(|status| status.code() == Code::AlreadyExists);
    assert!(there || added.is_ok(), "{added:?}");
}

/// The entity in an open source.
pub(crate) struct Orders {
    pub(crate) entity: Arc<Entity>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) truth: Arc<dyn Truth>,
    pub(crate) reader: Arc<dyn Reader>,
}

impl Orders {
    pub(crate) async fn of(source: Arc<dyn Source>, declared: &Options) -> Orders {
        let orders = Orders {
            entity: entity(),
            truth: Arc::clone(&source).truth().unwrap(),
            reader: Arc::clone(&source).reader().unwrap(),
            source,
        };
        orders.source.prepare(&[orders.binding(declared)]).await.unwrap();
        orders
    }

    pub(crate) fn binding(&self, declared: &Options) -> Binding {
        binding(&self.entity, declared)
    }

    pub(crate) fn write(&self, key: &str, action: Action, condition: Condition) -> Write {
        let entity = Arc::clone(&self.entity);
        Write { entity, key: Key::from_text(key).unwrap(), action, condition }
    }

    /// A new workflow of the type `Ship` as a write, with the fields given.
    pub(crate) fn put(&self, key: &str, fields: Json) -> Action {
        let mut record = json!({ "id": key, "type": "Ship" });
        for (name, value) in fields.as_object().unwrap() {
            record[name] = value.clone();
        }
        Action::Put(records::parse(&self.entity, &record).unwrap())
    }

    pub(crate) async fn commit(&self, unit: Unit) -> Result<Committed> {
        self.truth.commit(vec![unit]).await?.pop().unwrap()
    }

    pub(crate) async fn commit_one(
        &self,
        key: &str,
        action: Action,
        condition: Condition,
    ) -> Result<Json> {
        let committed = self.commit(unit(self.write(key, action, condition), None)).await?;
        Ok(self.image(&committed.changes[0]))
    }

    pub(crate) async fn start(&self, key: &str, fields: Json) -> Json {
        let action = self.put(key, fields);
        self.commit_one(key, action, Condition::Absent).await.unwrap()
    }

    pub(crate) async fn patch(&self, key: &str, patch: Json) -> Result<Json> {
        self.commit_one(key, Action::Patch(patch), Condition::None).await
    }

    pub(crate) fn image(&self, change: &Change) -> Json {
        change.image.as_ref().map_or(Json::Null, |record| records::to_json(&self.entity, record))
    }

    /// The record by its key; null if there is none.
    pub(crate) async fn get(&self, key: &str) -> Result<Json> {
        let found = self.reader.get(&self.entity, &[Key::from_text(key).unwrap()]).await?.value;
        let found = found.into_iter().next().unwrap();
        Ok(found.map_or(Json::Null, |stored| records::to_json(&self.entity, &stored.record)))
    }

    /// The keys of all records with this status, in order.
    pub(crate) async fn with_status(&self, status: &str) -> Result<Vec<String>> {
        let filter = self.status(status);
        let found = self.reader.query(&self.entity, &Query { filter, ..Query::all() }).await?;
        Ok(found.value.hits.into_iter().map(|hit| hit.stored.key.to_string()).collect())
    }

    pub(crate) fn status(&self, status: &str) -> Filter {
        let path = Path::whole(self.entity.index_of("status").unwrap());
        Filter::Compare(path, Comparison::Eq, Value::String(status.to_owned()))
    }

    /// The changes of the log after a position, as key and image.
    pub(crate) async fn log(&self, after: Position) -> Vec<(String, Json)> {
        let changes = self.truth.read_log(after, 1000, 1 << 20).await.unwrap();
        changes.iter().map(|change| (change.key.to_string(), self.image(change))).collect()
    }

    pub(crate) async fn head(&self) -> Position {
        self.truth.bounds().await.unwrap().head
    }
}

pub(crate) fn binding(entity: &Arc<Entity>, declared: &Options) -> Binding {
    Binding {
        entity: Arc::clone(entity),
        role: Role::Truth,
        place: Arc::clone(entity.name()),
        options: declared.clone(),
    }
}

pub(crate) fn unit(write: Write, again: Option<(&str, u128)>) -> Unit {
    let idempotency = again.map(|(key, fingerprint)| Idempotency { key: key.into(), fingerprint });
    Unit { writes: vec![write], idempotency, time: Timestamp::EPOCH, actor: None, trace: None }
}

/// Asks again and again until the answer is right.
pub(crate) async fn until<T: std::fmt::Debug>(
    mut ask: impl AsyncFnMut() -> T,
    is_right: impl Fn(&T) -> bool,
) -> T {
    let mut last = None;
    let asking = async {
        loop {
            let answer = ask().await;
            if is_right(&answer) {
                return answer;
            }
            last = Some(answer);
            tokio::time::sleep(PAUSE).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("never right; at last: {last:?}"),
    }
}

/// The failure of something that must fail.
pub(crate) fn failed<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("it was carried out"),
        Err(error) => error,
    }
}
