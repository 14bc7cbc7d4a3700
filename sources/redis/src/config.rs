//! Options of a `redis` source, and of an entity that it keeps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::entity::SYSTEM;
use unisono_core::kind::{Environment, OptionSpec, OptionType, Options};
use unisono_core::source::Binding;
use unisono_core::{Entity, Error, ErrorKind, Result, Role};

use crate::codec::Format;
use crate::keys::{Layout, Template};
use crate::shown::Shown;
use crate::url::Url;

/// Every option, with its meaning.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        ty: OptionType::Secret,
        default: None,
        optional: false,
        doc: "Where the servers are: redis://user:password@host:6379/0, rediss:// for TLS, redis+sentinel://user:password@sentinel1,sentinel2/name, several hosts for a cluster. User and password are percent-encoded.",
    },
    OptionSpec {
        name: "cluster",
        ty: OptionType::Boolean,
        default: Some("false"),
        optional: false,
        doc: "Whether the servers form a Redis Cluster; the hosts of the url are then where it is asked for the others.",
    },
    OptionSpec {
        name: "prefix",
        ty: OptionType::String,
        default: None,
        optional: true,
        doc: "What every key begins with, followed by a colon, so that several installations can share a server.",
    },
    OptionSpec {
        name: "tls_ca",
        ty: OptionType::Path,
        default: None,
        optional: true,
        doc: "PEM file with the authorities that may sign the servers' certificates; those of the system unless given.",
    },
    OptionSpec {
        name: "sentinel_password",
        ty: OptionType::Secret,
        default: None,
        optional: true,
        doc: "The password of the sentinels themselves, if they ask for one.",
    },
    OptionSpec {
        name: "connect_timeout",
        ty: OptionType::Duration,
        default: Some("3s"),
        optional: false,
        doc: "How long a connection may take to be made, TLS and login included.",
    },
    OptionSpec {
        name: "request_timeout",
        ty: OptionType::Duration,
        default: Some("5s"),
        optional: false,
        doc: "How long a server may take to answer one request.",
    },
];

/// The options of an entity that follows.
pub(crate) const FOLLOWER_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "format",
        ty: OptionType::Choice(&["json", "hash", "packed"]),
        default: Some("json"),
        optional: false,
        doc: "How a record is kept: json (a string with its JSON), hash (one field for each of its fields) or packed (version and JSON without nulls).",
    },
    OptionSpec {
        name: "key_template",
        ty: OptionType::String,
        default: None,
        optional: true,
        doc: "The key of a record, such as order:{id}, with the key field in braces; the entity's place and key unless given.",
    },
    OptionSpec {
        name: "values",
        ty: OptionType::List,
        default: None,
        optional: true,
        doc: "Fields that stand as plain strings beside each record, as \"field=key\" with the key field in braces, such as \"sold=product:{id}:sold\"; at most 4, and not in a cluster.",
    },
    OptionSpec {
        name: "sorted_sets",
        ty: OptionType::List,
        default: None,
        optional: true,
        doc: "Number fields that are the scores of a sorted set whose members are the keys of the records, as \"field=key\", such as \"sold=best_sellers\"; at most 4, and not in a cluster.",
    },
];

/// The options of an entity that is cached.
pub(crate) const CACHE_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "format",
        ty: OptionType::Choice(&["private", "json"]),
        default: Some("private"),
        optional: false,
        doc: "Who reads the entries: private (Unisono alone) or json (other programs too: beside each entry, a string with the record's JSON under key_template).",
    },
    OptionSpec {
        name: "key_template",
        ty: OptionType::String,
        default: None,
        optional: true,
        doc: "With format = \"json\": the key of a record, such as product:{id}, with the key field in braces; the entity's name and key unless given.",
    },
    OptionSpec {
        name: "compress_above",
        ty: OptionType::Size,
        default: None,
        optional: true,
        doc: "Records whose JSON is longer, such as 256B, are compressed, small ones with a dictionary that the processes train from what they write and share; at least 64B, and none unless given. Processes with and without it share entries.",
    },
];

/// The least that makes sense for `compress_above`: what zstd adds to each entry would be most of what it saves.
const COMPRESS_ABOVE_MIN: i64 = 64;

