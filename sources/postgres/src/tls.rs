//! TLS with the server's name and certificate verified, by a provider of this process's choice.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;
use unisono_core::{Error, ErrorKind, Result};

/// The connector that trusts the certificates of a PEM file.
pub(crate) fn connector(tls_ca: &Path) -> Result<MakeRustlsConnect> {
    let wrong = |message: &'static str| {
        Error::new(ErrorKind::InvalidConfig, message)
            .with("option", "tls_ca")
            .with("path", tls_ca.display())
            .hint(
                "give the PEM file with the certificate of the authority that signed the server's",
            )
    };
    let certificates = CertificateDer::pem_file_iter(tls_ca)
        .map_err(|e| wrong("the file cannot be read").caused_by(e))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|e| wrong("the file is not PEM").caused_by(e))?;
        roots.add(certificate).map_err(|e| wrong("a certificate cannot be used").caused_by(e))?;
    }
    if roots.is_empty() {
        return Err(wrong("the file holds no certificate"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("the TLS provider has no protocol").caused_by(e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
