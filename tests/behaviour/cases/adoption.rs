//! SQLite only: a table that was there before becomes the home of an entity.

use std::sync::Arc;

use serde_json::json;
use unisono_core::kind::Options;
use unisono_core::source::Binding;
use unisono_core::write::Action;
use unisono_core::{Entity, Field, FieldType, Role};
use unisono_testkit::Sample;

use crate::cases::cases;
use crate::fixture::{Fixture, Stop, Verdict, check, check_eq, unit, write};

cases! {
    "adopt" tables_are_adopted "an existing table keeps its rows and its other columns";
}

fn sql(error: rusqlite::Error) -> Stop {
    Stop::Failed(format!("SQLite: {error}"))
}

/// The database file, which the source has made.
fn database(fixture: &Fixture) -> Result<std::path::PathBuf, Stop> {
    let mut folders = vec![fixture.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).map_err(|e| Stop::Failed(e.to_string()))?.flatten() {
            let path = entry.path();
            let is_sqlite =
                std::fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"));
            match path.is_dir() {
                true => folders.push(path),
                false if is_sqlite => return Ok(path),
                false => {}
            }
        }
    }
    Err(Stop::Failed("no database file was made".into()))
}

async fn tables_are_adopted(fixture: &Fixture) -> Verdict {
    fixture.needs_that(fixture.kind.name() == "sqlite", "SQLite")?;
    let opened = fixture.open(Role::Truth, &[&Sample::order()]).await?;
    opened.source.close().await?;
    drop(opened);
    let file = database(fixture)?;
    let connection = rusqlite::Connection::open(&file).map_err(sql)?;
    connection
        .execute_batch(
            "CREATE TABLE legacy_products (id TEXT PRIMARY KEY, name TEXT NOT NULL, stock INTEGER, colour TEXT DEFAULT 'red');
             INSERT INTO legacy_products (id, name, stock, colour) VALUES ('a', 'lamp', 3, 'blue'), ('b', 'desk', NULL, NULL);",
        )
        .map_err(sql)?;
    drop(connection);
    let fields = vec![
        Field::new("id", FieldType::String),
        Field { required: true, ..Field::new("name", FieldType::String) },
        Field::new("stock", FieldType::Integer),
    ];
    let entity = Arc::new(Entity::new("product", "id", fields)?);
    let binding = Binding {
        entity: Arc::clone(&entity),
        role: Role::Truth,
        place: "legacy_products".into(),
        options: Options::default(),
    };
    let opened = fixture.open_bare().await?;
    opened.source.prepare(std::slice::from_ref(&binding)).await?;
    let found = opened.get(&entity, &Sample::key("a")).await?;
    let expected = Sample::record(&entity, &json!({"id": "a", "name": "lamp", "stock": 3}));
    check_eq!(found.map(|s| s.record.as_ref().clone()), Some(expected), "a row from before");
    check_eq!(opened.everything(&entity).await?.len(), 2, "rows from before");
    let patch = Action::Patch(json!({"stock": 4}));
    let committed =
        opened.commit(vec![unit(vec![write(&entity, &Sample::key("a"), patch)])]).await?;
    check!(
        committed[0].changes[0].position.as_u64() >= 1,
        "a change of a row from before has a position"
    );
    check_eq!(
        opened.source.prepare(&[binding]).await?,
        Vec::<String>::new(),
        "nothing is left to prepare"
    );
    opened.source.close().await?;
    let connection = rusqlite::Connection::open(&file).map_err(sql)?;
    let row = connection
        .query_row("SELECT name, stock, colour FROM legacy_products WHERE id = 'a'", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
        })
        .map_err(sql)?;
    check_eq!(row, ("lamp".to_owned(), 4, "blue".to_owned()), "the row, as other programs see it");
    Ok(())
}
