//! `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `${file:/path}` in the strings of a configuration.

use std::path::Path;

/// Where the values of `${…}` come from.
pub trait Lookup {
    /// The value of an environment variable, if it is set.
    fn variable(&self, name: &str) -> Option<String>;

    /// The content of a file, or why it cannot be read.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// The environment of this process and the files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

impl Process {
    /// A secret is never longer than this.
    const FILE_BYTES_MAX: u64 = 64 << 10;
}

impl Lookup for Process {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        read_text(Path::new(path), Self::FILE_BYTES_MAX)
    }
}

/// A text file of at most `bytes_max`, or why it cannot be read.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut text = String::new();
    file.take(bytes_max + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > bytes_max {
        return Err(format!("it is larger than {bytes_max} bytes"));
    }
    Ok(text)
}

/// The text with every `${…}` replaced, and whether there was any. `$${` stands for a literal `${`.
///
/// What was put in is not looked at again.
pub(crate) fn interpolate(text: &str, lookup: &dyn Lookup) -> Result<(String, bool), String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut replaced = false;
    while let Some(start) = rest.find("${") {
        if let Some(before) = rest[..start].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        let inner = &rest[start + 2..];
        let end = inner.find('}').ok_or("`${` has no closing `}`")?;
        out.push_str(&rest[..start]);
        out.push_str(&resolve(&inner[..end], lookup)?);
        replaced = true;
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok((out, replaced))
}

fn resolve(inner: &str, lookup: &dyn Lookup) -> Result<String, String> {
    if let Some(path) = inner.strip_prefix("file:") {
        return match lookup.file(path) {
            // Editors and tools end a file with a line break that is not part of the secret.
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(reason) => Err(format!("the file `{path}` cannot be read: {reason}")),
        };
    }
    let (name, otherwise) = match inner.split_once(':') {
        Some((name, rest)) => (name, Some(rest)),
        None => (inner, None),
    };
    let well_formed = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !well_formed {
        return Err(format!("`${{{inner}}}` does not name an environment variable"));
    }
    let value = lookup.variable(name);
    match otherwise {
        None => value.ok_or_else(|| format!("the environment variable `{name}` is not set")),
        Some(rest) => {
            match (value.filter(|v| !v.is_empty()), rest.strip_prefix('-'), rest.strip_prefix('?'))
            {
                (Some(value), Some(_), _) | (Some(value), _, Some(_)) => Ok(value),
                (None, Some(default), _) => Ok(default.to_owned()),
                (None, _, Some(message)) => {
                    Err(format!("the environment variable `{name}` is not set: {message}"))
                }
                _ => Err(format!(
                    "`${{{inner}}}` is none of `${{NAME}}`, `${{NAME:-default}}` and `${{file:/path}}`"
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Lookup for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "HOST" => Some("db".to_owned()),
                "EMPTY" => Some(String::new()),
                "TRICK" => Some("${HOST}".to_owned()),
                _ => None,
            }
        }

        fn file(&self, path: &str) -> Result<String, String> {
            if path == "/run/secrets/x" {
                Ok("s3cret\n".to_owned())
            } else {
                Err("not there".to_owned())
            }
        }
    }

    #[test]
    fn every_form_is_replaced() {
        for (text, expected) in [
            ("plain $ { } $HOME", "plain $ { } $HOME"),
            ("${HOST}", "db"),
            ("a-${HOST}.${HOST}-z", "a-db.db-z"),
            ("${NOPE:-local}", "local"),
            ("${NOPE:-}", ""),
            ("${EMPTY:-local}", "local"),
            ("${EMPTY}", ""),
            ("${HOST:?needed}", "db"),
            ("${file:/run/secrets/x}", "s3cret"),
            ("${TRICK}", "${HOST}"),
            ("$${HOST} ${HOST}", "${HOST} db"),
            ("ö${HOST}ü", "ödbü"),
        ] {
            assert_eq!(
                interpolate(text, &Fixed).map(|(t, _)| t),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_replaced_says_why() {
        for (text, message) in [
            ("${NOPE}", "`NOPE` is not set"),
            ("${NOPE:?give it}", "`NOPE` is not set: give it"),
            ("${HOST", "no closing"),
            ("${}", "does not name"),
            ("${1X}", "does not name"),
            ("${HOST:+x}", "is none of"),
            ("${file:/nope}", "`/nope` cannot be read: not there"),
        ] {
            let error = interpolate(text, &Fixed).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
