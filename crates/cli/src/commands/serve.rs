//! `unisono serve`: the HTTP server, until Ctrl-C or SIGTERM. SIGHUP has it read its configuration again.

use std::net::SocketAddr;
use std::sync::Arc;

use unisono::Unisono;
use unisono::config::{Configuration, ServerOptions};
use unisono::core::{Error, ErrorKind, Result};
use unisono::engine::Engine;
use unisono_server::{App, Options, Reload, Server};

use crate::exit;
use crate::lock::DataLock;
use crate::open;
use crate::reload::{Read, Reloader};
use crate::session::Session;
use crate::telemetry;
use crate::terminal::Hangup;

/// Serve the configuration over HTTP
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Address and port to listen on, instead of those of the configuration
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
}

pub(super) async fn run(args: Args, session: &Session) -> Result<u8> {
    let listen = move |mut configuration: Configuration| {
        if let Some(listen) = args.listen {
            configuration.server.listen = listen;
        }
        configuration
    };
    let configuration = listen(open::configuration(&session.common)?);
    let common = session.common.clone();
    let again: Read =
        Box::new(move || Ok(listen(open::place(open::read(&common.config)?, &common))));
    let output = session.output;
    serve(configuration, Some(again), session, async |_, url| {
        output.line(format_args!("listening on {url}"))
    })
    .await
}

/// Serves until the user asks to stop; `again` reads the configuration anew, if it is from a file. `ready` is told the
/// engine and the address before requests are answered.
pub(super) async fn serve(
    configuration: Configuration,
    again: Option<Read>,
    session: &Session,
    ready: impl AsyncFnOnce(&Engine, &str) -> Result<()>,
) -> Result<u8> {
    check_listen(&configuration.server)?;
    let options = Options::from(configuration.server.clone());
    let (unisono, lock) = session.interrupt.or(open::unisono(configuration)).await?;
    let engine = unisono.engine().clone();
    let app = App {
        engine: engine.clone(),
        name: "Unisono".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        metrics: Some(telemetry::metrics()?),
        reload: again.map(|again| reloads(unisono, again, session)).transpose()?,
    };
    let served = work(options, app, &engine, lock, session, ready).await;
    let closed = engine.close().await;
    match served {
        // Ctrl-C is how serving ends, also while it was still loading.
        Err(_) if session.interrupt.asked() => {}
        served => served?,
    }
    closed?;
    Ok(exit::OK)
}

/// Who reloads without having a name.
const SIGNAL: &str = "SIGHUP";

/// Reloads at SIGHUP from now on, and when the server is told to.
fn reloads(unisono: Unisono, again: Read, session: &Session) -> Result<Reload> {
    let reloader = Arc::new(Reloader::new(unisono, again));
    let (hangup, server) = (Hangup::listen()?, Arc::clone(&reloader));
    // What became of it is in the log.
    session.runtime.spawn(hangup.each(move || {
        let reloader = Arc::clone(&reloader);
        async move { drop(reloader.reload(false, Some(SIGNAL.into())).await) }
    }));
    Ok(Arc::new(move |dry_run, by| {
        let server = Arc::clone(&server);
        Box::pin(async move { server.reload(dry_run, by).await })
    }))
}

async fn work(
    options: Options,
    app: App,
    engine: &Engine,
    mut lock: DataLock,
    session: &Session,
    ready: impl AsyncFnOnce(&Engine, &str) -> Result<()>,
) -> Result<()> {
    let server = Server::bind(options, app).await?;
    let scheme = if server.is_tls() { "https" } else { "http" };
    let url = format!("{scheme}://{}", server.address());
    lock.announce(&url)?;
    session.interrupt.or(ready(engine, &url)).await?;
    let interrupt = session.interrupt.clone();
    server.run(async move { interrupt.wait().await }).await
}

/// The configuration was checked with its own address; the one of the command line must be as safe.
fn check_listen(server: &ServerOptions) -> Result<()> {
    if server.listen.ip().is_loopback() || server.tls.is_some() || server.plain_http {
        return Ok(());
    }
    let message = "the address can be reached from other machines, and there is no TLS";
    Err(Error::new(ErrorKind::InvalidConfig, message).with("listen", server.listen).hint(
        "add a [server.tls], or set plain_http = true if something in front of the server encrypts",
    ))
}
