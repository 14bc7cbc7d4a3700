//! Tables and indexes: made, brought up to the declaration, or adopted from an application that had them before.
//!
//! The server ends a transaction at every statement that changes a table. So everything is planned and checked first;
//! then it is done, each step such that preparing again after a crash between two of them goes on where it ended. What
//! a table was written under is recorded last.

mod adopt;
mod describe;
mod found;
mod index;
mod own;
mod plan;
mod types;

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use unisono_core::entity::SYSTEM;
use unisono_core::source::Binding;
use unisono_core::{Capture, Error, ErrorKind, FieldType, Result, Role};
use unisono_sql::types::type_mismatch;

pub(crate) use describe::describe;
pub(crate) use found::word;

use crate::capture::{self, Capturing};
use crate::client::Tables;
use crate::error::{Class, Failed};
use crate::literal::{quote, text};
use crate::pool::{Pool, Session};
use crate::schema::found::Found;
use crate::table::{Layout, Table, VERSION, cell};

/// How long a process waits for another one that prepares the same database, in seconds.
const LOCK_SECONDS: u32 = 20;
const LOCK: &str = "CONCAT('unisono_', MD5(DATABASE()))";

/// Makes the database match the bindings; answers the tables and what was done, for people.
pub(crate) async fn prepare(
    pool: &Arc<Pool>,
    bindings: &[Binding],
) -> Result<(Tables, Vec<String>), Failed> {
    check_places(bindings)?;
    // Processes that start together must not make the same table twice. The lock ends with the connection.
    let (mut session, sets) =
        pool.begin(&format!("SELECT GET_LOCK({LOCK}, {LOCK_SECONDS})")).await?;
    let locked = sets.first().and_then(|rows| rows.first()).map(|row| word(row, 0)).transpose()?;
    if locked.as_deref() != Some("1") {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "another process is preparing the database",
        )
        .hint("wait until it has ended; see SHOW PROCESSLIST")
        .into());
    }
    let prepared = prepare_all(&mut session, bindings).await?;
    session.run(&format!("DO RELEASE_LOCK({LOCK})")).await?;
    session.release();
    Ok(prepared)
}

async fn prepare_all(
    session: &mut Session,
    bindings: &[Binding],
) -> Result<(Tables, Vec<String>), Failed> {
    own::prepare(session, bindings).await?;
    let mut plans = Vec::with_capacity(bindings.len());
    for binding in bindings {
        let mut step = Step::look(session, binding).await.map_err(|f| of(f, binding))?;
        step.plan().await.map_err(|f| of(f, binding))?;
        plans.push((binding, step.plan));
    }
    let mut notes = Vec::new();
    let mut tables = Tables::new();
    for (binding, plan) in plans {
        for (sql, note) in plan.statements {
            session.run(&sql).await.map_err(|f| of(changing(f, &sql), binding))?;
            notes.extend(note);
        }
        if let Some(sql) = plan.record {
            session.run(&sql).await?;
        }
        let found = Found::look(session, &binding.place).await?;
        let key = binding.entity.key_field();
        let mut layout = Layout {
            sole_unique: found.is_sole_unique(&key.name),
            hashed: found.hashed(),
            key_collation: found
                .columns
                .get(&*key.name)
                .map_or(String::new(), |c| c.collation.clone()),
            ..plan.layout
        };
        if let Some(how) = Capture::of(&binding.options) {
            let key = Table::new(binding, &layout).key;
            let begun = Capturing { session: &mut *session, binding, key }.begin(how, plan.is_made);
            let (has_before, told) = begun.await.map_err(|f| of(f, binding))?;
            layout.has_before = has_before;
            notes.extend(told);
        }
        check_rights(session, binding).await.map_err(|f| of(f, binding))?;
        tables.insert(Arc::clone(binding.entity.name()), Arc::new(Table::new(binding, &layout)));
    }
    Ok((tables, notes))
}

/// Tries, on no row, what the account must be allowed: it shall be refused now rather than at the first change.
async fn check_rights(session: &mut Session, binding: &Binding) -> Result<(), Failed> {
    let (table, key) = (quote(&binding.place), quote(&binding.entity.key_field().name));
    let sql =
        format!("UPDATE {table} SET {key} = {key} WHERE FALSE; DELETE FROM {table} WHERE FALSE");
    session.run(&sql).await.map(drop)
}

