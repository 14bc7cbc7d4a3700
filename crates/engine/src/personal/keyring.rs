//! [`Keyring`]: the keys of subjects, kept in a source of their own and remembered for a while.
//!
//! A key is a state record of that source, which is in no log, archive or backup: destroying it is one deletion. Keys
//! have ids of their own and are made, never changed, so that processes which make one for the same subject at the same
//! time do each other no harm, and what a key is not there for is lost for good.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use quick_cache::unsync::Cache;
use unisono_core::source::Truth;
use unisono_core::{Effect, Error, ErrorKind, Result};
use unisono_policy::declaration::PersonalDeclaration;

use super::cipher::{KeyId, Material, Name, Root, SubjectKey, hex, unhex};
use crate::runtime::{Runtime, Stopwatch};

/// The space of the engine's own records about keys, here and in truths.
const SPACE: &str = "personal";
/// What the names of the ids of a store of keys begin with.
const STORE: &str = "store/";
/// The name under which a truth remembers which store its keys are in.
const OF_TRUTH: &str = "keys";
/// Erasures that `clear` followers still have to be told of.
const ERASING: &str = "personal_erasing";
/// The most keys that are remembered.
const REMEMBERED_MAX: usize = 20_000;
/// Subjects whose keys are looked up at the same time.
const LOOKUPS_MAX: usize = 16;
/// How long looking up the keys of one subject may take.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// How often a subject is looked at again whose keys were destroyed while others made one.
const ROUNDS_MAX: usize = 8;

/// Which key: of which subject, and which of those.
pub(super) type KeyOf = (Name, KeyId);

/// The keys of subjects.
pub(crate) struct Keyring {
    pub(super) root: Root,
    store: Arc<dyn Truth>,
    source: Arc<str>,
    ids: Vec<String>,
    remembered: Duration,
    pub(super) runtime: Runtime,
    memory: Mutex<Memory>,
}

/// What is remembered, and since when.
struct Memory {
    /// What there is under an id; nothing if it was destroyed.
    keys: Cache<KeyOf, (Stopwatch, Option<Arc<SubjectKey>>)>,
    /// What values of a subject are sealed with.
    current: Cache<Name, (Stopwatch, Arc<SubjectKey>)>,
    /// Grows with each erasure, so that what was looked up before it is not remembered after it.
    erasures: u64,
}

impl Keyring {
    /// Looks whether the source holds keys that were encrypted with this secret, or none yet.
    pub(crate) async fn open(
        declared: &PersonalDeclaration,
        store: Arc<dyn Truth>,
        runtime: &Runtime,
    ) -> Result<Self> {
        let mut keyring = Keyring {
            root: Root::new(declared.secret.reveal())?,
            store,
            source: Arc::clone(&declared.keys),
            ids: Vec::new(),
            remembered: declared.remembered,
            runtime: runtime.clone(),
            memory: Mutex::new(Memory {
                keys: Cache::new(REMEMBERED_MAX),
                current: Cache::new(REMEMBERED_MAX),
                erasures: 0,
            }),
        };
        let mut known = keyring.store_ids().await?;
        if known.is_empty() {
            let id = hex(&runtime.secret::<16>());
            let name = format!("{STORE}{id}");
            let value = keyring.root.wrap(id.as_bytes(), &name, runtime.secret())?;
            keyring.store.put_state(SPACE, &name, Some(value)).await?;
            known = keyring.store_ids().await?;
        }
        keyring.ids = known;
        Ok(keyring)
    }

