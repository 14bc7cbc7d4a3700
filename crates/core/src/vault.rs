//! [`Vault`]: the role of a source that keeps whole files, such as backups and an archived log.

use async_trait::async_trait;

use crate::error::Result;

/// Keeps whole files under paths.
///
/// A path has parts of `a-z`, `0-9`, `_`, `-` and `.` between slashes. None of them is the place of an entity's records.
#[async_trait]
pub trait Vault: Send + Sync {
    /// Keeps a file durably, unless there is one; answers whether it was taken.
    ///
    /// * `vault-1` At any instant the file is there as a whole or not at all, and it is never replaced.
    async fn create(&self, path: &str, content: Vec<u8>) -> Result<bool>;

    /// What was created under a path; `None` if nothing was.
    ///
    /// * `vault-2` The bytes that were given.
    async fn load(&self, path: &str) -> Result<Option<Vec<u8>>>;

    /// The names directly in a folder, in ascending order; none if the folder is not there.
    ///
    /// * `vault-3` The names of all that was created, and of the folders in which it was.
    async fn list(&self, folder: &str) -> Result<Vec<String>>;
}
