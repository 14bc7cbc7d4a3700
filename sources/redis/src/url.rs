//! [`Url`]: where the servers are and who logs in.

use std::fmt;

/// A server's name and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A parsed `redis://`, `rediss://`, `redis+sentinel://` or `rediss+sentinel://` address; `valkey` likewise.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    /// At least one; sentinels if there is a service.
    pub(crate) hosts: Vec<Address>,
    /// The name under which sentinels know the primary.
    pub(crate) service: Option<String>,
    pub(crate) database: i64,
}

impl fmt::Debug for Url {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Url { tls, user, hosts, service, database, .. } = self;
        write!(
            f,
            "Url {{ tls: {tls}, user: {user:?}, hosts: {hosts:?}, service: {service:?}, database: {database} }}"
        )
    }
}

const FORM: &str = "is not of the form redis://user:password@host:port/database";
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl Url {
    /// From its text; the error is a message that shows nothing of it.
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let (base, sentinel) = match scheme.strip_suffix("+sentinel") {
            Some(base) => (base, true),
            None => (scheme, false),
        };
        let tls = match base {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err("must begin with redis://, rediss:// or redis+sentinel://".to_owned()),
        };
        if rest.contains(['?', '#']) {
            return Err(
                "takes no parameters after ? or #; encode them if they belong to the password"
                    .to_owned(),
            );
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let (user, password) = match login.map(|l| l.split_once(':').unwrap_or((l, ""))) {
            Some((user, password)) => (decode(user)?, decode(password)?),
            None => (None, None),
        };
        if user.is_some() && password.is_none() {
            return Err("names a user without a password".to_owned());
        }
        let port = if sentinel { SENTINEL_PORT } else { REDIS_PORT };
        let hosts = hosts.split(',').map(|host| address(host, port)).collect::<Result<_, _>>()?;
        let (service, database) = match (sentinel, path.split_once('/')) {
            (false, _) => (None, path),
            (true, Some((service, database))) => (decode(service)?, database),
            (true, None) => (decode(path)?, ""),
        };
        if sentinel && service.is_none() {
            return Err("needs the name of the primary: redis+sentinel://host/name".to_owned());
        }
        let database = match database {
            "" => 0,
            digits => digits.parse::<u16>().map_err(|_| "has a database that is not a number")?,
        };
        Ok(Url { tls, user, password, hosts, service, database: i64::from(database) })
    }
}

fn address(text: &str, default_port: u16) -> Result<Address, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(FORM)?;
            (host, port.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("lacks a host".to_owned());
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| "has a port that is not a number")?,
        None => default_port,
    };
    Ok(Address { host: host.to_owned(), port })
}

/// Percent-decoded text; `None` if there is none.
fn decode(text: &str) -> Result<Option<String>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        match (digit(), digit()) {
            // Two hexadecimal digits fit a byte.
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => return Err("has a % that is not followed by two hexadecimal digits".to_owned()),
        }
    }
    let text = String::from_utf8(out).map_err(|_| "is not UTF-8 after decoding".to_owned())?;
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn every_form_is_understood() {
        let url = Url::parse("rediss://app:p%40ss%2Fw@db.example:6380/2").unwrap();
        assert_eq!((url.tls, url.database), (true, 2));
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("app"), Some("p@ss/w")));
        assert_eq!(url.hosts, [at("db.example", 6380)]);
        let url = Url::parse("redis://:secret@[::1]").unwrap();
        assert_eq!((url.user, url.password.as_deref()), (None, Some("secret")));
        assert_eq!(url.hosts, [at("::1", 6379)]);
        let url = Url::parse("valkeys+sentinel://a,b:1/main/3").unwrap();
        assert_eq!(url.hosts, [at("a", 26379), at("b", 1)]);
        assert_eq!((url.service.as_deref(), url.database, url.tls), (Some("main"), 3, true));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for text in [
            "host",
            "http://secret@h",
            "redis://",
            "redis://u@h",
            "redis://h:secret",
            "redis://h/secret",
            "redis+sentinel://h",
            "redis://u:%zz@h",
            "redis://h?password=secret",
            "redis://u:secret@:1",
        ] {
            let message = Url::parse(text).unwrap_err();
            assert!(!message.contains("secret"), "{text}: {message}");
        }
        let shown = format!("{:?}", Url::parse("redis://u:secret@h").unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
