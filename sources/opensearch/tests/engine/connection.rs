//! Each way in which a cluster cannot be used has one clear error, and one that was away is found again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use unisono_core::{Error, ErrorKind};
use unisono_testkit::Sample;

use crate::server::{Server, binding};

/// Opens with an option given otherwise, which must fail and may not show the password.
async fn refused(server: &Server, given: &[(&str, &str)]) -> Error {
    let Err(error) = server.open_with(given).await else { panic!("{given:?} was accepted") };
    assert_eq!(error.source_name(), Some("search"), "{error:?}");
    assert!(error.hint_text().is_some_and(|hint| !hint.is_empty()), "{error:?}");
    assert!(!format!("{error:?}").contains("secret"), "the password is shown: {error:?}");
    error
}

#[tokio::test]
async fn wrong_credentials_are_named() {
    let server = Server::new();
    let url = server.option("url").replace("app-secret", "other-secret");
    let error = refused(&server, &[("url", &url)]).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("refuses the user, the password"), "{error:?}");
    let (_, host) = server.option("url").split_once('@').unwrap();
    let bare = format!("https://{host}");
    refused(&server, &[("url", &bare)]).await;
    refused(&server, &[("url", &bare), ("api_key", "d3Jvbmc6c2VjcmV0")]).await;
    // What the engine's start script has configured.
    let key = ("api_key", "dW5pc29ubzprZXktc2VjcmV0");
    let source = server.open_with(&[("url", &bare), key]).await.unwrap();
    source.probe().await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_trusted() {
    let server = Server::new();
    // The system's authorities have not signed it.
    let error = refused(&server, &[("tls_ca", "")]).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("certificate is not trusted"), "{error:?}");
    assert!(error.hint_text().unwrap().contains("tls_ca"), "{error:?}");
    // The certificate is for another name.
    let path = forward("127.0.0.2:0", &server);
    let url = format!("https://app:app-secret@127.0.0.2:{}", path.port);
    let error = refused(&server, &[("url", &url)]).await;
    assert!(error.message().contains("certificate is not trusted"), "{error:?}");
}

#[tokio::test]
async fn a_missing_file_of_authorities_is_named() {
    let server = Server::new();
    let error = refused(&server, &[("tls_ca", "/nowhere/ca.crt")]).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_eq!(error.detail("path"), Some("/nowhere/ca.crt"));
}

#[tokio::test]
async fn an_unreachable_host_is_named() {
    let server = Server::new();
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("https://app:app-secret@127.0.0.1:{port}");
    let error = refused(&server, &[("url", &url)]).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.detail("host"), Some(&*format!("127.0.0.1:{port}")));
}

#[tokio::test]
async fn another_version_or_product_is_refused() {
    let server = Server::new();
    for (body, version) in [
        (r#"{"version":{"number":"6.8.23","build_flavor":"default"}}"#, Some("6.8.23")),
        (r#"{"version":{"number":"1.3.2","distribution":"opensearch"}}"#, Some("1.3.2")),
        ("<html>hello</html>", None),
        ("{}", None),
    ] {
        let url = format!("http://127.0.0.1:{}", answering(body));
        let error = refused(&server, &[("url", &url), ("tls_ca", "")]).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{body}");
        assert_eq!(error.detail("version"), version, "{body}");
    }
}

#[tokio::test]
async fn a_cluster_that_was_away_is_found_again() {
    let server = Server::new();
    let path = forward("127.0.0.1:0", &server);
    let url = format!("https://app:app-secret@127.0.0.1:{}", path.port);
    let source = server.open_with(&[("url", &url)]).await.unwrap();
    let entity = Sample::product();
    source.prepare(&[binding(&entity)]).await.unwrap();
    let reader = Arc::clone(&source).reader().unwrap();
    let keys = [Sample::key("p1")];
    reader.get(&entity, &keys).await.unwrap();
    path.cut();
    // What was under way on a connection may break in a way of its own; then nothing can be reached.
    let _ = reader.get(&entity, &keys).await;
    let error = reader.get(&entity, &keys).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(error.entity(), Some("product"));
    path.mend();
    reader.get(&entity, &keys).await.unwrap();
    server.wipe().await;
}

/// A server that gives every request the same answer.
fn answering(body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
            let _ = write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
    port
}

/// A way to the cluster that can be cut.
struct Path {
    port: u16,
    state: Arc<Mutex<(bool, Vec<TcpStream>)>>,
}

impl Path {
    /// Ends all connections, and every later one at once.
    fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        state.1.drain(..).for_each(|stream| _ = stream.shutdown(Shutdown::Both));
    }

    fn mend(&self) {
        self.state.lock().unwrap().0 = false;
    }
}

fn forward(listen: &str, server: &Server) -> Path {
    let target = server.option("url").split_once('@').unwrap().1.to_owned();
    let listener = TcpListener::bind(listen).unwrap();
    let port = listener.local_addr().unwrap().port();
    let state = Arc::new(Mutex::new((false, Vec::new())));
    let shared = Arc::clone(&state);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let near = stream.unwrap();
            let mut state = shared.lock().unwrap();
            if state.0 {
                continue;
            }
            let far = TcpStream::connect(&target).unwrap();
            for (mut from, mut to) in [(&near, &far), (&far, &near)]
                .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
            {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
            state.1.extend([near, far]);
        }
    });
    Path { port, state }
}
