//! [`Site`]: a truth in PostgreSQL with one follower, each in a namespace of this run.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use unisono::{Registry, Unisono, config};
use unisono_core::kind::{OptionValue, Options};

use crate::hand::{self, Damage};
use crate::{Failed, engines};

/// A truth and a follower.
pub(crate) struct Site {
    kind: &'static str,
    folder: tempfile::TempDir,
    truth: String,
    follower: String,
}

fn section(kind: &str, namespace: &str) -> Result<String, Failed> {
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let file = PathBuf::from(base).join(kind).join("source.toml");
    let text = std::fs::read_to_string(&file)
        .map_err(|e| format!("{}: {e}; start it: engines/up {kind}", file.display()))?;
    // Replicas would be read in turn, each with its own lag.
    let lines = text.lines().filter(|line| !line.starts_with("replicas = ["));
    Ok(lines.collect::<Vec<_>>().join("\n").replace("{namespace}", namespace))
}

fn options(section: &str) -> Result<Options, Failed> {
    let table: toml::Table = toml::from_str(section)?;
    let text = |(name, value): (String, toml::Value)| {
        Some((name, OptionValue::Text(value.as_str()?.to_owned())))
    };
    Ok(Options(table.into_iter().filter_map(text).collect()))
}

impl Site {
    pub(crate) fn new(kind: &'static str) -> Result<Self, Failed> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let namespace =
            format!("t{}_damage{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir()?;
        let follower = match kind {
            "sqlite" => format!("path = \"{}\"\n", folder.path().join("copy.db").display()),
            kind => section(kind, &format!("{namespace}c"))?,
        };
        Ok(Site { kind, folder, truth: section("postgres", &namespace)?, follower })
    }

    pub(crate) async fn open(&self) -> Result<Unisono, Failed> {
        let Site { kind, truth, follower, .. } = self;
        let format = if *kind == "redis" { "format = \"json\"\n" } else { "" };
        let text = format!(
            // What finds the damage is to be the verification that is asked for.
            "data = \"{}\"\n[sweep]\nevery = \"0s\"\n[sources.main]\nkind = \"postgres\"\n{truth}\n[sources.copy]\nkind = \"{kind}\"\n{follower}\n\
             [entities.item]\nkey = \"id\"\ntruth = \"main\"\n\
             [entities.item.fields]\nid = \"string\"\nname = \"string\"\namount = \"decimal(12,2)\"\nstock = \"integer\"\n\
             [[entities.item.followers]]\nsource = \"copy\"\n{format}",
            self.folder.path().display()
        );
        let parsed = config::parse(&text, "damage.toml", &Registry::builtin(), &config::Process);
        Ok(Unisono::open(parsed.map_err(|problems| format!("{problems}\n{text}"))?).await?)
    }

    /// Does the damage with the engine's own client.
    pub(crate) async fn damage(&self, damage: &Damage) -> Result<(), Failed> {
        let options = options(&self.follower)?;
        match self.kind {
            "sqlite" => hand::sql::sqlite(&self.folder.path().join("copy.db"), damage),
            "postgres" => hand::sql::postgres(&options, damage).await,
            "mysql" => hand::sql::mysql(&options, damage).await,
            "redis" => hand::redis::damage(&options, damage).await,
            "opensearch" => hand::opensearch::damage(&options, damage).await,
            "mongodb" => hand::mongodb::damage(&options, damage).await,
            kind => Err(format!("nobody knows how to damage {kind}").into()),
        }
    }

    pub(crate) async fn wipe(&self) -> Result<(), Failed> {
        engines::wipe("postgres", &options(&self.truth)?).await?;
        if self.kind != "sqlite" {
            engines::wipe(self.kind, &options(&self.follower)?).await?;
        }
        Ok(())
    }
}
