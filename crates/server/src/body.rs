//! Bodies of requests: typed, bounded in size and in the time they may take.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde_json::Value as Json;
use unisono::core::{Error, ErrorKind};

use crate::problem::Failure;

/// The media type of JSON.
pub(crate) const JSON_TYPE: &str = "application/json";
/// The media type of a JSON merge patch (RFC 7396).
pub(crate) const MERGE_PATCH_TYPE: &str = "application/merge-patch+json";

/// Reads a body to its end, as JSON of one of the media types given.
pub(crate) async fn json(
    headers: &HeaderMap,
    body: Incoming,
    types: &[&'static str],
    bytes_max: usize,
    limit: Duration,
) -> Result<Json, Failure> {
    check_type(headers, types)?;
    let bytes = read(body, bytes_max, limit).await?;
    if bytes.is_empty() {
        return Err(Error::invalid("the body is empty; it must be JSON").into());
    }
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::invalid("the body is not valid JSON")
            .with("line", e.line())
            .with("column", e.column())
            .caused_by(e)
            .into()
    })
}

fn check_type(headers: &HeaderMap, types: &[&'static str]) -> Result<(), Failure> {
    let refuse = |message: &'static str, name: HeaderName, accepted: String| {
        let mut failure = Failure::with_status(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Error::invalid(message).hint(format!("send {accepted}")),
        );
        if let Ok(value) = HeaderValue::from_str(&accepted) {
            failure = failure.header(name, value);
        }
        Err(failure)
    };
    if headers.get(CONTENT_ENCODING).is_some_and(|v| v != "identity") {
        return refuse(
            "encoded bodies are not accepted",
            hyper::header::ACCEPT_ENCODING,
            "identity".into(),
        );
    }
    let given = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if types.iter().any(|t| t.eq_ignore_ascii_case(essence)) {
        return Ok(());
    }
    refuse(
        "the body has another content type than is accepted here",
        hyper::header::ACCEPT,
        types.join(", "),
    )
}

async fn read(mut body: Incoming, bytes_max: usize, limit: Duration) -> Result<Bytes, Failure> {
    let too_large = || {
        let error = Error::new(ErrorKind::LimitExceeded, "the body is too large")
            .with("bytes_max", bytes_max);
        Failure::from(error)
    };
    // What is announced too large is refused before any of it is read.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let collect = async {
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| {
                Failure::from(
                    Error::invalid("the body ended before its announced length").caused_by(e),
                )
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len() > bytes_max {
                return Err(too_large());
            }
            match first {
                None => first = Some(data),
                Some(_) => rest.extend_from_slice(&data),
            }
        }
        Ok(match first {
            Some(first) if rest.is_empty() => first,
            Some(first) => Bytes::from([first.as_ref(), &rest].concat()),
            None => Bytes::new(),
        })
    };
    match tokio::time::timeout(limit, collect).await {
        Ok(result) => result,
        Err(_) => Err(Failure::with_status(
            StatusCode::REQUEST_TIMEOUT,
            Error::new(ErrorKind::Timeout, "the body did not arrive in time")
                .with("limit", format!("{limit:?}")),
        )),
    }
}
