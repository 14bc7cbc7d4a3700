//! `[outlets.NAME]`: where messages about records and events are sent. Each is a source, fed by what it is `from`.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::entity::check_name;
use unisono_core::{Role, stream};
use unisono_policy::declaration::{EntityDeclaration, FollowerDeclaration};
use unisono_policy::delivery::DeliveryPolicy;
use unisono_policy::rule::Rule;

use crate::document::Item;
use crate::entities::{DeclaredEntity, Use};
use crate::kinds::Kinds;
use crate::options;
use crate::problem::{Spot, meant};
use crate::sources::{DeclaredSource, KnownKind, chosen};
use crate::table::{Found, Table};

/// Reads `[outlets]`, and has what they are from feed them.
pub(crate) fn outlets(
    file: &Table<'_>,
    kinds: Kinds<'_>,
    sources: &mut BTreeMap<String, DeclaredSource>,
    entities: &mut BTreeMap<String, DeclaredEntity>,
) {
    for (name, found) in file.named("outlets") {
        let spot = Spot { span: name.span.clone(), key: found.spot.key.clone() };
        if let Err(error) = check_name(&name.text) {
            let message =
                format!("`{}` cannot be the name of an outlet: {}", name.text, error.message());
            file.report.error(&spot, message);
        }
        if sources.contains_key(&name.text) {
            let message = format!("`{}` is the name of a source", name.text);
            file.report.error_with(&spot, message, "give one of them another name");
            continue;
        }
        let kind = outlet(file, &name.text, &found, kinds, entities);
        sources.insert(name.text.clone(), DeclaredSource { spot, kind });
    }
}

/// One outlet; `None` if a problem was reported.
fn outlet(
    file: &Table<'_>,
    name: &str,
    found: &Found<&Item>,
    kinds: Kinds<'_>,
    entities: &mut BTreeMap<String, DeclaredEntity>,
) -> Option<KnownKind> {
    let kind = chosen(file.report, found, kinds, Role::Outlet)?;
    let section = options::outlet(kind);
    let table = Table::new(file.report, &section, found.value, found.spot.clone())?;
    table.hide_unknown();
    table.item("kind");
    let (from, condition) = (table.texts("from"), table.text("where"));
    let options = table.options(kind.options());
    for (option, message) in kind.check(&options) {
        table.report.error(&table.spot_of(option), format!("`{option}` {message}"));
    }
    for from in &from {
        feed(&table, name, from, condition.as_ref(), entities);
    }
    table.finish();
    Some(KnownKind::of_outlet(kind, options))
}

/// Has an entity, or the events of a type of streams, feed an outlet.
fn feed(
    table: &Table<'_>,
    name: &str,
    from: &Found<String>,
    condition: Option<&Found<String>>,
    entities: &mut BTreeMap<String, DeclaredEntity>,
) {
    let of_events = stream::entity_name(&from.value);
    let key = if entities.contains_key(&of_events) { of_events } else { from.value.clone() };
    let Some(found) = entities.get_mut(&key).filter(|found| may_feed(found)) else {
        let known = entities.iter().filter(|(_, entity)| may_feed(entity));
        let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
        let hint = meant(&from.value, known, || "name an entity, or a type of streams".to_owned());
        let message = format!("there is no entity and no type of streams `{}`", from.value);
        return table.report.error_with(&from.spot, message, hint);
    };
    found.uses.push(Use { source: name.to_owned(), place: None, spot: from.spot.clone() });
    let Some(declaration) = &mut found.declaration else { return };
    let filter = match condition.map(|text| Rule::compile(&declaration.entity, &text.value)) {
        None => None,
        Some(Ok(rule)) => Some(Arc::new(rule)),
        Some(Err(error)) => {
            let spot = condition.map_or(&from.spot, |text| &text.spot);
            let hint = error.hint_text().map(str::to_owned);
            return table.report.error_maybe(spot, error.message().to_owned(), hint);
        }
    };
    declaration.followers.push(FollowerDeclaration {
        source: name.into(),
        place: None,
        options: Default::default(),
        filter,
        map: None,
        delivery: DeliveryPolicy::default(),
        clear: false,
    });
}

/// Whether what happens to it is told: not what is worked out, and not what is the engine's own.
fn may_feed(found: &DeclaredEntity) -> bool {
    let is_written = |d: &EntityDeclaration| d.projection.is_none() && !d.entity.is_system();
    found.declaration.as_ref().is_none_or(is_written)
}
