//! Options of a `postgres` source.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};
use unisono_core::kind::{Environment, OptionSpec, OptionType, Options};
use unisono_core::{Error, ErrorKind, Result};

const fn spec(
    name: &'static str,
    ty: OptionType,
    default: Option<&'static str>,
    doc: &'static str,
) -> OptionSpec {
    OptionSpec { name, ty, default, optional: default.is_none(), doc }
}

/// Every option, with its meaning.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        ty: OptionType::Secret,
        default: None,
        optional: false,
        doc: "Where the server is, as libpq has it: postgresql://user:password@host:5432/database?sslmode=verify-full. Several hosts (host1:5432,host2:5432) are the members of one cluster; the writable one with the highest timeline is found by itself.",
    },
    spec(
        "replicas",
        OptionType::List,
        None,
        "URLs of streaming replicas. Queries, counts, totals and scans go to one that is up to date, everything else to the primary.",
    ),
    spec(
        "schema",
        OptionType::String,
        Some("\"public\""),
        "The schema that the tables are in; made if it is not there. Several installations in one database take one each.",
    ),
    spec(
        "tls_ca",
        OptionType::Path,
        None,
        "PEM file with the certificates that sign the server's; with it every connection is encrypted and the server's name is verified.",
    ),
    spec(
        "pool",
        OptionType::Integer { min: 2, max: 1000 },
        Some("16"),
        "The most connections to the primary, and to each replica. One more is kept for commits.",
    ),
    spec(
        "prepared",
        OptionType::Boolean,
        Some("true"),
        "Whether statements are prepared on a connection and kept there. Behind a pooler such as PgBouncer, which is noticed, they never are.",
    ),
    spec(
        "pipelining",
        OptionType::Boolean,
        Some("true"),
        "Whether several statements are sent before the first is answered; false behind a pooler that cannot do this.",
    ),
    spec(
        "connect_timeout",
        OptionType::Duration,
        Some("5s"),
        "The longest that making a connection may take.",
    ),
    spec(
        "request_timeout",
        OptionType::Duration,
        Some("30s"),
        "The longest that one call may wait for the server, a connection included.",
    ),
];

/// One server, with how it is spoken to.
#[derive(Clone)]
pub(crate) struct Server {
    /// Its address for people: `host:port`.
    pub(crate) address: String,
    /// How to connect; names this server alone.
    pub(crate) config: tokio_postgres::Config,
}

/// The options of one source, as Rust values.
pub(crate) struct Settings {
    /// The members of the cluster.
    pub(crate) servers: Vec<Server>,
    /// Streaming replicas.
    pub(crate) replicas: Vec<Server>,
    /// The schema of all tables.
    pub(crate) schema: String,
    /// The certificates to trust; without them connections are plain.
    pub(crate) tls_ca: Option<PathBuf>,
    /// The most connections to each server.
    pub(crate) pool: usize,
    /// Whether statements are prepared.
    pub(crate) prepared: bool,
    /// Whether statements are sent before earlier ones are answered.
    pub(crate) pipelining: bool,
    /// Longest time to connect.
    pub(crate) connect_timeout: Duration,
    /// Longest time of a call.
    pub(crate) request_timeout: Duration,
}

impl Settings {
    /// From checked options.
    pub(crate) fn from_options(options: &Options, environment: &Environment) -> Result<Self> {
        if let Some((option, problem)) = check(options).into_iter().next() {
            return Err(Error::new(ErrorKind::InvalidConfig, problem).with("option", option));
        }
        let connect_timeout = options.duration("connect_timeout").unwrap_or(Duration::from_secs(5));
        let wrong = |message: String| Error::new(ErrorKind::InvalidConfig, message);
        let servers = |url: &str| -> Result<Vec<Server>> {
            let config = parse(url).map_err(wrong)?.config;
            Ok(split(&config, connect_timeout))
        };
        let mut replicas = Vec::new();
        for url in options.list("replicas") {
            replicas.extend(servers(url)?);
        }
        let pool = options.integer("pool").and_then(|n| usize::try_from(n).ok());
        Ok(Settings {
            servers: servers(options.text("url").unwrap_or_default())?,
            replicas,
            schema: options.text("schema").unwrap_or("public").to_owned(),
            tls_ca: options.text("tls_ca").map(|path| environment.data.join(path)),
            pool: pool.unwrap_or(16),
            prepared: options.boolean("prepared"),
            pipelining: options.boolean("pipelining"),
            connect_timeout,
            request_timeout: options.duration("request_timeout").unwrap_or(Duration::from_secs(30)),
        })
    }
}

