//! Everything that a namespace of a server holds, as an operator would copy it, in one text: by the engines' own programs, or
//! by asking for all of it.

use std::process::Command;

use futures::TryStreamExt as _;
use mongodb::bson::Document;
use redis::cmd;
use reqwest::Method;
use unisono_core::kind::Options;

use crate::engines;

/// Everything that a namespace holds.
pub(crate) async fn of(kind: &str, options: &Options) -> String {
    match kind {
        "postgres" => postgres(options),
        "mysql" => mysql(options),
        "redis" => redis(options).await,
        "opensearch" => opensearch(options).await,
        "mongodb" => mongodb(options).await,
        kind => panic!("nobody knows how to dump {kind}"),
    }
}

fn text<'o>(options: &'o Options, name: &str) -> &'o str {
    options.text(name).unwrap_or_default()
}

fn said(command: &mut Command) -> String {
    let dumped = command.output().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    String::from_utf8_lossy(&dumped.stdout).into_owned()
}

fn postgres(options: &Options) -> String {
    let mut dump = Command::new("pg_dump");
    dump.env("PGSSLROOTCERT", text(options, "tls_ca"));
    said(dump.args(["--schema", text(options, "schema"), "--dbname", text(options, "url")]))
}

fn mysql(options: &Options) -> String {
    let url = reqwest::Url::parse(text(options, "url")).unwrap();
    let mut dump = Command::new("mariadb-dump");
    dump.env("MYSQL_PWD", url.password().unwrap_or_default());
    dump.arg(format!("--ssl-ca={}", text(options, "tls_ca")));
    dump.arg(format!("--host={}", url.host_str().unwrap_or_default()));
    dump.arg(format!("--port={}", url.port().unwrap_or_default()));
    dump.arg(format!("--user={}", url.username()));
    // Without other rights than those of an application.
    dump.args(["--single-transaction", "--no-tablespaces", "--skip-hex-blob"]);
    said(dump.arg(url.path().trim_start_matches('/')))
}

async fn redis(options: &Options) -> String {
    let url = text(options, "url");
    let host = url.rsplit_once('@').map_or(url, |(_, host)| host);
    let mut server = engines::redis::connect(host, options.text("tls_ca")).await.unwrap();
    let pattern = format!("{}*", text(options, "prefix"));
    let keys: Vec<String> = cmd("KEYS").arg(pattern).query_async(&mut server).await.unwrap();
    let mut found = String::new();
    for key in keys {
        let ty: String = cmd("TYPE").arg(&key).query_async(&mut server).await.unwrap();
        let mut ask = match ty.as_str() {
            "string" => cmd("GET"),
            "hash" => cmd("HGETALL"),
            "set" => cmd("SMEMBERS"),
            "stream" => cmd("XRANGE"),
            _ => cmd("ZRANGE"),
        };
        ask.arg(&key);
        match ty.as_str() {
            "stream" => drop(ask.arg("-").arg("+")),
            "zset" => drop(ask.arg(0).arg(-1)),
            _ => {}
        }
        let value: redis::Value = ask.query_async(&mut server).await.unwrap();
        found.push_str(&format!("{key}: {}\n", shown(&value)));
    }
    found
}

/// What an answer of Redis holds, as far as it is text.
fn shown(value: &redis::Value) -> String {
    match value {
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        redis::Value::Array(all) => all.iter().map(shown).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}

async fn opensearch(options: &Options) -> String {
    let indexes = format!("/{}*", text(options, "prefix"));
    let ask = async |method, path: &str| {
        let path = format!("{indexes}/{path}");
        engines::opensearch::send(options, method, &path, String::new()).await.unwrap()
    };
    ask(Method::POST, "_refresh").await;
    // Mappings can hold values, too.
    ask(Method::GET, "_mapping").await + &ask(Method::GET, "_search?size=10000").await
}

async fn mongodb(options: &Options) -> String {
    let database = engines::mongodb::open(options).await.unwrap();
    let mut found = String::new();
    for name in database.list_collection_names().await.unwrap() {
        let all = database.collection::<Document>(&name).find(Document::new()).await.unwrap();
        for document in all.try_collect::<Vec<_>>().await.unwrap() {
            found.push_str(&format!("{name}: {document}\n"));
        }
    }
    found
}
