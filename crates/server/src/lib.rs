//! The HTTP interface of Unisono: records, queries, changes, operation and documentation over one engine.
//!
//! Modules in the order in which a request travels: it is accepted ([`Server`]), its connection speaks HTTP, `dispatch`
//! checks bounds and access and finds the route, a handler asks the engine, and `reply` or `problem` answers.

mod app;
mod auth;
mod options;
mod server;
mod streams;

mod connection;
mod dispatch;
mod meters;
mod route;

mod body;
mod problem;
mod reply;
mod request;
mod uri;

mod admin;
mod archive;
mod batch;
mod changes;
mod docs;
mod markdown;
mod openapi;
mod pages;
mod projections;
mod query;
mod record;

pub use app::{App, Reload};
pub use options::{Limits, Options};
pub use server::Server;
