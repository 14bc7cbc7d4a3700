//! A server that cannot be reached, refuses, or goes away: each gives one clear error, and what was open goes on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{Orders, Server, binding, entity, failed, open, text, until};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use unisono_core::kind::OptionValue;
use unisono_core::{Effect, ErrorKind, Result};

#[tokio::test]
async fn each_way_not_to_get_in_says_what_to_do() {
    let server = Server::new().await;
    let port = free_port().await;
    let folder = server.folder.path();
    let own = rogue(folder);
    std::fs::write(folder.join("nonsense.pem"), "nonsense").unwrap();
    type Change<'a> = &'a dyn Fn(&mut BTreeMap<String, OptionValue>);
    let cases: [(&str, Change<'_>, ErrorKind, &str); 9] = [
        (
            "nobody there",
            &|o| set(o, "url", format!("https://127.0.0.1:{port}")),
            ErrorKind::Unavailable,
            "`url`",
        ),
        (
            "no such host",
            &|o| set(o, "url", "https://nobody.invalid:7233"),
            ErrorKind::Unavailable,
            "`url`",
        ),
        ("wrong authority", &|o| set(o, "tls_ca", &own), ErrorKind::Unavailable, "`tls_ca`"),
        (
            "no certificate",
            &|o| {
                o.remove("tls_certificate");
                o.remove("tls_key");
            },
            // Whether the server's reason still arrives is a matter of luck.
            ErrorKind::Unavailable,
            "`tls_certificate`",
        ),
        (
            "no TLS",
            &|o| {
                set(o, "url", "http://127.0.0.1:7233");
                for option in ["tls_ca", "tls_certificate", "tls_key"] {
                    o.remove(option);
                }
            },
            ErrorKind::Unavailable,
            "https://",
        ),
        (
            "no such namespace",
            &|o| set(o, "namespace", "nowhere"),
            ErrorKind::InvalidConfig,
            "`namespace`",
        ),
        ("no file", &|o| set(o, "tls_ca", "nowhere.pem"), ErrorKind::InvalidConfig, "tls_ca"),
        ("no PEM", &|o| set(o, "tls_ca", "nonsense.pem"), ErrorKind::InvalidConfig, "tls_ca"),
        (
            "half a certificate",
            &|o| {
                o.remove("tls_key");
            },
            ErrorKind::InvalidConfig,
            "tls_key",
        ),
    ];
    for (case, change, kind, named) in cases {
        let mut options = server.options.clone();
        change(&mut options.0);
        let error = failed(open(&options, &server.folder).await);
        let by_luck = [ErrorKind::Unauthenticated, ErrorKind::Timeout];
        let told = case == "no certificate" && by_luck.contains(&error.kind());
        assert!(error.kind() == kind || told, "{case}: {error:?}");
        assert_eq!(error.effect_on_data(), Effect::None, "{case}");
        assert_eq!(
            (error.source_name(), error.operation()),
            (Some("flows"), Some("open")),
            "{case}"
        );
        let said = format!("{error} {}", error.hint_text().unwrap_or_default());
        assert!(said.contains(named), "{case}: {error:?}");
    }
}

#[tokio::test]
async fn a_declaration_that_the_namespace_cannot_fulfil_is_refused() {
    let server = Server::new().await;
    for attribute in ["UnisonoNowhere", "StartTime"] {
        let mut declared = server.declared();
        let list = OptionValue::List(vec![format!("customer={attribute}")]);
        declared.0.insert("search_attributes".to_owned(), list);
        let source = server.source().await.unwrap();
        let error = failed(source.prepare(&[binding(&entity(), &declared)]).await);
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{error:?}");
        assert_eq!(error.detail("search_attribute"), Some(attribute));
        source.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_goes_away_is_found_again() {
    let server = Server::new().await;
    let address = server.options.text("url").unwrap().replace("https://", "").parse().unwrap();
    let mut proxy = Proxy::new(address).await;
    let mut options = server.options.clone();
    set(&mut options.0, "url", format!("https://127.0.0.1:{}", proxy.port));
    let orders =
        Orders::of(open(&options, &server.folder).await.unwrap(), &server.declared()).await;
    orders.start("a", json!({})).await;
    assert_eq!(orders.with_status("running").await.unwrap(), ["a"]);

    proxy.cut();
    let kinds = async || kinds(&orders).await;
    until(kinds, |kinds| kinds.iter().all(Option::is_some)).await;
    for kind in kinds().await.into_iter().flatten() {
        assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout), "{kind:?}");
    }
    let error = failed(orders.patch("a", json!({ "signal": { "name": "go" } })).await);
    assert!(error.hint_text().is_some(), "{error:?}");
    // Meanwhile others go on.
    server.terminate("a").await;

    proxy.join().await;
    until(kinds, |kinds| kinds.iter().all(Option::is_none)).await;
    assert_eq!(orders.with_status("terminated").await.unwrap(), ["a"]);
}

/// How a look at one, a list, the log and a probe fail at present.
async fn kinds(orders: &Orders) -> [Option<ErrorKind>; 4] {
    fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
        result.err().map(|e| e.kind())
    }
    [
        kind(orders.get("a").await),
        kind(orders.with_status("running").await),
        kind(orders.truth.bounds().await),
        kind(orders.source.probe().await),
    ]
}

fn set(options: &mut BTreeMap<String, OptionValue>, name: &str, value: impl Into<String>) {
    options.insert(name.to_owned(), text(value));
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// The certificate of an authority that signed nothing.
fn rogue(folder: &std::path::Path) -> String {
    let name = folder.join("rogue.crt");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=Rogue", "-keyout", "/dev/null", "-out"])
        .arg(&name)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    name.to_string_lossy().into_owned()
}

/// A way to the server that can be cut.
struct Proxy {
    port: u16,
    to: SocketAddr,
    going: JoinSet<()>,
}

impl Proxy {
    async fn new(to: SocketAddr) -> Proxy {
        let mut proxy = Proxy { port: free_port().await, to, going: JoinSet::new() };
        proxy.join().await;
        proxy
    }

    fn cut(&mut self) {
        self.going.abort_all();
    }

    async fn join(&mut self) {
        while self.going.join_next().await.is_some() {}
        let (to, listener) = (self.to, TcpListener::bind(("127.0.0.1", self.port)).await.unwrap());
        self.going.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                open.spawn(async move {
                    let far = tokio::time::timeout(Duration::from_secs(3), TcpStream::connect(to));
                    if let Ok(Ok(mut far)) = far.await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
    }
}
