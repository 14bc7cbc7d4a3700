//! Options of a `mongodb` source.

use std::path::PathBuf;
use std::time::Duration;

use mongodb::options::{ConnectionString, HostInfo, Tls};
use unisono_core::kind::{Environment, OptionSpec, OptionType, Options};
use unisono_core::{Error, ErrorKind, Result};

/// Every option, with its meaning.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        ty: OptionType::Secret,
        default: None,
        optional: false,
        doc: "Where the servers are, such as mongodb://user:password@one:27017,two:27017/?replicaSet=rs&tls=true; special characters in user and password are percent-encoded.",
    },
    OptionSpec {
        name: "database",
        ty: OptionType::String,
        default: Some("unisono"),
        optional: false,
        doc: "The database that holds a collection for each entity; it sets several installations in one deployment apart.",
    },
    OptionSpec {
        name: "tls_ca",
        ty: OptionType::Path,
        default: None,
        optional: true,
        doc: "A PEM file with the certificates of the authority that signed the servers'; it turns TLS on. Without it, tls=true in the url trusts public authorities.",
    },
    OptionSpec {
        name: "connect_timeout",
        ty: OptionType::Duration,
        default: Some("3s"),
        optional: false,
        doc: "How long to try to reach a server before a call fails.",
    },
    OptionSpec {
        name: "request_timeout",
        ty: OptionType::Duration,
        default: Some("30s"),
        optional: false,
        doc: "How long one request to a server may take.",
    },
    OptionSpec {
        name: "connections",
        ty: OptionType::Integer { min: 1, max: 1000 },
        default: Some("16"),
        optional: false,
        doc: "The most connections to each server.",
    },
];

/// The options of one source, as Rust values.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The connection string; holds the password.
    pub(crate) url: String,
    /// The database.
    pub(crate) database: String,
    /// Certificates to trust instead of the public authorities.
    pub(crate) tls_ca: Option<PathBuf>,
    /// Longest wait for a server.
    pub(crate) connect_timeout: Duration,
    /// Longest time of one request.
    pub(crate) request_timeout: Duration,
    /// Most connections to each server.
    pub(crate) connections: u32,
}

impl Settings {
    /// From checked options.
    pub(crate) fn from_options(options: &Options, environment: &Environment) -> Result<Self> {
        let url = options.text("url").ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "a mongodb source needs a url")
                .with("option", "url")
        })?;
        let duration =
            |name, default| options.duration(name).unwrap_or(Duration::from_secs(default));
        let connections = options.integer("connections").and_then(|n| u32::try_from(n).ok());
        Ok(Settings {
            url: url.to_owned(),
            database: options.text("database").unwrap_or("unisono").to_owned(),
            tls_ca: options.text("tls_ca").map(|path| environment.data.join(path)),
            connect_timeout: duration("connect_timeout", 3),
            request_timeout: duration("request_timeout", 30),
            connections: connections.unwrap_or(16),
        })
    }
}

/// What is wrong with options that are each well formed.
pub(crate) fn check(options: &Options) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if let Some(url) = options.text("url")
        && let Err(message) = check_url(url, options.text("tls_ca").is_some())
    {
        problems.push(("url", message.to_owned()));
    }
    if let Some(name) = options.text("database")
        && (name.is_empty()
            || name.len() > 63
            || name.contains(|c: char| "/\\. \"$*<>:|?\0".contains(c)))
    {
        problems.push((
            "database",
            "must be 1 to 63 bytes without spaces and /\\.\"$*<>:|?".to_owned(),
        ));
    }
    for name in ["connect_timeout", "request_timeout"] {
        if options.duration(name).is_some_and(|d| d.is_zero()) {
            problems.push((name, "must be longer than zero".to_owned()));
        }
    }
    problems
}

/// Never repeats the url, which holds a password.
fn check_url(url: &str, has_ca: bool) -> Result<(), &'static str> {
    if url.starts_with("mongodb+srv:") {
        return Err(
            "mongodb+srv:// is not supported: write mongodb:// with the hosts that the SRV record names",
        );
    }
    let parsed = ConnectionString::parse(url).map_err(|_| {
        "must look like mongodb://user:password@host:27017/?option=value, with special characters percent-encoded"
    })?;
    match parsed.tls {
        Some(Tls::Enabled(tls)) if tls.allow_invalid_certificates == Some(true) => {
            return Err(
                "must not switch the check of certificates off: name the authority by `tls_ca` instead",
            );
        }
        Some(Tls::Disabled) if has_ca => {
            return Err("switches TLS off, but `tls_ca` is given");
        }
        _ => {}
    }
    match parsed.host_info {
        HostInfo::HostIdentifiers(hosts) if !hosts.is_empty() => Ok(()),
        _ => Err("must name a host"),
    }
}
