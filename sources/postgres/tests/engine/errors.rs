//! What goes wrong at the server has one clear error each, with its remedy and without the password.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use unisono_core::kind::{OptionValue, Options};
use unisono_core::{Effect, Error, ErrorKind, Role};
use unisono_testkit::Sample;

use crate::common::{Database, background, open, prepare, put};

/// Checks kind, remedy and place, and that no password is shown.
fn check(error: &Error, kind: ErrorKind, remedy: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    let hint = error.hint_text().unwrap_or_default();
    assert!(hint.contains(remedy), "the remedy must speak of {remedy}: {error:?}");
    assert!(!format!("{error:?}").contains("-secret"), "a password is shown: {error:?}");
    assert_eq!(error.source_name(), Some("tested"), "{error:?}");
    assert_eq!(error.effect_on_data(), Effect::None, "{error:?}");
}

async fn refused(options: &Options) -> Error {
    open(options).await.err().expect("opening must fail")
}

fn with_ca(mut options: Options, ca: &Path) -> Options {
    options.0.insert("tls_ca".into(), OptionValue::Text(ca.display().to_string()));
    options
}

#[tokio::test]
async fn each_way_not_to_get_in_has_its_own_error() {
    let db = Database::new();
    let ca = db.ca.clone().unwrap();
    let at = |from: &str, to: &str| db.options_at(&db.url.replace(from, to));
    let unavailable = ErrorKind::Unavailable;
    for (options, kind, message, remedy) in [
        // A certificate that signed nothing.
        (
            with_ca(db.options(), &ca.with_file_name("server.crt")),
            unavailable,
            "not signed by the authority",
            "tls_ca",
        ),
        (
            with_ca(db.options(), &ca.with_file_name("missing.crt")),
            ErrorKind::InvalidConfig,
            "cannot be read",
            "PEM",
        ),
        (
            with_ca(db.options(), &ca.with_file_name("ca.key")),
            ErrorKind::InvalidConfig,
            "no certificate",
            "PEM",
        ),
        (at("app-secret", "wrong-secret"), unavailable, "refuses the user", "password"),
        (at("app:app-secret", "nobody:x-secret"), unavailable, "refuses the user", "password"),
        (at(":app-secret", ""), unavailable, "wants a password", "url"),
        (at("5541/app", "5541/nothing"), unavailable, "does not exist", "create it"),
        (at(":5541/", ":1/"), unavailable, "cannot be reached", "host and port"),
        (at("127.0.0.1", "nowhere.invalid"), unavailable, "cannot be reached", "host and port"),
        (at("127.0.0.1", "127.0.0.2"), unavailable, "cannot be reached", "host and port"),
        // A standby alone.
        (at(":5541/", ":5542/"), ErrorKind::NotPrimary, "no server takes writes", "url"),
    ] {
        let error = refused(&options).await;
        check(&error, kind, remedy);
        assert!(error.message().contains(message), "{message}: {error:?}");
    }
    let mut plain = db.options();
    plain.0.remove("tls_ca");
    check(&refused(&plain).await, unavailable, "encryption");
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let db = Database::new();
    // The server's certificate is for 127.0.0.1 and localhost.
    let mut options = db.options();
    let url = "postgresql://app:app-secret@another.example:5541/app?hostaddr=127.0.0.1";
    options.0.insert("url".into(), OptionValue::Text(url.into()));
    let error = refused(&options).await;
    check(&error, ErrorKind::Unavailable, "certificate");
    assert!(error.message().contains("another host"), "{error:?}");
}

#[tokio::test]
async fn a_silent_host_is_given_up() {
    let db = Database::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut options = db.options_at(&db.url.replace(":5541/", &format!(":{port}/")));
    let limit = OptionValue::Duration(Duration::from_millis(200));
    options.0.insert("connect_timeout".into(), limit);
    check(&refused(&options).await, ErrorKind::Unavailable, "timeout");
}

/// A user of the running server with the password `user-secret`, who may do nothing yet.
async fn user(db: &Database) -> (String, Options) {
    let name = format!("u_{}", db.schema);
    // Whoever is a member of it can drop what belongs to it.
    let sql = format!("CREATE ROLE {name} LOGIN PASSWORD 'user-secret'; GRANT {name} TO app");
    db.outside().await.batch_execute(&sql).await.unwrap();
    let url = db.url.replace("app:app-secret", &format!("{name}:user-secret"));
    let options = db.options_at(&url);
    (name, options)
}

