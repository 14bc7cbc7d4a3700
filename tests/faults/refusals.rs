//! What cannot work at the start: each gives one error that names the source and the remedy, the rest of the system
//! starts, and a source that is `required` refuses instead.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use unisono_core::{Context, Error, ErrorKind};
use unisono_testkit::proxy::{Network, Proxy};

use crate::scenario::{Place, Role};
use crate::site::Site;
use crate::stubs;
use crate::workload::{ENTITY, preload};

/// How long opening may take with a server that does not answer; its `connect_timeout` is 2 s, its
/// `request_timeout` 4 s.
const OPEN_MAX: Duration = Duration::from_secs(12);
/// The words of every password that occurs.
const SECRETS: [&str; 5] =
    ["app-secret", "tester-secret", "wrong-secret", "reader-secret", "nothing-secret"];

/// Something that cannot work.
struct Case {
    name: &'static str,
    /// What is replaced in the options of the source.
    change: Vec<(String, String)>,
    /// Every one of these must be allowed.
    kinds: &'static [ErrorKind],
    /// The remedy has one of these words.
    remedy: &'static [&'static str],
    /// What the network does meanwhile.
    network: Network,
}

const LOGIN: &[ErrorKind] = &[ErrorKind::Unavailable, ErrorKind::Unauthenticated];
const RIGHTS: &[ErrorKind] = &[ErrorKind::Unavailable, ErrorKind::PermissionDenied];
const UNAVAILABLE: &[ErrorKind] = &[ErrorKind::Unavailable];
const SILENT: &[ErrorKind] = &[ErrorKind::Unavailable, ErrorKind::Timeout];
const UNSUPPORTED: &[ErrorKind] = &[ErrorKind::Unsupported];
const MISSING: &[ErrorKind] = &[ErrorKind::NotFound];

/// What the security plugin of a cluster answers users without rights; the server for tests has none, so the proxy
/// before it says it.
const OPENSEARCH_USERS: &str = r#"
    forbid() { # USER ACTION WHEN: the answer to the user's requests that meet the condition.
      reason="no permissions for [$2] and User [name=$1, backend_roles=[], requestedTenant=null]"
      cause="\"type\":\"security_exception\",\"reason\":\"$reason\""
      printf '{"error":{"root_cause":[{%s}],%s},"status":403}' "$cause" "$cause" >"$DIR/$1.json"
      basic=$(printf '%s' "$1:$1-secret" | base64)
      sed -i "/^userlist/a\  user $1 insecure-password $1-secret" "$DIR/proxy.cfg"
      sed -i "/http-request auth/a\  http-request return status 403 content-type application/json file $DIR/$1.json if { req.hdr(authorization) -m str \"Basic $basic\" } $3" "$DIR/proxy.cfg"
    }
    forbid reader 'indices:data/write/bulk[s]' '!{ method GET HEAD }'
    forbid nothing cluster:monitor/main ''
    kill -9 "$(cat "$DIR/proxy.pid")"
    . "$REPOSITORY/engines/lib.sh"
    while alive "$(cat "$DIR/proxy.pid")"; do :; done
    "$REPOSITORY/engines/restart" "$DIR"
    wait_until 20 curl -fsS --cacert "$DIR/tls/ca.crt" -u app:app-secret "https://127.0.0.1:$PORT/" >&2"#;
/// A key that may read the bucket and nothing else, and one that may do nothing.
const S3_KEYS: &str = r#"
    for key in reader nothing; do
      "${UNISONO_ENGINES:-/tmp/unisono-engines}/bin/versitygw" admin -a tester -s tester-secret --allow-insecure \
        -er "https://127.0.0.1:$PORT" create-user -a "$key" -s "$key-secret" -r user >&2
    done
    policy='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["reader"]},
      "Action":["s3:ListBucket","s3:GetObject"],"Resource":["arn:aws:s3:::unisono","arn:aws:s3:::unisono/*"]}]}'
    hash=$(printf '%s' "$policy" | sha256sum | cut -d' ' -f1)
    curl -sS --fail-with-body --cacert "$DIR/ca.crt" --aws-sigv4 aws:amz:us-east-1:s3 --user tester:tester-secret \
      -H "x-amz-content-sha256: $hash" -X PUT --data-binary "$policy" "https://127.0.0.1:$PORT/unisono?policy=" >&2"#;

