//! [`RedisSource`]: identity, life cycle, and what it keeps of each entity.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use futures::future::try_join_all;
use redis::Cmd;
use serde_json::Value as Json;
use unisono_core::clock::Clock;
use unisono_core::journal::Journal;
use unisono_core::kind::Options;
use unisono_core::source::{Auditor, Binding, Cache, Follower, Probe, Reader, Source};
use unisono_core::{Capability, Entity, Error, ErrorKind, Result, Role, Uuid};

use crate::client::Client;
use crate::codec::{Format, epoch};
use crate::compression::Compression;
use crate::config::{Settings, compress_above, format, is_shown};
use crate::error::corrupt;
use crate::health::{Health, probe};
use crate::journal::Sent;
use crate::keys::Layout;
use crate::schema::{Difference, compare, describe};
use crate::shelf::Shelf;
use crate::shown::Shown;
use crate::{NAME, reply};

/// How one entity that follows is kept.
pub(crate) struct Table {
    pub(crate) entity: Arc<Entity>,
    pub(crate) layout: Layout,
    pub(crate) format: Format,
    /// What [`describe`] says, to be put back when somebody has deleted it.
    schema: RwLock<Json>,
}

impl Table {
    /// The same as it was when its description was kept: with the keys of the values and sorted sets of then.
    fn as_kept(&self, kept: Json) -> Result<Table> {
        let shown = Shown::kept(&kept, &self.entity)?;
        Ok(Table {
            entity: Arc::clone(&self.entity),
            layout: self.layout.clone().showing(shown),
            format: self.format,
            schema: RwLock::new(kept),
        })
    }
}

/// An open source.
pub(crate) struct RedisSource {
    name: Arc<str>,
    capability: Capability,
    pub(crate) client: Client,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whose the leases are that callers of this process hold.
    pub(crate) holder: Vec<u8>,
    pub(crate) prefix: String,
    cluster: bool,
    /// Whether a copy can take the place of a server.
    pub(crate) is_arranged: bool,
    pub(crate) sent: Sent,
    tables: RwLock<HashMap<Arc<str>, Arc<Table>>>,
    shelves: RwLock<HashMap<Arc<str>, Arc<Shelf>>>,
}

impl RedisSource {
    /// Connects, and asks whether the server is one that can be used.
    pub(crate) async fn open(
        name: &str,
        settings: &Settings,
        clock: Arc<dyn Clock>,
        capability: Capability,
    ) -> Result<Self> {
        let client = Client::new(settings)?;
        for server in Health::ask(&client).await? {
            server.check_version()?;
        }
        Ok(RedisSource {
            name: name.into(),
            capability,
            client,
            clock,
            // The lower half of such an id is random.
            holder: epoch(Uuid::now_v7().as_u128() as u64),
            prefix: settings.prefix.clone(),
            cluster: settings.cluster,
            is_arranged: settings.cluster || settings.url.service.is_some(),
            sent: Sent::default(),
            tables: RwLock::default(),
            shelves: RwLock::default(),
        })
    }