/// What is wrong with options that are each well formed.
pub(crate) fn check(options: &Options) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let encrypted = options.text("tls_ca").is_some();
    let urls = options.text("url").map(|url| ("url", url)).into_iter();
    let urls = urls.chain(options.list("replicas").iter().map(|url| ("replicas", url.as_str())));
    for (option, url) in urls {
        problems.extend(check_url(url, encrypted).err().map(|problem| (option, problem)));
    }
    let schema = options.text("schema").unwrap_or("public");
    if schema.is_empty() || schema.len() > 63 || schema.contains('\0') || schema.starts_with("pg_")
    {
        problems.push((
            "schema",
            "must be 1 to 63 bytes and not begin with pg_, which PostgreSQL keeps for itself"
                .into(),
        ));
    }
    problems
}

fn check_url(url: &str, encrypted: bool) -> Result<(), String> {
    let Parsed { config, mode } = parse(url)?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("names no host: postgresql://user:password@host:5432/database".into());
    }
    if config.get_user().is_none() {
        return Err("names no user: postgresql://user:password@host:5432/database".into());
    }
    match (mode.as_deref(), encrypted) {
        (Some("disable"), true) => Err("says sslmode=disable, but tls_ca is given".into()),
        (None | Some("disable"), false) if !is_local(&config) => Err(
            "names a host that is not this machine, so the connection must be encrypted: give tls_ca".into(),
        ),
        (None | Some("disable"), false) | (None | Some("require" | "verify-full"), true) => Ok(()),
        (Some("require" | "verify-full"), false) => {
            Err("asks for TLS: give tls_ca, the certificates that sign the server's".into())
        }
        (Some(other), _) => Err(format!(
            "says sslmode={other}; verify-full and, on this machine, disable are possible"
        )),
    }
}

struct Parsed {
    config: tokio_postgres::Config,
    mode: Option<String>,
}

/// The driver knows fewer values of `sslmode` than libpq; TLS always verifies the server here.
fn parse(url: &str) -> Result<Parsed, String> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let mut mode = None;
    let mut kept = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value.to_owned()),
            Some(("sslrootcert", _)) => return Err("says sslrootcert: give tls_ca instead".into()),
            _ => kept.push(pair),
        }
    }
    if !base.starts_with("postgresql://") && !base.starts_with("postgres://") {
        return Err("is not of the form postgresql://user:password@host:5432/database".into());
    }
    let url = format!("{base}?{}", kept.join("&"));
    // The driver's error names the part that is wrong, never a value.
    let config = url.parse::<tokio_postgres::Config>().map_err(|error| {
        let reason = std::error::Error::source(&error).map_or(String::new(), |e| format!(": {e}"));
        format!("is not a URL of PostgreSQL{reason}")
    })?;
    Ok(Parsed { config, mode })
}

fn is_local(config: &tokio_postgres::Config) -> bool {
    let tcp = config.get_hosts().iter().all(|host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        Host::Unix(_) => true,
    });
    tcp && config.get_hostaddrs().iter().all(|ip| ip.is_loopback())
}

