//! TLS: rustls with a provider of its own, never the process's; certificates and names are always checked.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use unisono_core::{Error, ErrorKind, Result};

/// How servers are trusted: by the authorities of a file, or of the system.
pub(crate) fn config(authorities: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(path) => {
            let wrong = |message: &'static str| {
                Error::new(ErrorKind::InvalidConfig, message)
                    .with("option", "tls_ca")
                    .with("path", path.display())
                    .hint("give a PEM file with the certificate of the authority")
            };
            let pem = std::fs::read(path)
                .map_err(|e| wrong("the file of authorities cannot be read").caused_by(e))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|e| wrong("is not PEM").caused_by(e))?;
                roots
                    .add(certificate)
                    .map_err(|e| wrong("holds a certificate that is none").caused_by(e))?;
            }
            if roots.is_empty() {
                return Err(wrong("the file of authorities holds no certificate"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(Error::new(ErrorKind::InvalidConfig, "the system trusts no authority")
                    .hint("install ca-certificates, or give the authority as tls_ca"));
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("TLS cannot be set up").caused_by(e))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
