//! Every type with the values known to cause trouble, through every role, and across closing and opening.

use std::sync::Arc;

use unisono_core::query::Query;
use unisono_core::{Entity, Field, FieldType, Position, Record, Role, Stored, json};
use unisono_testkit::Generator;

use crate::cases::cases;
use crate::fixture::{Fixture, Opened, Stop, Verdict, check, check_eq};

cases! {
    "values" values_come_back "every value of every type comes back exactly, also after reopening";
    "values-log" images_come_back "the log keeps every value of every type exactly";
}

/// An entity with a field of every type that the kind keeps, by each type of key.
fn entities(fixture: &Fixture, role: Role) -> Result<Vec<Arc<Entity>>, Stop> {
    let line = [
        Field::new("sku", FieldType::String),
        Field::new("count", FieldType::Integer),
        Field::new("price", FieldType::Decimal { precision: 28, scale: 10 }),
        Field::new("ratio", FieldType::Float),
        Field::new("at", FieldType::Timestamp { precision: 6 }),
        Field::new("raw", FieldType::Bytes),
    ];
    let list = |of| FieldType::List(Box::new(of));
    let types = [
        ("text", FieldType::Text),
        ("string", FieldType::String),
        ("count", FieldType::Integer),
        ("money", FieldType::Decimal { precision: 12, scale: 2 }),
        ("exact", FieldType::Decimal { precision: 28, scale: 28 }),
        ("whole", FieldType::Decimal { precision: 28, scale: 0 }),
        ("flag", FieldType::Boolean),
        ("ratio", FieldType::Float),
        ("day", FieldType::Date),
        ("at", FieldType::Timestamp { precision: 6 }),
        ("second", FieldType::Timestamp { precision: 0 }),
        ("uuid", FieldType::Uuid),
        ("raw", FieldType::Bytes),
        ("any", FieldType::Json),
        ("texts", list(FieldType::String)),
        ("numbers", list(FieldType::Integer)),
        ("ratios", list(FieldType::Float)),
        ("moneys", list(FieldType::Decimal { precision: 20, scale: 4 })),
        ("raws", list(FieldType::Bytes)),
        ("lines", FieldType::Objects(line.into())),
    ];
    let mut entities = Vec::new();
    for key in [FieldType::String, FieldType::Integer, FieldType::Uuid] {
        let mut fields: Vec<_> =
            types.iter().map(|(name, ty)| Field::new(name, ty.clone())).collect();
        fields.retain(|f| (fixture.capability().refuses)(role, f).is_none());
        fields.insert(3.min(fields.len()), Field::new("id", key));
        entities.push(Arc::new(Entity::new("thing", "id", fields)?));
    }
    Ok(entities)
}

/// Equal down to the sign of a zero, which plain equality of floats does not see.
fn same(entity: &Entity, a: &Record, b: &Record) -> bool {
    a == b && json::to_vec(entity, a) == json::to_vec(entity, b)
}

async fn compare(opened: &Opened, entity: &Arc<Entity>, records: &[Record], when: &str) -> Verdict {
    let keys = records.iter().map(|r| entity.key_of(r)).collect::<Result<Vec<_>, _>>()?;
    let found = opened.reader()?.get(entity, &keys).await?.value;
    for (record, found) in records.iter().zip(&found) {
        check_same(entity, record, found.as_ref(), &format!("get {when}"))?;
    }
    if let Some(auditor) = Arc::clone(&opened.source).auditor() {
        let all = auditor.scan(entity, None, 10_000).await?.value;
        check_eq!(all.records.len(), records.len(), "number of records scanned {when}");
        check!(all.end, "the scan has not ended {when}");
        for (record, found) in records.iter().zip(&all.records) {
            check_same(entity, record, Some(found), &format!("scan {when}"))?;
        }
    }
    if opened.source.capability().query.filter {
        let query = Query { limit: Query::LIMIT_MAX, ..Query::all() };
        let page = opened.reader()?.query(entity, &query).await?.value;
        check_eq!(page.hits.len(), records.len(), "number of records found {when}");
        for (record, hit) in records.iter().zip(&page.hits) {
            check_same(entity, record, Some(&hit.stored), &format!("query {when}"))?;
        }
    }
    Ok(())
}

fn check_same(entity: &Entity, record: &Record, found: Option<&Stored>, when: &str) -> Verdict {
    let text = |r: &Record| String::from_utf8_lossy(&json::to_vec(entity, r)).into_owned();
    let Some(found) = found else {
        return Err(Stop::Failed(format!("{when}: missing: {}", text(record))));
    };
    check_eq!(found.key, entity.key_of(record)?, "{when}: key");
    check!(
        same(entity, record, &found.record),
        "{when}: a record came back changed\n   written: {}\n      read: {}",
        text(record),
        text(&found.record)
    );
    Ok(())
}

async fn values_come_back(fixture: &Fixture) -> Verdict {
    for role in fixture.holding_roles() {
        for (seed, entity) in entities(fixture, role)?.iter().enumerate() {
            let fixture = Fixture::new(&fixture.kind)?;
            let records: Vec<_> =
                Generator::new(seed as u64).records(entity, 150).into_values().collect();
            let opened = fixture.holding(role, entity, &records).await?;
            let name = role.as_str();
            compare(&opened, entity, &records, &format!("as {name}, seed {seed}")).await?;
            let opened = fixture.reopen(opened, role, &[entity]).await?;
            compare(&opened, entity, &records, &format!("as {name} after reopening, seed {seed}"))
                .await?;
        }
    }
    Ok(())
}

async fn images_come_back(fixture: &Fixture) -> Verdict {
    fixture.needs(Role::Truth)?;
    for (seed, entity) in entities(fixture, Role::Truth)?.iter().enumerate() {
        let fixture = Fixture::new(&fixture.kind)?;
        let records: Vec<_> =
            Generator::new(seed as u64).records(entity, 100).into_values().collect();
        let opened = fixture.holding(Role::Truth, entity, &records).await?;
        let opened = fixture.reopen(opened, Role::Truth, &[entity]).await?;
        let log = opened.truth()?.read_log(Position::ZERO, 1000, usize::MAX).await?;
        check_eq!(log.len(), records.len(), "length of the log");
        for (record, change) in records.iter().zip(&log) {
            let image = change.image.as_ref().map(|i| same(entity, record, i));
            check_eq!(image, Some(true), "image of {record:?}");
            check_eq!(change.key, entity.key_of(record)?, "key of {record:?}");
        }
    }
    Ok(())
}
