//! What a request demands, from its headers: preferences, token, conditions, idempotency key, trace.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{ACCEPT, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use hyper::http::request::Parts;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use unisono::core::write::Condition;
use unisono::core::{Ack, Consistency, Context, Error, Result, Token, Version};

use crate::auth::Principal;

pub(crate) const UNISONO_TOKEN: HeaderName = HeaderName::from_static("unisono-token");
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The headers with a name as one text, joined by commas as RFC 9110 allows; `None` if there are none.
pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> Result<Option<Cow<'_, str>>> {
    let texts =
        headers.get_all(&name).iter().map(HeaderValue::to_str).collect::<Result<Vec<_>, _>>();
    match texts.as_deref() {
        Ok([]) => Ok(None),
        Ok([one]) => Ok(Some(Cow::Borrowed(*one))),
        Ok(several) => Ok(Some(Cow::Owned(several.join(",")))),
        Err(_) => Err(Error::invalid("a header holds characters that are not visible ASCII")
            .with("header", name)),
    }
}

/// The context of a request.
pub(crate) fn context(
    headers: &HeaderMap,
    principal: &Principal,
    limit: Duration,
) -> Result<Context> {
    let mut context = Context {
        timeout: limit,
        actor: principal.name().cloned(),
        trace: trace(headers),
        ..Context::default()
    };
    if let Some(text) = text(headers, UNISONO_TOKEN)? {
        context.token = text.parse::<Token>()?;
    }
    for (name, value) in preferences(headers)? {
        match name.as_str() {
            "consistency" => {
                context.consistency = Consistency::parse(&value).ok_or_else(|| {
                    preference("consistency is eventual, session or strong", &value)
                })?;
            }
            "wait" => {
                let seconds: u64 = value.parse().unwrap_or(0);
                if seconds == 0 {
                    return Err(preference(
                        "wait is a whole number of seconds, at least 1",
                        &value,
                    ));
                }
                context.timeout = limit.min(Duration::from_secs(seconds));
            }
            "hint" if is_hint(&value) => context.hints.push(value.into()),
            "hint" => {
                return Err(preference("a hint is a word of letters, digits, `-` and `_`", &value));
            }
            "quorum" => {
                let count: usize = value.parse().unwrap_or(0);
                if count == 0 {
                    let message = "quorum is a whole number of sources, at least 1";
                    return Err(preference(message, &value));
                }
                context.quorum = Some(count);
            }
            "ack" => {
                let ack = Ack::parse(&value).map_err(|e| e.with("header", "Prefer"))?;
                context.ack = Some(ack);
            }
            "fallback" if value == "none" => context.fallback = false,
            "fallback" => return Err(preference("fallback can only be `none`", &value)),
            // Preferences that a server does not know are ignored (RFC 7240).
            _ => {}
        }
    }
    Ok(context)
}

/// Whether `Prefer: return=minimal` came with the request.
pub(crate) fn wants_minimal(headers: &HeaderMap) -> Result<bool> {
    Ok(preferences(headers)?.iter().any(|(name, value)| name == "return" && value == "minimal"))
}

fn preferences(headers: &HeaderMap) -> Result<Vec<(String, String)>> {
    let Some(text) = text(headers, PREFER)? else { return Ok(Vec::new()) };
    let preferences = text.split(',').map(|part| {
        let preference = part.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned())
    });
    Ok(preferences.collect())
}

/// Whether a text can be a hint.
fn is_hint(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(word)
}

fn preference(message: &'static str, value: &str) -> Error {
    Error::invalid(message).with("header", "Prefer").with("value", clip(value))
}

/// The `traceparent` of the request, if it is well formed; others are ignored, as W3C asks.
pub(crate) fn trace(headers: &HeaderMap) -> Option<Arc<str>> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts.as_slice() else { return None };
    let is_hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let well_formed = is_hex(version, 2)
        && is_hex(trace, 32)
        && is_hex(span, 16)
        && is_hex(flags, 2)
        && trace.bytes().any(|b| b != b'0');
    well_formed.then(|| text.into())
}

