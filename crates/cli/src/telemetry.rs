//! Logs to standard error, and the recorder of metrics.

use std::io::IsTerminal as _;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use unisono::core::{Error, Result};

use crate::commands::{Common, LogFormat};

/// What is logged if nothing is asked for. What became of a signal is told nowhere else.
const DEFAULT: &str = "warn,unisono::reload=info";

/// Starts logging as asked for.
pub(crate) fn log(common: &Common) -> Result<()> {
    let filter = common.log.as_deref().unwrap_or(DEFAULT);
    let filter = EnvFilter::try_new(filter).map_err(|e| {
        Error::invalid("is not a log filter")
            .with("log", filter)
            .hint("use error, warn, info, debug or trace, or for example info,unisono_engine=debug")
            .caused_by(e)
    })?;
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Fails only if logging was started before, and nothing did.
    let _ = match common.log_format {
        LogFormat::Text => base.try_init(),
        LogFormat::Json => base.json().try_init(),
    };
    Ok(())
}

/// Starts collecting metrics; the handle renders them for `/metrics`.
pub(crate) fn metrics() -> Result<PrometheusHandle> {
    PrometheusBuilder::new()
        .install_recorder()
        .map_err(|e| Error::internal("metrics cannot be collected").caused_by(e))
}
