//! `[server]` and `[log]`: the HTTP server, who may use it, and how long changes are kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::spelling::closest;
use unisono_core::{Role, Timestamp};
use unisono_policy::declaration::{
    ArchiveDeclaration, LogDeclaration, SamplerDeclaration, SweepDeclaration,
};

use crate::sections::{ARCHIVE, LOG, ROUTE, SAMPLER, SERVER, SWEEP, TLS, TOKEN};
use crate::sources::{DeclaredSource, playing};
use crate::table::{Found, Table};

/// How the HTTP server is run.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerOptions {
    /// Address and port.
    pub listen: SocketAddr,
    /// Encrypts connections, if given.
    pub tls: Option<TlsOptions>,
    /// Who may do what; if empty, every caller may do everything.
    pub tokens: Vec<TokenDeclaration>,
    /// The largest body of a request.
    pub body_bytes_max: usize,
    /// The largest head of a request.
    pub header_bytes_max: usize,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// The most open connections.
    pub connections_max: usize,
    /// The most requests in progress.
    pub requests_max: usize,
    /// Whether an address that is not loopback is served without TLS, behind a proxy that encrypts.
    pub plain_http: bool,
    /// Further paths for the records of entities.
    pub routes: Vec<RouteDeclaration>,
}

/// A further path for the records of an entity, served like `/v1/{entity}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteDeclaration {
    /// Begins with `/`, does not end with one, and needs no percent-encoding; one record is one segment below it.
    pub path: Arc<str>,
    /// The entity whose records they are.
    pub entity: Arc<str>,
    /// Whether answers are wrapped and name their source.
    pub envelope: bool,
}

/// First segments of paths that the server has for itself.
pub const PATHS_RESERVED: &[&str] =
    &["v1", "admin", "console", "docs", "errors", "health", "metrics", "openapi.json"];

/// The files of a certificate; relative paths are below the folder of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM file with the certificate and its chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// What a bearer of a token may do. The token itself is not known, only its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenDeclaration {
    /// Whom it belongs to; the actor of its changes.
    pub name: Arc<str>,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// When it ends to be valid.
    pub expires: Option<Timestamp>,
    /// Names of entities, or beginnings of names followed by `*`.
    pub entities: Vec<Arc<str>>,
    /// What it allows.
    pub access: Access,
}

impl TokenDeclaration {
    /// Whether it is for an entity.
    pub fn covers(&self, entity: &str) -> bool {
        self.entities.iter().any(|pattern| covers(pattern, entity))
    }
}

/// What a token allows; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
    /// Everything, operation included.
    Admin,
}

fn covers(pattern: &str, entity: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => entity.starts_with(beginning),
        None => pattern == entity,
    }
}

/// Reads `[log]`.
pub(crate) fn log(file: &Table<'_>) -> LogDeclaration {
    let Some(table) = file.table("log", &LOG) else { return LogDeclaration::default() };
    let log = LogDeclaration {
        retention: table.duration("retention"),
        changes_max: table
            .integer("changes_max")
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or_default(),
        outcomes: table.duration("outcomes"),
    };
    table.finish();
    log
}

/// Reads `[archive]`, if there is one.
pub(crate) fn archive(
    file: &Table<'_>,
    sources: &BTreeMap<String, DeclaredSource>,
) -> Option<ArchiveDeclaration> {
    let table = file.table("archive", &ARCHIVE)?;
    let source = table.text("source");
    let (every, backups) = (table.duration("every"), table.duration("backups"));
    table.finish();
    // What is missing was reported.
    let source = source.filter(|s| playing(file.report, sources, s, Role::Vault).is_some())?;
    Some(ArchiveDeclaration { source: source.value.into(), every, backups })
}

/// Reads `[sampler]`, if there is one.
pub(crate) fn sampler(file: &Table<'_>) -> Option<SamplerDeclaration> {
    let table = file.table("sampler", &SAMPLER)?;
    let one_in = table.integer("one_in").and_then(|n| u64::try_from(n).ok());
    let pending_max = table.integer("pending_max").and_then(|n| usize::try_from(n).ok());
    table.finish();
    // What is missing was reported.
    Some(SamplerDeclaration { one_in: one_in?, pending_max: pending_max? })
}

/// Reads `[sweep]`.
pub(crate) fn sweep(file: &Table<'_>) -> SweepDeclaration {
    let Some(table) = file.table("sweep", &SWEEP) else { return SweepDeclaration::default() };
    let sweep = SweepDeclaration {
        every: table.duration("every"),
        deep: table.duration("deep"),
        rate: table.integer("rate").and_then(|n| u32::try_from(n).ok()).unwrap_or_default(),
        repair: table.text("repair").is_some_and(|repair| repair.value == "auto"),
    };
    table.finish();
    sweep
}