#[tokio::test]
async fn rights_that_are_missing_are_told() {
    let db = Database::new();
    let entity = Sample::product();
    let (name, options) = user(&db).await;
    let source = open(&options).await.unwrap();
    let error = prepare(&source, Role::Truth, &[&entity]).await.unwrap_err();
    check(&error, ErrorKind::PermissionDenied, "CREATE");

    db.prepared(Role::Truth, &[&entity]).await;
    let error = prepare(&source, Role::Truth, &[&entity]).await.unwrap_err();
    check(&error, ErrorKind::PermissionDenied, "GRANT");
    let outside = db.outside().await;
    let grant = async |rights: &str, objects: &str| {
        let sql = format!("GRANT {rights} ON {objects} {} TO {name}", db.schema);
        outside.batch_execute(&sql).await.unwrap();
    };
    grant("USAGE", "SCHEMA").await;
    grant("SELECT", "ALL TABLES IN SCHEMA").await;
    for role in [Role::Truth, Role::Follower] {
        let error = prepare(&source, role, &[&entity]).await.unwrap_err();
        check(&error, ErrorKind::PermissionDenied, "GRANT");
        assert!(error.detail("tables").is_some_and(|t| t.contains("product")), "{error:?}");
    }
    grant("INSERT, UPDATE, DELETE", "ALL TABLES IN SCHEMA").await;
    prepare(&source, Role::Truth, &[&entity]).await.unwrap();
    let truth = Arc::clone(&source).truth().unwrap();
    assert!(truth.commit(vec![put(&entity, Sample::product_record(1))]).await.unwrap()[0].is_ok());

    // A right that is taken away later is told by the write.
    let sql = format!("REVOKE UPDATE ON {}.unisono_head FROM {name}", db.schema);
    outside.batch_execute(&sql).await.unwrap();
    let error = truth.commit(vec![put(&entity, Sample::product_record(2))]).await.unwrap_err();
    check(&error, ErrorKind::PermissionDenied, "UPDATE");
    outside.batch_execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}")).await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn a_user_whose_transactions_are_read_only_is_told_so() {
    let db = Database::new();
    let entity = Sample::product();
    db.prepared(Role::Truth, &[&entity]).await;
    let (name, options) = user(&db).await;
    let outside = db.outside().await;
    let sql = format!(
        "GRANT USAGE ON SCHEMA {0} TO {name}; GRANT ALL ON ALL TABLES IN SCHEMA {0} TO {name}; \
         ALTER ROLE {name} SET default_transaction_read_only = on",
        db.schema
    );
    outside.batch_execute(&sql).await.unwrap();
    let source = open(&options).await.unwrap();
    let error = prepare(&source, Role::Truth, &[&entity]).await.unwrap_err();
    check(&error, ErrorKind::NotPrimary, "default_transaction_read_only");
    outside.batch_execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}")).await.unwrap();
    db.drop().await;
}

/// What a server answers to a connection: nothing is wrong with it but its age.
async fn old_server(version: i64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    background(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 4096];
        let _ = stream.read(&mut buffer).await.unwrap();
        let (authenticated, ready) = (message(b'R', &[0; 4]), message(b'Z', b"I"));
        stream.write_all(&[authenticated, ready.clone()].concat()).await.unwrap();
        let _ = stream.read(&mut buffer).await.unwrap();
        let cells = [0_i64, 1, version].map(|n| cell(&n.to_be_bytes())).concat();
        let row = [&5_i16.to_be_bytes()[..], &cells, &cell(b"UTF8"), &cell(b"on")].concat();
        let columns: Vec<u8> = [20, 20, 20, 25, 25].into_iter().flat_map(column).collect();
        let description = [&5_i16.to_be_bytes()[..], &columns].concat();
        let answer = [
            message(b'1', b""),
            message(b'2', b""),
            message(b'T', &description),
            message(b'D', &row),
            message(b'C', b"SELECT 1\0"),
            ready,
        ];
        stream.write_all(&answer.concat()).await.unwrap();
        let _ = stream.read(&mut buffer).await;
    });
    port
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as i32 + 4).to_be_bytes();
    [&[tag][..], &length, body].concat()
}

fn cell(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as i32).to_be_bytes()[..], bytes].concat()
}

/// A column of a type, in binary.
fn column(ty: i32) -> Vec<u8> {
    let size: i16 = if ty == 20 { 8 } else { -1 };
    [&b"c\0"[..], &[0; 6], &ty.to_be_bytes(), &size.to_be_bytes(), &[0xff; 4], &[0, 1]].concat()
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    for (version, is_taken) in [(140_012, false), (150_000, true)] {
        let port = old_server(version).await;
        let db = Database::at(&format!("postgresql://app@127.0.0.1:{port}/app"));
        let opened = open(&db.options()).await;
        assert_eq!(opened.is_ok(), is_taken, "{version}");
        if let Err(error) = opened {
            check(&error, ErrorKind::Unsupported, "PostgreSQL 15");
            assert_eq!(error.detail("version"), Some("14"));
        }
    }
}

#[tokio::test]
async fn a_database_that_keeps_no_unicode_is_refused() {
    let server = crate::server::Server::primary(5544).await;
    let sql = "CREATE DATABASE old ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0";
    server.client().await.batch_execute(sql).await.unwrap();
    let db = Database::at(&server.url().replace("/postgres", "/old"));
    check(&refused(&db.options()).await, ErrorKind::Unsupported, "UTF8");
}
