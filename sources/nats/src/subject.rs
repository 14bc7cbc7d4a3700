//! [`Template`]: the subject of each message.

use std::fmt::Write;

use unisono_core::outlet::Message;

/// A subject with parts that depend on the message.
#[derive(Debug, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    From,
    Type,
    Subject,
}

impl Template {
    /// From how it is written; else what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            parts.push(Part::Text(before.to_owned()));
            let (name, after) = behind.split_once('}').ok_or("has a { without its }")?;
            parts.push(match name {
                "from" => Part::From,
                "type" => Part::Type,
                "subject" => Part::Subject,
                _ => return Err("has a name in braces that is not from, type or subject"),
            });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let is_plain = |part: &Part| match part {
            Part::Text(text) => {
                !text.contains(['*', '>', '}']) && !text.contains(char::is_whitespace)
            }
            _ => true,
        };
        if text.is_empty() || !parts.iter().all(is_plain) {
            return Err("has a wildcard, a blank or a brace, or is empty");
        }
        if text.starts_with('.')
            || text.ends_with('.')
            || text.contains("..")
            || text.starts_with('$')
        {
            return Err("has an empty part between dots, or begins with $");
        }
        Ok(Template(parts))
    }

    /// The subject of a message.
    pub(crate) fn of(&self, message: &Message) -> String {
        let mut subject = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => subject.push_str(text),
                Part::From => escape(&mut subject, message.about()),
                Part::Type => escape(&mut subject, message.kind()),
                Part::Subject => escape(&mut subject, &message.subject()),
            }
        }
        subject
    }
}

/// One part of a subject: bytes that no part may hold are written as % and two hexadecimal digits.
fn escape(subject: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b':' | b'@' => {
                subject.push(char::from(byte));
            }
            // Writing to a String does not fail.
            byte => drop(write!(subject, "%{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_subject_is_refused() {
        for good in ["a", "unisono.{from}.{type}", "{subject}", "a.{subject}-x"] {
            assert!(Template::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a.>", "a.*", "a b", ".a", "a.", "a..b", "{nope}", "{from", "a}", "$JS.x"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_stay_one_part_and_apart_from_each_other() {
        let escaped = |text| {
            let mut out = String::new();
            escape(&mut out, text);
            out
        };
        assert_eq!(escaped("order-7_x:a@b"), "order-7_x:a@b");
        assert_eq!(escaped("a.b *>%"), "a%2eb%20%2a%3e%25");
        assert_ne!(escaped("a.b"), escaped("a%2eb"));
    }
}