/// Reads `[server]`; `None` if a problem was reported. `entities` are the declared names.
pub(crate) fn server(table: &Table<'_>, entities: &[&str]) -> Option<ServerOptions> {
    let listen = listen(table);
    let tls = table.table("tls", &TLS).map(|tls| {
        let (certificate, key) = (tls.text("certificate"), tls.text("key"));
        tls.finish();
        Some(TlsOptions { certificate: certificate?.value.into(), key: key?.value.into() })
    });
    let declared = table.tables("tokens", &TOKEN);
    let has_tokens = !declared.is_empty();
    let tokens = tokens(declared, entities);
    let size = |name| table.integer(name).and_then(|n| usize::try_from(n).ok());
    let options = ServerOptions {
        listen: listen.as_ref().map_or(SocketAddr::from(([127, 0, 0, 1], 0)), |l| l.value),
        tls: tls.clone().flatten(),
        tokens,
        body_bytes_max: size("body_bytes_max").unwrap_or_default(),
        header_bytes_max: size("header_bytes_max").unwrap_or_default(),
        request_timeout: table.duration("request_timeout"),
        header_timeout: table.duration("header_timeout"),
        connections_max: size("connections_max").unwrap_or_default(),
        requests_max: size("requests_max").unwrap_or_default(),
        plain_http: table.boolean("plain_http").unwrap_or_default(),
        routes: routes(table.tables("routes", &ROUTE), entities),
    };
    let listen = listen?;
    if !listen.value.ip().is_loopback() {
        let encrypted = tls.is_some() || options.plain_http;
        check_public(table, &listen, encrypted, has_tokens);
    }
    Some(options)
}

/// The server of a file without `[server]`.
pub(crate) static EMPTY: crate::document::Item =
    crate::document::Item { span: 0..0, data: crate::document::Data::Table(Vec::new()) };

/// Reads `[server]` of a file, with defaults if there is none.
pub(crate) fn section(file: &Table<'_>, entities: &[&str]) -> Option<ServerOptions> {
    let table = match file.item("server") {
        Some(found) => Table::new(file.report, &SERVER, found.value, found.spot)?,
        None => Table::new(file.report, &SERVER, &EMPTY, file.spot.clone())?,
    };
    let options = server(&table, entities);
    table.finish();
    options
}

fn listen(table: &Table<'_>) -> Option<Found<SocketAddr>> {
    let Found { value, spot } = table.text("listen")?;
    let text = match value.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => value.clone(),
    };
    match text.parse() {
        Ok(address) => Some(Found { value: address, spot }),
        Err(_) => {
            table.report.error_with(
                &spot,
                format!("`{value}` is not an address and port"),
                "write it like \"127.0.0.1:3000\" or \"[::1]:3000\"",
            );
            None
        }
    }
}

/// Refuses to be open to the network without saying who may use it, or in the clear.
fn check_public(table: &Table<'_>, listen: &Found<SocketAddr>, encrypted: bool, has_tokens: bool) {
    let address = listen.value;
    if !has_tokens {
        table.report.error_with(
            &listen.spot,
            format!("`{address}` can be reached from other machines, and there are no tokens: anyone could do anything"),
            format!("add a [[server.tokens]], or listen on 127.0.0.1:{}", address.port()),
        );
    }
    if !encrypted {
        table.report.error_with(
            &listen.spot,
            format!("`{address}` can be reached from other machines, and there is no TLS: tokens could be read on the way"),
            "add a [server.tls], or set plain_http = true if something in front of the server encrypts",
        );
    }
}

fn tokens(tables: Vec<Table<'_>>, entities: &[&str]) -> Vec<TokenDeclaration> {
    let mut tokens: Vec<TokenDeclaration> = Vec::new();
    for table in tables {
        let (name, hash, expires) = (table.text("name"), hash(&table), expires(&table));
        let access = match table.text("access").map(|found| found.value).as_deref() {
            Some("admin") => Access::Admin,
            Some("write") => Access::Write,
            _ => Access::Read,
        };
        let patterns = patterns(&table, entities);
        if let (Some(name), Some(hash)) = (name, hash) {
            if tokens.iter().any(|t| *t.name == *name.value) {
                table
                    .report
                    .error(&name.spot, format!("there are two tokens named `{}`", name.value));
            }
            if tokens.iter().any(|t| t.hash == hash.value) {
                table.report.error(&hash.spot, "two tokens have the same hash");
            }
            let name = name.value.as_str().into();
            tokens.push(TokenDeclaration {
                name,
                hash: hash.value,
                expires,
                entities: patterns,
                access,
            });
        }
        table.finish();
    }
    tokens
}

