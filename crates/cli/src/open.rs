//! Opening: the configuration, the data directory under its lock, and the engine.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use unisono::config::{self, Configuration, Problems, Process};
use unisono::core::{Error, ErrorKind, Result};
use unisono::engine::{Engine, Runtime};
use unisono::{Registry, Unisono};

use crate::commands::Common;
use crate::lock::DataLock;
use crate::target::Embedded;
use crate::terminal::output::note;

/// The configuration that a command names, with warnings told on standard error.
pub(crate) fn configuration(common: &Common) -> Result<Configuration> {
    loaded(common).map(|configuration| place(configuration, common))
}

/// The configuration that a command names.
pub(crate) fn loaded(common: &Common) -> Result<Configuration> {
    let path = &common.config;
    if !path.exists() {
        return Err(Error::new(ErrorKind::InvalidConfig, "there is no configuration")
            .with("file", path.display())
            .hint(
                "name one with --config, begin one with `unisono check --print-example`, try `unisono demo` which \
                 needs none, or reach a running server with --url",
            ));
    }
    read(path).map_err(told)
}

/// Reads a configuration; that it cannot be used is caused by its problems.
pub(crate) fn read(path: &Path) -> Result<Configuration> {
    config::load(path, &Registry::builtin(), &Process)
        .map_err(|problems| unusable(&path.display().to_string()).caused_by(problems))
}

/// Tells the problems that caused an error, as `unisono check` does; answers the error without them.
pub(crate) fn told(error: Error) -> Error {
    let Some(problems) = error.source().and_then(|cause| cause.downcast_ref::<Problems>()) else {
        return error;
    };
    note(problems);
    unusable(error.detail("file").unwrap_or_default()).hint("correct what is named above")
}

fn unusable(file: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, "the configuration cannot be used").with("file", file)
}

/// Puts embedded sources where the command line says.
pub(crate) fn place(mut configuration: Configuration, common: &Common) -> Configuration {
    if let Some(data) = &common.data {
        configuration.data.clone_from(data);
    }
    for warning in &configuration.warnings.0 {
        note(warning);
    }
    configuration
}

/// The engine of a configuration, under the lock of its data directory.
pub(crate) async fn engine(configuration: Configuration) -> Result<(Engine, DataLock)> {
    let (opened, lock) = unisono(configuration).await?;
    Ok((opened.engine().clone(), lock))
}

/// A configuration opened, under the lock of its data directory.
pub(crate) async fn unisono(configuration: Configuration) -> Result<(Unisono, DataLock)> {
    let lock = DataLock::take(&configuration.data)?;
    let opened = Unisono::open_with(configuration, &Registry::builtin(), Runtime::system()).await?;
    for text in opened.notes() {
        note(text);
    }
    Ok((opened, lock))
}

/// The sources of the named configuration, to be worked on by this process.
pub(crate) async fn embedded(common: &Common) -> Result<Embedded> {
    let (engine, lock) = engine(configuration(common)?).await?;
    Ok(Embedded::new(engine, Some(lock)))
}

/// Where the progress of imports is kept: beside embedded data, or in the user's folder for those into a server.
pub(crate) fn progress_folder(common: &Common, url: Option<&str>) -> Result<PathBuf> {
    let Some(url) = url else {
        let data = match &common.data {
            Some(data) => data.clone(),
            None => configuration(common)?.data,
        };
        return Ok(imports(&data));
    };
    let home = std::env::home_dir().ok_or_else(|| {
        Error::new(ErrorKind::Unavailable, "there is no home directory to keep the progress in")
    })?;
    let server = url.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    Ok(imports(&home.join(".local/state/unisono").join(server.collect::<String>())))
}

/// Where the progress of imports into a data directory is kept.
pub(crate) fn imports(data: &Path) -> PathBuf {
    data.join("imports")
}
