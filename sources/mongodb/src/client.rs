//! [`Client`]: the connections of a source, with the rules that every request keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::error::Result as NativeResult;
use mongodb::options::{
    ClientOptions, ReadPreference, SelectionCriteria, Tls, TlsOptions, WriteConcern,
};
use mongodb::{ClientSession, Cursor, Database};
use unisono_core::{Effect, Error, ErrorKind, Result};

use crate::config::Settings;
use crate::error::translate;

/// The connections to one deployment, and the database in it.
pub(crate) struct Client {
    name: Arc<str>,
    driver: mongodb::Client,
    database: Database,
    request_timeout: Duration,
    transactions: bool,
    closed: AtomicBool,
}

impl Client {
    /// Connects, which fails within the connect timeout if no server answers.
    pub(crate) async fn open(name: &str, settings: &Settings) -> Result<Self> {
        let named = |e: Error| e.on("open").at(name);
        let options = options(settings).await.map_err(named)?;
        let native = |e| named(translate(e));
        let driver = mongodb::Client::with_options(options).map_err(native)?;
        let database = driver.database(&settings.database);
        let greeting = database.run_command(doc! { "hello": 1 });
        let limit = settings.connect_timeout.saturating_mul(2);
        let greeting = within(limit, greeting).await.map_err(named)?.map_err(native)?;
        Ok(Client {
            name: name.into(),
            driver,
            database,
            request_timeout: settings.request_timeout,
            transactions: has_transactions(&greeting),
            closed: AtomicBool::new(false),
        })
    }

    /// The name of the source.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The database of the source.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Whether the deployment is a replica set or a sharded cluster, which have transactions.
    pub(crate) fn transactions(&self) -> bool {
        self.transactions
    }

    /// Lets go of all connections; later requests fail.
    pub(crate) async fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.driver.clone().shutdown().immediate(true).await;
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Unavailable, "the source is closed").at(&self.name));
        }
        Ok(())
    }

    /// Makes a request, unless the source is closed, for as long as one may take.
    ///
    /// Boxed, because the compiler cannot see through the driver's request types whether the future is `Send`.
    pub(crate) fn call<'a, T: Send + 'a>(
        &'a self,
        request: impl IntoFuture<Output = NativeResult<T>, IntoFuture: Send + 'a>,
    ) -> BoxFuture<'a, Result<T>> {
        let request = request.into_future();
        Box::pin(async move {
            self.check_open()?;
            within(self.request_timeout, request).await?.map_err(translate)
        })
    }

    /// The same for a request that writes: when it fails, it may have taken place.
    pub(crate) fn write<'a, T: Send + 'a>(
        &'a self,
        request: impl IntoFuture<Output = NativeResult<T>, IntoFuture: Send + 'a>,
    ) -> BoxFuture<'a, Result<T>> {
        let answer = self.call(request);
        Box::pin(async move { answer.await.map_err(|e| e.effect(Effect::Unknown)) })
    }

    /// Writes by a command that every server knows, in a session's transaction if one is given.
    pub(crate) async fn command(
        &self,
        command: RawDocumentBuf,
        session: Option<&mut ClientSession>,
    ) -> Result<Document> {
        let request = self.database.run_raw_command(command);
        match session {
            Some(session) => self.write(request.session(session)).await,
            None => self.write(request).await,
        }
    }

    /// A session for a transaction.
    pub(crate) async fn session(&self) -> Result<ClientSession> {
        self.call(self.driver.start_session()).await
    }

    /// The next document of an answer.
    pub(crate) async fn next(&self, cursor: &mut Cursor<Document>) -> Result<Option<Document>> {
        if !self.call(cursor.advance()).await? {
            return Ok(None);
        }
        cursor.deserialize_current().map(Some).map_err(translate)
    }
}

async fn within<T>(limit: Duration, request: impl IntoFuture<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, request.into_future()).await.map_err(|_| {
        Error::new(ErrorKind::Timeout, "the server did not answer in time")
            .with("seconds", limit.as_secs_f64())
            .hint("raise request_timeout if the server is only slow")
    })
}

async fn options(settings: &Settings) -> Result<ClientOptions> {
    if let Some(file) = &settings.tls_ca
        && let Err(cause) = tokio::fs::metadata(file).await
    {
        return Err(Error::new(ErrorKind::InvalidConfig, "the file of `tls_ca` cannot be read")
            .with("file", file.display())
            .caused_by(cause));
    }
    let mut options = ClientOptions::parse(&settings.url).await.map_err(|_| {
        // The driver's own words may repeat parts of the url, which holds a password.
        Error::new(ErrorKind::InvalidConfig, "the url is not a MongoDB connection string")
            .with("option", "url")
    })?;
    if let Some(file) = &settings.tls_ca {
        let mut tls = match options.tls.take() {
            Some(Tls::Enabled(tls)) => tls,
            _ => TlsOptions::default(),
        };
        tls.ca_file_path = Some(file.clone());
        options.tls = Some(Tls::Enabled(tls));
    }
    options.connect_timeout = Some(settings.connect_timeout);
    options.server_selection_timeout = Some(settings.connect_timeout);
    options.max_pool_size = Some(settings.connections);
    // A secondary may be behind the one that told the position.
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.write_concern = Some(WriteConcern::majority());
    options.app_name.get_or_insert_with(|| "unisono".to_owned());
    Ok(options)
}

fn has_transactions(greeting: &Document) -> bool {
    let cluster = greeting.contains_key("setName")
        || greeting.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    cluster && greeting.contains_key("logicalSessionTimeoutMinutes")
}
