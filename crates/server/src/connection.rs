//! One connection: handshake, HTTP/1 or HTTP/2, and an end when the server ends or the caller says nothing.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use unisono::engine::Runtime;

use crate::app::{Phase, Shared};
use crate::dispatch;

const STREAMS_PER_CONNECTION_MAX: u32 = 200;
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Serves one connection to its end.
pub(crate) async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, shared: &Arc<Shared>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection could not be set up");
        return;
    }
    let Some(tls) = tls else { return speak(stream, shared).await };
    match tokio::time::timeout(shared.limits.header_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, shared).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: &Arc<Shared>) {
    let begun = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        begun.store(true, Ordering::Relaxed);
        let shared = Arc::clone(shared);
        async move { Ok::<_, Infallible>(dispatch::handle(&shared, request).await) }
    });
    let builder = builder(shared);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut phase = shared.phase.clone();
    // Until the first request no timer of the protocol runs: one that connects and stays silent is cut here.
    let mut silence = pin!(tokio::time::sleep(shared.limits.header_timeout));
    let mut silent = true;
    // Looked at once in any case: the server may have begun to end before this connection began.
    phase.mark_changed();
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = silence.as_mut(), if silent => {
                silent = false;
                if !begun.load(Ordering::Relaxed) {
                    return;
                }
            }
            changed = phase.changed() => {
                let phase = changed.map_or(Phase::Ended, |()| *phase.borrow_and_update());
                match phase {
                    Phase::Serving => {}
                    Phase::Draining => connection.as_mut().graceful_shutdown(),
                    Phase::Ended => return,
                }
            }
        }
    }
}

fn builder(shared: &Shared) -> Builder<Tasks> {
    let limits = &shared.limits;
    let mut builder = Builder::new(Tasks(shared.app.engine.runtime().clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        // Twice, so that what is a little too large gets a problem and not a bare status.
        .max_buf_size((2 * (limits.header_bytes + limits.uri_bytes)).max(64 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(u32::try_from(2 * limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL);
    builder
}

/// Starts tasks of HTTP/2 streams where all tasks of the engine live.
#[derive(Clone)]
struct Tasks(Runtime);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.0.spawn(async move {
            task.await;
        });
    }
}
