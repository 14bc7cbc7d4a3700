//! Options of a `mysql` source.

use std::path::PathBuf;
use std::time::Duration;

use mysql_async::{Opts, OptsBuilder, SslOpts};
use unisono_core::kind::{Environment, OptionSpec, OptionType, Options};
use unisono_core::{Error, ErrorKind, Result};

/// Every option, with its meaning.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        ty: OptionType::Secret,
        default: None,
        optional: false,
        doc: "The server and the database, as in `mysql://user:password@host:3306/database`, percent-encoded; the database is made if it is not there. `?require_ssl=true` asks for TLS with a certificate of a public authority.",
    },
    OptionSpec {
        name: "tls_ca",
        ty: OptionType::Path,
        default: None,
        optional: true,
        doc: "A PEM file with the authority that signs the server's certificate; turns TLS on, and certificate and host name are verified.",
    },
    OptionSpec {
        name: "replicas",
        ty: OptionType::List,
        default: None,
        optional: true,
        doc: "URLs of read replicas of a truth; reads go to those that have every change this process knows of, and to the primary when there is none.",
    },
    OptionSpec {
        name: "connections",
        ty: OptionType::Integer { min: 1, max: 256 },
        default: Some("8"),
        optional: false,
        doc: "How many reads run at the same time on each server, each on a connection of its own; writes have up to four more.",
    },
    OptionSpec {
        name: "connect_timeout",
        ty: OptionType::Duration,
        default: Some("5s"),
        optional: false,
        doc: "How long opening a connection may take, with TLS and login.",
    },
    OptionSpec {
        name: "request_timeout",
        ty: OptionType::Duration,
        default: Some("30s"),
        optional: false,
        doc: "How long the server may take for one exchange, waiting for locks of other programs included.",
    },
];

/// The options of one source, as Rust values.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The server that writes.
    pub(crate) primary: Opts,
    /// Its read replicas.
    pub(crate) replicas: Vec<Opts>,
    /// Connections for reads, to each server.
    pub(crate) connections: usize,
    /// Longest wait for a connection.
    pub(crate) connect_timeout: Duration,
    /// Longest wait for one exchange.
    pub(crate) request_timeout: Duration,
}

impl Settings {
    /// From checked options.
    pub(crate) fn from_options(options: &Options, environment: &Environment) -> Result<Self> {
        let wrong = |(option, message): (&'static str, String)| {
            Error::new(ErrorKind::InvalidConfig, message).with("option", option)
        };
        let ca = options.text("tls_ca").map(|path| environment.data.join(path));
        if let Some(path) = ca.as_ref().filter(|path| !path.is_file()) {
            return Err(Error::new(ErrorKind::InvalidConfig, "there is no such file")
                .with("option", "tls_ca")
                .with("path", path.display())
                .hint("give the path of the PEM file of the authority that signs the server's certificate"));
        }
        let server = |option, url: &str| {
            parse(url).map(|opts| with_ca(opts, ca.as_ref())).map_err(|e| wrong((option, e)))
        };
        let replicas = options.list("replicas").iter().map(|url| server("replicas", url));
        Ok(Settings {
            primary: server("url", options.text("url").unwrap_or_default())?,
            replicas: replicas.collect::<Result<_>>()?,
            connections: options
                .integer("connections")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(8)
                .max(1),
            connect_timeout: options.duration("connect_timeout").unwrap_or(Duration::from_secs(5)),
            request_timeout: options.duration("request_timeout").unwrap_or(Duration::from_secs(30)),
        })
    }
}

/// What is wrong with options that are each well formed.
pub(crate) fn check(options: &Options) -> Vec<(&'static str, String)> {
    let replicas = options.list("replicas").iter().map(|url| ("replicas", url.as_str()));
    let urls = options.text("url").map(|url| ("url", url)).into_iter().chain(replicas);
    let mut problems: Vec<_> =
        urls.filter_map(|(option, url)| parse(url).err().map(|e| (option, e))).collect();
    for option in ["connect_timeout", "request_timeout"] {
        if options.duration(option).is_some_and(|d| d < Duration::from_millis(1)) {
            problems.push((option, "must be at least 1ms".to_owned()));
        }
    }
    problems
}

/// A URL that names a database and does not weaken TLS. The message never repeats the URL: it holds a password.
fn parse(url: &str) -> Result<Opts, String> {
    let opts = Opts::from_url(url).map_err(|e| {
        // The driver's own message can repeat a part of the URL.
        let what = match e {
            mysql_async::UrlError::UnknownParameter { param } => {
                format!("has an unknown parameter {param}")
            }
            mysql_async::UrlError::UnsupportedScheme { .. } => {
                "does not begin with mysql://".into()
            }
            _ => "is not of the form mysql://user:password@host:3306/database".into(),
        };
        format!("{what}; percent-encode special characters of user and password")
    })?;
    let database = opts.db_name().unwrap_or_default();
    if database.is_empty() || database.len() > 64 || database.contains('\0') {
        return Err("must name a database of 1 to 64 characters after the host".into());
    }
    let weak = |tls: &SslOpts| tls.accept_invalid_certs() || tls.skip_domain_validation();
    if opts.ssl_opts().is_some_and(weak) {
        return Err(
            "must not turn the verification of the certificate off; give tls_ca instead".into()
        );
    }
    Ok(opts)
}

fn with_ca(opts: Opts, ca: Option<&PathBuf>) -> Opts {
    let builder = OptsBuilder::from_opts(opts)
        // A socket of the same machine may belong to another server than the port that was asked for.
        .prefer_socket(false)
        .tcp_nodelay(true);
    match ca {
        Some(path) => builder
            .ssl_opts(
                SslOpts::default()
                    .with_root_certs(vec![path.clone().into()])
                    .with_disable_built_in_roots(true),
            )
            .into(),
        None => builder.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_core::kind::OptionValue;

    fn problems(url: &str) -> Vec<(&'static str, String)> {
        let text = OptionValue::Text(url.to_owned());
        check(&Options([("url".to_owned(), text)].into()))
    }

    #[test]
    fn a_url_names_a_database_and_keeps_tls_safe() {
        assert!(problems("mysql://a:b%40c@db.example:3306/app").is_empty());
        assert!(problems("mysql://a:b@db.example/app?require_ssl=true").is_empty());
        for url in [
            "mysql://a:secret@db.example",
            "mysql://a:secret@db.example/",
            "postgres://a:secret@db.example/app",
            "mysql://a:secret@db.example/app?nonsense=1",
            "mysql://a:secret@db.example/app?require_ssl=true&verify_ca=false",
            "mysql://a:secret@db.example/app?require_ssl=true&verify_identity=false",
            "secret",
        ] {
            let found = problems(url);
            assert_eq!(found.len(), 1, "{url}");
            assert!(!found[0].1.contains("secret"), "the message must not show the URL: {found:?}");
        }
    }
}
