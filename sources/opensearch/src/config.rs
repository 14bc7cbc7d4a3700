//! The options of an `opensearch` source.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use unisono_core::kind::{Environment, OptionSpec, OptionType, Options};
use unisono_core::{Error, ErrorKind, Result};

/// The longest prefix: with it, a place and what is appended, a name stays below the engine's 255 bytes.
const PREFIX_BYTES_MAX: usize = 100;

/// What can be set, for the manual, the schema and the check.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        ty: OptionType::Secret,
        default: None,
        optional: false,
        doc: "Where the cluster is, such as https://user:password@host:9200; special characters in user and password are percent-encoded.",
    },
    OptionSpec {
        name: "api_key",
        ty: OptionType::Secret,
        default: None,
        optional: true,
        doc: "An encoded API key, instead of user and password in the url.",
    },
    OptionSpec {
        name: "tls_ca",
        ty: OptionType::Path,
        default: None,
        optional: true,
        doc: "PEM file with the authorities that may sign the server's certificate; those of the system unless given.",
    },
    OptionSpec {
        name: "prefix",
        ty: OptionType::String,
        default: Some("\"\""),
        optional: false,
        doc: "What the name of every index begins with, so that several installations can share a cluster.",
    },
    OptionSpec {
        name: "shards",
        ty: OptionType::Integer { min: 1, max: 1024 },
        default: Some("1"),
        optional: false,
        doc: "How many shards an index is made with; those that are there keep theirs.",
    },
    OptionSpec {
        name: "replicas",
        ty: OptionType::Integer { min: 0, max: 16 },
        default: Some("1"),
        optional: false,
        doc: "How many copies of each shard an index is made with; the cluster needs a node more than that.",
    },
    OptionSpec {
        name: "connect_timeout",
        ty: OptionType::Duration,
        default: Some("\"3s\""),
        optional: false,
        doc: "How long a connection may take to be made.",
    },
    OptionSpec {
        name: "request_timeout",
        ty: OptionType::Duration,
        default: Some("\"30s\""),
        optional: false,
        doc: "How long the cluster may take to answer one request.",
    },
];

/// The options of one source, checked.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Where the cluster is; may hold a password.
    pub(crate) url: Url,
    /// Replaces user and password.
    pub(crate) api_key: Option<String>,
    /// Authorities to trust instead of the system's.
    pub(crate) tls_ca: Option<PathBuf>,
    /// Begins the name of every index.
    pub(crate) prefix: String,
    /// Shards of an index that is made.
    pub(crate) shards: i64,
    /// Copies of each shard of an index that is made.
    pub(crate) replicas: i64,
    /// Longest time until a connection is there.
    pub(crate) connect_timeout: Duration,
    /// Longest time of one request.
    pub(crate) request_timeout: Duration,
}

impl Settings {
    /// From checked options.
    pub(crate) fn from_options(options: &Options, environment: &Environment) -> Result<Self> {
        let wrong = |message: String| {
            Error::new(ErrorKind::InvalidConfig, message).with("option", "url").on("open")
        };
        let url = options.text("url").ok_or_else(|| wrong("there is no url".into()))?;
        let duration =
            |name, default| options.duration(name).unwrap_or(Duration::from_secs(default));
        Ok(Settings {
            url: parse_url(url).map_err(wrong)?,
            api_key: options.text("api_key").map(str::to_owned),
            tls_ca: options.text("tls_ca").map(|path| environment.data.join(path)),
            prefix: options.text("prefix").unwrap_or_default().to_owned(),
            shards: options.integer("shards").unwrap_or(1),
            replicas: options.integer("replicas").unwrap_or(1),
            connect_timeout: duration("connect_timeout", 3),
            request_timeout: duration("request_timeout", 30),
        })
    }
}

/// A url of the cluster; the message of a failure does not repeat it, for it may hold a password.
fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("is not a url: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("must be like https://user:password@host:9200".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with the host, its port or a path".to_owned());
    }
    Ok(url)
}

/// What is wrong with options that are each well formed.
pub(crate) fn check(options: &Options) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    match options.text("url").map(parse_url) {
        Some(Err(message)) => problems.push(("url", message)),
        Some(Ok(url)) => {
            if options.text("tls_ca").is_some() && url.scheme() == "http" {
                problems.push(("tls_ca", "has no effect on http: write https".to_owned()));
            }
            if options.text("api_key").is_some() && !url.username().is_empty() {
                problems
                    .push(("api_key", "stands instead of a user in the url: give one".to_owned()));
            }
        }
        None => {}
    }
    if options.text("api_key").is_some_and(|key| key.is_empty() || !key.bytes().all(is_of_key)) {
        problems.push(("api_key", "must be the encoded form, of base64 characters".to_owned()));
    }
    let prefix = options.text("prefix").unwrap_or_default();
    if !prefix.is_empty() && !is_name(prefix) {
        problems.push((
            "prefix",
            "must be of a-z, 0-9, _, - and ., and start with a letter or digit".to_owned(),
        ));
    } else if prefix.len() > PREFIX_BYTES_MAX {
        problems.push(("prefix", format!("must be at most {PREFIX_BYTES_MAX} characters")));
    }
    for name in ["connect_timeout", "request_timeout"] {
        if options.duration(name).is_some_and(|d| d < Duration::from_millis(10)) {
            problems.push((name, "must be at least 10ms".to_owned()));
        }
    }
    problems
}

fn is_of_key(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')
}

/// Whether an index, or a part of its name, can be called this.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.')
        })
}

#[cfg(test)]
mod tests {
    use unisono_core::kind::OptionValue;

    use super::*;

    fn problems(given: &[(&str, &str)]) -> Vec<&'static str> {
        let text = |(name, value): &(&str, &str)| {
            ((*name).to_owned(), OptionValue::Text((*value).to_owned()))
        };
        check(&Options(given.iter().map(text).collect())).into_iter().map(|(n, _)| n).collect()
    }

    #[test]
    fn options_that_do_not_go_together_are_named() {
        let good = ("url", "https://user:p%40ss@host:9200");
        assert!(problems(&[good, ("prefix", "shop-"), ("tls_ca", "ca.pem")]).is_empty());
        assert_eq!(problems(&[("url", "host:9200")]), ["url"]);
        assert_eq!(problems(&[("url", "ftp://host")]), ["url"]);
        assert_eq!(problems(&[("url", "https://host/?a=b")]), ["url"]);
        assert_eq!(problems(&[("url", "http://host"), ("tls_ca", "ca.pem")]), ["tls_ca"]);
        assert_eq!(problems(&[good, ("api_key", "a2V5")]), ["api_key"]);
        assert_eq!(problems(&[("url", "https://host"), ("api_key", "a\nb")]), ["api_key"]);
        for prefix in ["Shop", "-shop", "a*", &"a".repeat(101)] {
            assert_eq!(problems(&[good, ("prefix", prefix)]), ["prefix"], "{prefix}");
        }
    }

    #[test]
    fn a_wrong_url_is_not_repeated() {
        let message = parse_url("https://user:secret@ho st").unwrap_err();
        assert!(!message.contains("secret"), "{message}");
    }
}
