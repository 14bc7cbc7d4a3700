//! Failures of the file system and of what is stored in it, as Unisono's errors.

use std::io;
use std::path::Path;

use unisono_core::{Error, ErrorKind};

/// A refusal by the file system.
pub(crate) fn io(path: &Path, cause: io::Error) -> Error {
    let hint = match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space on the file system"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "let the user that runs Unisono write to this folder"
        }
        _ => "check that the file system is mounted and healthy",
    };
    Error::new(ErrorKind::Unavailable, "the file system refuses")
        .with("path", path.display())
        .hint(hint)
        .caused_by(cause)
}

/// A refusal by an object store, or no answer.
#[cfg(feature = "s3")]
pub(crate) fn object(path: &Path, cause: object_store::Error) -> Error {
    use object_store::Error as Native;
    let text = chain(&cause);
    let (kind, message, hint) = match &cause {
        Native::Unauthenticated { .. } => WRONG_KEY,
        // What S3 says of an unknown access key, and of a signature by another secret.
        Native::PermissionDenied { .. }
            if text.contains("InvalidAccessKeyId") || text.contains("SignatureDoesNotMatch") =>
        {
            WRONG_KEY
        }
        Native::PermissionDenied { .. } => (
            ErrorKind::PermissionDenied,
            "the store does not allow this",
            "let the access key read, write, list and delete below the prefix of `url`",
        ),
        _ if text.contains("NoSuchBucket") => {
            (ErrorKind::NotFound, "there is no such bucket", "make the bucket, or correct `url`")
        }
        _ if text.contains("certificate") => (
            ErrorKind::Unavailable,
            "the store's certificate is not trusted",
            "name the file of the authority that signed it by `tls_ca`, and the store in `endpoint` as in its certificate",
        ),
        _ => (
            ErrorKind::Unavailable,
            "the store refuses or cannot be reached",
            "check `endpoint`, and that the store runs",
        ),
    };
    Error::new(kind, message).with("path", path.display()).hint(hint).caused_by(told(&text))
}

/// What a store tells, without what it repeats of the request: the access key and the text that was signed.
#[cfg(feature = "s3")]
fn told(text: &str) -> String {
    let (before, answer) = text.split_once('<').unwrap_or((text, ""));
    let part = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0)
    };
    let parts = [Some(before.trim_end()), part("Code"), part("Message")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(feature = "s3")]
const WRONG_KEY: (ErrorKind, &str, &str) = (
    ErrorKind::Unauthenticated,
    "the store refuses the access key or the secret",
    "correct `access_key` and `secret_key`",
);

/// The texts of an error and of its causes.
#[cfg(feature = "s3")]
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A file whose content is not what was written by this crate.
pub(crate) fn corrupt(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "a stored file cannot be decoded")
        .with("path", path.display())
        .with("reason", reason)
        .hint("run `unisono repair`: it writes the file again from the truth")
}

#[cfg(all(test, feature = "s3"))]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_repeats_of_the_request_stays_out() {
        let xml = "<?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>It differs.</Message>\
                   <AWSAccessKeyId>tester</AWSAccessKeyId><StringToSign>AWS4</StringToSign></Error>";
        let text = told(&format!("403 Forbidden: {xml}"));
        assert_eq!(text, "403 Forbidden: SignatureDoesNotMatch It differs.");
        assert_eq!(told("connection refused"), "connection refused");
    }
}
