//! Cache-aside: Redis over one multiplexed connection, and for `b` a cache in the process before it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::aio::ConnectionManager;
use redis::{Client, TlsCertificates};

use super::variable;
use crate::Result;

/// How long an entry is served.
const TTL: Duration = Duration::from_secs(60);
/// Entries that the process keeps, more than there are products.
const ENTRIES: usize = 100_000;

pub(super) struct Cache {
    redis: ConnectionManager,
    prefix: String,
    local: Option<quick_cache::sync::Cache<String, (Bytes, Instant)>>,
}

impl Cache {
    pub(super) async fn open(in_process: bool) -> Result<Self> {
        let root_cert = Some(std::fs::read(variable("BASELINE_CA_REDIS")?)?);
        let certificates = TlsCertificates { client_tls: None, root_cert };
        let client = Client::build_with_tls(variable("BASELINE_REDIS")?, certificates)?;
        let redis = client.get_connection_manager().await?;
        let local = in_process.then(|| quick_cache::sync::Cache::new(ENTRIES));
        Ok(Cache { redis, prefix: variable("BASELINE_PREFIX")?, local })
    }

    fn key(&self, id: &str) -> String {
        format!("{}:product:{id}", self.prefix)
    }

    /// `None` if it is not there, and also if Redis is down: the database answers then.
    pub(super) async fn get(&self, id: &str) -> Option<Bytes> {
        if let Some(local) = &self.local
            && let Some((json, filled)) = local.get(id)
            && filled.elapsed() < TTL
        {
            return Some(json);
        }
        let mut redis = self.redis.clone();
        let json: Option<Bytes> =
            redis::cmd("GET").arg(self.key(id)).query_async(&mut redis).await.ok()?;
        if let (Some(json), Some(local)) = (&json, &self.local) {
            local.insert(id.to_owned(), (json.clone(), Instant::now()));
        }
        json
    }

    /// A failure is forgotten: the entry is only missing.
    pub(super) async fn put(&self, id: &str, json: Bytes) {
        let mut redis = self.redis.clone();
        let set = redis::cmd("SET")
            .arg(self.key(id))
            .arg(&json[..])
            .arg("PX")
            .arg(TTL.as_millis() as u64)
            .exec_async(&mut redis)
            .await;
        if let (Ok(()), Some(local)) = (set, &self.local) {
            local.insert(id.to_owned(), (json, Instant::now()));
        }
    }

    pub(super) async fn remove(&self, id: &str) {
        if let Some(local) = &self.local {
            local.remove(id);
        }
        let mut redis = self.redis.clone();
        // As usual by hand, a failure leaves the old value until its time ends.
        let _ = redis::cmd("UNLINK").arg(self.key(id)).exec_async(&mut redis).await;
    }
}