fn of(failed: Failed, binding: &Binding) -> Failed {
    Failed { error: failed.error.of(binding.entity.name()), ..failed }
}

/// A statement that changes a table and is refused by what is in it.
fn changing(failed: Failed, sql: &str) -> Failed {
    if failed.class != Class::Refused {
        return failed;
    }
    Error::new(ErrorKind::SchemaMismatch, "the stored data does not allow the change of the table")
        .with("statement", sql.chars().take(200).collect::<String>())
        .hint("correct the data, or declare what was declared before")
        .caused_by(failed.error)
        .into()
}

fn check_places(bindings: &[Binding]) -> Result<()> {
    let mut seen = HashSet::new();
    for Binding { place, entity, role, .. } in bindings {
        let lower = place.to_lowercase();
        if *role == Role::Cache {
            return Err(Error::unsupported("a mysql source is no cache").of(entity.name()));
        }
        let is_name = !lower.is_empty()
            && lower.chars().count() <= 64
            && !lower.ends_with(' ')
            && !lower.contains(['\0', '/', '\\', '.'])
            && (!lower.starts_with(SYSTEM) || entity.is_system());
        if !is_name {
            return Err(Error::new(ErrorKind::InvalidConfig, "the table cannot have this name")
                .of(entity.name())
                .with("table", place)
                .hint("a name has 1 to 64 characters, none of them . / or \\, and does not begin with unisono_"));
        }
        if !seen.insert(lower) {
            return Err(Error::new(ErrorKind::InvalidConfig, "two entities have the same table")
                .of(entity.name())
                .with("table", place));
        }
    }
    Ok(())
}

/// What is to be done for one binding.
#[derive(Debug, Default)]
struct Plan {
    /// Statements in order, with what people are told of them.
    statements: Vec<(String, Option<String>)>,
    /// Records what the table is then written under, if that has changed.
    record: Option<String>,
    /// Columns whose type changes.
    modified: HashSet<String>,
    /// Whether the table is made.
    is_made: bool,
    layout: Layout,
}

impl Plan {
    fn quietly(&mut self, sql: String) {
        self.statements.push((sql, None));
    }

    fn add(&mut self, sql: String, note: String) {
        self.statements.push((sql, Some(note)));
    }
}

/// What a table was written under.
struct Recorded {
    fields: Map<String, Json>,
    /// Whether an application made the table.
    adopted: bool,
}

/// Planning for one binding.
struct Step<'a> {
    session: &'a mut Session,
    binding: &'a Binding,
    collation: &'static str,
    found: Found,
    /// Whether the table is captured by now, and if so, whether Unisono made it.
    captured: Option<bool>,
    plan: Plan,
}

impl<'a> Step<'a> {
    async fn look(session: &'a mut Session, binding: &'a Binding) -> Result<Self, Failed> {
        let found = Found::look(session, &binding.place).await?;
        let collation = session.connection().server.collation;
        let layout = Layout { collation, ..Layout::default() };
        let plan = Plan { layout, ..Plan::default() };
        Ok(Step { session, binding, collation, found, captured: None, plan })
    }

    async fn plan(&mut self) -> Result<(), Failed> {
        if self.found.is_there() && self.found.sort != "BASE TABLE" {
            return Err(self
                .mismatch("there is something else than a table with its name")
                .with("sort", &self.found.sort)
                .hint("choose another table")
                .into());
        }
        let recorded = self.recorded().await?;
        if capture::is_there(self.session).await? {
            self.captured = capture::is_captured(self.session, self.binding.entity.name()).await?;
        }
        self.check_capture()?;
        let adopted = match &recorded {
            _ if !self.found.is_there() => {
                self.create();
                false
            }
            Some(recorded) => {
                self.migrate(recorded).await?;
                recorded.adopted
            }
            None => self.adopt().await?,
        };
        self.indexes().await?;
        self.end_capture().await?;
        self.plan.record = self.record(recorded.as_ref(), adopted);
        Ok(())
    }

    fn capture(&self) -> Option<Capture> {
        Capture::of(&self.binding.options)
    }

    /// Whether columns may be added: to tables that other programs made and have captured, none are.
    fn may_add(&self) -> bool {
        self.capture().is_none() || !self.found.is_there() || self.captured == Some(true)
    }

