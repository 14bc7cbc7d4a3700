//! `[entities.NAME]`: fields, and the sources that keep them.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::entity::check_name;
use unisono_core::kind::{Options, SourceKind};
use unisono_core::{Capture, Entity, Role};
use unisono_policy::conflict::SyncDeclaration;
use unisono_policy::declaration::{CacheDeclaration, EntityDeclaration, FollowerDeclaration};
use unisono_policy::delivery::DeliveryPolicy;
use unisono_policy::read::{ReadPolicy, ReadRule};
use unisono_policy::rule::Rule;
use unisono_policy::write::WritePolicy;

use crate::document::{Data, Item, Name};
use crate::fields::{self, DeclaredField};
use crate::kinds::Kinds;
use crate::mapped;
use crate::options::Section;
use crate::personal;
use crate::policies;
use crate::problem::{Report, Spot};
use crate::questions;
use crate::replication::{self, DeclaredFollower};
use crate::residency::{self, Places};
use crate::sections::{CACHE, ENTITY, FOLLOWER, SYNC, TARGET};
use crate::sources::{DeclaredSource, KnownKind, able, playing};
use crate::synchronised::{self, Around};
use crate::table::{Found, Table};

type Sources = BTreeMap<String, DeclaredSource>;

/// Names that no entity can have, because `/v1/NAME` is a path of its own.
pub const ENTITIES_RESERVED: &[&str] = &["changes", "projections", "streams"];

/// Something that an entity keeps in a source.
pub(crate) struct Use {
    pub(crate) source: String,
    /// Table, index, folder or collection; caches have none.
    pub(crate) place: Option<String>,
    pub(crate) spot: Spot,
}

/// An entity as far as it could be read.
pub(crate) struct DeclaredEntity {
    /// `None` if a problem was reported.
    pub(crate) declaration: Option<EntityDeclaration>,
    pub(crate) uses: Vec<Use>,
}

/// What is declared beside an entity.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) kinds: Kinds<'a>,
    pub(crate) region: Option<&'a str>,
    /// The source of `[personal]`, if there is one.
    pub(crate) keys: Option<&'a str>,
}

/// The fields as far as they could be read, and the entity unless a problem was reported.
pub(crate) struct Described {
    pub(crate) fields: Vec<DeclaredField>,
    pub(crate) entity: Option<Arc<Entity>>,
}

/// Reads `[entities]`.
pub(crate) fn entities(
    file: &Table<'_>,
    around: Surroundings<'_>,
) -> BTreeMap<String, DeclaredEntity> {
    let Surroundings { sources, kinds, .. } = around;
    let mut entities = BTreeMap::new();
    for (name, found) in file.named("entities") {
        let spot = Spot { span: name.span.clone(), key: found.spot.key.clone() };
        is_free_name(file.report, &name.text, "an entity", &spot);
        let truth = kind_at(sources, found.value, "truth", Role::Truth);
        let section = ENTITY.with_kind(truth, kinds);
        if let Some(table) = Table::new(file.report, &section, found.value, found.spot) {
            let described = described(&table, &name.text);
            entities.insert(name.text.clone(), entity(table, &name.text, described, around));
        }
    }
    entities
}

/// Whether something can have a name under which it is then read.
pub(crate) fn is_free_name(report: &Report<'_>, name: &str, what: &str, spot: &Spot) -> bool {
    if let Err(error) = check_name(name) {
        let message = format!("`{name}` cannot be the name of {what}: {}", error.message());
        report.error(spot, message);
        return false;
    }
    let is_free = !ENTITIES_RESERVED.contains(&name);
    if !is_free {
        report.error_with(
            spot,
            format!("`{name}` cannot be the name of {what}: /v1/{name} is taken"),
            "give it another name; its table can have this one",
        );
    }
    is_free
}