/// Above how many bytes JSON is compressed, if it is.
pub(crate) fn compress_above(options: &Options) -> Option<usize> {
    options.integer("compress_above").and_then(|bytes| usize::try_from(bytes).ok())
}

/// Whether other programs read what is cached of an entity.
pub(crate) fn is_shown(options: &Options) -> bool {
    options.text("format") == Some("json")
}

/// What is wrong with the options of an entity in a role.
pub(crate) fn check_entity(
    role: Role,
    entity: &Entity,
    options: &Options,
) -> Vec<(&'static str, String)> {
    let template = check_template(role, entity, options).map(|message| ("key_template", message));
    let compression = check_compression(options).map(|message| ("compress_above", message));
    let shown = if template.is_none() { check_shown(role, entity, options) } else { None };
    template.into_iter().chain(compression).chain(shown).collect()
}

/// What is wrong with the fields beside the records, at the first option that has a part in it.
fn check_shown(role: Role, entity: &Entity, options: &Options) -> Option<(&'static str, String)> {
    let place = entity.name().trim_start_matches(SYSTEM).into();
    let entity = Arc::new(entity.clone());
    let binding = Binding { entity, role, place, options: options.clone() };
    let error = Layout::new("", false, &binding).err()?;
    let given = |option: &&'static str| !options.list(option).is_empty();
    let named = |option: &&'static str| error.detail(option).is_some();
    let at = Shown::OPTIONS.into_iter().find(named).or(Shown::OPTIONS.into_iter().find(given))?;
    let given = error.detail(at).map(|given| format!("{given}: ")).unwrap_or_default();
    Some((at, format!("{given}{}: {}", error.message(), error.hint_text().unwrap_or_default())))
}

fn check_template(role: Role, entity: &Entity, options: &Options) -> Option<String> {
    options.text("key_template")?;
    if role == Role::Cache && !is_shown(options) {
        return Some("has no effect on private entries: set format = \"json\"".to_owned());
    }
    let error = Template::of(options, entity, entity.name()).err()?;
    Some(format!("{}: {}", error.message(), error.hint_text().unwrap_or_default()))
}

fn check_compression(options: &Options) -> Option<String> {
    let above = options.integer("compress_above")?;
    if is_shown(options) {
        return Some(
            "other programs read the entries of format = \"json\", which stay as they are: remove one of the two".to_owned(),
        );
    }
    (above < COMPRESS_ABOVE_MIN).then(|| format!("must be at least {COMPRESS_ABOVE_MIN}B"))
}

/// The options of one source, as Rust values.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) url: Url,
    pub(crate) cluster: bool,
    /// Empty, or ends with a colon.
    pub(crate) prefix: String,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) sentinel_password: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
}

impl Settings {
    /// From checked options.
    pub(crate) fn from_options(options: &Options, environment: &Environment) -> Result<Self> {
        let wrong = |message| Error::new(ErrorKind::InvalidConfig, message).with("option", "url");
        let url = options.text("url").ok_or_else(|| wrong("a redis source needs a url".into()))?;
        let prefix = options.text("prefix").filter(|p| !p.is_empty());
        let duration =
            |name, default| options.duration(name).unwrap_or(Duration::from_secs(default));
        Ok(Settings {
            url: Url::parse(url).map_err(wrong)?,
            cluster: options.boolean("cluster"),
            prefix: prefix.map(|p| format!("{p}:")).unwrap_or_default(),
            tls_ca: options.text("tls_ca").map(|path| environment.data.join(path)),
            sentinel_password: options.text("sentinel_password").map(str::to_owned),
            connect_timeout: duration("connect_timeout", 3),
            request_timeout: duration("request_timeout", 5),
        })
    }
}