    fn check_capture(&self) -> Result<()> {
        match self.capture() {
            Some(_) if self.found.columns.contains_key(VERSION) => Err(self
                .mismatch("the table to be captured has a column unisono_version, which others cannot fill")
                .hint("drop it (ALTER TABLE … DROP COLUMN unisono_version) while Unisono is stopped: versions begin anew above all earlier ones")),
            _ => Ok(()),
        }
    }

    /// Plans the end of a capture that is no longer declared: the versions get a column.
    async fn end_capture(&mut self) -> Result<(), Failed> {
        if self.captured.is_none() || self.capture().is_some() {
            return Ok(());
        }
        if self.found.is_there() && !self.found.columns.contains_key(VERSION) {
            let version = self.version_of_adopted().await?;
            self.version_column(version);
        }
        let has_triggers = self.found.is_there();
        let ends = capture::end(self.session, self.binding, has_triggers).await?;
        let last = ends.len().saturating_sub(1);
        for (n, sql) in ends.into_iter().enumerate() {
            let note =
                format!("the writes of others to {} are no longer captured", self.binding.place);
            self.plan.statements.push((sql, (n == last).then_some(note)));
        }
        Ok(())
    }

    /// What the table was written under, if it is known; records of the same entity in another table are a mismatch.
    async fn recorded(&mut self) -> Result<Option<Recorded>, Failed> {
        let sql = format!(
            "SELECT `place`, `fields`, `adopted` FROM unisono_schema WHERE `entity` = {}",
            text(self.binding.entity.name())
        );
        let sets = self.session.run(&sql).await?;
        let Some(row) = sets.first().and_then(|rows| rows.first()) else { return Ok(None) };
        let (place, fields, adopted) = (word(row, 0)?, word(row, 1)?, word(row, 2)? == "1");
        if place != *self.binding.place {
            let there = Found::look(self.session, &place).await?;
            if there.is_there()
                && self.any(&format!("SELECT 1 FROM {} LIMIT 1", quote(&place))).await?
            {
                return Err(self
                    .mismatch("the records of the entity are in another table")
                    .with("found_in", &place)
                    .hint("declare that table, or rename it (RENAME TABLE … TO …) while Unisono is stopped")
                    .into());
            }
            return Ok(None);
        }
        let fields = serde_json::from_str(&fields).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "unisono_schema cannot be decoded").caused_by(e)
        })?;
        Ok(Some(Recorded { fields, adopted }))
    }

    fn record(&self, recorded: Option<&Recorded>, adopted: bool) -> Option<String> {
        let entity = &self.binding.entity;
        let fields: Map<String, Json> = entity
            .fields()
            .iter()
            .map(|f| (f.name.to_string(), unisono_sql::types::describe(&f.ty)))
            .collect();
        if recorded.is_some_and(|r| r.fields == fields && r.adopted == adopted) {
            return None;
        }
        let row = format!(
            "{}, {}, {}, {}",
            text(entity.name()),
            text(&self.binding.place),
            text(&Json::Object(fields).to_string()),
            i32::from(adopted)
        );
        // The key is the only thing that is unique in this table.
        Some(format!(
            "INSERT INTO unisono_schema (`entity`, `place`, `fields`, `adopted`) VALUES ({row}) ON DUPLICATE KEY UPDATE \
             `place` = VALUES(`place`), `fields` = VALUES(`fields`), `adopted` = VALUES(`adopted`)"
        ))
    }

    fn table(&self) -> String {
        quote(&self.binding.place)
    }

    /// Whether a statement has any row.
    async fn any(&mut self, sql: &str) -> Result<bool, Failed> {
        let sets = self.session.run(sql).await?;
        Ok(sets.first().is_some_and(|rows| !rows.is_empty()))
    }

    /// The first cell of the first row of a statement.
    async fn first(&mut self, sql: &str) -> Result<Option<String>, Failed> {
        let sets = self.session.run(sql).await?;
        let row = sets.first().and_then(|rows| rows.first());
        Ok(row
            .map(|row| crate::codec::text_of(cell(row, 0)?))
            .transpose()?
            .flatten()
            .map(str::to_owned))
    }

    fn mismatch(&self, message: &'static str) -> Error {
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
