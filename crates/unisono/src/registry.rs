//! [`Registry`]: the source kinds that a configuration can name.

use unisono_config::Kinds;
use unisono_core::kind::SourceKind;

/// Those of the kinds that were compiled in, and the names of those that were not.
macro_rules! builtin {
    ($($feature:literal $kind:path;)*) => {
        const BUILTIN: &[&dyn SourceKind] = &[$(#[cfg(feature = $feature)] &$kind,)*];
        const LEFT_OUT: &[&str] = &[$(#[cfg(not(feature = $feature))] $feature,)*];
    };
}

// The kinds that come with Unisono, in the order of the documentation: to add one, add its line and its feature.
builtin! {
    "sqlite" unisono_source_sqlite::Sqlite;
    "memory" unisono_source_memory::Memory;
    "tantivy" unisono_source_tantivy::Tantivy;
    "files" unisono_source_files::Files;
    "postgres" unisono_source_postgres::Postgres;
    "mysql" unisono_source_mysql::Mysql;
    "redis" unisono_source_redis::Redis;
    "opensearch" unisono_source_opensearch::Opensearch;
    "mongodb" unisono_source_mongodb::Mongodb;
    "s3" unisono_source_files::S3;
    "temporal" TEMPORAL;
    "webhook" unisono_hooks::Webhook;
    "nats" unisono_source_nats::Nats;
}

#[cfg(feature = "temporal")]
const TEMPORAL: unisono_source_temporal::Temporal =
    unisono_source_temporal::Temporal { journal: &unisono_source_sqlite::Sqlite };

/// Kinds whose own functions applications call: those with `record_in`.
pub mod native {
    /// For programs that write captured tables in MariaDB or MySQL through its driver: `mysql::record_in`.
    #[cfg(feature = "mysql")]
    pub use unisono_source_mysql as mysql;
    /// For programs that write captured tables in PostgreSQL through its driver: `postgres::record_in`.
    #[cfg(feature = "postgres")]
    pub use unisono_source_postgres as postgres;
    /// For programs that write captured tables in SQLite through its driver: `sqlite::record_in`.
    #[cfg(feature = "sqlite")]
    pub use unisono_source_sqlite as sqlite;
}

/// The source kinds that a configuration can name; [`config::load`](unisono_config::load) takes a reference to it.
#[derive(Clone)]
pub struct Registry {
    kinds: Vec<&'static dyn SourceKind>,
}

impl Registry {
    /// The kinds that come with Unisono.
    pub fn builtin() -> Self {
        Registry { kinds: BUILTIN.to_vec() }
    }

    /// Adds a kind, in place of one of the same name.
    #[must_use]
    pub fn with(mut self, kind: &'static dyn SourceKind) -> Self {
        self.kinds.retain(|k| k.name() != kind.name());
        self.kinds.push(kind);
        self
    }

    /// All kinds, in the order of the documentation.
    pub fn kinds(&self) -> &[&'static dyn SourceKind] {
        &self.kinds
    }

    /// A kind by its name.
    pub fn find(&self, name: &str) -> Option<&'static dyn SourceKind> {
        self.kinds.iter().copied().find(|kind| kind.name() == name)
    }
}

impl<'a> From<&'a Registry> for Kinds<'a> {
    fn from(registry: &'a Registry) -> Self {
        Kinds { built: registry.kinds(), left_out: LEFT_OUT }
    }
}

#[cfg(all(test, feature = "memory", feature = "sqlite", feature = "tantivy", feature = "files"))]
mod tests {
    use unisono_config::{Process, example, parse};
    use unisono_core::Role;

    use super::*;

    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../unisono.example.toml");
    /// The kinds of a build without further features.
    const DEFAULT: [&str; 5] = ["sqlite", "memory", "tantivy", "files", "webhook"];
    /// What stands beside the options of an entity.
    #[rustfmt::skip]
    const TAKEN: &[&str] = &[
        "key", "truth", "table", "fields", "cache", "followers", "source", "where", "index", "folder", "collection",
        "ttl", "negative_ttl",
    ];

    #[test]
    fn kinds_are_found_by_name_and_replaced_by_name() {
        let registry = Registry::builtin();
        let names: Vec<_> = registry.kinds().iter().map(|k| k.name()).collect();
        assert_eq!(names[..4], DEFAULT[..4]);
        assert_eq!(registry.find("sqlite").map(|k| k.name()), Some("sqlite"));
        assert!(registry.find("nope").is_none());
        let again = registry.with(&unisono_source_sqlite::Sqlite);
        assert_eq!(again.kinds().len(), names.len());
    }

    #[test]
    fn a_kind_has_the_name_of_its_feature_and_is_built_or_left_out() {
        let registry = Registry::builtin();
        let names: Vec<_> = registry.kinds().iter().map(|k| k.name()).collect();
        for (kind, built) in [
            ("sqlite", true),
            ("postgres", cfg!(feature = "postgres")),
            ("mysql", cfg!(feature = "mysql")),
            ("redis", cfg!(feature = "redis")),
            ("opensearch", cfg!(feature = "opensearch")),
            ("mongodb", cfg!(feature = "mongodb")),
            ("s3", cfg!(feature = "s3")),
            ("temporal", cfg!(feature = "temporal")),
            ("nats", cfg!(feature = "nats")),
        ] {
            assert_eq!(names.contains(&kind), built, "{kind}");
            assert_eq!(LEFT_OUT.contains(&kind), !built, "{kind}");
        }
        let text = "[sources.far]\nkind = \"postgres\"\nurl = \"\"\n";
        let problems = parse(text, "far.toml", &registry, &Process).unwrap_err();
        let said = problems.to_string().contains("build with `--features postgres`");
        assert_eq!(said, !cfg!(feature = "postgres"), "{problems}");
    }

    #[test]
    fn every_kind_describes_itself_and_its_options() {
        for kind in Registry::builtin().kinds() {
            assert!(kind.summary().ends_with('.'), "{}", kind.name());
            assert!(!kind.capability().roles.is_empty(), "{}", kind.name());
            for option in kind.options() {
                assert!(option.doc.ends_with('.'), "{} {}", kind.name(), option.name);
                let taken = ["kind", "required", "region"].contains(&option.name);
                assert!(!taken, "{} {}", kind.name(), option.name);
            }
            for role in [Role::Truth, Role::Follower, Role::Cache, Role::Journal] {
                let options = kind.entity_options(role);
                assert!(
                    options.is_empty() || kind.capability().roles.contains(&role),
                    "{} has options for a role that it does not play",
                    kind.name()
                );
                for option in options {
                    assert!(option.doc.ends_with('.'), "{} {}", kind.name(), option.name);
                    let needed = option.default.is_none() && !option.optional;
                    assert!(!needed, "{} {} must have a default", kind.name(), option.name);
                    assert!(!TAKEN.contains(&option.name), "{} {}", kind.name(), option.name);
                }
            }
        }
    }

    /// Run with `UPDATE=1` to write the file anew.
    #[test]
    fn the_example_file_is_true_and_valid() {
        let mut kinds = Registry::builtin().kinds().to_vec();
        kinds.retain(|k| DEFAULT.contains(&k.name()));
        let text = example(&kinds);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(EXAMPLE, &text).unwrap();
        }
        let configuration = parse(&text, "unisono.example.toml", kinds.as_slice(), &Process)
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(configuration.warnings.0, []);
        let file = std::fs::read_to_string(EXAMPLE).unwrap();
        assert!(file == text, "unisono.example.toml is out of date: run this test with UPDATE=1");
    }

    #[test]
    fn the_example_of_every_kind_is_valid_too() {
        let registry = Registry::builtin();
        let text = example(registry.kinds());
        let configuration = parse(&text, "example.toml", &registry, &Process)
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(configuration.warnings.0, []);
    }
}
