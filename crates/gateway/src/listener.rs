//! A listener: takes connections, speaks one version of HTTP on them within their limits, and ends them in order.

mod addresses;
mod metered;
mod refused;
mod timed;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use grpc::{CertificateAccount, Retiring};
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH},
};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::Counter;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

use self::{
    addresses::{Addresses, Seat},
    metered::Metered,
    refused::Refused,
    timed::{Timed, Times, Turn},
};
use crate::{cli::ConnectionLimits, peer::TrustedProxies, tls::Acceptor};

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2, which a client of gRPC speaks at once; with TLS it may ask for it by ALPN.
    Http2,
}

/// What answers the requests of a listener.
pub(crate) trait Answering:
    Service<Request<Incoming>, Response = Response<Self::Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
    /// The body of its answers.
    type Body: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static;
}

impl<S, B> Answering for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static,
{
    type Body = B;
}

/// When a listener is to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// It will end soon. It takes connections until then; those of HTTP/1 are closed behind a reply, since their clients
    /// can then go elsewhere without having lost one.
    pub(crate) announced: CancellationToken,
    /// It takes no more connections, and ends those that it has.
    pub(crate) now: CancellationToken,
}

/// A wait after the machine had nothing left for one more connection.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a connection that was abused still counts for its address: whoever comes back at once does not come back often.
/// No more of them are kept so than there may be connections; what is beyond that is only closed.
const PENALTY: Duration = Duration::from_secs(60);

/// hyper takes no smaller buffer than this.
const LEAST_BUFFER: usize = 8 * 1024;

/// An address that is taken, and on which nothing is served yet.
pub(crate) struct Listener {
    socket: TcpListener,
    protocol: Protocol,
    trusted: TrustedProxies,
    limits: Arc<ConnectionLimits>,
    tls: Option<Arc<Acceptor>>,
    refused: Refused,
    heads: Arc<Heads>,
}

/// How many heads of HTTP/1 were refused before they were requests: nothing else tells of them.
struct Heads {
    malformed: Counter,
    too_large: Counter,
    uri_too_long: Counter,
}

impl Heads {
    fn register(listener: &str) -> Self {
        let refused = |kind: &'static str| metrics::counter!("dcams_heads_refused_total", "listener" => listener.to_owned(), "kind" => kind);
        Self {
            malformed: refused("malformed"),
            too_large: refused("too_large"),
            uri_too_long: refused("uri_too_long"),
        }
    }
}

/// How many connections may wait to be taken; Linux cuts that to `net.core.somaxconn`. Of those that come at once beyond it, the
/// clients hear nothing, and try again after a second, then after three. A restart brings all clients at once.
const BACKLOG: u32 = 4_096;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A gateway that starts again takes the address though connections of the last one are still ending.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    /// Takes an address. `name` is what it is called when it cannot be had.
    pub(crate) fn bind(
        name: &str,
        address: SocketAddr,
        protocol: Protocol,
        trusted: TrustedProxies,
        limits: Arc<ConnectionLimits>,
    ) -> anyhow::Result<Self> {
        let socket = listen(address).with_context(|| format!("cannot listen on {address} ({name})"))?;
        let listener = name.to_ascii_lowercase();
        Ok(Self {
            socket,
            protocol,
            trusted,
            limits,
            tls: None,
            refused: Refused::register(&listener),
            heads: Arc::new(Heads::register(&listener)),
        })
    }

    /// The same, with TLS if there is any.
    pub(crate) fn with_tls(self, tls: Option<Acceptor>) -> Self {
        let tls = tls.map(Arc::new);
        Self { tls, ..self }
    }

    /// The address, with the port that was given for port 0.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until it is to stop, then lets each connection end the request that it is at. Returns when the last one has
    /// ended.
    pub(crate) async fn serve(self, service: impl Answering, stop: Stop) {
        let places = Arc::new(Semaphore::new(self.limits.max_connections.get()));
        let addresses = Addresses::default();
        // Each is a seat that is kept, and what keeps it: of these, too, there are no more than of connections.
        let penalties = Arc::new(Semaphore::new(self.limits.max_connections.get()));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.now.cancelled() => break,
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
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                self.refused.for_all();
                continue;
            };
            let seat = if self.trusted.contains(peer.ip()) {
                // A proxy connects for many.
                None
            } else {
                match addresses.seat(peer.ip(), self.limits.connections_per_address) {
                    Ok(seat) => Some(seat),
                    Err(full) => {
                        self.refused.for_address(stream, full, &stop.now, &connections);
                        continue;
                    }
                }
            };
            // Without it small replies wait for the client's acknowledgement of the one before.
            let _ = stream.set_nodelay(true);
            let connection = Connection {
                peer,
                account: None,
                opened: Instant::now(),
                trusted: self.trusted.clone(),
                limits: Arc::clone(&self.limits),
                stop: stop.clone(),
                place,
                seat,
                penalties: Arc::clone(&penalties),
                heads: Arc::clone(&self.heads),
                retiring: OnceLock::new(),
            };
            let tls = self.tls.clone();
            connections.spawn(connection.converse(self.protocol, tls, stream, service.clone()));
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }
}