    /// The ids of the store: one, unless several processes were the first.
    async fn store_ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for (name, value) in self.store.list_state(SPACE).await? {
            let Some(id) = name.strip_prefix(STORE) else { continue };
            if self.root.unwrap(&value, &name).as_deref() != Some(id.as_bytes()) {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "the keys were encrypted with another secret",
                )
                .at(&self.source)
                .with("field", "personal.secret")
                .hint("give the secret with which they were made"));
            }
            ids.push(id.to_owned());
        }
        Ok(ids)
    }

    /// Looks whether the values in a truth were sealed with keys of this store; a truth that has none yet remembers it.
    /// Otherwise everything in it would look erased.
    pub(crate) async fn belongs_to(&self, truth: &dyn Truth) -> Result<()> {
        let states = truth.list_state(SPACE).await?;
        match states.into_iter().find(|(name, _)| name == OF_TRUTH) {
            Some((_, id)) if self.ids.contains(&id) => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::InvalidConfig,
                "the personal values of this truth were encrypted with keys of another source",
            )
            .with("field", "personal.keys")
            .with("keys", &self.source)
            .hint(
                "name that source, or restore it: without it everything personal would look erased",
            )),
            None => truth.put_state(SPACE, OF_TRUTH, self.ids.first().cloned()).await,
        }
    }

    /// What a subject is called where its name must not be.
    pub(crate) fn name(&self, subject: &str) -> Name {
        self.root.name(subject)
    }

    /// A fingerprint from which nobody without the secret can guess what it is of.
    pub(crate) fn blinded(&self, fingerprint: u128) -> u128 {
        self.root.blinded(fingerprint)
    }

    /// What values of a subject are sealed with; made if there is nothing.
    pub(super) async fn current(&self, name: &Name) -> Result<Arc<SubjectKey>> {
        let now = {
            let mut memory = self.memory();
            let found =
                memory.current.get(name).filter(|(since, _)| since.elapsed() < self.remembered);
            match found {
                Some((_, key)) => return Ok(Arc::clone(key)),
                None => memory.current.remove(name),
            };
            memory.erasures
        };
        let mut keys = self.list(name).await?;
        if keys.is_empty() {
            let (id, material): (KeyId, Material) = (self.runtime.secret(), self.runtime.secret());
            let value = self.root.wrap(&material, &bound(name, &id), self.runtime.secret())?;
            self.put(&space(name), &hex(&id), Some(value)).await?;
            // Others may have made one at the same time: all go on with the first.
            keys = self.list(name).await?;
        }
        let key = keys.into_values().next().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the subject is being erased at this moment")
                .at(&self.source)
                .effect(Effect::None)
        })?;
        let mut memory = self.memory();
        if memory.erasures == now {
            memory.current.insert(*name, (self.runtime.stopwatch(), Arc::clone(&key)));
        }
        Ok(key)
    }

    /// The keys that are there of some; what is not there was destroyed. `anew` if none may be remembered.
    pub(super) async fn keys(
        &self,
        wanted: &BTreeSet<KeyOf>,
        anew: bool,
    ) -> Result<HashMap<KeyOf, Option<Arc<SubjectKey>>>> {
        let mut found = HashMap::new();
        let now = {
            let memory = self.memory();
            for of in wanted.iter().filter(|_| !anew) {
                // That a key was destroyed stays true.
                let fresh = |(since, key): &&(Stopwatch, Option<_>)| {
                    key.is_none() || since.elapsed() < self.remembered
                };
                if let Some((_, key)) = memory.keys.get(of).filter(fresh) {
                    found.insert(*of, key.clone());
                }
            }
            memory.erasures
        };
        let missing: BTreeSet<Name> =
            wanted.iter().filter(|of| !found.contains_key(of)).map(|(name, _)| *name).collect();
        let lookups = missing.into_iter().map(|name| async move { (name, self.list(&name).await) });
        let mut lookups = stream::iter(lookups).buffer_unordered(LOOKUPS_MAX);
        let mut listed: BTreeMap<Name, BTreeMap<KeyId, Arc<SubjectKey>>> = BTreeMap::new();
        while let Some((name, keys)) = lookups.next().await {
            listed.insert(name, keys?);
        }
        drop(lookups);
        let mut memory = self.memory();
        for of @ (name, id) in wanted {
            let Some(keys) = listed.get(name) else { continue };
            let key = keys.get(id).cloned();
            if memory.erasures == now {
                memory.keys.insert(*of, (self.runtime.stopwatch(), key.clone()));
            }
            found.insert(*of, key);
        }
        Ok(found)
    }

    /// Destroys every key of a subject, durably; answers how many there were.
    pub(super) async fn destroy(&self, name: &Name) -> Result<usize> {
        let mut destroyed = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let ids = self.ids_of(name).await?;
            if ids.is_empty() {
                break;
            }
            for (id, _) in ids {
                self.put(&space(name), &id, None).await?;
                destroyed.insert(id);
            }
        }
        let mut memory = self.memory();
        memory.erasures += 1;
        memory.current.remove(name);
        for id in destroyed.iter().filter_map(|id| unhex::<8>(id)) {
            memory.keys.insert((*name, id), (self.runtime.stopwatch(), None));
        }
        Ok(destroyed.len())
    }

    /// Notes that an erasure is to reach the `clear` followers.
    pub(super) async fn intend(&self, subject: &str) -> Result<()> {
        let name = hex(&self.name(subject));
        let value = self.root.wrap(subject.as_bytes(), &name, self.runtime.secret())?;
        self.put(ERASING, &name, Some(value)).await
    }

    /// The subjects whose erasure has not reached all `clear` followers.
    pub(super) async fn intended(&self) -> Result<Vec<String>> {
        let kept = self.store.list_state(ERASING).await?;
        let subject = |(name, value): (String, String)| {
            let subject = self.root.unwrap(&value, &name)?;
            String::from_utf8(subject).ok()
        };
        Ok(kept.into_iter().filter_map(subject).collect())
    }

    /// Forgets that an erasure was under way.
    pub(super) async fn done(&self, subject: &str) -> Result<()> {
        self.put(ERASING, &hex(&self.name(subject)), None).await
    }

    /// The keys of a subject, by their ids.
    async fn list(&self, name: &Name) -> Result<BTreeMap<KeyId, Arc<SubjectKey>>> {
        let mut keys = BTreeMap::new();
        for (text, value) in self.ids_of(name).await? {
            let key = unhex(&text).and_then(|id| {
                let material = self.root.unwrap(&value, &bound(name, &id))?;
                let material = Material::try_from(material.as_slice()).ok()?;
                Some((id, SubjectKey::new(id, &material)))
            });
            let (id, key) = key.ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "a key is not as it was written").at(&self.source)
            })?;
            keys.insert(id, Arc::new(key?));
        }
        Ok(keys)
    }

    async fn ids_of(&self, name: &Name) -> Result<Vec<(String, String)>> {
        let space = space(name);
        let listing = self.store.list_state(&space);
        self.runtime.within(LOOKUP_MAX, listing).await.map_err(|e| self.away(e))
    }

    async fn put(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        let putting = self.store.put_state(space, name, value);
        self.runtime.within(LOOKUP_MAX, putting).await.map_err(|e| self.away(e))
    }

    /// Without keys it cannot be told what is erased and what is there.
    fn away(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Timeout => {
                Error::new(ErrorKind::Unavailable, "the keys of personal values cannot be read")
                    .at(&self.source)
                    .caused_by(error)
            }
            _ => error.at(&self.source),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the keys of a subject are.
fn space(name: &Name) -> String {
    format!("{SPACE}/{}", hex(name))
}

/// What a key is bound to.
fn bound(name: &Name, id: &KeyId) -> String {
    format!("{}/{}", hex(name), hex(id))
}
