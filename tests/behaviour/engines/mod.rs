//! The servers that kinds are tested over: how their data is deleted from outside.

#[cfg(feature = "mongodb")]
pub(crate) mod mongodb;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "opensearch")]
pub(crate) mod opensearch;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(feature = "s3")]
mod s3;

use futures::future::LocalBoxFuture;
use unisono_core::kind::Options;

/// Deletes what a namespace holds, as an operator would by mistake; one that holds nothing is left as it is.
pub(crate) fn wipe<'a>(
    engine: &'a str,
    options: &'a Options,
) -> LocalBoxFuture<'a, Result<(), String>> {
    Box::pin(async move {
        match (engine, options) {
            #[cfg(feature = "mongodb")]
            ("mongodb", options) => mongodb::wipe(options).await.map_err(|e| format!("{e:?}")),
            #[cfg(feature = "mysql")]
            ("mysql", options) => mysql::wipe(options).await.map_err(|e| format!("{e:?}")),
            #[cfg(feature = "opensearch")]
            ("opensearch", options) => {
                opensearch::wipe(options).await.map_err(|e| format!("{e:?}"))
            }
            #[cfg(feature = "postgres")]
            ("postgres", options) => postgres::wipe(options).await.map_err(|e| format!("{e:?}")),
            #[cfg(feature = "redis")]
            ("redis", options) => redis::wipe(options).await.map_err(|e| format!("{e:?}")),
            #[cfg(feature = "s3")]
            ("s3", options) => s3::wipe(options).await.map_err(|e| format!("{e:?}")),
            (engine, _) => Err(format!("tests/behaviour/engines cannot wipe {engine}")),
        }
    })
}