impl Case {
    fn new(
        name: &'static str,
        change: &[(&str, &str)],
        kinds: &'static [ErrorKind],
        remedy: &'static [&'static str],
    ) -> Self {
        let change = change.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Case { name, change, kinds, remedy, network: Network::Whole }
    }
}

/// Tries everything that cannot work with a kind; answers the names of what was tried.
pub(crate) async fn all(site: &Site) -> Result<Vec<&'static str>, String> {
    let mut tried = Vec::new();
    let mut wrong = Vec::new();
    for case in cases(site).await? {
        match refused(site, &case).await {
            Ok(()) => tried.push(case.name),
            Err(error) => wrong.push(format!("{}: {error}", case.name)),
        }
    }
    if wrong.is_empty() { Ok(tried) } else { Err(wrong.join("\n")) }
}

async fn cases(site: &Site) -> Result<Vec<Case>, String> {
    let other = site.run(
        ". \"$REPOSITORY/engines/lib.sh\"; certificates \"$DISK/other\" >&2; echo \"$DISK/other/ca.crt\"",
    )?;
    let ours = site.run("sed -n 's/^tls_ca = \"\\(.*\\)\"/\\1/p' \"$DIR/source.toml\"")?;
    let mut cases = vec![
        Case::new("wrong CA", &[(&ours, &other)], UNAVAILABLE, &["authority", "tls_ca"]),
        Case::new("unreachable host", &[("PORT", "1")], UNAVAILABLE, &["runs", "reach"]),
        Case {
            network: Network::HalfOpen,
            ..Case::new("silent host", &[], SILENT, &["server", "runs", "firewall"])
        },
    ];
    let password = |from| {
        Case::new(
            "wrong password",
            &[(from, "wrong-secret")],
            LOGIN,
            &["password", "credentials", "secret"],
        )
    };
    let user = |name, user: &str| {
        let (name_and_password, app) = (format!("{user}:{user}-secret@"), "app:app-secret@");
        Case::new(name, &[(app, &name_and_password)], RIGHTS, &["grant", "GRANT"])
    };
    let version = |change: &[(&str, &str)]| {
        Case::new("wrong version", change, UNSUPPORTED, &["use ", "take "])
    };
    match site.kind.column {
        "redis" => {
            site.run(
                r#"cli() { REDISCLI_AUTH=admin-secret redis-cli -e --tls --cacert "$DIR/tls/ca.crt" -p "$PORT" "$@"; }
                   cli ACL SETUSER reader on '>reader-secret' '~t*' +@read +info +eval_ro +ping
                   cli ACL SETUSER nothing on '>nothing-secret' '~other:*' +@all"#,
            )?;
            let old = stubs::redis("6.0.16").await?.to_string();
            cases.extend([password("app-secret"), user("read-only user", "reader")]);
            cases.push(user("no rights", "nothing"));
            cases.push(version(&[
                ("rediss://", "redis://"),
                ("app:app-secret@", ""),
                ("PORT", &old),
                ("tls_ca", "#"),
            ]));
        }
        "postgres" => {
            site.run(
                r#"export PGPASSWORD=super-secret
                   psql -qv ON_ERROR_STOP=1 "host=127.0.0.1 port=$PORT user=postgres dbname=app sslmode=verify-full sslrootcert=$DIR/tls/ca.crt" \
                     -c "CREATE ROLE reader LOGIN PASSWORD 'reader-secret'" -c "GRANT pg_read_all_data TO reader" \
                     -c "CREATE ROLE nothing LOGIN PASSWORD 'nothing-secret'""#,
            )?;
            let old = stubs::postgres().await?.to_string();
            cases.extend([password("app-secret"), user("read-only user", "reader")]);
            cases.push(user("no rights", "nothing"));
            cases.push(version(&[("app:app-secret@", "app@"), ("PORT", &old), ("tls_ca", "#")]));
        }
        "mysql" => {
            let old = stubs::mysql("10.2.44-MariaDB").await?.to_string();
            cases.extend([password("app-secret"), user("read-only user", "reader")]);
            cases.push(user("no rights", "nothing"));
            cases.push(version(&[("app:app-secret@", "app@"), ("PORT", &old), ("tls_ca", "#")]));
        }
        "opensearch" => {
            site.run(OPENSEARCH_USERS)?;
            let old = stubs::opensearch("1.7.6").await?.to_string();
            cases.extend([password("app-secret"), user("read-only user", "reader")]);
            cases.push(user("no rights", "nothing"));
            cases.push(version(&[
                ("https://", "http://"),
                ("app:app-secret@", ""),
                ("PORT", &old),
                ("tls_ca", "#"),
            ]));
        }
        "s3" => {
            site.run(S3_KEYS)?;
            let key = |name, key: &str| {
                let (quoted, secret) = (format!("\"{key}\""), format!("{key}-secret"));
                let change = [("\"tester\"", &*quoted), ("tester-secret", &*secret)];
                Case::new(name, &change, RIGHTS, &["let the access key"])
            };
            cases.extend([password("tester-secret"), key("read-only user", "reader")]);
            cases.push(key("no rights", "nothing"));
            let unknown = &[("\"tester\"", "\"nobody\"")];
            cases.push(Case::new("wrong key", unknown, LOGIN, &["access_key"]));
            let elsewhere = &[("s3://unisono/", "s3://elsewhere/")];
            cases.push(Case::new("missing bucket", elsewhere, MISSING, &["make the bucket"]));
        }
        _ => {}
    }
    Ok(cases)
}

