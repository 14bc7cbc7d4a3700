//! Literals and names in SQL texts. Statements carry their values themselves, so that many of them go as one packet.

use std::fmt::Write;

/// A name as an SQL identifier.
pub(crate) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Appends a text literal.
///
/// Safe because every connection speaks utf8mb4, in which no byte of a longer character looks like ASCII, and sets a
/// mode in which the backslash escapes.
pub(crate) fn push_text(out: &mut String, text: &str) {
    out.push('\'');
    for c in text.chars() {
        match c {
            '\0' => out.push_str("\\0"),
            '\'' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push('\'');
}

/// A text literal.
pub(crate) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_text(&mut out, text);
    out
}

/// Appends a text literal, or `NULL`.
pub(crate) fn push_optional_text(out: &mut String, value: Option<&str>) {
    match value {
        Some(text) => push_text(out, text),
        None => out.push_str("NULL"),
    }
}

/// Appends a literal of bytes.
pub(crate) fn push_bytes(out: &mut String, bytes: &[u8]) {
    out.push_str("x'");
    for byte in bytes {
        // Writing to memory does not fail.
        let _ = write!(out, "{byte:02x}");
    }
    out.push('\'');
}

/// Appends a number, or `NULL`.
pub(crate) fn push_optional_number(out: &mut String, number: Option<i64>) {
    match number {
        Some(n) => {
            let _ = write!(out, "{n}");
        }
        None => out.push_str("NULL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_cannot_be_left() {
        assert_eq!(text("a'b\\c\0d\"é\n"), "'a\\'b\\\\c\\0d\"é\n'");
        assert_eq!(text("' OR 1; -- "), "'\\' OR 1; -- '");
        assert_eq!(text("\\'"), "'\\\\\\''");
        assert_eq!(quote("a`b"), "`a``b`");
    }

    #[test]
    fn bytes_are_hexadecimal() {
        let mut out = String::new();
        push_bytes(&mut out, &[0, 0xff, 0x27]);
        assert_eq!(out, "x'00ff27'");
    }
}
