//! `[entities.NAME]`: fields, and the sources that keep them.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::entity::check_name;
use unisono_core::spelling::closest;
use unisono_core::{Entity, Role};
use unisono_policy::declaration::{CacheDeclaration, EntityDeclaration, FollowerDeclaration};
use unisono_policy::rule::Rule;

use crate::document::{Item, Name};
use crate::fields::{self, DeclaredField};
use crate::problem::{Report, Spot};
use crate::sections::{CACHE, ENTITY, FOLLOWER};
use crate::sources::{DeclaredSource, KnownKind, able};
use crate::table::{Found, Table};

type Sources = BTreeMap<String, DeclaredSource>;

/// Something that an entity keeps in a source.
pub(crate) struct Use {
    pub(crate) source: String,
    /// Table, index or folder; caches have none.
    pub(crate) place: Option<String>,
    pub(crate) spot: Spot,
}

/// An entity as far as it could be read.
pub(crate) struct DeclaredEntity {
    /// `None` if a problem was reported.
    pub(crate) declaration: Option<EntityDeclaration>,
    pub(crate) uses: Vec<Use>,
}

/// Reads `[entities]`.
pub(crate) fn entities(file: &Table<'_>, sources: &Sources) -> BTreeMap<String, DeclaredEntity> {
    let mut entities = BTreeMap::new();
    for (name, found) in file.named("entities") {
        let spot = Spot { span: name.span.clone(), key: found.spot.key.clone() };
        if let Err(error) = check_name(&name.text) {
            let message =
                format!("`{}` cannot be the name of an entity: {}", name.text, error.message());
            file.report.error(&spot, message);
        }
        if let Some(table) = Table::new(file.report, &ENTITY, found.value, found.spot) {
            entities.insert(name.text.clone(), entity(table, &name.text, sources));
        }
    }
    entities
}

fn entity(table: Table<'_>, name: &str, sources: &Sources) -> DeclaredEntity {
    let report = table.report;
    let entries = table.named("fields");
    let declared = fields(&table, &entries);
    let key = table.text("key");
    // With a field that was reported, the key or a condition could only be misjudged.
    let complete = declared.len() == entries.len() && !entries.is_empty();
    let entity = key.filter(|_| complete).and_then(|key| build(report, name, &declared, &key));
    let mut reader = Reader {
        report,
        sources,
        name,
        fields: &declared,
        entity: entity.as_ref(),
        uses: Vec::new(),
    };

    let truth = reader.source(&table, "truth", Role::Truth);
    let place = reader.place(table.text("table"));
    if let Some(truth) = &truth {
        reader.warn_if_forgetful(truth);
        reader.keeps(truth, Some(place.clone().unwrap_or_else(|| name.to_owned())));
    }
    let followers = table.tables("followers", &FOLLOWER).into_iter().map(|t| reader.follower(t));
    let followers = followers.collect::<Vec<_>>();
    let cache = table.table("cache", &CACHE).map(|t| reader.cache(t));
    let uses = reader.uses;
    table.finish();

    let all = || {
        Some(EntityDeclaration {
            entity: Arc::clone(entity.as_ref()?),
            truth: truth?.value.into(),
            table: place.map(Into::into),
            cache: cache.map_or(Some(None), |c| c.map(Some))?,
            followers: followers.into_iter().collect::<Option<_>>()?,
        })
    };
    DeclaredEntity { declaration: all(), uses }
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
    name: &'a str,
    fields: &'a [DeclaredField],
    entity: Option<&'a Arc<Entity>>,
    uses: Vec<Use>,
}

impl Reader<'_> {
    /// The name of a configured source that can play the role for this entity.
    fn source(&self, table: &Table<'_>, key: &'static str, role: Role) -> Option<Found<String>> {
        let found = table.text(key)?;
        let Some(source) = self.sources.get(&found.value) else {
            let hint = match closest(&found.value, self.sources.keys().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("declare it as [sources.{}]", found.value),
            };
            self.report.error_with(&found.spot, format!("unknown source `{}`", found.value), hint);
            return None;
        };
        let kind = source.kind.as_ref()?;
        if !kind.capability.roles.contains(&role) {
            let roles =
                kind.capability.roles.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(" or ");
            let message = format!(
                "`{}` cannot be a {}: the kind {} can be {roles}",
                found.value,
                role.as_str(),
                kind.name
            );
            self.report.error_with(&found.spot, message, able(self.sources, role));
            return None;
        }
        self.check_fields(&found.value, kind, role);
        Some(found)
    }

    /// Reports the fields that the source cannot keep exactly.
    fn check_fields(&self, source: &str, kind: &KnownKind, role: Role) {
        for declared in self.fields {
            if let Some(reason) = (kind.capability.refuses)(role, &declared.field) {
                let message = format!(
                    "`{source}` ({}) cannot keep the field `{}` as a {}: {reason}",
                    kind.name,
                    declared.field.name,
                    role.as_str()
                );
                self.report.error(&declared.spot, message);
            }
        }
    }

    fn warn_if_forgetful(&self, truth: &Found<String>) {
        let kind = self.sources.get(&truth.value).and_then(|s| s.kind.as_ref());
        if let Some(kind) = kind.filter(|k| !k.capability.durable) {
            let message = format!(
                "the truth `{}` ({}) forgets everything when the process ends",
                truth.value, kind.name
            );
            self.report.warning(&truth.spot, message, able(self.sources, Role::Truth));
        }
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

    /// A name of a table, index or folder.
    fn place(&self, found: Option<Found<String>>) -> Option<String> {
        let Found { value, spot } = found?;
        if let Err(error) = check_name(&value) {
            self.report.error(&spot, format!("`{value}` cannot be used here: {}", error.message()));
        }
        Some(value)
    }

    fn follower(&mut self, table: Table<'_>) -> Option<FollowerDeclaration> {
        let source = self.source(&table, "source", Role::Follower);
        let places: Vec<_> =
            ["table", "index", "folder"].into_iter().filter_map(|key| table.text(key)).collect();
        if let [_, second, ..] = places.as_slice() {
            self.report
                .error(&second.spot, "only one of `table`, `index` and `folder` can be given");
        }
        let place = self.place(places.into_iter().next());
        if let Some(source) = &source {
            self.keeps(source, Some(place.clone().unwrap_or_else(|| self.name.to_owned())));
        }
        let filter = table.text("where");
        table.finish();
        let filter = match (filter, self.entity) {
            (None, _) => None,
            (Some(filter), Some(entity)) => Some(self.rule(entity, &filter)?),
            (Some(_), None) => return None,
        };
        Some(FollowerDeclaration {
            source: source?.value.into(),
            place: place.map(Into::into),
            filter,
        })
    }

    fn rule(&self, entity: &Entity, text: &Found<String>) -> Option<Arc<Rule>> {
        match Rule::compile(entity, &text.value) {
            Ok(rule) => Some(Arc::new(rule)),
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

    fn cache(&mut self, table: Table<'_>) -> Option<CacheDeclaration> {
        let source = self.source(&table, "source", Role::Cache);
        if let Some(source) = &source {
            self.keeps(source, None);
        }
        let (ttl, negative_ttl) = (table.duration("ttl"), table.duration("negative_ttl"));
        table.finish();
        Some(CacheDeclaration { source: source?.value.into(), ttl, negative_ttl })
    }
}