/// What is wrong with options that are each well formed.
pub(crate) fn check(options: &Options) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let url = options.text("url").map(Url::parse);
    let cluster = options.boolean("cluster");
    match url {
        Some(Err(message)) => problems.push(("url", message)),
        Some(Ok(url)) => {
            if cluster && (url.service.is_some() || url.database != 0) {
                problems.push(("url", "a cluster has neither sentinels nor databases".to_owned()));
            }
            if !cluster && url.service.is_none() && url.hosts.len() > 1 {
                problems.push((
                    "url",
                    "several hosts need cluster = true or a redis+sentinel:// url".to_owned(),
                ));
            }
            if options.text("tls_ca").is_some() && !url.tls {
                problems.push((
                    "tls_ca",
                    "has no effect on a url without TLS: write rediss://".to_owned(),
                ));
            }
            if options.text("sentinel_password").is_some() && url.service.is_none() {
                problems.push(("sentinel_password", "needs a redis+sentinel:// url".to_owned()));
            }
        }
        None => {}
    }
    if options.text("prefix").is_some_and(|p| p.contains(['{', '}'])) {
        problems
            .push(("prefix", "must not contain braces: they choose the slot of a key".to_owned()));
    }
    for name in ["connect_timeout", "request_timeout"] {
        if options.duration(name).is_some_and(|d| d < Duration::from_millis(10)) {
            problems.push((name, "must be at least 10ms".to_owned()));
        }
    }
    problems
}

/// The format of an entity's records.
pub(crate) fn format(options: &Options) -> Result<Format> {
    match options.text("format") {
        None | Some("json") => Ok(Format::Json),
        Some("hash") => Ok(Format::Hash),
        Some("packed") => Ok(Format::Packed),
        Some(other) => Err(Error::new(ErrorKind::InvalidConfig, "is not a format of records")
            .with("format", other)
            .hint("write json, hash or packed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_core::kind::OptionValue;

    fn problems(given: &[(&str, OptionValue)]) -> Vec<&'static str> {
        let options = given.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        check(&Options(options.collect())).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_key_template_is_checked_before_anything_runs() {
        let entity = unisono_testkit::Sample::product();
        let of = |role, given: &[(&str, &str)]| {
            let text = |(name, value): &(&str, &str)| {
                ((*name).to_owned(), OptionValue::Text((*value).to_owned()))
            };
            let options = Options(given.iter().map(text).collect());
            check_entity(role, &entity, &options).pop().map(|(_, message)| message)
        };
        let shown = ("format", "json");
        assert_eq!(of(Role::Cache, &[shown, ("key_template", "p:{id}")]), None);
        assert_eq!(of(Role::Cache, &[shown]), None);
        for (role, given, says) in [
            (Role::Cache, vec![("key_template", "p:{id}")], "set format = \"json\""),
            (Role::Cache, vec![shown, ("key_template", "p:{name}")], "write it like product:{id}"),
            (Role::Follower, vec![("key_template", "p")], "write it like product:{id}"),
        ] {
            let message = of(role, &given).unwrap();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn what_others_read_is_not_compressed_and_neither_is_what_is_tiny() {
        let entity = unisono_testkit::Sample::product();
        let of = |format: &str, above: i64| {
            let given = [
                ("format", OptionValue::Text(format.to_owned())),
                ("compress_above", OptionValue::Integer(above)),
            ];
            let options = Options(given.map(|(name, value)| (name.to_owned(), value)).into());
            check_entity(Role::Cache, &entity, &options)
        };
        assert_eq!(of("private", 64), []);
        for (format, above, says) in [("private", 63, "at least 64B"), ("json", 256, "remove one")]
        {
            let problems = of(format, above);
            assert!(
                matches!(&problems[..], [("compress_above", m)] if m.contains(says)),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn options_that_do_not_go_together_are_named() {
        let text = |t: &str| OptionValue::Text(t.to_owned());
        let yes = OptionValue::Boolean(true);
        assert!(problems(&[("url", text("redis://h"))]).is_empty());
        assert_eq!(problems(&[("url", text("redis://a,b"))]), ["url"]);
        assert!(problems(&[("url", text("redis://a,b")), ("cluster", yes.clone())]).is_empty());
        assert_eq!(problems(&[("url", text("redis://a/3")), ("cluster", yes.clone())]), ["url"]);
        assert_eq!(problems(&[("url", text("redis+sentinel://a/m")), ("cluster", yes)]), ["url"]);
        assert_eq!(problems(&[("url", text("redis://a")), ("tls_ca", text("ca"))]), ["tls_ca"]);
        assert_eq!(problems(&[("url", text("redis://a")), ("prefix", text("a{b"))]), ["prefix"]);
        let short = OptionValue::Duration(Duration::ZERO);
        assert_eq!(
            problems(&[("url", text("redis://a")), ("request_timeout", short)]),
            ["request_timeout"]
        );
    }
}
