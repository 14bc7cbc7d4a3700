//! `unisono explain`: an error's page, or the decision for a read.

use serde_json::json;
use unisono::core::{Error, ErrorKind, Result};

use super::Connect;
use crate::exit;
use crate::session::Session;
use crate::target::Target;

/// Explain an error code, or where a read would be answered and why
///
/// `explain version_conflict` shows the page of an error. `explain product/42` and
/// `explain 'product?status=eq.paid'` show which sources are candidates for the read, in order, with the reasons;
/// the read itself is not made.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// An error code, ENTITY/KEY, or ENTITY?FILTERS
    #[arg(value_name = "WHAT")]
    what: String,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    if let Some(kind) = ErrorKind::ALL.iter().find(|kind| kind.code() == args.what) {
        return page(*kind, session);
    }
    let read = Read::parse(&args.what)?;
    let work = async |target: &dyn Target| {
        target.explain(&read.entity, read.key.as_deref(), &read.parameters).await
    };
    let lines = session.on_target(&args.connect, work).await?;
    if session.output.is_json() {
        session.output.json(&json!({"lines": lines}))?;
    } else {
        lines.iter().try_for_each(|line| session.output.line(line))?;
    }
    Ok(exit::OK)
}

fn page(kind: ErrorKind, session: &Session) -> Result<u8> {
    if session.output.is_json() {
        session.output.json(&json!({
            "code": kind.code(),
            "summary": kind.summary(),
            "page": kind.page(),
            "exit_code": exit::code(&Error::new(kind, "")),
        }))?;
    } else {
        session.output.line(kind.page().trim_end())?;
    }
    Ok(exit::OK)
}

/// A read as it would stand in a URL.
#[derive(Debug, PartialEq)]
struct Read {
    entity: String,
    key: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Read {
    /// From `product`, `product/42` or `product?status=eq.paid`, with or without a leading `/v1/`.
    fn parse(what: &str) -> Result<Self> {
        let what = what.trim_start_matches('/');
        let what = what.strip_prefix("v1/").unwrap_or(what);
        let (path, query) = what.split_once('?').unwrap_or((what, ""));
        let (entity, key) = match path.split_once('/') {
            Some((entity, key)) => (entity, Some(decode(key)?)),
            None => (path, None),
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(&value.replace('+', " "))?))
        });
        Ok(Read { entity: entity.to_owned(), key, parameters: pairs.collect::<Result<_>>()? })
    }
}

/// Text with its `%20` and the like resolved.
fn decode(text: &str) -> Result<String> {
    let bad = || Error::invalid("is not a well formed URL").with("part", text);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        // Two hexadecimal digits are at most 255.
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_written_as_in_a_url() {
        let read = |entity: &str, key: Option<&str>, parameters: &[(&str, &str)]| Read {
            entity: entity.into(),
            key: key.map(Into::into),
            parameters: parameters.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        };
        assert_eq!(Read::parse("product").unwrap(), read("product", None, &[]));
        assert_eq!(Read::parse("/v1/product/a%2Fb").unwrap(), read("product", Some("a/b"), &[]));
        let expected = read("order", None, &[("status", "eq.paid"), ("q", "ice cream")]);
        assert_eq!(Read::parse("order?status=eq.paid&q=ice+cream").unwrap(), expected);
        assert!(Read::parse("order?x=%g1").is_err());
    }
}
