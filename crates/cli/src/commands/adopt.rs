//! `unisono adopt`: tables that an application has, declared as entities.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use clap::ValueEnum;
use serde_json::json;
use unisono::config::{self, Configuration, Process};
use unisono::core::entity::check_name;
use unisono::core::kind::SourceKind;
use unisono::core::source::Source;
use unisono::core::{Capture, Described, Entity, Error, ErrorKind, Result, Role};
use unisono::{Registry, open_sources};

use crate::exit;
use crate::open;
use crate::session::Session;
use crate::terminal::output::note;
use crate::toml;

/// Inspect tables that an application has, and print the entities that they can be
///
/// Nothing is changed. What is printed goes behind the configuration: unisono adopt --source main orders >> unisono.toml
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The source that has the tables
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The tables
    #[arg(value_name = "TABLE", required = true)]
    tables: Vec<String>,
    /// The name of the entity, if it is not to be that of the table
    #[arg(long, value_name = "NAME")]
    entity: Option<String>,
    /// Other programs go on writing the table: how their writes come into the log
    #[arg(long, value_enum, value_name = "HOW")]
    capture: Option<How>,
}

/// The words of the option `capture`.
#[derive(Clone, Copy, ValueEnum)]
enum How {
    /// Triggers note them down
    Trigger,
    /// The programs note them down themselves, by `record_in`
    Record,
}

impl From<How> for Capture {
    fn from(how: How) -> Self {
        match how {
            How::Trigger => Capture::Trigger,
            How::Record => Capture::Record,
        }
    }
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    if args.entity.is_some() && args.tables.len() > 1 {
        return Err(Error::invalid(
            "--entity names the entity of one table, and there are several",
        )
        .hint("adopt them one by one"));
    }
    // What is warned of, an entity that is not there yet among it, is of no interest here.
    let mut configuration = open::loaded(&session.common)?;
    if let Some(data) = &session.common.data {
        configuration.data.clone_from(data);
    }
    let capture = args.capture.map(Capture::from);
    check_source(&configuration, &args.source, capture)?;
    let source = open_source(&configuration, &args.source, session).await?;
    let adopted = session.interrupt.or(adopt_all(&args, capture, &configuration, &source)).await;
    let closed = source.close().await;
    let adopted = adopted?;
    closed?;
    check_together(&adopted, session)?;
    for (n, Adopted { described, entity, text }) in adopted.iter().enumerate() {
        if session.output.is_json() {
            let left_out: BTreeMap<_, _> =
                described.left_out.iter().map(|(column, reason)| (column, reason)).collect();
            session.output.json(&json!({
                "source": args.source, "table": described.place, "entity": entity.name(), "toml": text,
                "left_out": left_out, "notes": described.notes,
            }))?;
        } else {
            session.output.line(format_args!(
                "{}{}",
                if n > 0 { "\n" } else { "" },
                text.trim_end()
            ))?;
        }
    }
    Ok(exit::OK)
}

/// A table as an entity.
struct Adopted {
    described: Described,
    entity: Entity,
    /// Its declaration.
    text: String,
}

/// What can be said before anything is opened.
fn check_source(configuration: &Configuration, name: &str, capture: Option<Capture>) -> Result<()> {
    let sources = &configuration.declaration.sources;
    let Some(declared) = sources.get(name) else {
        let known: Vec<&str> = sources.keys().map(AsRef::as_ref).collect();
        return Err(Error::invalid("the configuration has no source of this name")
            .with("source", name)
            .hint(format!("it has {}", known.join(", "))));
    };
    let refuse = |message: &'static str, able: fn(&dyn SourceKind) -> bool| {
        let registry = Registry::builtin();
        if registry.find(&declared.kind).is_some_and(able) {
            return Ok(());
        }
        let kinds = registry.kinds().iter().copied().filter(|kind| able(*kind));
        let kinds: Vec<_> = kinds.map(|kind| kind.name()).collect();
        Err(Error::unsupported(message)
            .at(name)
            .with("kind", &declared.kind)
            .hint(format!("kinds that can: {}", kinds.join(", "))))
    };
    refuse("this kind of source cannot be the truth of an entity", |kind| {
        kind.capability().roles.contains(&Role::Truth)
    })?;
    if capture.is_none() {
        return Ok(());
    }
    refuse("this kind of source does not capture what other programs write", |kind| {
        let options = kind.entity_options(Role::Truth);
        options.iter().any(|option| option.name == Capture::OPTION.name)
    })
}

/// The one source, and nothing else of the configuration.
async fn open_source(
    configuration: &Configuration,
    name: &str,
    session: &Session,
) -> Result<Arc<dyn Source>> {
    let mut configuration = configuration.clone();
    configuration.declaration.entities.clear();
    configuration.declaration.sources.retain(|source, _| **source == *name);
    for declared in configuration.declaration.sources.values_mut() {
        declared.required = true;
    }
    let registry = Registry::builtin();
    let opening = open_sources(&configuration, &registry, &session.runtime);
    let opened = session.interrupt.or(opening).await?;
    opened.into_values().next().ok_or_else(|| Error::internal("the source was not opened"))
}

