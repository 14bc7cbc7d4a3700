//! Deletes data from outside.

use std::sync::Arc;

use reqwest::{Client, Method, Url};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use unisono_core::kind::Options;
use unisono_core::{Error, Result};

/// Deletes what a namespace holds.
pub(crate) async fn wipe(options: &Options) -> Result<()> {
    let path = format!("/{}*", options.text("prefix").unwrap_or_default());
    send(options, Method::DELETE, &path, String::new()).await.map(drop)
}

/// Sends lines of JSON; answers what the engine says.
pub(crate) async fn send(
    options: &Options,
    method: Method,
    path: &str,
    body: String,
) -> Result<String> {
    let failed = |e: reqwest::Error| Error::internal("the request failed").caused_by(e);
    let text = |name| options.text(name).unwrap_or_default();
    let url = Url::parse(text("url")).map_err(|e| Error::internal("no url").caused_by(e))?;
    let url = url.join(path).map_err(|e| Error::internal("no url").caused_by(e))?;
    let http = Client::builder().tls_backend_preconfigured(trusting(text("tls_ca"))?).build();
    let mut request = http.map_err(failed)?.request(method, url);
    if !body.is_empty() {
        request = request.header("Content-Type", "application/x-ndjson").body(body);
    }
    let answer = request.send().await.map_err(failed)?.error_for_status().map_err(failed)?;
    answer.text().await.map_err(failed)
}

fn trusting(authorities: &str) -> Result<ClientConfig> {
    let wrong = |e: &dyn std::fmt::Display| Error::internal(format!("no authority: {e}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authorities).map_err(|e| wrong(&e))? {
        roots.add(certificate.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|e| wrong(&e))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
