//! Tables and indexes: made, brought up to the declaration, or adopted from an application that had them before.
//!
//! One transaction, so that a mismatch changes nothing; processes that prepare at the same time wait for each other.

mod adopt;
mod catalog;
mod index;
mod migrate;

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use unisono_core::entity::SYSTEM;
use unisono_core::source::{Binding, LogBounds};
use unisono_core::{Capture, Error, ErrorKind, FieldType, Result, Role, Uuid};
use unisono_sql::types::{describe, type_mismatch};

use crate::capture::{self, Origin};
use crate::client::Tables;
use crate::codec::declared_type;
use crate::error::Failed;
use crate::life;
use crate::parameter::{Parameter, integer, text};
pub(crate) use crate::schema::catalog::{Catalog, Found};
use crate::session::{Session, Use};
use crate::table::{Column, Shape, Table, quote};
use crate::truth::bounds_of;

/// The source's own tables. `unisono_schema` says which declared types the data was written under.
const OWN_TABLES: &[(&str, &str)] = &[
    (
        "unisono_schema",
        "(entity text COLLATE \"C\" PRIMARY KEY, place text NOT NULL, fields json NOT NULL)",
    ),
    (
        "unisono_log",
        "(position bigint PRIMARY KEY, entity text COLLATE \"C\" NOT NULL, key text COLLATE \"C\" NOT NULL, \
         operation text NOT NULL, replaced bigint, previous bigint, image json, time timestamptz NOT NULL, \
         actor text, trace text)",
    ),
    // One row, written by every commit: room on its page, so that a new version of it needs no other.
    (
        "unisono_head",
        "(\"only\" boolean PRIMARY KEY DEFAULT TRUE CHECK (\"only\"), log uuid NOT NULL, trimmed bigint NOT NULL, \
         position bigint NOT NULL, fences jsonb NOT NULL DEFAULT '{}') \
         WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0)",
    ),
    (
        "unisono_outcomes",
        "(key text COLLATE \"C\" PRIMARY KEY, fingerprint bytea NOT NULL, first bigint NOT NULL, \
         changes bigint NOT NULL, time timestamptz NOT NULL)",
    ),
    (
        "unisono_state",
        "(space text COLLATE \"C\", name text COLLATE \"C\", value text NOT NULL, PRIMARY KEY (space, name))",
    ),
    (
        "unisono_checkpoints",
        "(entity text COLLATE \"C\" PRIMARY KEY, checkpoint text COLLATE \"C\" NOT NULL)",
    ),
    (
        "unisono_tombstones",
        "(entity text COLLATE \"C\", key text COLLATE \"C\", version bigint NOT NULL, PRIMARY KEY (entity, key))",
    ),
    // Of captured tables: see `capture`. An entry without a key is of a whole table.
    (
        "unisono_intake",
        "(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, entity text COLLATE \"C\" NOT NULL, key text COLLATE \"C\", \
         time timestamptz NOT NULL DEFAULT clock_timestamp(), xid xid8 NOT NULL DEFAULT pg_current_xact_id(), \
         actor text, trace text, refused text)",
    ),
    // Named so that none of these is the name of a field, beside which they stand in statements.
    (
        "unisono_versions",
        "(unisono_entity text COLLATE \"C\", unisono_key text COLLATE \"C\", unisono_version bigint NOT NULL, \
         PRIMARY KEY (unisono_entity, unisono_key))",
    ),
    ("unisono_life", life::COLUMNS),
    ("unisono_captures", "(entity text COLLATE \"C\" PRIMARY KEY, made boolean NOT NULL)"),
    (
        "unisono_sequencer",
        "(\"only\" boolean PRIMARY KEY DEFAULT TRUE CHECK (\"only\"), holder uuid, epoch bigint NOT NULL DEFAULT 0, \
         until timestamptz NOT NULL DEFAULT '-infinity') WITH (fillfactor = 10)",
    ),
];

/// Indexes of the source's own tables: table and columns.
const OWN_INDEXES: &[(&str, &str)] = &[
    ("unisono_outcomes", "first"),
    ("unisono_outcomes", "time"),
    ("unisono_tombstones", "entity, version"),
    ("unisono_intake", "entity, key"),
];

/// Makes the schema match the bindings; answers the tables, what was done, for people, and the log.
pub(crate) async fn prepare(
    session: &Session,
    schema: &str,
    bindings: &[Binding],
) -> Result<(Tables, Vec<String>, LogBounds), Failed> {
    check_places(bindings)?;
    let lock = format!("unisono {schema}").replace('\'', "''");
    session
        .run(&format!("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock(hashtextextended('{lock}', 0))"))
        .await?;
    let prepared = in_transaction(session, schema, bindings).await;
    // A session that fails is given up, and with it the transaction.
    let (tables, notes) = prepared?;
    let log = bounds_of(session, &quote(schema)).await?;
    session.run("COMMIT").await?;
    Ok((tables, notes, log))
}

