//! Source kind `files`: one readable JSON file for each record, and the log of the entity as an archive.
#![doc = include_str!("../README.md")]

pub mod archive;
mod auditor;
mod codec;
mod config;
mod disk;
mod error;
mod follower;
mod parallel;
mod place;
mod reader;
mod schema;
mod source;

#[cfg(test)]
mod tests;

pub use config::Files;
