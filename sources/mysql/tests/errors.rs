//! What goes wrong at the server has one clear error each, with its remedy and without the password.
#![expect(clippy::expect_used, reason = "a test fails by it")]

mod common;

use std::time::Duration;

use common::{Database, open, prepare};
use mysql_async::prelude::Queryable;
use unisono_core::kind::OptionValue;
use unisono_core::{Effect, Error, ErrorKind, Role};
use unisono_testkit::Sample;

/// Checks kind, remedy and place, and that no password is shown.
fn check(error: &Error, kind: ErrorKind, remedy: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    let hint = error.hint_text().unwrap_or_default();
    assert!(hint.contains(remedy), "the remedy must speak of {remedy}: {error:?}");
    assert!(!format!("{error:?}").contains("-secret"), "a password is shown: {error:?}");
    assert_eq!(error.source_name(), Some("tested"), "{error:?}");
    assert_eq!(error.effect_on_data(), Effect::None, "{error:?}");
}

async fn refused(options: &unisono_core::kind::Options) -> Error {
    open(options).await.err().expect("opening must fail")
}

#[tokio::test]
async fn a_wrong_authority_is_refused() {
    let db = Database::new();
    // A certificate that signed nothing.
    let wrong = db.ca.with_file_name("server.crt");
    let error = refused(&db.options_with(db.url(), Some(&wrong))).await;
    check(&error, ErrorKind::Unavailable, "tls_ca");
    assert_eq!(error.detail("server"), Some("127.0.0.1:3351"));
}

#[tokio::test]
async fn a_missing_file_of_the_authority_is_named() {
    let db = Database::new();
    let missing = db.ca.with_file_name("missing.crt");
    let error = refused(&db.options_with(db.url(), Some(&missing))).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    assert!(error.detail("path").is_some_and(|p| p.ends_with("missing.crt")), "{error:?}");
}

#[tokio::test]
async fn a_plain_connection_is_refused() {
    let db = Database::new();
    check(&refused(&db.options_with(db.url(), None)).await, ErrorKind::Unauthenticated, "tls_ca");
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let db = Database::new();
    let url = db.url().replace("app-secret", "wrong-secret");
    let error = refused(&db.options_with(&url, Some(&db.ca))).await;
    check(&error, ErrorKind::Unauthenticated, "password");
}

#[tokio::test]
async fn a_user_without_rights_is_refused() {
    let db = Database::new();
    let url = db.url().replace("app:app-secret", "nothing:nothing-secret");
    let error = refused(&db.options_with(&url, Some(&db.ca))).await;
    check(&error, ErrorKind::PermissionDenied, "GRANT");
}

#[tokio::test]
async fn a_user_that_may_only_read_cannot_prepare() {
    let db = Database::new();
    db.open().await;
    let url = db.url().replace("app:app-secret", "reader:reader-secret");
    let source = open(&db.options_with(&url, Some(&db.ca))).await.unwrap();
    let error = prepare(&source, Role::Truth, &[&Sample::product()]).await.unwrap_err();
    check(&error, ErrorKind::PermissionDenied, "GRANT");
    db.drop().await;
}

#[tokio::test]
async fn a_right_that_is_missing_for_one_table_is_told() {
    let db = Database::new();
    let entity = Sample::product();
    db.prepared(Role::Truth, &[&entity]).await;
    let url = db.url().replace("app:app-secret", "reader:reader-secret");
    let source = open(&db.options_with(&url, Some(&db.ca))).await.unwrap();
    // Everything is there, so that preparing has nothing to write: it is refused nevertheless, not at the first change.
    let error = prepare(&source, Role::Truth, &[&entity]).await.unwrap_err();
    check(&error, ErrorKind::PermissionDenied, "GRANT");
    assert_eq!(error.entity(), Some(&**entity.name()));
    db.drop().await;
}

#[tokio::test]
async fn a_host_that_is_not_there_is_told() {
    let db = Database::new();
    let url = db.url().replace(":3351/", ":1/");
    let error = refused(&db.options_with(&url, Some(&db.ca))).await;
    check(&error, ErrorKind::Unavailable, "host and port");
    assert_eq!(error.detail("server"), Some("127.0.0.1:1"));
}

#[tokio::test]
async fn a_host_that_is_silent_is_given_up() {
    let db = Database::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = db.url().replace(":3351/", &format!(":{port}/"));
    let mut options = db.options_with(&url, Some(&db.ca));
    let limit = OptionValue::Duration(Duration::from_millis(200));
    options.0.insert("connect_timeout".into(), limit);
    check(&refused(&options).await, ErrorKind::Unavailable, "timeout");
}

#[tokio::test]
async fn a_replica_is_no_truth() {
    let db = Database::new();
    db.open().await;
    db.replicated().await;
    let replica = open(&db.options_with(&db.replica_url(), Some(&db.ca))).await.unwrap();
    let error = prepare(&replica, Role::Truth, &[&Sample::product()]).await.unwrap_err();
    check(&error, ErrorKind::NotPrimary, "primary");
    db.drop().await;
}

#[tokio::test]
async fn a_truth_whose_tables_are_gone_does_not_begin_anew() {
    let db = Database::new();
    let entity = Sample::product();
    let source = db.prepared(Role::Truth, &[&entity]).await;
    common::commit(&source, vec![common::put(&entity, Sample::product_record(1))]).await;
    let sql = format!("DROP DATABASE `{0}`; CREATE DATABASE `{0}`", db.name);
    db.outside().await.query_drop(sql).await.unwrap();
    let truth = std::sync::Arc::clone(&source).truth().unwrap();
    let unit = common::put(&entity, Sample::product_record(2));
    let error = truth.commit(vec![unit]).await.unwrap_err();
    check(&error, ErrorKind::Unavailable, "backup");
    db.drop().await;
}
