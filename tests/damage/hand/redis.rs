//! Redis: the records are strings of JSON; versions are in a ledger, keys in an index.

use redis::cmd;
use unisono_core::kind::Options;

use crate::hand::Damage;
use crate::{Failed, engines};

pub(crate) async fn damage(options: &Options, damage: &Damage) -> Result<(), Failed> {
    let url = options.text("url").unwrap_or_default();
    let host = url.rsplit_once('@').map_or(url, |(_, host)| host);
    let mut server = engines::redis::connect(host, options.text("tls_ca")).await?;
    let prefix = options.text("prefix").unwrap_or_default();
    let key = |id: &String| format!("{prefix}:item:{id}");
    let own = |name: &str| format!("{prefix}:unisono:{{item.0}}:{name}");
    let json = |id: &String, name: &str| {
        format!(r#"{{"id":"{id}","name":"{name}","amount":"1.00","stock":1}}"#)
    };
    for id in &damage.changed {
        cmd("SET").arg(key(id)).arg(json(id, "changed by hand")).exec_async(&mut server).await?;
    }
    for id in &damage.deleted {
        cmd("DEL").arg(key(id)).exec_async(&mut server).await?;
    }
    for id in &damage.added {
        cmd("SET").arg(key(id)).arg(json(id, "added by hand")).exec_async(&mut server).await?;
        cmd("HSET")
            .arg(own("ledger"))
            .arg(id)
            .arg(format!("{:020}", 5))
            .exec_async(&mut server)
            .await?;
        cmd("ZADD").arg(own("index")).arg(0).arg(id).exec_async(&mut server).await?;
    }
    let forged = damage
        .older
        .iter()
        .map(|id| (id, -1))
        .chain(damage.newer.iter().map(|id| (id, damage.shift() as i64)));
    for (id, shift) in forged {
        let version: String =
            cmd("HGET").arg(own("ledger")).arg(id).query_async(&mut server).await?;
        let version = version.parse::<i64>()? + shift;
        cmd("HSET")
            .arg(own("ledger"))
            .arg(id)
            .arg(format!("{version:020}"))
            .exec_async(&mut server)
            .await?;
    }
    Ok(())
}
