//! The HTTP client: one request, one answer, failures translated; small because both engines speak the same JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use unisono_core::{Effect, Error, ErrorKind, Result};

use crate::config::Settings;
use crate::{error, tls};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// A connection pool to one cluster. It connects when needed, and again after the cluster was away.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    authorization: Option<HeaderValue>,
    source: Arc<str>,
    closed: AtomicBool,
}

/// What the cluster said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The JSON.
    pub(crate) body: Bytes,
    writes: bool,
}

impl Client {
    /// A client that has not connected yet.
    pub(crate) fn new(source: &Arc<str>, settings: &Settings) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.request_timeout)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(tls::config(settings.tls_ca.as_deref())?)
            .build()
            .map_err(unusable)?;
        let authorization = authorization(&http, settings)?;
        let mut base = settings.url.clone();
        // These fail only for a url without a host, which the options do not allow.
        let _ = (base.set_username(""), base.set_password(None));
        let (source, closed) = (Arc::clone(source), AtomicBool::new(false));
        Ok(Client { http, base, authorization, source, closed })
    }

    /// Name of the source.
    pub(crate) fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// Ends all use.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Asks without changing anything.
    pub(crate) async fn read(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer> {
        self.send(method, path, JSON, encode(body)?, false).await
    }

    /// Changes something.
    pub(crate) async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer> {
        self.send(method, path, JSON, encode(body)?, true).await
    }

    /// Changes something by lines of JSON.
    pub(crate) async fn write_lines(&self, path: &str, lines: Bytes) -> Result<Answer> {
        self.send(Method::POST, path, LINES, Some(lines), true).await
    }

    /// Reads something at a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, JSON, None, false).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: HeaderValue,
        body: Option<Bytes>,
        writes: bool,
    ) -> Result<Answer> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(error::closed());
        }
        let mut url = self.base.as_str().trim_end_matches('/').to_owned();
        url.push_str(path);
        let mut request = self.http.request(method, url);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, content).body(body);
        }
        let answered = async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            Ok(Answer { status, body: response.bytes().await?, writes })
        };
        answered.await.map_err(|e: reqwest::Error| {
            // What could not connect has sent nothing.
            let effect = if writes && !e.is_connect() { Effect::Unknown } else { Effect::None };
            error::of_transport(e, &self.base).effect(effect)
        })
    }
}

impl Answer {
    /// The answer, unless the cluster refuses.
    pub(crate) fn ok(self) -> Result<Self> {
        if self.status < 300 {
            return Ok(self);
        }
        let e = error::of_status(self.status, &self.body);
        // A server that fails, or a proxy before it, may have done it all the same.
        let unknown = self.writes && self.status >= 500;
        Err(e.effect(if unknown { Effect::Unknown } else { Effect::None }))
    }

    /// The answer; `None` if what the path names is not there.
    pub(crate) fn found(self) -> Result<Option<Self>> {
        if self.status == 404 { Ok(None) } else { self.ok().map(Some) }
    }

    /// The JSON as a value.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(error::unreadable)
    }
}

/// The header that says who asks. The HTTP library makes it of the user and password in a url, and decodes them.
fn authorization(http: &reqwest::Client, settings: &Settings) -> Result<Option<HeaderValue>> {
    let mut value = match &settings.api_key {
        Some(key) => Some(HeaderValue::from_str(&format!("ApiKey {key}")).map_err(|_| {
            Error::new(ErrorKind::InvalidConfig, "the API key has characters that it cannot have")
                .with("option", "api_key")
        })?),
        None => {
            let request = http.get(settings.url.clone()).build().map_err(unusable)?;
            request.headers().get(AUTHORIZATION).cloned()
        }
    };
    if let Some(value) = &mut value {
        value.set_sensitive(true);
    }
    Ok(value)
}

fn unusable(e: reqwest::Error) -> Error {
    Error::internal("the HTTP client cannot be made").caused_by(e.without_url())
}

fn encode(body: Option<&impl Serialize>) -> Result<Option<Bytes>> {
    let encode = |body| {
        serde_json::to_vec(body)
            .map(Bytes::from)
            .map_err(|e| Error::internal("a request cannot be encoded").caused_by(e))
    };
    body.map(encode).transpose()
}