/// One configuration for each host, so that each is asked for itself.
fn split(config: &tokio_postgres::Config, connect_timeout: Duration) -> Vec<Server> {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let server = |n: usize| {
        let port =
            config.get_ports().get(n).or(config.get_ports().first()).copied().unwrap_or(5432);
        let mut one = tokio_postgres::Config::new();
        let mut name = String::new();
        match hosts.get(n) {
            Some(Host::Tcp(host)) => {
                one.host(host);
                name.clone_from(host);
            }
            Some(Host::Unix(path)) => {
                one.host_path(path);
                name = path.display().to_string();
            }
            None => {}
        }
        if let Some(address) = addresses.get(n) {
            one.hostaddr(*address);
            if name.is_empty() {
                name = address.to_string();
            }
        }
        one.port(port).connect_timeout(connect_timeout);
        one.target_session_attrs(TargetSessionAttrs::Any)
            .load_balance_hosts(LoadBalanceHosts::Disable);
        one.keepalives_idle(Duration::from_secs(30)).keepalives_interval(Duration::from_secs(10));
        one.keepalives_retries(3).channel_binding(config.get_channel_binding());
        one.application_name(config.get_application_name().unwrap_or("unisono"));
        config.get_user().map(|user| one.user(user));
        config.get_password().map(|password| one.password(password));
        config.get_dbname().map(|name| one.dbname(name));
        config.get_options().map(|options| one.options(options));
        one.ssl_mode(SslMode::Disable);
        Server { address: format!("{name}:{port}"), config: one }
    };
    (0..hosts.len().max(addresses.len())).map(server).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use unisono_core::kind::OptionValue;

    use super::*;

    fn problem(url: &str, tls_ca: bool) -> Option<String> {
        let mut options = BTreeMap::from([("url".to_owned(), OptionValue::Text(url.into()))]);
        if tls_ca {
            options.insert("tls_ca".into(), OptionValue::Text("ca.crt".into()));
        }
        check(&Options(options)).into_iter().next().map(|(_, problem)| problem)
    }

    #[test]
    fn plain_connections_stay_on_this_machine() {
        for url in
            ["postgresql://u:p@127.0.0.1/db", "postgres://u@localhost:1,[::1]:2/db?sslmode=disable"]
        {
            assert_eq!(problem(url, false), None, "{url}");
        }
        for url in
            ["postgresql://u:p@db.example/x", "postgresql://u@127.0.0.1,10.0.0.1/x?sslmode=disable"]
        {
            assert!(problem(url, false).is_some_and(|p| p.contains("tls_ca")), "{url}");
            assert_eq!(problem(&url.replace("?sslmode=disable", ""), true), None, "{url}");
        }
        assert!(problem("postgresql://u@127.0.0.1/x?sslmode=verify-full", false).is_some());
        assert!(problem("postgresql://u@127.0.0.1/x?sslmode=disable", true).is_some());
        assert!(problem("postgresql://u@127.0.0.1/x?sslmode=prefer", true).is_some());
    }

    #[test]
    fn what_is_no_url_is_refused_without_its_password() {
        for url in [
            "",
            "host=a",
            "mysql://u:geheim@h/x",
            "postgresql:///x",
            "postgresql://h/x",
            "postgresql://u:geheim@h:no/x",
        ] {
            let problem = problem(url, true).unwrap_or_else(|| panic!("{url} is taken"));
            assert!(!problem.contains("geheim"), "{problem}");
        }
    }

    #[test]
    fn every_host_is_a_server_of_its_own() {
        let config = parse("postgresql://u:a%40b@h1:1,h2:2/db?application_name=x").unwrap().config;
        let servers = split(&config, Duration::from_secs(1));
        let addresses: Vec<_> = servers.iter().map(|s| s.address.as_str()).collect();
        assert_eq!(addresses, ["h1:1", "h2:2"]);
        assert!(servers.iter().all(|s| s.config.get_hosts().len() == 1
            && s.config.get_password() == Some(b"a@b")
            && s.config.get_application_name() == Some("x")));
    }
}
