//! The kinds under test, in one place. Adding a kind is one line here.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use unisono_core::kind::{Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Entity, Role};

use crate::engines;

/// The longest that closing or wiping may take after a case.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(30);

/// A kind under test, over one sort of store.
pub(crate) struct Tested {
    /// Its column in the report, and what `--only` names.
    pub(crate) column: &'static str,
    /// The folder of `engines/` with the server that it needs; none for an embedded kind.
    pub(crate) engine: Option<&'static str>,
    /// The options of an entity in a role.
    pub(crate) entity_options: fn(Role, &Entity) -> Options,
    kind: Box<dyn SourceKind>,
    left: Mutex<Left>,
}

/// What cases have left behind.
#[derive(Default)]
struct Left {
    sources: Vec<Weak<dyn Source>>,
    /// In a server only: a folder goes with its fixture.
    namespaces: Vec<Options>,
}

impl Deref for Tested {
    type Target = dyn SourceKind;

    fn deref(&self) -> &Self::Target {
        &*self.kind
    }
}

impl Tested {
    /// A kind that needs a server of its name if it has a required `url`.
    fn new(kind: impl SourceKind + 'static) -> Self {
        let is_server = |o: &unisono_core::kind::OptionSpec| {
            o.name == "url" && o.default.is_none() && !o.optional
        };
        let engine = kind.options().iter().any(is_server).then(|| kind.name());
        let (column, left) = (kind.name(), Mutex::default());
        let entity_options = |_, _: &Entity| Options::default();
        Tested { column, engine, entity_options, kind: Box::new(kind), left }
    }

    /// The same with other options of entities, in a column of its own.
    #[cfg(feature = "redis")]
    fn with(self, column: &'static str, entity_options: fn(Role, &Entity) -> Options) -> Self {
        Tested { column, entity_options, ..self }
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an open source: [`Tested::clean`] closes it if it is still in memory then, and deletes its data.
    pub(crate) fn opened(&self, source: Weak<dyn Source>, options: &Options) {
        let mut left = self.left();
        left.sources.push(source);
        if self.engine.is_some() && !left.namespaces.contains(options) {
            left.namespaces.push(options.clone());
        }
    }

    /// Closes the sources and deletes the data of the cases so far, so that a server is never crowded by them.
    pub(crate) async fn clean(&self) {
        let Left { sources, namespaces } = std::mem::take(&mut *self.left());
        let cleaning = async {
            for source in sources.iter().filter_map(Weak::upgrade) {
                // One that cannot be closed has nothing more to do here.
                let _ = source.close().await;
            }
            for options in &namespaces {
                let engine = self.engine.unwrap_or_default();
                if let Err(error) = engines::wipe(engine, options).await {
                    println!("note {}: a namespace could not be wiped: {error}", self.column);
                }
            }
        };
        if tokio::time::timeout(CLEAN_TIMEOUT, cleaning).await.is_err() {
            println!("note {}: cleaning took longer than {CLEAN_TIMEOUT:?}", self.column);
        }
    }
}

/// Every kind that was compiled in.
pub(crate) fn all() -> Vec<Tested> {
    vec![
        #[cfg(feature = "memory")]
        Tested::new(unisono_source_memory::Memory),
        #[cfg(feature = "sqlite")]
        Tested::new(unisono_source_sqlite::Sqlite),
        #[cfg(feature = "tantivy")]
        Tested::new(unisono_source_tantivy::Tantivy),
        #[cfg(feature = "files")]
        Tested::new(unisono_source_files::Files),
        #[cfg(feature = "s3")]
        Tested::new(unisono_source_files::S3),
        #[cfg(feature = "postgres")]
        Tested::new(unisono_source_postgres::Postgres),
        #[cfg(feature = "mysql")]
        Tested::new(unisono_source_mysql::Mysql),
        #[cfg(feature = "redis")]
        Tested::new(unisono_source_redis::Redis),
        #[cfg(feature = "redis")]
        Tested::new(unisono_source_redis::Redis).with("redis shown", redis_showing),
        #[cfg(feature = "opensearch")]
        Tested::new(unisono_source_opensearch::Opensearch),
        #[cfg(feature = "mongodb")]
        Tested::new(unisono_source_mongodb::Mongodb),
    ]
}

/// Options under which fields of every record stand beside it: each in both ways, as far as there is room.
#[cfg(feature = "redis")]
fn redis_showing(role: Role, entity: &Entity) -> Options {
    use unisono_core::kind::OptionValue;
    use unisono_core::{Field, FieldType};

    if role != Role::Follower {
        return Options::default();
    }
    let key = &entity.key_field().name;
    let others = || entity.fields().iter().filter(|field| field.name != *key);
    let value = |f: &Field| format!("{0}=beside.{1}.{0}:{{{key}}}", f.name, entity.name());
    let score = |f: &Field| format!("{0}=ranked.{1}.{0}", f.name, entity.name());
    let is_number = |f: &&Field| {
        matches!(f.ty, FieldType::Integer | FieldType::Decimal { .. } | FieldType::Float)
    };
    let values = others().take(4).map(value).collect();
    let scores = others().filter(is_number).take(4).map(score).collect();
    let options = [("values", values), ("sorted_sets", scores)];
    Options(options.map(|(name, all)| (name.to_owned(), OptionValue::List(all))).into())
}
