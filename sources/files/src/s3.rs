//! [`S3`]: how a source of this kind is declared and opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use tokio::runtime::Handle;
use unisono_core::capability::ApplyCapability;
use unisono_core::kind::{Environment, OptionSpec, OptionType, Options, SourceKind};
use unisono_core::source::Source;
use unisono_core::{Capability, Error, ErrorKind, Result};

use crate::bucket::Bucket;
use crate::config::capability;
use crate::parallel::blocking;
use crate::source::FilesSource;
use crate::store::Store;

/// The kind `s3`.
#[derive(Clone, Copy, Debug, Default)]
pub struct S3;

/// A batch is made visible object by object: smaller than on a disk.
const BATCH_CHANGES_MAX: usize = 1024;

const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "url",
        ty: OptionType::String,
        default: None,
        optional: false,
        doc: "The bucket, and a prefix in it: s3://bucket/prefix; one folder below it for each entity.",
    },
    OptionSpec {
        name: "endpoint",
        ty: OptionType::String,
        default: None,
        optional: true,
        doc: "Where the store is, such as https://s3.example.org:9000; that of AWS in `bucket_region` if absent.",
    },
    OptionSpec {
        name: "bucket_region",
        ty: OptionType::String,
        default: Some("us-east-1"),
        optional: false,
        doc: "The region of the bucket, as its store calls it.",
    },
    OptionSpec {
        name: "access_key",
        ty: OptionType::Secret,
        default: None,
        optional: true,
        doc: "The access key; without it, the role of the machine is asked for at the metadata service of AWS.",
    },
    OptionSpec {
        name: "secret_key",
        ty: OptionType::Secret,
        default: None,
        optional: true,
        doc: "The secret that belongs to `access_key`.",
    },
    OptionSpec {
        name: "allow_http",
        ty: OptionType::Boolean,
        default: Some("false"),
        optional: false,
        doc: "Whether the endpoint may be without TLS.",
    },
    OptionSpec {
        name: "tls_ca",
        ty: OptionType::Path,
        default: None,
        optional: true,
        doc: "A PEM file with the certificates to trust instead of those of the system.",
    },
    OptionSpec {
        name: "connect_timeout",
        ty: OptionType::Duration,
        default: Some("3s"),
        optional: false,
        doc: "How long to try to reach the store, repetitions included.",
    },
    OptionSpec {
        name: "request_timeout",
        ty: OptionType::Duration,
        default: Some("30s"),
        optional: false,
        doc: "How long one request may take.",
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
impl SourceKind for S3 {
    fn name(&self) -> &'static str {
        "s3"
    }

    fn summary(&self) -> &'static str {
        "The layout of `files` in a bucket of an S3-compatible store."
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn capability(&self) -> Capability {
        of_bucket(true)
    }

    fn check(&self, options: &Options) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Some(url) = options.text("url")
            && let Err(message) = bucket_and_prefix(url)
        {
            problems.push(("url", message.to_owned()));
        }
        match options.text("endpoint") {
            Some(e) if e.starts_with("http://") && !options.boolean("allow_http") => {
                let message = "is without TLS: write https://, or set allow_http = true";
                problems.push(("endpoint", message.to_owned()));
            }
            Some(e) if !e.starts_with("http://") && !e.starts_with("https://") => {
                problems.push(("endpoint", "must begin with https://".to_owned()));
            }
            _ => {}
        }
        if options.text("access_key").is_some() != options.text("secret_key").is_some() {
            let message = "is given only together with `secret_key`, and the other way round";
            problems.push(("access_key", message.to_owned()));
        }
        problems
    }

    async fn open(
        &self,
        name: &str,
        options: &Options,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        let opened = open(name, options, environment).await;
        opened.map_err(|e| e.on("open").at(name))
    }
}