async fn refused(site: &Site, case: &Case) -> Result<(), String> {
    let mut place = Place::over(site).await?;
    let port = place.proxy.as_ref().map_or(0, Proxy::port).to_string();
    if case.name == "read-only user" {
        // What is there was made by a user with every right.
        let made = place.settle_in(Role::Follower).await?;
        made.close().await.map_err(|e| e.to_string())?;
    }
    for (from, to) in &case.change {
        let from = if from == "PORT" { &port } else { from };
        if !place.far.contains(from.as_str()) {
            return Err(format!("the options have no {from}"));
        }
        place.far = place.far.replace(from.as_str(), to);
    }
    if let Some(proxy) = &place.proxy {
        proxy.set(case.network);
    }
    let began = Instant::now();
    match place.open(Role::Follower, true).await {
        Ok(_) => return Err("it was opened, though the source is required".to_owned()),
        Err(error) => is_clear(&error, case)?,
    }
    if began.elapsed() > OPEN_MAX {
        return Err(crate::report::late(format_args!("the refusal took {:?}", began.elapsed())));
    }
    let unisono = place.open(Role::Follower, false).await.map_err(|e| format!("{e:?}"))?;
    let engine = unisono.engine();
    preload(engine, 20, 7).await?;
    let entity = Arc::clone(engine.entity(ENTITY).map_err(|e| e.to_string())?);
    let deadline = Instant::now() + OPEN_MAX;
    loop {
        let status = engine.status().await;
        let near = status.deliveries.iter().find(|d| &*d.source == "near");
        let far = status.sources.iter().find(|s| &*s.name == "far");
        let state = far.map_or("", |s| &s.state);
        let rest_runs = near.is_some_and(|d| d.lag_changes == 0 && d.position.as_u64() > 0);
        if rest_runs && state.contains("far") {
            hides_secrets(state)?;
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("the rest does not run, or status does not tell: {status:#?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let context = Context::default();
    let count = engine.count(&context, &entity, &unisono_core::query::Filter::All, None);
    let count = count.await.map_err(|e| format!("a read failed: {e}"))?;
    if count.value != 20 {
        return Err(format!("{} of 20 records", count.value));
    }
    unisono.close().await.map_err(|e| format!("closing: {e}"))
}

fn is_clear(error: &Error, case: &Case) -> Result<(), String> {
    let hint = error.hint_text().unwrap_or_default();
    let shown = format!("{error:?}");
    let is = case.kinds.contains(&error.kind())
        && error.source_name() == Some("far")
        && case.remedy.iter().any(|word| hint.contains(word));
    hides_secrets(&shown)?;
    if is {
        Ok(())
    } else {
        Err(format!("unclear, wanted {:?} and {:?}: {shown}", case.kinds, case.remedy))
    }
}

fn hides_secrets(text: &str) -> Result<(), String> {
    match SECRETS.iter().find(|secret| text.contains(*secret)) {
        Some(_) => Err(format!("a password is shown: {text}")),
        None => Ok(()),
    }
}