/// The trace id within a `traceparent`.
pub(crate) fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or(traceparent)
}

/// The idempotency key, joined with the principal so that nobody meets another's keys.
pub(crate) fn idempotency_key(
    headers: &HeaderMap,
    principal: &Principal,
) -> Result<Option<Arc<str>>> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let well_formed = (1..=255).contains(&value.len())
        && value.as_bytes().iter().all(u8::is_ascii_graphic)
        && values.next().is_none();
    match value.to_str() {
        Ok(key) if well_formed => {
            Ok(Some(format!("{}/{key}", principal.name().map_or("", |n| n.as_ref())).into()))
        }
        _ => Err(Error::invalid("an idempotency key is 1 to 255 visible ASCII characters")
            .with("header", "Idempotency-Key")),
    }
}

/// A hash of what a write asks for, so that an idempotency key cannot be used for two different requests.
pub(crate) fn fingerprint(parts: &Parts, body: &Json) -> u128 {
    let mut hash = Sha256::new();
    let conditions =
        [IF_MATCH, IF_NONE_MATCH].map(|name| parts.headers.get(name).map(|v| v.as_bytes()));
    let [if_match, if_none_match] = conditions.map(Option::unwrap_or_default);
    let body = body.to_string();
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    for part in [method.as_bytes(), path.as_bytes(), if_match, if_none_match, body.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let [high, _] = hash.as_chunks::<16>().0 else { return 0 };
    u128::from_be_bytes(*high)
}

/// What must hold for a write, from `If-Match` and `If-None-Match`.
pub(crate) fn condition(headers: &HeaderMap) -> Result<Condition> {
    let if_match = text(headers, IF_MATCH)?;
    let if_none_match = text(headers, IF_NONE_MATCH)?;
    condition_of(if_match.as_deref(), if_none_match.as_deref())
}

/// What must hold for a write, from the texts of the two conditions.
pub(crate) fn condition_of(
    if_match: Option<&str>,
    if_none_match: Option<&str>,
) -> Result<Condition> {
    match (if_match.map(str::trim), if_none_match.map(str::trim)) {
        (None, None) => Ok(Condition::None),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(tag), None) => match version(tag) {
            Some(version) => Ok(Condition::Version(Some(version))),
            None => Err(Error::invalid("If-Match is one version such as \"v17\", or *")
                .with("header", "If-Match")
                .hint("send back the ETag of the record exactly as it came")),
        },
        (None, Some("*")) => Ok(Condition::Version(None)),
        (None, Some(_)) => Err(Error::invalid("If-None-Match of a write can only be *")
            .with("header", "If-None-Match")),
        (Some(_), Some(_)) => Err(Error::invalid("If-Match and If-None-Match exclude each other")),
    }
}

/// The version of a strong entity tag: `"v17"`.
fn version(tag: &str) -> Option<Version> {
    tag.strip_prefix("\"v")?.strip_suffix('"')?.parse().ok()
}

/// What a reader has already, from `If-None-Match` of a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing.
    Nothing,
    /// Something, whatever its version.
    Anything,
    /// These versions.
    Versions(Vec<Version>),
}

impl Known {
    /// From the header; weak tags count, as RFC 9110 says for reads.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self> {
        let Some(text) = text(headers, IF_NONE_MATCH)? else {
            return Ok(Known::Nothing);
        };
        if text.trim() == "*" {
            return Ok(Known::Anything);
        }
        let tags = text.split(',').map(|tag| {
            let tag = tag.trim();
            version(tag.strip_prefix("W/").unwrap_or(tag)).ok_or_else(|| {
                Error::invalid("If-None-Match is a list of versions such as \"v17\", or *")
                    .with("header", "If-None-Match")
            })
        });
        Ok(Known::Versions(tags.collect::<Result<_>>()?))
    }

    /// Whether the reader has this version.
    pub(crate) fn has(&self, version: Version) -> bool {
        match self {
            Known::Nothing => false,
            Known::Anything => true,
            Known::Versions(versions) => versions.contains(&version),
        }
    }
}

