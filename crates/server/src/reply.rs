//! Answers: one body type for bytes and streams, and the few shapes that handlers build.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use unisono::core::Error;

use crate::problem::Failure;

/// What the server sends.
pub(crate) enum Body {
    /// All of it at once; `None` when it is gone.
    Full(Option<Bytes>),
    /// Piece by piece, for as long as it takes.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Body::Stream(stream) => {
                stream.as_mut().poll_next(cx).map(|item| item.map(|b| Ok(Frame::data(b))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer.
pub(crate) type Response = hyper::Response<Body>;

/// What a handler gives back.
pub(crate) type Reply = Result<Response, Failure>;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Room for the headers of a record, so that they are not hashed again while they become more.
const HEADERS_EXPECTED: usize = 12;

/// Bytes of a type.
pub(crate) fn bytes(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Response {
    let mut response = Response::new(Body::Full(Some(body.into())));
    *response.status_mut() = status;
    let mut headers = HeaderMap::with_capacity(HEADERS_EXPECTED);
    headers.insert(CONTENT_TYPE, content_type);
    *response.headers_mut() = headers;
    response
}

/// A value as JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(value)
        .map_err(|e| Error::internal("an answer cannot be written as JSON").caused_by(e))?;
    Ok(bytes(status, JSON, body))
}

/// Nothing but a status.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::Full(None));
    *response.status_mut() = status;
    response
}

/// A page for people. Nothing from elsewhere and no script can run in it.
pub(crate) fn page(status: StatusCode, html: impl Into<Bytes>) -> Response {
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    let mut response = bytes(status, HTML, html);
    response.headers_mut().insert(hyper::header::CONTENT_SECURITY_POLICY, POLICY);
    response
}

/// Header values written one after another into one allocation.
pub(crate) struct HeaderWriter {
    buffer: BytesMut,
}

impl HeaderWriter {
    /// Room for the headers of one answer.
    pub(crate) fn new() -> Self {
        HeaderWriter { buffer: BytesMut::with_capacity(256) }
    }

    /// Writes a value and sets it; a value that no header can hold is left out.
    pub(crate) fn set(
        &mut self,
        headers: &mut HeaderMap,
        name: HeaderName,
        value: std::fmt::Arguments<'_>,
    ) {
        use std::fmt::Write;
        if self.buffer.write_fmt(value).is_ok()
            && let Ok(value) = HeaderValue::from_maybe_shared(self.buffer.split().freeze())
        {
            headers.insert(name, value);
        }
    }
}