/// The targets of a projection with such fields, and what they keep; `None` if a problem was reported.
pub(crate) fn targets(
    table: &Table<'_>,
    name: &str,
    fields: &[DeclaredField],
    entity: Option<&Arc<Entity>>,
    around: Surroundings<'_>,
) -> (Option<Vec<FollowerDeclaration>>, Vec<Use>) {
    let mut reader = Reader::new(table.report, around, name, fields, entity);
    let items = table.items("targets").into_iter();
    let targets: Vec<_> = items.map(|found| reader.follower(&TARGET, found)).collect();
    let mut uses = reader.uses;
    // What is kept beside the rows.
    let beside = |used: &Use| {
        ["groups", "parts"].map(|what| Use {
            source: used.source.clone(),
            place: Some(format!("{name}_{what}")),
            spot: used.spot.clone(),
        })
    };
    uses.extend(uses.iter().flat_map(beside).collect::<Vec<_>>());
    (targets.into_iter().map(|target| Some(target?.alone())).collect(), uses)
}

/// The kind of the source that a table names under a key, if it can play the role.
fn kind_at(
    sources: &Sources,
    table: &Item,
    key: &str,
    role: Role,
) -> Option<&'static dyn SourceKind> {
    let Data::Table(entries) = &table.data else { return None };
    let (_, item) = entries.iter().find(|(name, _)| name.text == key)?;
    let Data::Text { text, .. } = &item.data else { return None };
    kind_named(sources, text, role)
}

/// The kind of a source, if it can play the role.
fn kind_named(sources: &Sources, name: &str, role: Role) -> Option<&'static dyn SourceKind> {
    let known = sources.get(name)?.kind.as_ref()?;
    known.capability.roles.contains(&role).then_some(known.kind)
}

/// One entity, whose shape is known.
pub(crate) fn entity(
    table: Table<'_>,
    name: &str,
    described: Described,
    around: Surroundings<'_>,
) -> DeclaredEntity {
    let report = table.report;
    let Surroundings { sources, region, keys, .. } = around;
    let Described { fields: declared, entity } = described;
    let truth_kind =
        table.source_named("truth").and_then(|name| kind_named(sources, name, Role::Truth));
    let mut reader = Reader::new(report, around, name, &declared, entity.as_ref());
    let (truth, place) = reader.truth(&table);
    let truth_options = reader.options(&table, truth_kind, Role::Truth);
    let items = table.items("followers");
    let keepers = items.len() + 1;
    let followers = items.into_iter().map(|found| reader.follower(&FOLLOWER, found));
    let mut followers = followers.collect::<Vec<_>>();
    let is_plain = table.takes("cache");
    let cache = if is_plain { table.item("cache") } else { None };
    let mut cache = cache.map(|found| reader.cache(found));
    // Reads ask any of these; what waits in a journal is laid over their answers.
    let (read, write) = ways(&table, &mut reader, keepers, is_plain);
    let behind = write.as_ref().is_some_and(|write| write.behind.is_some());
    let captured = Capture::of(&truth_options).is_some();
    let sync = reader.sync(&table, truth.as_ref(), captured, behind);
    let uses = reader.uses;
    let of_source = |name: &str| sources.get(name)?.kind.as_ref()?.region.clone();
    let regions = |name: Option<&str>| name.map_or_else(|| region.map(str::to_owned), of_source);
    let places = Places {
        uses: &uses,
        truth: truth.as_ref().map(|found| found.value.as_str()),
        journal: write.as_ref().and_then(|write| Some(&*write.behind.as_ref()?.journal)),
        regions: &regions,
    };
    let cached = cache.as_mut().and_then(Option::as_mut);
    let kept_out = residency::keep_out(&table, entity.as_ref(), &places, &mut followers, cached);
    let followers: Option<Vec<_>> = followers.into_iter().collect();
    let of_personal = personal::Around {
        keys,
        truth: places.truth,
        captured,
        synchronised: sync.is_some(),
        followers: followers.iter().flatten().map(|f| (&f.declaration, &f.given.spot)).collect(),
    };
    let kept_apart = entity.as_ref().and_then(|e| personal::check(&table, e, &of_personal));
    let ways = (read.as_ref(), write.as_ref(), cache.as_ref().and_then(Option::as_ref));
    let replication = replication::read(&table, truth.as_ref(), followers, ways.1, &regions)
        .filter(|r| mapped::check(&table, &r.followers, ways).is_some());
    table.finish();
    let all = || {
        let ((), (), replication) = (kept_out?, kept_apart?, replication?);
        Some(EntityDeclaration {
            entity: Arc::clone(entity.as_ref()?),
            truth: truth?.value.into(),
            table: place.map(Into::into),
            truth_options,
            cache: cache.map_or(Some(None), |c| c.map(Some))?,
            followers: replication.followers,
            read: read?,
            write: write?,
            ack: replication.ack,
            strategy: replication.strategy,
            adaptive: replication.adaptive,
            projection: None,
            sync: sync.map_or(Some(None), |sync| sync.map(Some))?,
        })
    };
    DeclaredEntity { declaration: all(), uses }
}

