//! One TOML file into a checked [`Configuration`], or every problem in it at its line.
//!
//! Nothing is opened here: [`parse`] is pure, and [`load`] reads only the file itself and what `${…}` names. The known
//! keys, their defaults and bounds, the JSON Schema ([`schema`]) and the example ([`example`]) come from one table.

mod check;
mod document;
mod entities;
mod example;
mod fields;
mod hooks;
mod interpolate;
mod kinds;
mod mapped;
mod options;
mod outlets;
mod personal;
mod policies;
mod problem;
mod projections;
mod quantity;
mod questions;
mod replication;
mod residency;
mod schema;
mod sections;
mod server;
mod sources;
mod streams;
mod synchronised;
mod table;
mod types;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unisono_core::kind::OptionType;
use unisono_policy::declaration::{Declaration, EntityDeclaration};

pub use entities::ENTITIES_RESERVED;
pub use example::example;
pub use interpolate::{Lookup, Process};
pub use kinds::Kinds;
pub use problem::{Place, Problem, Problems, Severity};
pub use schema::schema;
pub use server::{
    Access, PATHS_RESERVED, RouteDeclaration, ServerOptions, TlsOptions, TokenDeclaration,
};

use problem::{Report, Spot};
use table::Table;

/// The largest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// How the HTTP server is run.
    pub server: ServerOptions,
    /// The sources, entities and logs.
    pub declaration: Declaration,
    /// Folder below which embedded sources live.
    pub data: PathBuf,
    /// What is allowed, but perhaps not meant.
    pub warnings: Problems,
}

/// Reads and checks a file. Relative paths of the file (`data`, `server.tls`) become relative to its folder.
pub fn load<'k>(
    path: &Path,
    kinds: impl Into<Kinds<'k>>,
    lookup: &dyn Lookup,
) -> Result<Configuration, Problems> {
    let name = path.display().to_string();
    let text = interpolate::read_text(path, FILE_BYTES_MAX).map_err(|reason| {
        Problems(vec![Problem {
            severity: Severity::Error,
            message: format!("the configuration `{name}` cannot be read: {reason}"),
            hint: Some("name another file with --config".to_owned()),
            key: String::new(),
            place: None,
        }])
    })?;
    let mut configuration = parse(&text, &name, kinds, lookup)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    configuration.data = folder.join(&configuration.data);
    if let Some(tls) = &mut configuration.server.tls {
        tls.certificate = folder.join(&tls.certificate);
        tls.key = folder.join(&tls.key);
    }
    Ok(configuration)
}

/// Checks a text. `file` is what problems call it.
pub fn parse<'k>(
    text: &str,
    file: &str,
    kinds: impl Into<Kinds<'k>>,
    lookup: &dyn Lookup,
) -> Result<Configuration, Problems> {
    let kinds = kinds.into();
    let report = Report::new(file, text);
    let tree = document::parse(text, lookup, &report);
    if tree.is_none() {
        // Without a tree only names tell what is secret.
        let options = kinds.built.iter().flat_map(|kind| kind.options());
        options.filter(|o| o.ty == OptionType::Secret).for_each(|o| report.hide_assigned(o.name));
    }
    let configuration = tree.and_then(|root| {
        let spot = Spot { span: 0..0, key: String::new() };
        let table = Table::new(&report, &sections::FILE, &root, spot)?;
        read(table, kinds)
    });
    let problems = report.finish();
    match configuration {
        Some(configuration) if problems.errors() == 0 => {
            Ok(Configuration { warnings: problems, ..configuration })
        }
        _ => Err(problems),
    }
}

/// `None` only if a problem was reported.
fn read(file: Table<'_>, kinds: Kinds<'_>) -> Option<Configuration> {
    let mut sources = sources::sources(&file, kinds);
    let region = file.text("region");
    let here = region.as_ref().map(|found| found.value.as_str());
    let personal = personal::store(&file, &sources);
    let keys = personal.as_ref().map(|store| store.as_ref().map_or("", |store| &store.keys));
    let around = entities::Surroundings { sources: &sources, kinds, region: here, keys };
    let mut entities = entities::entities(&file, around);
    streams::streams(&file, around, &mut entities);
    projections::projections(&file, around, &mut entities);
    outlets::outlets(&file, kinds, &mut sources, &mut entities);
    let archive = server::archive(&file, &sources);
    let besides = [archive.as_ref().map(|archive| &*archive.source), keys];
    check::check(file.report, &sources, &entities, region.as_ref(), &besides);
    let names: Vec<&str> = entities.keys().map(String::as_str).collect();
    let server = server::section(&file, &names);
    let log = server::log(&file);
    let sampler = server::sampler(&file);
    let hooks = hooks::hooks(&file, &names);
    let sweep = server::sweep(&file);
    let data = file.text("data");
    file.finish();

    // What was acknowledged is in the truth, or in the journal that it waits in.
    let declared = entities.values().filter_map(|e| e.declaration.as_ref());
    let journal = |e: &EntityDeclaration| e.write.behind.as_ref().map(|b| Arc::clone(&b.journal));
    let needed = declared.flat_map(|e| [Some(Arc::clone(&e.truth)), journal(e)]).flatten();
    // Without keys nothing personal can be read or written.
    let needed: BTreeSet<Arc<str>> = needed.chain(keys.map(Into::into)).collect();
    let sources = sources.into_iter().map(|(name, source)| {
        let declared = source.kind?.declaration(needed.contains(name.as_str()));
        Some((name.into(), declared))
    });
    let entities = entities.into_iter().map(|(name, e)| Some((name.into(), e.declaration?)));
    let declaration = Declaration {
        sources: sources.collect::<Option<_>>()?,
        entities: entities.collect::<Option<_>>()?,
        log,
        archive,
        sweep,
        region: region.map(|found| found.value.into()),
        sampler,
        hooks: hooks?,
        personal: personal.map_or(Some(None), |store| store.map(Some))?,
    };
    Some(Configuration {
        server: server?,
        declaration,
        data: data?.value.into(),
        warnings: Problems::default(),
    })
}

#[cfg(test)]
mod tests;