/// Whether the caller names a media type in `Accept`.
pub(crate) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
    })
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Authenticator;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    fn context_of(list: &[(&'static str, &str)]) -> Result<Context> {
        let all = Authenticator::new(&[]);
        let none = HeaderMap::new();
        let who = all.principal(&none, unisono::core::Timestamp::EPOCH)?;
        context(&headers(list), who, Duration::from_secs(30))
    }

    #[test]
    fn preferences_set_the_context() {
        let context = context_of(&[
            ("prefer", "consistency=strong, wait=5;x=y"),
            ("prefer", "fallback=none, handling=lenient, ack=\"search redis\""),
            ("unisono-token", "main:17"),
        ])
        .unwrap();
        assert_eq!(context.consistency, Consistency::Strong);
        assert_eq!(context.timeout, Duration::from_secs(5));
        assert!(!context.fallback);
        assert_eq!(context.ack, Some(Ack::Named(vec!["search".into(), "redis".into()])));
        assert_eq!(context.token.to_string(), "main:17");
    }

    #[test]
    fn a_wait_is_bounded_by_the_servers_own_limit() {
        assert_eq!(context_of(&[("prefer", "wait=900")]).unwrap().timeout, Duration::from_secs(30));
    }

    #[test]
    fn wrong_demands_are_refused() {
        for list in [
            [("prefer", "consistency=weak")],
            [("prefer", "consistency")],
            [("prefer", "wait=0")],
            [("prefer", "wait=soon")],
            [("prefer", "fallback=all")],
            [("prefer", "ack=0")],
            [("prefer", "quorum=all")],
            [("prefer", "ack")],
            [("unisono-token", "main")],
            [("unisono-token", "main:-1")],
        ] {
            assert!(context_of(&list).is_err(), "{list:?}");
        }
    }

    #[test]
    fn conditions_are_read_strictly() {
        let v17 = Some(Version::new(17).unwrap());
        let of = |a, b| condition_of(a, b).map_err(|e| e.kind());
        assert_eq!(of(Some("\"v17\""), None), Ok(Condition::Version(v17)));
        assert_eq!(of(Some("*"), None), Ok(Condition::Present));
        assert_eq!(of(None, Some("*")), Ok(Condition::Version(None)));
        assert_eq!(of(None, None), Ok(Condition::None));
        for (a, b) in [
            (Some("v17"), None),
            (Some("\"17\""), None),
            (Some("\"v\""), None),
            (Some("W/\"v17\""), None),
            (Some("\"v17\", \"v18\""), None),
            (Some(""), None),
            (None, Some("\"v17\"")),
            (Some("*"), Some("*")),
        ] {
            assert!(of(a, b).is_err(), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_reader_tells_what_it_has() {
        let known = |text| Known::from_headers(&headers(&[("if-none-match", text)]));
        let v = |n| Version::new(n).unwrap();
        let several = known("\"v3\", W/\"v4\"").unwrap();
        assert!(several.has(v(3)) && several.has(v(4)) && !several.has(v(5)));
        assert!(known("*").unwrap().has(v(9)));
        assert!(known("v3").is_err());
    }

    #[test]
    fn idempotency_keys_are_bounded_and_belong_to_the_principal() {
        let all = Authenticator::new(&[]);
        let none = HeaderMap::new();
        let who = all.principal(&none, unisono::core::Timestamp::EPOCH).unwrap();
        let key = |text: &str| idempotency_key(&headers(&[("idempotency-key", text)]), who);
        assert_eq!(key("k-1").unwrap().unwrap().as_ref(), "/k-1");
        assert!(key(&"x".repeat(255)).is_ok());
        for bad in ["", "a b", &"x".repeat(256)] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_well_formed_trace_is_taken_over() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace(&headers(&[("traceparent", good)])).as_deref(), Some(good));
        assert_eq!(trace_id(good), "0af7651916cd43dd8448eb211c80319c");
        for bad in
            ["00-0af7-b7ad-01", "x", "00-00000000000000000000000000000000-b7ad6b7169203331-01"]
        {
            assert_eq!(trace(&headers(&[("traceparent", bad)])), None);
        }
    }
}
