//! The kinds under test, in one place. Adding a kind is one line here.

use unisono_core::kind::SourceKind;

/// Every kind that was compiled in.
pub(crate) fn all() -> Vec<Box<dyn SourceKind>> {
    vec![
        #[cfg(feature = "memory")]
        Box::new(unisono_source_memory::Memory),
        #[cfg(feature = "sqlite")]
        Box::new(unisono_source_sqlite::Sqlite),
        #[cfg(feature = "tantivy")]
        Box::new(unisono_source_tantivy::Tantivy),
        #[cfg(feature = "files")]
        Box::new(unisono_source_files::Files),
    ]
}