fn routes(tables: Vec<Table<'_>>, entities: &[&str]) -> Vec<RouteDeclaration> {
    let mut routes: Vec<RouteDeclaration> = Vec::new();
    for table in tables {
        let (path, entity) = (table.text("path"), table.text("entity"));
        let envelope = table.boolean("envelope").unwrap_or_default();
        if let Some(Found { value, spot }) = &entity
            && !entities.contains(&value.as_str())
        {
            let hint = closest(value, entities.iter().copied())
                .map(|meant| format!("did you mean `{meant}`?"));
            table.report.error_maybe(spot, format!("`{value}` is no declared entity"), hint);
        }
        if let Some(Found { value, spot }) = &path
            && let Some((message, hint)) = wrong_path(value, &routes)
        {
            table.report.error_with(spot, message, hint);
        }
        table.finish();
        if let (Some(path), Some(entity)) = (path, entity) {
            let (path, entity) = (path.value.into(), entity.value.into());
            routes.push(RouteDeclaration { path, entity, envelope });
        }
    }
    routes
}

/// What is wrong with a path, and what to do about it.
fn wrong_path(path: &str, others: &[RouteDeclaration]) -> Option<(String, String)> {
    let Some(rest) = path.strip_prefix('/') else {
        return Some((format!("`{path}` does not begin with /"), format!("write \"/{path}\"")));
    };
    if let Some(shorter) = rest.strip_suffix('/') {
        return Some((format!("`{path}` ends with /"), format!("write \"/{shorter}\"")));
    }
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~');
    let well_formed =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
    if !rest.split('/').all(well_formed) {
        return Some((
            format!("`{path}` is not a path for records"),
            "write words of letters, digits, `-`, `.`, `_` and `~` with / between them, such as \"/shop/products\""
                .to_owned(),
        ));
    }
    let first = rest.split('/').next().unwrap_or_default();
    if PATHS_RESERVED.contains(&first) {
        return Some((
            format!("`{path}` collides with a path of the server: it has /{first} for itself"),
            format!("begin with another word than {}", PATHS_RESERVED.join(", ")),
        ));
    }
    let other = others.iter().find(|other| collide(path, &other.path))?;
    Some((
        format!("`{path}` collides with the route `{}`", other.path),
        "a route has its own path and every path one segment below it: give one of them another"
            .to_owned(),
    ))
}

/// Whether two routes have a path in common: the same, or one where the other has a record.
fn collide(a: &str, b: &str) -> bool {
    let is_below = |path: &str, of: &str| {
        let rest = path.strip_prefix(of).and_then(|rest| rest.strip_prefix('/'));
        rest.is_some_and(|rest| !rest.contains('/'))
    };
    a == b || is_below(a, b) || is_below(b, a)
}

fn hash(table: &Table<'_>) -> Option<Found<[u8; 32]>> {
    let Found { value, spot } = table.text("hash")?;
    let digits = value
        .strip_prefix("sha256:")
        .filter(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()));
    let Some(digits) = digits else {
        table.report.error_with(
            &spot,
            "this is not the hash of a token: `sha256:` and 64 hexadecimal digits",
            "never write the token itself here; printf '%s' TOKEN | sha256sum gives its hash",
        );
        return None;
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(Found { value: bytes, spot })
}

fn expires(table: &Table<'_>) -> Option<Timestamp> {
    let Found { value, spot } = table.text("expires")?;
    match value.parse() {
        Ok(time) => Some(time),
        Err(_) => {
            table
                .report
                .error(&spot, format!("`{value}` is not a time such as 2026-12-31T00:00:00Z"));
            None
        }
    }
}

pub(crate) fn patterns(table: &Table<'_>, entities: &[&str]) -> Vec<Arc<str>> {
    let patterns = table.texts("entities");
    for Found { value, spot } in &patterns {
        let known = value == "*" || entities.iter().any(|entity| covers(value, entity));
        if !known {
            let hint = closest(value, entities.iter().copied())
                .map(|meant| format!("did you mean `{meant}`?"));
            table.report.error_maybe(spot, format!("`{value}` is no declared entity"), hint);
        }
    }
    patterns.into_iter().map(|found| found.value.into()).collect()
}
