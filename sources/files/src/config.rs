//! [`Files`]: how a source of this kind is declared and opened.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::capability::{ApplyCapability, QueryCapability};
use unisono_core::kind::{Environment, OptionSpec, OptionType, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Capability, Error, ErrorKind, Result, Role};

use crate::disk::Disk;
use crate::parallel::blocking;
use crate::source::FilesSource;
use crate::store::Store;

/// The kind `files`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files;

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "path",
        ty: OptionType::Path,
        default: None,
        optional: false,
        doc: "The folder that holds everything; one folder below it for each entity.",
    },
    OptionSpec {
        name: "fsync",
        ty: OptionType::Boolean,
        default: Some("true"),
        optional: false,
        doc: "Whether a batch survives the loss of power; without it, only the end of the process.",
    },
    OptionSpec {
        name: "archive",
        ty: OptionType::Boolean,
        default: Some("true"),
        optional: false,
        doc: "Whether every change is also kept, as compressed JSON Lines.",
    },
];

#[async_trait]
impl SourceKind for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn summary(&self) -> &'static str {
        "One readable JSON file for each record in a folder, and an archive of every change."
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn capability(&self) -> Capability {
        capability(true)
    }

    fn check(&self, options: &Options) -> Vec<(&'static str, String)> {
        match options.text("path") {
            Some("") => vec![("path", "is empty; name a folder, for example \"files\"".to_owned())],
            _ => Vec::new(),
        }
    }

    async fn open(
        &self,
        name: &str,
        options: &Options,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        let path = options.text("path").ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "the source needs a path")
                .at(name)
                .with("field", "path")
                .hint("add path = \"files\"")
        })?;
        let root = environment.data.join(Path::new(path));
        let (fsync, archive) = (options.boolean("fsync"), options.boolean("archive"));
        let disk: Arc<dyn Store> = Arc::new(Disk::new(fsync));
        let (store, at) = (Arc::clone(&disk), root.clone());
        blocking(move || store.create_folder(&at)).await.map_err(|e| e.on("open").at(name))?;
        Ok(Arc::new(FilesSource::new(name, "files", root, disk, archive, capability(archive))))
    }
}

pub(crate) fn capability(archive: bool) -> Capability {
    Capability {
        roles: &[Role::Follower, Role::Vault],
        durable: true,
        naming: &[],
        query: QueryCapability {
            get: true,
            filter: true,
            aggregate: true,
            search: false,
            scans: true,
        },
        apply: ApplyCapability {
            lanes: 1,
            copy_lanes: 1,
            batch_changes_max: 4096,
            batch_bytes_max: 8 << 20,
            // The archive wants every change, not only the last of a key.
            history: archive,
        },
        refuses: |_, _| None,
    }
}
