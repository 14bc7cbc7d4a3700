//! [`Unisono`]: a configuration opened, with its sources and its engine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;
use unisono_config::{Configuration, ServerOptions};
use unisono_core::kind::{Environment, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Error, ErrorKind, Result};
use unisono_engine::late::{Late, Opener};
use unisono_engine::{Engine, Runtime};
use unisono_policy::declaration::SourceDeclaration;

use crate::handle::Handle;
use crate::handlers::Added;
use crate::registry::Registry;
use crate::streams::Streams;

/// A running Unisono inside this process.
pub struct Unisono {
    pub(crate) engine: Engine,
    notes: Vec<String>,
    /// What a reload cannot change.
    pub(crate) server: ServerOptions,
    pub(crate) data: PathBuf,
    /// What it takes to open further sources.
    pub(crate) registry: Registry,
    /// The handlers that were added, which no configuration names.
    pub(crate) handlers: Mutex<Vec<Added>>,
}

impl Unisono {
    /// Opens every source of a configuration, makes their tables, indexes and folders match, and starts delivery.
    pub async fn open(configuration: Configuration) -> Result<Unisono> {
        Unisono::open_with(configuration, &Registry::builtin(), Runtime::system()).await
    }

    /// The same with further source kinds, or another clock.
    pub async fn open_with(
        configuration: Configuration,
        registry: &Registry,
        runtime: Runtime,
    ) -> Result<Unisono> {
        let sources = open_sources(&configuration, registry, &runtime).await?;
        let Configuration { declaration, server, data, warnings: _ } = configuration;
        let hooks = declaration.hooks.clone();
        match Engine::open(declaration, sources.clone(), runtime).await {
            Ok((engine, notes)) => match unisono_hooks::start(&engine, &hooks) {
                Ok(()) => {
                    let registry = registry.clone();
                    Ok(Unisono {
                        engine,
                        notes,
                        server,
                        data,
                        registry,
                        handlers: Mutex::default(),
                    })
                }
                Err(error) => {
                    // That it cannot start is what there is to report.
                    let _ = engine.close().await;
                    Err(error)
                }
            },
            Err(error) => {
                close_all(&sources).await;
                Err(error)
            }
        }
    }

    /// What was changed in the sources to match the configuration, for people.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Everything else that can be asked for.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The records of an entity as values of `T`; `not_found` if it is not declared.
    pub fn entity<T>(&self, name: &str) -> Result<Handle<T>> {
        Ok(Handle::new(self.engine.clone(), Arc::clone(self.engine.entity(name)?)))
    }

    /// The events of a type of streams as values of `E`; `not_found` if it is not declared.
    pub fn streams<E>(&self, ty: &str) -> Result<Streams<E>> {
        Streams::new(self.engine.clone(), ty)
    }

    /// Lets running requests and checkpoints finish and closes the sources.
    ///
    /// A process that ends without this loses nothing: what was acknowledged is durable, and deliveries go on where
    /// they were.
    pub async fn close(self) -> Result<()> {
        self.engine.close().await
    }
}

/// Opens the sources of a configuration: all that are required, or none. One that is not required and cannot be
/// opened now is opened as soon as it can be.
pub async fn open_sources(
    configuration: &Configuration,
    registry: &Registry,
    runtime: &Runtime,
) -> Result<BTreeMap<Arc<str>, Arc<dyn Source>>> {
    let environment = Environment { data: configuration.data.clone(), clock: runtime.clock() };
    let mut sources = BTreeMap::new();
    for (name, declared) in &configuration.declaration.sources {
        let opened = match kind_of(registry, declared) {
            Ok(kind) => match kind.open(name, &declared.options, &environment).await {
                Err(reason) if !declared.required => {
                    Ok(late(kind, name, &declared.options, &environment, reason, runtime))
                }
                opened => opened,
            },
            Err(error) => Err(error),
        };
        match opened {
            Ok(source) => sources.insert(Arc::clone(name), source),
            Err(error) => {
                close_all(&sources).await;
                return Err(error.at(name));
            }
        };
    }
    Ok(sources)
}

/// The kind of a source.
pub(crate) fn kind_of(
    registry: &Registry,
    declared: &SourceDeclaration,
) -> Result<&'static dyn SourceKind> {
    registry.find(&declared.kind).ok_or_else(|| {
        Error::new(ErrorKind::InvalidConfig, "there is no source kind of this name")
            .with("kind", &declared.kind)
    })
}

/// A source in place of one that cannot be opened yet.
fn late(
    kind: &'static dyn SourceKind,
    name: &Arc<str>,
    options: &Options,
    environment: &Environment,
    reason: Error,
    runtime: &Runtime,
) -> Arc<dyn Source> {
    let given = (Arc::clone(name), options.clone(), environment.clone());
    let opener: Opener = Box::new(move || {
        let (name, options, environment) = given.clone();
        Box::pin(async move { kind.open(&name, &options, &environment).await })
    });
    Late::new(name, kind.name(), kind.capability(), opener, reason.at(name), runtime)
}

/// Closes what was opened on the way to a failure; the failure itself is what is reported.
async fn close_all(sources: &BTreeMap<Arc<str>, Arc<dyn Source>>) {
    for source in sources.values() {
        let _ = source.close().await;
    }
}