/// How an entity is read and written. Events are neither changed nor written behind, and what is there to be cached are
/// projections of them.
fn ways(
    table: &Table<'_>,
    reader: &mut Reader<'_>,
    keepers: usize,
    is_plain: bool,
) -> (Option<ReadPolicy>, Option<WritePolicy>) {
    let mut read = policies::read(table, &reader.uses, keepers);
    if is_plain {
        return (read, policies::write(table, |table| reader.journal(table)));
    }
    if let Some(read) = read.as_mut().filter(|read| read.rules.is_empty()) {
        read.rules.push(ReadRule::of_streams());
    }
    (read, Some(WritePolicy::default()))
}

fn described(table: &Table<'_>, name: &str) -> Described {
    let entries = table.named("fields");
    let declared = fields(table, &entries);
    let key = table.text("key");
    // With a field that was reported, the key or a condition could only be misjudged.
    let complete = declared.len() == entries.len() && !entries.is_empty();
    let entity =
        key.filter(|_| complete).and_then(|key| build(table.report, name, &declared, &key));
    let entity = personal::declared(table, entity);
    Described { fields: declared, entity }
}

fn fields(table: &Table<'_>, entries: &[(&Name, Found<&Item>)]) -> Vec<DeclaredField> {
    let spot = table.spot_of("fields");
    if entries.is_empty() && table.has_table("fields") {
        table.report.error(&spot, "an entity needs at least one field");
    }
    if entries.len() > Entity::FIELDS_MAX {
        table.report.error(&spot, format!("an entity has at most {} fields", Entity::FIELDS_MAX));
    }
    fields::fields(table.report, entries)
}

/// The entity, unless a problem was or is reported.
fn build(
    report: &Report<'_>,
    name: &str,
    declared: &[DeclaredField],
    key: &Found<String>,
) -> Option<Arc<Entity>> {
    if !fields::check_key(declared, key, report) {
        return None;
    }
    // What else `Entity::new` refuses (names, too many fields) was reported where it stands.
    let fields = declared.iter().map(|d| d.field.clone()).collect();
    Entity::new(name, &key.value, fields).ok().map(Arc::new)
}

/// Reads the parts of one entity that name sources.
struct Reader<'a> {
    report: &'a Report<'a>,
    sources: &'a Sources,
    kinds: Kinds<'a>,
    name: &'a str,
    fields: &'a [DeclaredField],
    entity: Option<&'a Arc<Entity>>,
    uses: Vec<Use>,
}

impl<'a> Reader<'a> {
    fn new(
        report: &'a Report<'a>,
        around: Surroundings<'a>,
        name: &'a str,
        fields: &'a [DeclaredField],
        entity: Option<&'a Arc<Entity>>,
    ) -> Self {
        let Surroundings { sources, kinds, .. } = around;
        Reader { report, sources, kinds, name, fields, entity, uses: Vec::new() }
    }
}