async fn adopt_all(
    args: &Args,
    capture: Option<Capture>,
    configuration: &Configuration,
    source: &Arc<dyn Source>,
) -> Result<Vec<Adopted>> {
    let mut all = Vec::with_capacity(args.tables.len());
    for table in &args.tables {
        let described = source.describe(table).await.map_err(|e| e.on("adopt"))?;
        let name = args.entity.clone().unwrap_or_else(|| described.place.to_lowercase());
        let adopted = adopt(described, &name, &args.source, source.kind(), capture)
            .map_err(|e| e.on("adopt").at(source.name()).with("table", table))?;
        let declared = &configuration.declaration.entities;
        if declared.contains_key(adopted.entity.name()) {
            return Err(Error::invalid(
                "the configuration declares an entity of this name already",
            )
            .of(&name)
            .hint("give the new one another name with --entity"));
        }
        all.push(adopted);
    }
    Ok(all)
}

/// The declaration of an entity over a table.
fn adopt(
    described: Described,
    name: &str,
    source: &str,
    kind: &str,
    capture: Option<Capture>,
) -> Result<Adopted> {
    let place = &described.place;
    check_name(place).map_err(|_| {
        Error::unsupported("a table of this name cannot be declared")
            .hint("names are 1 to 48 lower-case letters, digits and _, beginning with a letter: rename the table")
    })?;
    check_name(name).map_err(|e| e.hint("choose another name with --entity"))?;
    let Some(key) = &described.key else {
        return Err(no_key(&described));
    };
    let entity = Entity::new(name, key, described.fields.clone())?;

    let mut text = toml::comment(&format!("The table {place} of {source} ({kind})."));
    for note in &described.notes {
        text += &toml::comment(note);
    }
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "[entities.{name}]\nkey = {}\ntruth = {}\n",
        toml::quoted(key),
        toml::quoted(source)
    );
    if name != place {
        let _ = writeln!(text, "table = {}", toml::quoted(place));
    }
    if let Some(capture) = capture {
        let _ = writeln!(text, "{} = {}", Capture::OPTION.name, toml::quoted(capture.as_str()));
    }
    let _ = write!(text, "\n[entities.{name}.fields]\n{}", toml::fields(&entity));
    for (column, reason) in &described.left_out {
        text += &toml::comment(&format!("left out: {column}: {reason}"));
    }
    Ok(Adopted { described, entity, text })
}

fn no_key(described: &Described) -> Error {
    let mut error = Error::unsupported("the table has no column that can be the key")
        .hint("a key is one column with text, whole numbers or UUIDs that is the primary key, or unique and never null");
    for (column, reason) in &described.left_out {
        error = error.with("left_out", format!("{column}: {reason}"));
    }
    error
}

/// Makes sure that the configuration is a good one with what is printed.
fn check_together(adopted: &[Adopted], session: &Session) -> Result<()> {
    let path = &session.common.config;
    let mut text = std::fs::read_to_string(path).map_err(|e| {
        Error::new(ErrorKind::InvalidConfig, "the configuration cannot be read")
            .with("file", path.display())
            .caused_by(e)
    })?;
    for Adopted { text: declared, .. } in adopted {
        text = text + "\n" + declared;
    }
    let registry = Registry::builtin();
    config::parse(&text, &path.display().to_string(), &registry, &Process).map(drop).map_err(
        |problems| {
            note(&problems);
            Error::unsupported("the tables cannot be declared as they are")
                .with("file", path.display())
                .hint("the lines named above are those of the file with the new entities behind it")
        },
    )
}

#[cfg(test)]
mod tests {
    use unisono::core::{Field, FieldType};

    use super::*;

    fn described() -> Described {
        Described {
            place: "orders".into(),
            key: Some("id".into()),
            fields: vec![
                Field { required: true, ..Field::new("id", FieldType::Integer) },
                Field { unique: true, ..Field::new("number", FieldType::String) },
                Field::new("total", FieldType::Decimal { precision: 12, scale: 2 }),
            ],
            left_out: vec![("Two\nwords".into(), "no name".into())],
            notes: vec!["mind this".into()],
        }
    }

    #[test]
    fn a_declaration_says_what_must_be_said_and_no_more() {
        let adopted =
            adopt(described(), "order", "shop", "sqlite", Some(Capture::Trigger)).unwrap();
        let expected = r#"# The table orders of shop (sqlite).
# mind this
[entities.order]
key = "id"
truth = "shop"
table = "orders"
capture = "trigger"

[entities.order.fields]
id = "integer"
number = { type = "string", unique = true }
total = "decimal(12,2)"
# left out: Two words: no name
"#;
        assert_eq!(adopted.text, expected);
        let alone = adopt(described(), "orders", "shop", "sqlite", None).unwrap().text;
        assert!(!alone.contains("table =") && !alone.contains("capture"), "{alone}");
    }

    #[test]
    fn what_cannot_be_declared_is_refused_with_the_way_out() {
        let refused = |described, name| {
            let error = adopt(described, name, "shop", "sqlite", None).err().unwrap();
            assert!(error.hint_text().is_some(), "{error}");
            error.to_string()
        };
        let keyless = refused(Described { key: None, ..described() }, "order");
        assert!(keyless.contains("can be the key") && keyless.contains("no name"), "{keyless}");
        let place = refused(Described { place: "Order Lines".into(), ..described() }, "order");
        assert!(place.contains("table of this name"), "{place}");
        assert!(refused(described(), "Order").contains("a name is"));
    }
}