    /// What it keeps of an entity that follows.
    pub(crate) fn table(&self, entity: &Entity) -> Result<Arc<Table>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let missing = || Error::internal("the entity was not prepared as a follower");
        tables.get(entity.name()).cloned().ok_or_else(missing)
    }

    /// What it keeps of an entity that is cached; one that was not prepared is kept under its own name.
    pub(crate) fn shelf(&self, entity: &Arc<Entity>) -> Result<Arc<Shelf>> {
        let shelves = self.shelves.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = shelves.get(entity.name()) {
            return Ok(Arc::clone(shelf));
        }
        drop(shelves);
        self.bind_shelf(&Binding {
            entity: Arc::clone(entity),
            role: Role::Cache,
            place: Arc::clone(entity.name()),
            options: Options::default(),
        })
    }

    fn bind_shelf(&self, binding: &Binding) -> Result<Arc<Shelf>> {
        let layout = Layout::new(&self.prefix, self.cluster, binding)?;
        let is_shown = is_shown(&binding.options);
        if is_shown {
            self.check_collisions(&binding.entity, Role::Cache, &layout)?;
        }
        let compression = Compression::new(compress_above(&binding.options));
        let shelf = Arc::new(Shelf::new(&binding.entity, layout, is_shown, compression));
        let mut shelves = self.shelves.write().unwrap_or_else(PoisonError::into_inner);
        shelves.insert(Arc::clone(binding.entity.name()), Arc::clone(&shelf));
        Ok(shelf)
    }

    /// Says where an error happened.
    pub(crate) fn place(&self, error: Error, operation: &'static str, entity: &Entity) -> Error {
        error.on(operation).at(&self.name).of(entity.name())
    }

    /// Puts the description of a table where it is kept.
    pub(crate) async fn keep_schema(&self, table: &Table) -> Result<()> {
        let schema = table.schema.read().unwrap_or_else(PoisonError::into_inner).to_string();
        let mut command = Cmd::new();
        let key = table.layout.control(0, "schema");
        command.arg("SET").arg(key.as_slice()).arg(schema);
        self.client.command(&key, &command).await.map(drop)
    }

    async fn kept_schema(&self, table: &Table) -> Result<Option<Json>> {
        let mut command = Cmd::new();
        let key = table.layout.control(0, "schema");
        command.arg("GET").arg(key.as_slice());
        let bytes = reply::bytes(self.client.command(&key, &command).await?)?;
        let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes));
        parsed
            .transpose()
            .map_err(|e| corrupt("the stored declaration cannot be decoded").caused_by(e))
    }

    async fn prepare_table(&self, binding: &Binding, notes: &mut Vec<String>) -> Result<()> {
        let layout = Layout::new(&self.prefix, self.cluster, binding)?;
        let format = format(&binding.options)?;
        let entity = &binding.entity;
        let declared = describe(entity, format, &layout);
        let template = layout.template().clone();
        let table = Table {
            entity: Arc::clone(entity),
            layout,
            format,
            schema: RwLock::new(declared.clone()),
        };
        self.check_collisions(entity, Role::Follower, &table.layout)?;
        let mut refill = false;
        match self.kept_schema(&table).await? {
            None => {
                self.keep_schema(&table).await?;
                let how = format.as_str();
                notes.push(format!(
                    "keeps {} as {how} at {}{template}",
                    entity.name(),
                    self.prefix
                ));
            }
            Some(kept) => {
                let difference = match compare(&kept, &declared) {
                    Ok(difference) => difference,
                    Err(error) => {
                        if self.is_filled(&table).await? {
                            return Err(error);
                        }
                        // Nothing is written under the declaration of before.
                        Difference { merged: declared, ..Difference::default() }
                    }
                };
                if difference.shown {
                    self.empty(&table.as_kept(kept)?).await?;
                    notes.push(format!(
                        "emptied {}: other values or sorted sets are declared",
                        binding.place
                    ));
                }
                *table.schema.write().unwrap_or_else(PoisonError::into_inner) = difference.merged;
                // Also if it is the same: a user without the right to write is told so now.
                self.keep_schema(&table).await?;
                for field in difference.added {
                    // Records that are there lack the default, and nobody would send them again.
                    refill |= entity.field(&field).is_some_and(|f| f.default.is_some());
                    notes.push(format!("added the field {field} to {}", binding.place));
                }
            }
        }
        let table = Arc::new(table);
        self.tables
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(Arc::clone(entity.name()), Arc::clone(&table));
        if refill {
            self.empty(&table).await?;
            notes.push(format!("emptied {}: an added field has a default", binding.place));
        }
        Ok(())
    }

    /// Whether a part has records or a checkpoint.
    async fn is_filled(&self, table: &Table) -> Result<bool> {
        let marked = self.marks(table).await?.iter().any(|text| !text.is_empty());
        let parts = (0..table.layout.parts()).map(|part| self.page(table, part, b"-", b"+", 0));
        Ok(marked || try_join_all(parts).await?.iter().any(|part| part.all > 0))
    }

    /// Refuses keys that records of another entity, or of the same in the other role, could have too.
    fn check_collisions(&self, entity: &Entity, role: Role, layout: &Layout) -> Result<()> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let shelves = self.shelves.read().unwrap_or_else(PoisonError::into_inner);
        let tables = tables.values().map(|t| (&t.entity, Role::Follower, &t.layout));
        let shown = shelves.values().filter(|s| s.is_shown);
        let shown = shown.map(|s| (&s.entity, Role::Cache, &s.layout));
        for (other, of, others) in tables.chain(shown) {
            let is_itself = other.name() == entity.name() && of == role;
            let (claims, theirs) = (layout.claims(entity), others.claims(other));
            let overlaps = claims.iter().any(|own| theirs.iter().any(|other| own.overlaps(other)));
            if !is_itself && overlaps {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "two entities, or a cache and a follower, could have records of the same key",
                )
                .with("key_template", layout.template())
                .with("other", others.template())
                .hint("begin the templates with different words"));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Source for RedisSource {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> &'static str {
        NAME
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        let located = |error: Error| error.on("prepare").at(&self.name);
        if bindings.is_empty() {
            return Ok(Vec::new());
        }
        let servers = Health::ask(&self.client).await.map_err(located)?;
        let mut notes = Vec::new();
        for binding in bindings {
            let located = |error: Error| located(error).of(binding.entity.name());
            match binding.role {
                Role::Truth | Role::Vault | Role::Outlet => {
                    let message = "a redis source cannot play this role";
                    let role = binding.role.as_str();
                    return Err(located(Error::unsupported(message).with("role", role)));
                }
                Role::Journal => {
                    servers.iter().try_for_each(Health::check_keeps).map_err(located)?;
                    self.check_syncs().await.map_err(located)?;
                }
                Role::Follower => {
                    servers.iter().try_for_each(Health::check_keeps).map_err(located)?;
                    self.prepare_table(binding, &mut notes).await.map_err(located)?;
                    notes.extend(servers.iter().filter_map(Health::notes_on_follower));
                }
                Role::Cache => {
                    self.bind_shelf(binding).map_err(located)?;
                    notes.extend(servers.iter().filter_map(Health::notes_on_cache));
                }
            }
        }
        let mut seen = std::collections::HashSet::new();
        notes.retain(|note| seen.insert(note.clone()));
        Ok(notes)
    }

    async fn probe(&self) -> Result<Probe> {
        let located = |error: Error| error.on("probe").at(&self.name);
        let servers = Health::ask(&self.client).await.map_err(located)?;
        if !self.tables.read().unwrap_or_else(PoisonError::into_inner).is_empty() {
            // The policy can be changed while the server runs.
            servers.iter().try_for_each(Health::check_keeps).map_err(located)?;
        }
        Ok(probe(&servers))
    }

    async fn close(&self) -> Result<()> {
        self.client.close().await;
        Ok(())
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Some(self)
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        Some(self)
    }

    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        Some(self)
    }

    fn journal(self: Arc<Self>) -> Option<Arc<dyn Journal>> {
        Some(self)
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Some(self)
    }
}