impl Reader<'_> {
    /// The name of a configured source that can play the role for this entity.
    fn source(&self, table: &Table<'_>, key: &'static str, role: Role) -> Option<Found<String>> {
        let found = table.text(key)?;
        let kind = playing(self.report, self.sources, &found, role)?;
        self.check_fields(&found.value, kind, role);
        Some(found)
    }

    /// Reports the fields that the source cannot keep exactly.
    fn check_fields(&self, source: &str, kind: &KnownKind, role: Role) {
        for declared in self.fields {
            if let Some(reason) = (kind.capability.refuses)(role, &declared.field) {
                let message = format!(
                    "`{source}` ({}) cannot keep the field `{}` as a {}: {reason}",
                    kind.kind.name(),
                    declared.field.name,
                    role.as_str()
                );
                self.report.error(&declared.spot, message);
            }
        }
    }

    /// The source that decides, and the name of its table if that is given.
    fn truth(&mut self, table: &Table<'_>) -> (Option<Found<String>>, Option<String>) {
        let truth = self.source(table, "truth", Role::Truth);
        let place = self.place(table.text("table"));
        if let Some(truth) = &truth {
            self.warn_if_forgetful(truth, Role::Truth);
            self.keeps(truth, Some(place.clone().unwrap_or_else(|| self.name.to_owned())));
        }
        (truth, place)
    }

    fn warn_if_forgetful(&self, source: &Found<String>, role: Role) {
        let kind = self.sources.get(&source.value).and_then(|s| s.kind.as_ref());
        if let Some(kind) = kind.filter(|k| !k.capability.durable) {
            let message = format!(
                "the {} `{}` ({}) forgets everything when the process ends",
                role.as_str(),
                source.value,
                kind.kind.name()
            );
            self.report.warning(&source.spot, message, able(self.sources, role));
        }
    }

    /// The other truth, if there is one; the inner `None` if a problem was reported.
    fn sync(
        &mut self,
        table: &Table<'_>,
        truth: Option<&Found<String>>,
        captured: bool,
        behind: bool,
    ) -> Option<Option<SyncDeclaration>> {
        let table = if table.takes("sync") { table.table("sync", &SYNC) } else { None }?;
        let with = self.source(&table, "with", Role::Truth);
        if let Some(with) = &with {
            let place = self.place(table.text("table"));
            self.keeps(with, Some(place.unwrap_or_else(|| self.name.to_owned())));
        }
        let truth = truth.map(|found| found.value.as_str());
        let around = Around { entity: self.entity, truth, behind, captured, name: self.name };
        Some(synchronised::read(table, with, &around))
    }

    /// The source that keeps acknowledged writes.
    fn journal(&mut self, table: &Table<'_>) -> Option<Found<String>> {
        let source = self.source(table, "journal", Role::Journal)?;
        self.warn_if_forgetful(&source, Role::Journal);
        self.keeps(&source, None);
        Some(source)
    }

    /// Notes that the entity is kept in a source, which it can be once.
    fn keeps(&mut self, source: &Found<String>, place: Option<String>) {
        if self.uses.iter().any(|u| u.source == source.value) {
            let message = format!("`{}` keeps `{}` already", source.value, self.name);
            self.report.error_with(
                &source.spot,
                message,
                "a source keeps an entity once: name another source",
            );
            return;
        }
        self.uses.push(Use { source: source.value.clone(), place, spot: source.spot.clone() });
    }

    /// What a kind adds for the entity in a role, checked by the kind.
    fn options(
        &self,
        table: &Table<'_>,
        kind: Option<&'static dyn SourceKind>,
        role: Role,
    ) -> Options {
        let options = table.entity_options(kind);
        if let (Some(kind), Some(entity)) = (kind, self.entity) {
            for (option, message) in kind.check_entity(role, entity, &options) {
                self.report.error(&table.spot_of(option), format!("`{option}` {message}"));
            }
        }
        options
    }

    /// A name of a table, index, folder or collection.
    fn place(&self, found: Option<Found<String>>) -> Option<String> {
        let Found { value, spot } = found?;
        if let Err(error) = check_name(&value) {
            self.report.error(&spot, format!("`{value}` cannot be used here: {}", error.message()));
        }
        Some(value)
    }

    fn follower(&mut self, section: &Section, found: Found<&Item>) -> Option<DeclaredFollower> {
        let kind = kind_at(self.sources, found.value, "source", Role::Follower);
        let section = section.with_kind(kind, self.kinds);
        let table = Table::new(self.report, &section, found.value, found.spot)?;
        let source = self.source(&table, "source", Role::Follower);
        let places: Vec<_> = ["table", "index", "folder", "collection"]
            .into_iter()
            .filter_map(|key| table.text(key))
            .collect();
        if let [_, second, ..] = places.as_slice() {
            let message = "only one of `table`, `index`, `folder` and `collection` can be given";
            self.report.error(&second.spot, message);
        }
        let place = self.place(places.into_iter().next());
        if let Some(source) = &source {
            self.keeps(source, Some(place.clone().unwrap_or_else(|| self.name.to_owned())));
        }
        let filter = if table.takes("where") { table.text("where") } else { None };
        let filter = self.filter(filter, Rule::compile);
        let map = mapped::read(&table, self.entity);
        let options = self.options(&table, kind, Role::Follower);
        let clear = table.takes("clear") && table.boolean("clear").unwrap_or_default();
        let keeps_history = kind.is_some_and(|kind| kind.capability().apply.history);
        if clear && keeps_history {
            let message = "keeps what records were, and would keep what is erased";
            self.report.error_with(&table.spot_of("clear"), message, "leave out `clear`");
        }
        let given = replication::given(&table);
        table.finish();
        Some(DeclaredFollower {
            declaration: FollowerDeclaration {
                source: source?.value.into(),
                place: place.map(Into::into),
                options,
                filter: filter?,
                map: map?,
                delivery: DeliveryPolicy::default(),
                clear,
            },
            given,
        })
    }

    /// The condition of a `where`, if one is given; `None` if a problem was reported.
    fn filter(
        &self,
        text: Option<Found<String>>,
        compile: fn(&Entity, &str) -> unisono_core::Result<Rule>,
    ) -> Option<Option<Arc<Rule>>> {
        let Some(text) = text else { return Some(None) };
        match compile(self.entity?, &text.value) {
            Ok(rule) => Some(Some(Arc::new(rule))),
            Err(error) => {
                let at = error
                    .detail("column")
                    .map_or(String::new(), |n| format!(" (at its character {n})"));
                let message = format!("{}{at}", error.message());
                self.report.error_maybe(&text.spot, message, error.hint_text().map(str::to_owned));
                None
            }
        }
    }

    fn cache(&mut self, found: Found<&Item>) -> Option<CacheDeclaration> {
        let kind = kind_at(self.sources, found.value, "source", Role::Cache);
        let section = CACHE.with_kind(kind, self.kinds);
        let table = Table::new(self.report, &section, found.value, found.spot)?;
        let source = self.source(&table, "source", Role::Cache);
        if let Some(source) = &source {
            self.keeps(source, None);
        }
        let (ttl, negative_ttl) = (table.duration("ttl"), table.duration("negative_ttl"));
        let (stale, refresh) = (table.duration("stale"), table.boolean("refresh"));
        let misses_max = table.integer("misses_max").and_then(|n| usize::try_from(n).ok());
        let (lease, results) = (table.duration("lease"), table.duration("results"));
        let warm = table.integer("warm").and_then(|n| usize::try_from(n).ok());
        let warm_hot = table.integer("warm_hot").and_then(|n| usize::try_from(n).ok());
        let warm_questions = questions::warm(&table, self.entity.map(AsRef::as_ref), results);
        let filter = self.filter(table.text("where"), Rule::of_cache);
        let mut options = self.options(&table, kind, Role::Cache);
        let live = options.take(kind.map_or(&[], |kind| kind.live_options()));
        table.finish();
        Some(CacheDeclaration {
            source: source?.value.into(),
            ttl,
            negative_ttl,
            stale,
            refresh: refresh?,
            misses_max: misses_max?,
            filter: filter?,
            lease,
            results,
            warm: warm?,
            warm_hot: warm_hot?,
            warm_questions: warm_questions?,
            options,
            live,
        })
    }
}
