//! Texts and patterns as ranges and regular expressions.

use mongodb::bson::{Bson, Regex};

/// What every text that matches a [`Like`](unisono_core::query::Like) pattern begins with, and the longest part
/// without wildcards that it has.
pub(crate) fn literals(pattern: &str) -> (String, String) {
    let mut parts = vec![String::new()];
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            '%' | '_' => None,
            '\\' => Some(chars.next().unwrap_or('\\')),
            c => Some(c),
        };
        match (literal, parts.last_mut()) {
            (Some(c), Some(part)) => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    let longest = parts.iter().max_by_key(|part| part.len()).cloned().unwrap_or_default();
    (parts.swap_remove(0), longest)
}

/// A regular expression that every text with the given part matches.
pub(crate) fn containing(part: &str) -> Option<Bson> {
    let mut pattern = String::with_capacity(part.len() + 8);
    for c in part.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || !c.is_ascii() => pattern.push(c),
            // A BSON pattern ends at U+0000, and some dialects skip white space.
            c if c.is_ascii_control() => pattern.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => pattern.extend(['\\', c]),
        }
    }
    let pattern = pattern.try_into().ok()?;
    let options = String::new().try_into().ok()?;
    Some(Bson::RegularExpression(Regex { pattern, options }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_what_a_match_must_hold() {
        let literals = |p: &str| {
            let (start, longest) = literals(p);
            format!("{start}|{longest}")
        };
        assert_eq!(literals("red%lamp _"), "red|lamp ");
        assert_eq!(literals("%a\\%b%c"), "|a%b");
        assert_eq!(literals("plain"), "plain|plain");
        assert_eq!(literals("%_"), "|");
        assert_eq!(literals("end\\"), "end\\|end\\");
    }

    #[test]
    fn parts_are_escaped() {
        let text = |part| match containing(part) {
            Some(Bson::RegularExpression(regex)) => regex.pattern.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(text("a.b*\u{0}\n é"), "a\\.b\\*\\x00\\x0a\\ é");
    }
}
