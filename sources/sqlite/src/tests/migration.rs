//! Tables under a changed declaration.

use super::*;

use unisono_core::{ErrorKind, Value};

async fn reprepared(
    before: &Arc<Entity>,
    records: &[Json],
    after: &Arc<Entity>,
) -> (Result<Vec<String>>, Vec<Json>) {
    let folder = tempfile::tempdir().unwrap();
    let source = open_truth(folder.path(), before).await;
    for record in records {
        commit(&source, vec![put(before, record.clone())]).await.unwrap();
    }
    let notes = prepare(&source, Role::Truth, after).await;
    let shown = if notes.is_ok() { after } else { before };
    let found = all(&source, shown).await;
    if notes.is_ok() {
        assert_eq!(
            prepare(&source, Role::Truth, after).await.unwrap(),
            [] as [&str; 0],
            "nothing is left to do"
        );
    }
    (notes, found)
}

#[tokio::test]
async fn what_keeps_every_value_is_done() {
    let time = |precision| FieldType::Timestamp { precision };
    let sub = |ty| FieldType::Objects(vec![Field::new("amount", ty)].into());
    let wide = FieldType::Decimal { precision: 16, scale: 4 };
    let before = entity(
        "thing",
        &[
            ("price", DECIMAL),
            ("at", time(0)),
            ("then", time(3)),
            ("name", FieldType::String),
            ("lines", sub(DECIMAL)),
        ],
    );
    let mut fields: Vec<_> = [
        ("price", wide.clone()),
        ("at", time(3)),
        ("then", time(6)),
        ("name", FieldType::Text),
        ("lines", sub(wide)),
    ]
    .map(|(name, ty)| Field::new(name, ty))
    .into();
    fields.push(Field {
        default: Some(Value::String("none".into())),
        ..Field::new("note", FieldType::String)
    });
    let after = entity_of("thing", fields);
    let old = json!({"id": "a", "price": "-12.30", "at": "2026-01-02T03:04:05Z", "then": "2026-01-02T03:04:05.678Z",
        "name": "x", "lines": [{"amount": "1.50"}]});
    let (notes, found) = reprepared(&before, &[old, json!({"id": "b"})], &after).await;
    assert_eq!(notes.unwrap().len(), 4);
    let kept = json!({"id": "a", "price": "-12.3000", "at": "2026-01-02T03:04:05.000Z",
        "then": "2026-01-02T03:04:05.678000Z", "name": "x", "lines": [{"amount": "1.5000"}], "note": "none"});
    assert_eq!(found[0], kept);
    assert_eq!(found[1]["note"], "none");
}

#[tokio::test]
async fn what_would_lose_data_is_refused_and_changes_nothing() {
    let before = entity(
        "thing",
        &[
            ("price", DECIMAL),
            ("name", FieldType::String),
            ("at", FieldType::Timestamp { precision: 6 }),
        ],
    );
    let old = json!({"id": "a", "price": "1.50", "name": "x", "at": "2026-01-02T03:04:05.678900Z"});
    let others = [
        entity(
            "thing",
            &[
                ("price", FieldType::Decimal { precision: 12, scale: 1 }),
                ("name", FieldType::String),
                ("at", FieldType::Timestamp { precision: 6 }),
            ],
        ),
        entity(
            "thing",
            &[
                ("price", FieldType::Decimal { precision: 12, scale: 3 }),
                ("name", FieldType::String),
                ("at", FieldType::Timestamp { precision: 6 }),
            ],
        ),
        entity(
            "thing",
            &[
                ("price", DECIMAL),
                ("name", FieldType::Integer),
                ("at", FieldType::Timestamp { precision: 6 }),
            ],
        ),
        entity(
            "thing",
            &[
                ("price", DECIMAL),
                ("name", FieldType::String),
                ("at", FieldType::Timestamp { precision: 0 }),
            ],
        ),
        entity(
            "thing",
            &[
                ("price", DECIMAL),
                ("at", FieldType::Timestamp { precision: 6 }),
                ("fresh", FieldType::Integer),
            ],
        ),
    ];
    for after in others {
        let (notes, found) = reprepared(&before, std::slice::from_ref(&old), &after).await;
        let error = notes.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{error}");
        assert!(error.hint_text().is_some());
        assert_eq!(found, std::slice::from_ref(&old));
    }
}

#[tokio::test]
async fn a_unique_field_over_duplicates_is_refused_with_the_keys() {
    let before = entity("thing", &[("sku", FieldType::String)]);
    let after =
        entity_of("thing", vec![Field { unique: true, ..Field::new("sku", FieldType::String) }]);
    let records = [
        json!({"id": "a", "sku": "x"}),
        json!({"id": "b", "sku": "x"}),
        json!({"id": "c"}),
        json!({"id": "d"}),
    ];
    let error = reprepared(&before, &records, &after).await.0.unwrap_err();
    assert_eq!((error.kind(), error.detail("keys")), (ErrorKind::SchemaMismatch, Some("a and b")));
    assert!(reprepared(&before, &records[1..], &after).await.0.is_ok(), "nulls do not count");
}

#[tokio::test]
async fn records_in_another_table_are_not_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[]);
    let source = open_truth(folder.path(), &e).await;
    let moved = Binding {
        entity: Arc::clone(&e),
        role: Role::Truth,
        place: "things".into(),
        options: Options::default(),
    };
    let notes = source.prepare(std::slice::from_ref(&moved)).await.unwrap();
    assert_eq!(notes, ["made the table things"], "an empty table is nothing to keep");
    prepare(&source, Role::Truth, &e).await.unwrap();
    commit(&source, vec![put(&e, json!({"id": "a"}))]).await.unwrap();
    let error = source.prepare(&[moved]).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.detail("found_in")),
        (ErrorKind::SchemaMismatch, Some("thing"))
    );
}
