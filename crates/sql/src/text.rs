//! Text for engines that cannot keep U+0000: it is written `U+0001 U+0001`, and U+0001 itself `U+0001 U+0002`.
//!
//! All other text stays as it is. Different texts stay different, and texts keep their order and their beginnings.

use std::borrow::Cow;

use unisono_core::{Error, ErrorKind, Result};

const MARK: char = '\u{1}';

/// Text without U+0000.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', MARK]) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(MARK, "\u{1}\u{2}").replace('\0', "\u{1}\u{1}"))
}

/// The text that was escaped; `corrupt` for one that [`escape`] does not make.
pub fn unescape(text: &str) -> Result<Cow<'_, str>> {
    if !text.contains(MARK) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match (c, (c == MARK).then(|| chars.next()).flatten()) {
            (MARK, Some('\u{1}')) => '\0',
            (MARK, Some('\u{2}')) => MARK,
            (MARK, _) => {
                return Err(Error::new(ErrorKind::Corrupt, "stored text has a U+0001 that stands alone")
                    .hint("somebody wrote it past Unisono, which writes U+0001 as U+0001 U+0002: correct it by hand"));
            }
            (c, _) => c,
        });
    }
    Ok(Cow::Owned(out))
}
