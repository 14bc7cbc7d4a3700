//! [`Registry`]: the source kinds that a configuration can name.

use unisono_core::kind::SourceKind;

/// The kinds that come with Unisono, in the order of the documentation: to add one, add its line and its feature.
const BUILTIN: &[&dyn SourceKind] = &[
    #[cfg(feature = "sqlite")]
    &unisono_source_sqlite::Sqlite,
    #[cfg(feature = "memory")]
    &unisono_source_memory::Memory,
    #[cfg(feature = "tantivy")]
    &unisono_source_tantivy::Tantivy,
    #[cfg(feature = "files")]
    &unisono_source_files::Files,
];

/// The source kinds that a configuration can name.
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

#[cfg(all(test, feature = "memory", feature = "sqlite", feature = "tantivy", feature = "files"))]
mod tests {
    use unisono_config::{Process, example, parse};

    use super::*;

    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../unisono.example.toml");

    #[test]
    fn kinds_are_found_by_name_and_replaced_by_name() {
        let registry = Registry::builtin();
        let names: Vec<_> = registry.kinds().iter().map(|k| k.name()).collect();
        assert_eq!(names, ["sqlite", "memory", "tantivy", "files"]);
        assert_eq!(registry.find("sqlite").map(|k| k.name()), Some("sqlite"));
        assert!(registry.find("nope").is_none());
        let again = registry.with(&unisono_source_sqlite::Sqlite);
        assert_eq!(again.kinds().len(), 4);
    }

    #[test]
    fn every_kind_describes_itself_and_its_options() {
        for kind in Registry::builtin().kinds() {
            assert!(kind.summary().ends_with('.'), "{}", kind.name());
            assert!(!kind.capability().roles.is_empty(), "{}", kind.name());
            for option in kind.options() {
                assert!(option.doc.ends_with('.'), "{} {}", kind.name(), option.name);
                assert_ne!(option.name, "kind", "{}", kind.name());
            }
        }
    }

    /// Run with `UPDATE=1` to write the file anew.
    #[test]
    fn the_example_file_is_true_and_valid() {
        let kinds = Registry::builtin();
        let text = example(kinds.kinds());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(EXAMPLE, &text).unwrap();
        }
        let configuration = parse(&text, "unisono.example.toml", kinds.kinds(), &Process)
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(configuration.warnings.0, []);
        let file = std::fs::read_to_string(EXAMPLE).unwrap();
        assert!(file == text, "unisono.example.toml is out of date: run this test with UPDATE=1");
    }
}
