//! Source kind `files`: one readable JSON file for each record, and the log of the entity as an archive.
#![doc = include_str!("../README.md")]

pub mod archive;
mod auditor;
#[cfg(feature = "s3")]
mod bucket;
mod codec;
mod config;
mod disk;
mod error;
mod follower;
mod known;
mod parallel;
mod place;
mod reader;
#[cfg(feature = "s3")]
mod s3;
mod schema;
mod source;
mod store;
mod vault;

#[cfg(test)]
mod tests;

pub use config::Files;
#[cfg(feature = "s3")]
pub use s3::S3;
