//! Text patterns → the engine's: `*` for any characters, `?` for one, `\` before a literal.

use unisono_core::query::Like;

use crate::codec::KEYWORD_CHARS_MAX;

/// The engine turns a pattern into an automaton, which grows beyond its bounds with many of these.
const ANY_MAX: usize = 6;
const ONE_MAX: usize = 4;

/// The engine's form of a pattern; `None` for one that it could find too complex.
pub(crate) fn of_like(Like(like): &Like) -> Option<String> {
    let (mut out, mut anys, mut ones) = (String::with_capacity(like.len() + 8), 0, 0);
    let mut rest = like.chars();
    while let Some(c) = rest.next() {
        match c {
            '%' => {
                anys += 1;
                out.push('*');
            }
            '_' => {
                ones += 1;
                out.push('?');
            }
            '\\' => literal(rest.next().unwrap_or('\\'), &mut out),
            c => literal(c, &mut out),
        }
    }
    let simple = anys <= ANY_MAX && ones <= ONE_MAX && is_short(like);
    simple.then_some(out)
}

/// A pattern for texts with a part; `None` for one that is too long.
pub(crate) fn of_part(part: &str) -> Option<String> {
    let mut out = String::with_capacity(part.len() + 8);
    out.push('*');
    part.chars().for_each(|c| literal(c, &mut out));
    out.push('*');
    is_short(part).then_some(out)
}

/// What every text that matches begins with.
pub(crate) fn literal_head(Like(like): &Like) -> String {
    let mut head = String::new();
    let mut rest = like.chars();
    while let Some(c) = rest.next() {
        match c {
            '%' | '_' => break,
            '\\' => head.push(rest.next().unwrap_or('\\')),
            c => head.push(c),
        }
    }
    head
}

fn is_short(text: &str) -> bool {
    text.chars().nth(KEYWORD_CHARS_MAX).is_none()
}

fn literal(c: char, out: &mut String) {
    if matches!(c, '*' | '?' | '\\') {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_translated_and_literals_kept() {
        let of = |text: &str| of_like(&Like(text.to_owned()));
        assert_eq!(of("a%b_c").as_deref(), Some("a*b?c"));
        assert_eq!(of("\\%\\_*?\\\\").as_deref(), Some("%_\\*\\?\\\\"));
        assert_eq!(of("x\\").as_deref(), Some("x\\\\"), "a backslash at the end is itself");
        assert_eq!(of("%_____"), None);
        assert_eq!(of(&"%a".repeat(20)), None);
        assert_eq!(of_part("a*"), Some("*a\\**".to_owned()));
        assert_eq!(literal_head(&Like("50\\%\\".to_owned())), "50%\\");
        assert_eq!(literal_head(&Like("ab_c".to_owned())), "ab");
    }
}