async fn open(name: &str, options: &Options, environment: &Environment) -> Result<Arc<dyn Source>> {
    let wrong = |message| Error::new(ErrorKind::InvalidConfig, message).with("option", "url");
    let url = options.text("url").ok_or_else(|| wrong("the source needs a url"))?;
    let (bucket, prefix) = bucket_and_prefix(url).map_err(wrong)?;
    let ca = options.text("tls_ca").map(|path| environment.data.join(path));
    let objects = objects(bucket, options, ca).await?;
    let (root, archive) = (PathBuf::from(prefix), options.boolean("archive"));
    let bucket = Arc::new(Bucket::new(Arc::new(objects), Handle::current()));
    let (checked, at) = (Arc::clone(&bucket), root.clone());
    blocking(move || checked.check(&at)).await?;
    let store: Arc<dyn Store> = bucket;
    Ok(Arc::new(FilesSource::new(name, "s3", root, store, archive, of_bucket(archive))))
}

/// The bucket and the prefix of `s3://bucket/prefix`.
fn bucket_and_prefix(url: &str) -> Result<(&str, &str), &'static str> {
    let rest = url.strip_prefix("s3://").ok_or("must look like s3://bucket/prefix")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if bucket.is_empty() || !bucket.bytes().all(plain) {
        return Err("must name a bucket: s3://bucket/prefix");
    }
    let is_name =
        |name: &str| !name.is_empty() && name != "." && name != ".." && name.bytes().all(plain);
    if !prefix.is_empty() && !prefix.split('/').all(is_name) {
        return Err("must have a prefix of names of letters, digits, - _ and ., with / between");
    }
    Ok((bucket, prefix))
}

async fn objects(bucket: &str, options: &Options, ca: Option<PathBuf>) -> Result<AmazonS3> {
    let duration = |name, default| options.duration(name).unwrap_or(Duration::from_secs(default));
    let connect_timeout = duration("connect_timeout", 3);
    let mut client = ClientOptions::new()
        .with_connect_timeout(connect_timeout)
        .with_timeout(duration("request_timeout", 30))
        .with_allow_http(options.boolean("allow_http"));
    if let Some(file) = ca {
        for certificate in certificates(&file).await? {
            client = client.with_root_certificate(certificate);
        }
        client = client.with_no_system_certificates(true);
    }
    let backoff = BackoffConfig { max_backoff: connect_timeout, ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: 5, retry_timeout: connect_timeout };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(options.text("bucket_region").unwrap_or("us-east-1"))
        .with_allow_http(options.boolean("allow_http"))
        .with_client_options(client)
        .with_retry(retry);
    if let Some(endpoint) = options.text("endpoint") {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    if let Some((key, secret)) = options.text("access_key").zip(options.text("secret_key")) {
        builder = builder.with_access_key_id(key).with_secret_access_key(secret);
    }
    builder.build().map_err(|e| {
        Error::new(ErrorKind::InvalidConfig, "the options of the store do not fit together")
            .caused_by(e)
    })
}

async fn certificates(file: &std::path::Path) -> Result<Vec<Certificate>> {
    let wrong = |message| {
        Error::new(ErrorKind::InvalidConfig, message)
            .with("option", "tls_ca")
            .with("file", file.display())
    };
    let read = tokio::fs::read(file).await;
    let content = read.map_err(|e| wrong("the file cannot be read").caused_by(e))?;
    let found = Certificate::from_pem_bundle(&content)
        .map_err(|e| wrong("the file holds no certificates in PEM").caused_by(e))?;
    if found.is_empty() {
        return Err(wrong("the file holds no certificates in PEM"));
    }
    Ok(found)
}

fn of_bucket(archive: bool) -> Capability {
    let of_disk = capability(archive);
    let apply = ApplyCapability { batch_changes_max: BATCH_CHANGES_MAX, ..of_disk.apply };
    Capability { apply, ..of_disk }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_bucket_and_a_prefix() {
        assert_eq!(bucket_and_prefix("s3://shop"), Ok(("shop", "")));
        assert_eq!(bucket_and_prefix("s3://shop/"), Ok(("shop", "")));
        assert_eq!(bucket_and_prefix("s3://shop/a/b.c/"), Ok(("shop", "a/b.c")));
        for url in
            ["shop", "http://shop", "s3://", "s3:///a", "s3://a b", "s3://a//b", "s3://a/../b"]
        {
            assert!(bucket_and_prefix(url).is_err(), "{url}");
        }
    }
}
