//! TLS from files.

use rcgen::generate_simple_self_signed;
use reqwest::{Certificate, Version};
use unisono::config::TlsOptions;

use crate::harness::start;

#[tokio::test]
async fn a_certificate_from_files_is_served() {
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = start(|o| o.tls = Some(TlsOptions { certificate, key })).await;

    let trusted = Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only([trusted])
        .http1_only()
        .resolve("localhost", server.address)
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/v1/product/_count", server.address.port());
    let response = client.get(url).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_11));
    assert_eq!(response.text().await.unwrap(), r#"{"count":0}"#);

    let plain = server.request("GET", "/health/live").send().await;
    assert!(plain.is_err(), "plain HTTP is not spoken on a TLS port");
}
