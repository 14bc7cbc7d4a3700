//! `[streams.NAME]`: a type of streams, which is kept as an entity of events beside those of `[entities]`, and the tags of
//! its events as another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::{Entity, Result, stream};
use unisono_policy::ack::AckPolicy;
use unisono_policy::declaration::EntityDeclaration;
use unisono_policy::read::ReadPolicy;
use unisono_policy::write::WritePolicy;

use crate::entities::{DeclaredEntity, Described, Surroundings, Use, entity};
use crate::fields::DeclaredField;
use crate::personal;
use crate::problem::Spot;
use crate::sections::STREAM;
use crate::table::Table;

/// Reads `[streams]` and adds what they are kept as to the entities.
pub(crate) fn streams(
    file: &Table<'_>,
    around: Surroundings<'_>,
    entities: &mut BTreeMap<String, DeclaredEntity>,
) {
    for (name, found) in file.named("streams") {
        let spot = Spot { span: name.span.clone(), key: found.spot.key.clone() };
        let (events, tags) = match shapes(&name.text) {
            Ok(shapes) => shapes,
            Err(error) => {
                let message =
                    format!("`{}` cannot be the name of streams: {}", name.text, error.message());
                file.report.error(&spot, message);
                continue;
            }
        };
        if entities.contains_key(&**events.name()) {
            file.report.error_with(
                &spot,
                format!(
                    "the events of `{}` are kept as `{}`, which is an entity",
                    name.text,
                    events.name()
                ),
                "give one of them another name",
            );
            continue;
        }
        let Some(table) = Table::new(file.report, &STREAM, found.value, found.spot) else {
            continue;
        };
        let declared =
            |f: &unisono_core::Field| DeclaredField { field: f.clone(), spot: spot.clone() };
        let fields = events.fields().iter().map(declared).collect();
        let name = events.name().to_string();
        let events = personal::declared(&table, Some(events));
        let described = Described { fields, entity: events };
        let events = entity(table, &name, described, around);
        if let Some(declaration) = &events.declaration {
            entities.insert(tags.name().to_string(), of_tags(tags, declaration, &name, &spot));
        }
        entities.insert(name, events);
    }
}

fn shapes(name: &str) -> Result<(Arc<Entity>, Arc<Entity>)> {
    Ok((Arc::new(stream::entity(name)?), Arc::new(stream::tags_entity(name)?)))
}

/// The tags are where the events are decided, and nowhere else.
fn of_tags(
    tags: Arc<Entity>,
    events: &EntityDeclaration,
    name: &str,
    spot: &Spot,
) -> DeclaredEntity {
    let place = format!("{name}_tags");
    let kept =
        Use { source: events.truth.to_string(), place: Some(place.clone()), spot: spot.clone() };
    let declaration = EntityDeclaration {
        entity: tags,
        truth: Arc::clone(&events.truth),
        table: Some(place.into()),
        truth_options: events.truth_options.clone(),
        cache: None,
        followers: Vec::new(),
        read: ReadPolicy::default(),
        write: WritePolicy::default(),
        ack: AckPolicy::default(),
        strategy: None,
        adaptive: None,
        projection: None,
        sync: None,
    };
    DeclaredEntity { declaration: Some(declaration), uses: vec![kept] }
}
