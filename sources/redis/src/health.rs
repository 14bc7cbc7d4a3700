//! What a server says of itself: its version, and whether it may lose what it is given.

use redis::Cmd;
use unisono_core::source::Probe;
use unisono_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::reply;

/// The oldest release whose scripts know their flags: without them, a full memory would end one half-way.
const REDIS_MIN: u32 = 7;

/// What `INFO` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// `Redis` or `Valkey`.
    engine: &'static str,
    version: String,
    bytes: u64,
    policy: String,
    append_only: bool,
}

impl Health {
    /// Asks every server.
    pub(crate) async fn ask(client: &Client) -> Result<Vec<Health>> {
        let mut command = Cmd::new();
        command.arg("INFO").arg("server").arg("memory").arg("persistence");
        let answers = client.everywhere(&command).await?;
        answers.into_iter().map(|answer| Ok(Health::parse(&reply::text(answer)?))).collect()
    }

    fn parse(info: &str) -> Health {
        let mut health = Health { engine: "Redis", ..Health::default() };
        for (name, value) in info.lines().filter_map(|line| line.trim().split_once(':')) {
            match name {
                "redis_version" if health.engine == "Redis" => health.version = value.to_owned(),
                "valkey_version" => (health.engine, health.version) = ("Valkey", value.to_owned()),
                "used_memory" => health.bytes = value.parse().unwrap_or_default(),
                "maxmemory_policy" => health.policy = value.to_owned(),
                "aof_enabled" => health.append_only = value == "1",
                _ => {}
            }
        }
        health
    }

    /// Fails if the release is too old.
    pub(crate) fn check_version(&self) -> Result<()> {
        let major = self.version.split('.').next().and_then(|n| n.parse::<u32>().ok());
        if major.is_some_and(|major| major >= REDIS_MIN) {
            return Ok(());
        }
        Err(Error::unsupported("the server is too old")
            .with("version", format!("{} {}", self.engine, self.version))
            .hint("use Redis 7.0, Valkey 7.2 or later"))
    }

    /// Fails if the server may evict records of a follower: then nobody would know that they are missing.
    pub(crate) fn check_keeps(&self) -> Result<()> {
        if !self.policy.starts_with("allkeys") {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidConfig, "the server evicts records when its memory is full")
            .with("maxmemory_policy", &self.policy)
            .hint("a follower holds every record: set maxmemory-policy to noeviction, or to volatile-lru if the server is a cache too"))
    }

    /// What people should know of a server that follows.
    pub(crate) fn notes_on_follower(&self) -> Option<String> {
        (!self.append_only).then(|| {
            "the server writes no append-only file: after a crash it is as of its last snapshot, and what is missing is delivered again (appendonly yes keeps all but the last second)".to_owned()
        })
    }

    /// What people should know of a server that caches.
    pub(crate) fn notes_on_cache(&self) -> Option<String> {
        match self.policy.as_str() {
            "noeviction" => Some("the server evicts nothing: when its memory is full, nothing more is cached until entries expire (maxmemory-policy volatile-lru makes room)".to_owned()),
            policy if policy.starts_with("allkeys") => Some(format!(
                "the server may evict what the cache knows of its own state ({policy}): it then begins empty again (maxmemory-policy volatile-lru evicts entries only)"
            )),
            _ => None,
        }
    }
}

/// All servers in one.
pub(crate) fn probe(servers: &[Health]) -> Probe {
    let engine = servers.first().map(|h| format!("{} {}", h.engine, h.version)).unwrap_or_default();
    Probe { bytes: Some(servers.iter().map(|h| h.bytes).sum()), engine }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nused_memory:1234\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";

    #[test]
    fn what_a_server_says_is_understood() {
        let health = Health::parse(INFO);
        assert_eq!(
            (health.engine, health.version.as_str(), health.bytes),
            ("Redis", "7.0.15", 1234)
        );
        health.check_version().unwrap();
        health.check_keeps().unwrap();
        assert_eq!(health.notes_on_follower(), None);
        assert!(health.notes_on_cache().is_some_and(|n| n.contains("volatile-lru")));
        let valkey =
            Health::parse("redis_version:7.2.4\nserver_name:valkey\nvalkey_version:8.0.1\n");
        assert_eq!((valkey.engine, valkey.version.as_str()), ("Valkey", "8.0.1"));
    }

    #[test]
    fn a_server_that_forgets_is_refused_or_told() {
        let health =
            Health::parse("redis_version:6.2.1\nmaxmemory_policy:allkeys-lru\naof_enabled:0\n");
        assert_eq!(health.check_version().unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(health.check_keeps().unwrap_err().kind(), ErrorKind::InvalidConfig);
        assert!(health.notes_on_follower().is_some());
        assert!(health.notes_on_cache().is_some());
        let volatile = Health::parse("redis_version:7.0.0\nmaxmemory_policy:volatile-lru\n");
        volatile.check_keeps().unwrap();
        assert_eq!(volatile.notes_on_cache(), None);
    }
}
