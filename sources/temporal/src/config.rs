//! Options of a `temporal` source, and of an entity in it.

use std::path::PathBuf;
use std::time::Duration;

use temporalio_client::Url;
use unisono_core::kind::{Environment, OptionSpec, OptionType, Options};
use unisono_core::{Error, ErrorKind, Result};

const fn option(
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
        doc: "Where the frontend of the server is: http://host:7233, or https:// for TLS.",
    },
    option(
        "namespace",
        OptionType::String,
        Some("default"),
        "The Temporal namespace; it must be registered.",
    ),
    option(
        "prefix",
        OptionType::String,
        None,
        "Put before every key to make the workflow id; workflows without it are not seen. It sets several installations in one Temporal namespace apart.",
    ),
    option(
        "path",
        OptionType::Path,
        None,
        "The file of the journal, which holds the log; NAME.journal.db for a source called NAME unless given. One process at a time.",
    ),
    option(
        "api_key",
        OptionType::Secret,
        None,
        "Sent as bearer token with each call; it needs https.",
    ),
    option(
        "tls_ca",
        OptionType::Path,
        None,
        "A PEM file with the certificates of the authority that signed the server's; without it, those that the system trusts.",
    ),
    option(
        "tls_certificate",
        OptionType::Path,
        None,
        "A PEM file with the certificate that this client shows; `tls_key` belongs to it.",
    ),
    option("tls_key", OptionType::Path, None, "The PEM file with the key of `tls_certificate`."),
    option(
        "connect_timeout",
        OptionType::Duration,
        Some("3s"),
        "How long to try to reach the server before opening fails.",
    ),
    option(
        "request_timeout",
        OptionType::Duration,
        Some("10s"),
        "How long one request to the server may take.",
    ),
    option(
        "query_timeout",
        OptionType::Duration,
        Some("2s"),
        "How long a worker may take to answer one of the declared queries; afterwards its field is null.",
    ),
    option(
        "look_interval",
        OptionType::Duration,
        Some("1s"),
        "The pause between two looks at what others did with the workflows.",
    ),
    option(
        "overlap",
        OptionType::Duration,
        Some("2m"),
        "How far behind the last closed workflow that was seen each look begins; longer than the visibility store ever lags.",
    ),
    option(
        "parallel",
        OptionType::Integer { min: 1, max: 256 },
        Some("16"),
        "How many requests a look or a write of many records has under way at the same time.",
    ),
];

/// What can be declared of an entity whose truth is such a source.
pub(crate) const ENTITY_OPTIONS: &[OptionSpec] = &[
    option(
        "workflow_type",
        OptionType::String,
        None,
        "Only workflows of this type are records of the entity; new ones get it.",
    ),
    option(
        "task_queue",
        OptionType::String,
        None,
        "Only workflows of this task queue are records of the entity; new ones get it.",
    ),
    option(
        "queries",
        OptionType::List,
        None,
        "The fields that a query of the workflow fills: its name, or \"field=name\".",
    ),
    option(
        "search_attributes",
        OptionType::List,
        None,
        "The fields that are search attributes: the name, or \"field=Name\".",
    ),
];

/// The options of one source, as Rust values.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Where the server is.
    pub(crate) url: Url,
    /// The Temporal namespace.
    pub(crate) namespace: String,
    /// Beginning of every workflow id.
    pub(crate) prefix: String,
    /// The file of the journal.
    pub(crate) path: PathBuf,
    /// Bearer token.
    pub(crate) api_key: Option<String>,
    /// Certificates to trust.
    pub(crate) tls_ca: Option<PathBuf>,
    /// Certificate and key of this client.
    pub(crate) tls_identity: Option<(PathBuf, PathBuf)>,
    /// Longest time to connect.
    pub(crate) connect_timeout: Duration,
    /// Longest time of one request.
    pub(crate) request_timeout: Duration,
    /// Longest time of one query.
    pub(crate) query_timeout: Duration,
    /// Pause between two looks.
    pub(crate) look_interval: Duration,
    /// How far a look reaches back.
    pub(crate) overlap: Duration,
    /// Requests under way at the same time, at least 1.
    pub(crate) parallel: usize,
}

impl Settings {
    /// From checked options of the source with this name.
    pub(crate) fn from_options(
        name: &str,
        options: &Options,
        environment: &Environment,
    ) -> Result<Self> {
        let wrong = |option: &'static str, message: String| {
            let error = Error::new(ErrorKind::InvalidConfig, message).on("open").at(name);
            error.with("option", option)
        };
        if let Some((option, message)) = check(options).into_iter().next() {
            return Err(wrong(option, message));
        }
        let url = options.text("url").and_then(|url| Url::parse(url).ok());
        let url = url.ok_or_else(|| wrong("url", "a temporal source needs a url".to_owned()))?;
        let path = |option| options.text(option).map(|path| environment.data.join(path));
        let journal = || environment.data.join(format!("{name}.journal.db"));
        let duration =
            |option, default| options.duration(option).unwrap_or(Duration::from_secs(default));
        let parallel = options.integer("parallel").and_then(|n| usize::try_from(n).ok());
        Ok(Settings {
            url,
            namespace: options.text("namespace").unwrap_or("default").to_owned(),
            prefix: options.text("prefix").unwrap_or_default().to_owned(),
            path: path("path").unwrap_or_else(journal),
            api_key: options.text("api_key").map(str::to_owned),
            tls_ca: path("tls_ca"),
            tls_identity: path("tls_certificate").zip(path("tls_key")),
            connect_timeout: duration("connect_timeout", 3),
            request_timeout: duration("request_timeout", 10),
            query_timeout: duration("query_timeout", 2),
            look_interval: duration("look_interval", 1),
            overlap: duration("overlap", 120),
            parallel: parallel.unwrap_or(16).clamp(1, 256),
        })
    }
}

/// What is wrong with options that are each well formed.
pub(crate) fn check(options: &Options) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let mut report = |name, message: &str| problems.push((name, message.to_owned()));
    if let Some(text) = options.text("url") {
        match Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
                report("url", "must look like http://host:7233 or https://host:7233");
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                report("url", "cannot carry a user: Temporal knows `api_key` and certificates");
            }
            Ok(url) => {
                let plain = url.scheme() == "http";
                for name in ["api_key", "tls_ca", "tls_certificate"] {
                    if plain && options.text(name).is_some() {
                        report(name, "needs TLS: write https:// in `url`");
                    }
                }
            }
            Err(_) => report("url", "must look like http://host:7233 or https://host:7233"),
        }
    }
    if options.text("tls_certificate").is_some() != options.text("tls_key").is_some() {
        report("tls_certificate", "and `tls_key` belong together: give both or neither");
    }
    for name in ["namespace", "prefix"] {
        if options.text(name).is_some_and(|text| text.is_empty() || !is_quotable(text)) {
            report(name, "must be 1 to 200 characters without quotes and backslashes");
        }
    }
    for name in ["connect_timeout", "request_timeout", "query_timeout", "look_interval", "overlap"]
    {
        if options.duration(name).is_some_and(|d| d.is_zero()) {
            report(name, "must be longer than zero");
        }
    }
    problems
}

/// Whether a text can stand in a visibility query between quotes as it is.
pub(crate) fn is_quotable(text: &str) -> bool {
    text.len() <= 200 && !text.contains(|c: char| "'\"`\\".contains(c) || c.is_control())
}
