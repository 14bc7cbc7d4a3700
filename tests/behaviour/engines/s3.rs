//! Deletes data from outside: every object below the prefix.

use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, Error as Native, ObjectStore};
use unisono_core::kind::Options;
use unisono_core::{Error, ErrorKind, Result};

/// Deletes what a namespace holds.
pub(crate) async fn wipe(options: &Options) -> Result<()> {
    let text =
        |name| options.text(name).ok_or_else(|| Error::internal("source.toml lacks an option"));
    let failed = |e: Native| {
        Error::new(ErrorKind::Unavailable, "the objects cannot be deleted").caused_by(e)
    };
    let authority =
        std::fs::read(text("tls_ca")?).map_err(|e| Error::internal("tls_ca").caused_by(e))?;
    let authority = Certificate::from_pem(&authority).map_err(failed)?;
    let (bucket, prefix) = (text("url")?.strip_prefix("s3://"))
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| Error::internal("the url has no prefix"))?;
    let objects = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_endpoint(text("endpoint")?)
        .with_access_key_id(text("access_key")?)
        .with_secret_access_key(text("secret_key")?)
        .with_client_options(ClientOptions::new().with_root_certificate(authority))
        .build()
        .map_err(failed)?;
    let below = objects.list(Some(&Path::from(prefix))).map_ok(|object| object.location);
    let below: Vec<Path> = below.try_collect().await.map_err(failed)?;
    let all = futures::stream::iter(below.into_iter().map(Ok)).boxed();
    objects.delete_stream(all).try_for_each(|_| async { Ok(()) }).await.map_err(failed)
}
