//! Targets of requests: path segments and query parameters, decoded strictly.

use std::borrow::Cow;

use unisono::core::{Error, Result};

/// One path segment with its percent sequences resolved.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>> {
    if text.contains('%') {
        decode_bytes(text, false).map(Cow::Owned)
    } else {
        Ok(Cow::Borrowed(text))
    }
}

/// The parameters of a query string, in order. `+` is a space.
pub(crate) fn parameters(query: &str) -> Result<Vec<(String, String)>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode_bytes(name, true)?, decode_bytes(value, true)?))
        })
        .collect()
}

/// A text that [`decode`] turns back, for paths of answers.
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for (n, byte) in text.bytes().enumerate() {
        // A first underscore is escaped because `_count` and its like are operations.
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'~')
            || byte == b'_' && n > 0;
        if plain {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn decode_bytes(text: &str, plus: bool) -> Result<String> {
    let bad =
        || Error::invalid("the target of the request is not well formed").with("part", clip(text));
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let high = bytes.next().and_then(hex).ok_or_else(bad)?;
                let low = bytes.next().and_then(hex).ok_or_else(bad)?;
                high << 4 | low
            }
            b'+' if plus => b' ',
            other => other,
        });
    }
    String::from_utf8(out).map_err(|_| bad())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_their_encoding() {
        for text in ["", "a", "a/b", "_count", "ä €", "100%", "a+b c", "?&=#", "%2F"] {
            assert_eq!(decode(&encode(text)).unwrap(), text);
        }
        assert_eq!(encode("_count"), "%5Fcount");
    }

    #[test]
    fn parameters_keep_order_and_repetition() {
        let found = parameters("a=1&b=x+y%26&a=&c").unwrap();
        let want = [("a", "1"), ("b", "x y&"), ("a", ""), ("c", "")];
        assert_eq!(found, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn broken_sequences_are_refused() {
        for text in ["%", "%2", "%zz", "%ff", "a%C3"] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
