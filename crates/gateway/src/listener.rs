//! A listener: takes connections, speaks one version of HTTP on them, and ends them in order.

use std::{convert::Infallible, io, net::SocketAddr, num::NonZeroUsize, pin::pin, sync::Arc, time::Duration};

use anyhow::Context;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

use crate::peer::TrustedProxies;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2 without negotiation, as gRPC speaks it.
    Http2,
}

/// How long a client may be silent before, between and within the heads of its requests.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a client may leave what is sent to it unread.
const UNREAD: Duration = Duration::from_secs(10);

/// The most headers of a request, and the most bytes that its head may have.
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 16 * 1024;

/// A wait after the machine had nothing left for one more connection.
const PAUSE: Duration = Duration::from_millis(50);

/// An address that is taken, and on which nothing is served yet.
pub(crate) struct Listener {
    socket: TcpListener,
    protocol: Protocol,
    trusted: TrustedProxies,
    places: Arc<Semaphore>,
}

impl Listener {
    /// Takes an address. `name` is what it is called when it cannot be had.
    pub(crate) async fn bind(
        name: &str,
        address: SocketAddr,
        protocol: Protocol,
        trusted: TrustedProxies,
        connections: NonZeroUsize,
    ) -> anyhow::Result<Self> {
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} ({name})"))?;
        Ok(Self {
            socket,
            protocol,
            trusted,
            places: Arc::new(Semaphore::new(connections.get())),
        })
    }

    /// The address, with the port that was given for port 0.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` is cancelled, then lets each connection end the request that it is at. Returns when the last
    /// one has ended.
    pub(crate) async fn serve<S, B>(self, service: S, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: they come back when connections end.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                // Closed at once: a client that is told to wait would only hold a descriptor.
                continue;
            };
            // Without it small replies wait for the client's acknowledgement of the one before.
            let _ = stream.set_nodelay(true);
            let connection = converse(
                self.protocol,
                stream,
                peer,
                self.trusted.clone(),
                service.clone(),
                stop.clone(),
            );
            connections.spawn(async move {
                connection.await;
                drop(place);
            });
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }
}

/// Serves one connection.
async fn converse<S, B>(
    protocol: Protocol,
    stream: TcpStream,
    peer: SocketAddr,
    trusted: TrustedProxies,
    service: S,
    stop: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let client = trusted.client(peer, request.headers_mut());
        request.extensions_mut().insert(client);
        service.clone().oneshot(request)
    });
    // HTTP/2's own keep-alive begins after the client's first bytes.
    if !matches!(tokio::time::timeout(SILENCE, stream.readable()).await, Ok(Ok(()))) {
        return;
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(UNREAD));
    let stream = TokioIo::new(Box::pin(stream));
    let result = match protocol {
        Protocol::Http1 => {
            let mut connection = pin!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(SILENCE)
                    .max_headers(MAX_HEADERS)
                    .max_buf_size(MAX_HEAD)
                    .serve_connection(stream, answer)
            );
            tokio::select! {
                result = connection.as_mut() => result,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        Protocol::Http2 => {
            let mut connection = pin!(
                http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(100)
                    .initial_stream_window_size(1024 * 1024)
                    .initial_connection_window_size(1024 * 1024)
                    .max_pending_accept_reset_streams(20)
                    .max_header_list_size(16 * 1024)
                    .keep_alive_interval(SILENCE)
                    .keep_alive_timeout(Duration::from_secs(20))
                    .serve_connection(stream, answer)
            );
            tokio::select! {
                result = connection.as_mut() => result,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}