/// A connection, in plain text or with TLS.
type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What is known of a connection beside its stream.
struct Connection {
    peer: SocketAddr,
    /// For whom the client's certificate stands.
    account: Option<CertificateAccount>,
    /// When it could first be used: behind the handshake, where there is one.
    opened: Instant,
    trusted: TrustedProxies,
    limits: Arc<ConnectionLimits>,
    stop: Stop,
    /// Where it is counted, as long as it is there.
    place: OwnedSemaphorePermit,
    seat: Option<Seat>,
    /// How many more may be kept when they have ended.
    penalties: Arc<Semaphore>,
    heads: Arc<Heads>,
    /// Cancelled when it is too old. Made for the first call: one that is idle has no use for it.
    retiring: OnceLock<CancellationToken>,
}

impl Connection {
    /// Serves the connection to its end.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async function has room for what it is given twice"
    )]
    fn converse(
        mut self,
        protocol: Protocol,
        tls: Option<Arc<Acceptor>>,
        stream: TcpStream,
        service: impl Answering,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let patience = tls.as_ref().map_or(self.limits.head_timeout, |tls| tls.patience);
            let due = self.opened + patience;
            // Before there is a first byte, a connection has no buffers. To ask whether it is readable is not enough: tokio takes
            // one that was accepted just now for readable until a read has failed.
            let mut first = [0];
            let begun = tokio::select! {
                begun = timeout_at(due, stream.peek(&mut first)) => begun,
                () = self.stop.now.cancelled() => return,
            };
            if !matches!(begun, Ok(Ok(1))) {
                return;
            }
            let stream = match tls {
                None => Stream::Left(stream),
                // Apart from the task as well.
                Some(tls) => match Box::pin(self.shake_hands(&tls, stream, due)).await {
                    Some(stream) => stream,
                    None => return,
                },
            };
            // Apart from the task, so that a connection takes the memory of its own protocol only, and that not before it begins.
            let result = match protocol {
                Protocol::Http1 => Box::pin(self.http1(stream, service)).await,
                Protocol::Http2 => self.http2(stream, service).await,
            };
            if let Err(error) = result {
                tracing::debug!(peer = %self.peer, %error, "a connection ended early");
                if error.is_parse_too_large() {
                    self.heads.too_large.increment(1);
                } else if error.is_parse() {
                    self.heads.malformed.increment(1);
                }
                // Who has no seat, as a proxy, has none to lose.
                if is_abuse(&error)
                    && let Some(mut seat) = self.seat
                    && let Ok(_penalty) = self.penalties.try_acquire()
                {
                    seat.mark_abused();
                    drop(self.place);
                    tokio::select! {
                        () = sleep(PENALTY) => drop(seat),
                        () = self.stop.now.cancelled() => {}
                    }
                }
            }
        }
    }

    /// Makes the handshake of TLS until `due`, and learns who the client is. None when it came to nothing.
    async fn shake_hands(&mut self, tls: &Acceptor, stream: TcpStream, due: Instant) -> Option<Stream> {
        let shaken = tokio::select! {
            shaken = timeout_at(due, tls.accept(stream)) => shaken,
            () = self.stop.now.cancelled() => return None,
        };
        match shaken.unwrap_or_else(|late| Err(late.into())) {
            Ok((stream, account)) => {
                self.account = account;
                self.opened = Instant::now();
                Some(Stream::Right(stream))
            }
            Err(error) => {
                tls.failed();
                tracing::debug!(peer = %self.peer, %error, "a TLS handshake came to nothing");
                None
            }
        }
    }

    async fn http1(&self, stream: Stream, service: impl Answering) -> hyper::Result<()> {
        let (this, old) = (self, self.old());
        let (stream, turn) = self.timed(stream);
        let answer = service_fn(move |mut request: Request<Incoming>| {
            turn.begin();
            let turn = turn.clone();
            let is_long = uri_length(&request) > this.limits.uri_limit;
            let client = this.trusted.client(this.peer, request.headers_mut());
            request.extensions_mut().insert(client);
            let service = service.clone();
            // In a box, since hyper keeps the room for it while a connection is idle.
            Box::pin(async move {
                let response = if is_long {
                    this.heads.uri_too_long.increment(1);
                    uri_too_long()
                } else {
                    service.oneshot(request).await?.map(Some)
                };
                let mut response = response.map(|body| Answer { body, turn });
                if Instant::now() >= old || this.stop.announced.is_cancelled() {
                    response.headers_mut().insert(CONNECTION, CLOSE);
                }
                Ok::<_, Infallible>(response)
            })
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                // hyper has one timer for the silence before a head and for the head together; ours are in the stream. With
                // it hyper looks for the next head as soon as it has answered, which is when ours begin.
                .header_read_timeout(this.limits.idle_timeout + this.limits.head_timeout)
                .max_headers(self.limits.max_headers.get())
                .max_header_size(self.limits.head_limit)
                .max_buf_size(self.limits.head_limit.max(LEAST_BUFFER))
                .serve_connection(TokioIo::new(stream), answer)
        );
        tokio::select! {
            result = connection.as_mut() => result,
            () = self.stop.now.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }

    async fn http2(&self, stream: Stream, service: impl Answering) -> hyper::Result<()> {
        let limits = &self.limits.http2;
        let (stream, turn) = self.timed(stream);
        let this = self;
        let answer = service_fn(move |mut request: Request<Incoming>| {
            let client = this.trusted.client(this.peer, request.headers_mut());
            request.extensions_mut().insert(client);
            let retiring = this.retiring.get_or_init(CancellationToken::new);
            request.extensions_mut().insert(Retiring(retiring.clone()));
            if let Some(account) = &this.account {
                request.extensions_mut().insert(account.clone());
            }
            service.clone().oneshot(request)
        });
        let most = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let stream = Metered::new(stream, limits.control_frames.get(), turn.clone());
        let mut connection = Box::pin(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(most(limits.calls_per_connection.get()))
                .initial_stream_window_size(most(limits.stream_window))
                .initial_connection_window_size(most(limits.connection_window))
                .max_pending_accept_reset_streams(limits.pending_resets.get())
                .max_header_list_size(most(self.limits.head_limit))
                .keep_alive_interval(limits.keepalive)
                .keep_alive_timeout(limits.keepalive_timeout)
                .serve_connection(TokioIo::new(stream), answer),
        );
        let is_stopped = tokio::select! {
            result = connection.as_mut() => return result,
            () = self.stop.now.cancelled() => true,
            () = sleep_until(self.old()) => false,
        };
        connection.as_mut().graceful_shutdown();
        if is_stopped {
            // One that has not even said hello has nothing to end.
            return if turn.is_ours() { connection.await } else { Ok(()) };
        }
        self.retiring.get_or_init(CancellationToken::new).cancel();
        // Whoever is not done by then is cut off.
        timeout(self.limits.connection_grace, connection)
            .await
            .unwrap_or(Ok(()))
    }

    /// The stream with its timers.
    fn timed(&self, stream: Stream) -> (Timed<Stream>, Turn) {
        let turn = Turn::default();
        let times = Times {
            head: self.limits.head_timeout,
            idle: self.limits.idle_timeout,
            write: self.limits.write_timeout,
        };
        (Timed::new(stream, times, turn.clone(), self.opened), turn)
    }

    /// When this connection is too old. Connections that began together, as after a restart, do not all end together.
    fn old(&self) -> Instant {
        self.opened + self.limits.connection_age.mul_f64(rand::random_range(0.9..1.1))
    }
}

/// Whether the client was at fault, and not merely slow or gone: h2 has found that it broke the protocol or sends too much, or
/// [`Metered`] has.
fn is_abuse(error: &hyper::Error) -> bool {
    let Some(source) = std::error::Error::source(error) else {
        return false;
    };
    match source.downcast_ref::<h2::Error>() {
        Some(error) => error.is_library(),
        // hyper takes an error of the stream out of h2's.
        None => source.downcast_ref().is_some_and(metered::is_too_many),
    }
}

/// The value of `Connection` that announces its end.
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// How many bytes the URI has. hyper has taken it apart, and bounds it by the whole head.
fn uri_length(request: &Request<Incoming>) -> usize {
    let uri = request.uri();
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    authority + path
}

/// The refusal of a URI. It has no body, like all that is refused for the form of a head.
fn uri_too_long<B>() -> Response<Option<B>> {
    let mut response = Response::new(None);
    *response.status_mut() = StatusCode::URI_TOO_LONG;
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response.headers_mut().insert(CONNECTION, CLOSE);
    response
}

/// The body of an answer, none for an empty one. When it has been sent, it is the client's turn.
struct Answer<B> {
    body: Option<B>,
    turn: Turn,
}

impl<B> Drop for Answer<B> {
    fn drop(&mut self) {
        self.turn.end();
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