async fn in_transaction(
    session: &Session,
    schema: &str,
    bindings: &[Binding],
) -> Result<(Tables, Vec<String>), Failed> {
    let catalog = Catalog { session, schema };
    check_rights(&catalog, bindings).await?;
    own_tables(&catalog).await?;
    let (mut tables, mut notes) = (Tables::new(), Vec::new());
    if bindings.iter().any(|binding| binding.role == Role::Truth) {
        notes.extend(life::begin_anew(&catalog).await?);
    }
    for binding in bindings {
        let mut step = Step { catalog: &catalog, binding, notes: &mut notes };
        let entity = binding.entity.name();
        let table = step.prepare().await.map_err(|mut failed| {
            failed.error = failed.error.of(entity);
            failed
        })?;
        tables.insert(Arc::clone(entity), Arc::new(table));
    }
    for entity in capture::undeclared(&catalog, &tables).await? {
        notes.push(format!(
            "the writes of others to the table of {entity} are still noted down, although it is no longer declared: drop \
             the function unisono_capture_{entity} with its triggers (CASCADE), and its rows in unisono_captures and \
             unisono_intake, if it will not be again"
        ));
    }
    Ok((tables, notes))
}

/// Says at once what would otherwise fail at the first write.
async fn check_rights(catalog: &Catalog<'_>, bindings: &[Binding]) -> Result<(), Failed> {
    let own = OWN_TABLES.iter().map(|(table, _)| *table);
    let names: Vec<_> = own.chain(bindings.iter().map(|b| b.place.as_ref())).collect();
    let lacking = catalog.lacking_rights(&names).await?;
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::PermissionDenied, "the database user lacks rights on tables")
        .with("schema", catalog.schema)
        .with("tables", lacking.join(", "))
        .hint("as their owner: GRANT USAGE ON SCHEMA …, and GRANT SELECT, INSERT, UPDATE, DELETE ON these tables, to the user in the url")
        .into())
}

async fn own_tables(catalog: &Catalog<'_>) -> Result<(), Failed> {
    let name = quote(catalog.schema);
    if !catalog.has_schema().await? {
        catalog.run(&format!("CREATE SCHEMA {name}")).await?;
    }
    let there: HashSet<String> = catalog.own_tables().await?;
    // Only what is missing is made: a user without the right to make tables can use those that are there.
    for (table, columns) in OWN_TABLES.iter().filter(|(table, _)| !there.contains(*table)) {
        catalog.run(&format!("CREATE TABLE {name}.{table} {columns}")).await?;
        for (_, columns) in OWN_INDEXES.iter().filter(|(of, _)| of == table) {
            catalog.run(&format!("CREATE INDEX ON {name}.{table} ({columns})")).await?;
        }
    }
    let head = catalog.columns("unisono_head").await?;
    if head.is_some_and(|columns| !columns.contains_key("fences")) {
        // Made by a version that moved no truths.
        let sql = format!(
            "ALTER TABLE {name}.unisono_head ADD COLUMN fences jsonb NOT NULL DEFAULT '{{}}'"
        );
        catalog.run(&sql).await?;
    }
    if !there.contains("unisono_sequencer") {
        catalog.run(&format!("INSERT INTO {name}.unisono_sequencer DEFAULT VALUES")).await?;
    }
    if !there.contains("unisono_head") {
        let sql = format!(
            "INSERT INTO {name}.unisono_head (log, trimmed, position) VALUES ('{}', 0, 0)",
            Uuid::now_v7()
        );
        catalog.run(&sql).await?;
    }
    Ok(())
}

fn check_places(bindings: &[Binding]) -> Result<()> {
    let mut seen = HashSet::new();
    for Binding { place, entity, role, .. } in bindings {
        if *role == Role::Cache {
            return Err(Error::unsupported("a postgres source is no cache").of(entity.name()));
        }
        let wrong = |message: &'static str| {
            Error::new(ErrorKind::InvalidConfig, message).of(entity.name()).with("table", place)
        };
        let is_own = place.starts_with(SYSTEM) && !entity.is_system();
        let reserved = is_own || place.starts_with("pg_");
        if place.is_empty() || place.len() > 63 || place.contains('\0') || reserved {
            return Err(wrong("the table cannot have this name").hint(
                "names have 1 to 63 bytes; those beginning with unisono_ or pg_ are reserved",
            ));
        }
        if !seen.insert(place) {
            return Err(wrong("two entities have the same table"));
        }
    }
    Ok(())
}

/// Preparing one binding.
pub(crate) struct Step<'a> {
    pub(crate) catalog: &'a Catalog<'a>,
    pub(crate) binding: &'a Binding,
    pub(crate) notes: &'a mut Vec<String>,
}

impl Step<'_> {
    async fn prepare(&mut self) -> Result<Table, Failed> {
        let found = self.catalog.columns(&self.binding.place).await?;
        let recorded = self.recorded().await?;
        let has_version = found.as_ref().is_some_and(|f| f.contains_key("unisono_version"));
        let (columns, origin) = match (found, recorded) {
            (None, _) => {
                self.check_not_gone().await?;
                (self.create().await?, Origin::Made)
            }
            (Some(found), Some(fields)) => (self.migrate(&found, &fields).await?, Origin::Known),
            (Some(found), None) => (self.adopt(&found).await?, Origin::Adopted),
        };
        self.indexes(&columns).await?;
        self.record().await?;
        self.set_capture(origin, has_version).await?;
        Ok(Table::new(self.binding, self.catalog.schema, columns))
    }

    async fn create(&mut self) -> Result<Vec<Column>, Failed> {
        let entity = &self.binding.entity;
        let columns: String = (entity.fields().iter().enumerate())
            .map(|(n, field)| {
                let key = if n == entity.key_index() { " PRIMARY KEY" } else { "" };
                format!("{} {}{key}, ", quote(&field.name), declared_type(&field.ty))
            })
            .collect();
        let columns = match Capture::of(&self.binding.options) {
            None => columns + "unisono_version bigint NOT NULL",
            Some(_) => columns.trim_end_matches(", ").to_owned(),
        };
        self.run(&format!("CREATE TABLE {} ({columns})", self.table())).await?;
        if self.binding.role == Role::Follower {
            // What is known of records that are gone would keep them from being sent again.
            let schema = quote(self.catalog.schema);
            for of in ["unisono_tombstones", "unisono_checkpoints"] {
                let sql = format!("DELETE FROM {schema}.{of} WHERE entity = '{}'", entity.name());
                self.run(&sql).await?;
            }
        }
        self.notes.push(format!("made the table {}", self.binding.place));
        Ok(own_columns(entity.fields()))
    }

    /// The types under which the table was written, if it is known; the same entity in another table is a mismatch.
    async fn recorded(&self) -> Result<Option<Map<String, Json>>, Failed> {
        let sql = format!(
            "SELECT place, fields::text FROM {}.unisono_schema WHERE entity = $1",
            quote(self.catalog.schema)
        );
        let parameter = Parameter::text(self.binding.entity.name());
        let rows = self.catalog.rows(&sql, &[parameter]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (place, fields) = (text(row, 0)?, text(row, 1)?);
        if place != self.binding.place.as_ref() {
            let exists = self.catalog.columns(place).await?.is_some();
            let table = format!("{}.{}", quote(self.catalog.schema), quote(place));
            if exists && self.any(&format!("SELECT 1 FROM {table} LIMIT 1")).await? {
                return Err(self
                    .mismatch("the records of the entity are in another table")
                    .with("found_in", place)
                    .hint("declare that table, or rename it (ALTER TABLE … RENAME TO …) while Unisono is stopped")
                    .into());
            }
            return Ok(None);
        }
        let fields = serde_json::from_str(fields).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "unisono_schema cannot be decoded").caused_by(e)
        })?;
        Ok(Some(fields))
    }

    async fn record(&self) -> Result<(), Failed> {
        let Binding { entity, place, .. } = self.binding;
        let fields: Map<String, Json> =
            entity.fields().iter().map(|f| (f.name.to_string(), describe(&f.ty))).collect();
        // Nothing is written if nothing has changed.
        let sql = format!(
            "INSERT INTO {0}.unisono_schema AS old (entity, place, fields) \
             SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT FROM {0}.unisono_schema s \
              WHERE s.entity = $1 AND s.place = $2 AND s.fields::text = $3::text) \
             ON CONFLICT (entity) DO UPDATE SET place = excluded.place, fields = excluded.fields",
            quote(self.catalog.schema)
        );
        let fields = Json::Object(fields).to_string().into_bytes();
        let fields = Parameter::new(tokio_postgres::types::Type::JSON, Some(fields));
        let row = [Parameter::text(entity.name()), Parameter::text(place), fields];
        self.catalog.session.execute(Use::Once, &sql, &row).await?;
        Ok(())
    }

    /// The schema, quoted for SQL.
    pub(crate) fn schema(&self) -> String {
        quote(self.catalog.schema)
    }

    /// The rows of a statement.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<tokio_postgres::Row>, Failed> {
        self.catalog.rows(sql, &[]).await
    }

    pub(crate) fn table(&self) -> String {
        format!("{}.{}", quote(self.catalog.schema), quote(&self.binding.place))
    }

    pub(crate) async fn run(&self, sql: &str) -> Result<(), Failed> {
        self.catalog.run(sql).await
    }

    /// Whether a statement has any row.
    async fn any(&self, sql: &str) -> Result<bool, Failed> {
        let rows =
            self.catalog.rows(&format!("SELECT count(*) FROM ({sql}) AS found"), &[]).await?;
        Ok(rows.first().map(|row| integer(row, 0)).transpose()?.unwrap_or(0) > 0)
    }

    pub(crate) fn mismatch(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::SchemaMismatch, message).with("table", &self.binding.place)
    }

    /// The mismatch of a field whose stored data would be lost.
    fn field_mismatch(
        &self,
        field: &str,
        stored: impl std::fmt::Display,
        declared: &FieldType,
    ) -> Error {
        type_mismatch(&self.binding.place, field, stored, declared)
    }
}

/// The columns of a table of our own.
fn own_columns(fields: &[unisono_core::Field]) -> Vec<Column> {
    fields.iter().map(|f| Column::new(f, Shape::Own, &declared_type(&f.ty))).collect()
}
