//! The limits and timers of connections and calls.

use std::{num::NonZeroUsize, time::Duration};

use clap::Args;

use super::values::{KIB, MIB, bytes, time, to};

/// What a connection may take, and for how long. Each listener counts for itself.
#[derive(Args, Clone)]
pub(crate) struct ConnectionLimits {
    /// The most connections on each listener; one more is closed at once
    #[arg(long, env = "DCAMS_MAX_CONNECTIONS", value_name = "N", default_value = "10000", value_parser = to::<1_000_000>)]
    pub(crate) max_connections: NonZeroUsize,
    /// The most connections that an address has on each listener, an IPv6 network of 64 bits counting as one; trusted proxies have no such limit
    #[arg(long, env = "DCAMS_CONNECTIONS_PER_ADDRESS", value_name = "N", default_value = "256", value_parser = to::<1_000_000>)]
    pub(crate) connections_per_address: NonZeroUsize,
    /// How long the head of a request may take from its first byte on, and the first one on a connection from its beginning: a number with ms, s, m, h or d
    #[arg(long, env = "DCAMS_HEAD_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) head_timeout: Duration,
    /// How long a client may be silent between two requests of HTTP/1
    #[arg(long, env = "DCAMS_IDLE_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = time)]
    pub(crate) idle_timeout: Duration,
    /// How long a client may take for the next 16 KiB of what is sent to it
    #[arg(long, env = "DCAMS_WRITE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) write_timeout: Duration,
    /// How old a connection becomes, give or take a tenth: HTTP/1 is closed behind the next reply, HTTP/2 is told to go away
    #[arg(long, env = "DCAMS_CONNECTION_AGE", value_name = "TIME", default_value = "10m", value_parser = time)]
    pub(crate) connection_age: Duration,
    /// How long the calls on an HTTP/2 connection have to end once it is too old
    #[arg(long, env = "DCAMS_CONNECTION_GRACE", value_name = "TIME", default_value = "30s", value_parser = time)]
    pub(crate) connection_grace: Duration,
    /// The most headers of a request
    #[arg(long, env = "DCAMS_MAX_HEADERS", value_name = "N", default_value = "64", value_parser = to::<1_000>)]
    pub(crate) max_headers: NonZeroUsize,
    /// The most bytes of the head of a request; a number of bytes, or with KiB or MiB
    #[arg(long, env = "DCAMS_HEAD_LIMIT", value_name = "BYTES", default_value = "16KiB", value_parser = bytes::<MIB>)]
    pub(crate) head_limit: usize,
    /// The most bytes of the URI of an HTTP/1 request
    #[arg(long, env = "DCAMS_URI_LIMIT", value_name = "BYTES", default_value = "2KiB", value_parser = bytes::<{ 32 * KIB }>)]
    pub(crate) uri_limit: usize,
    #[command(flatten)]
    pub(crate) http2: Http2Limits,
}

/// What a client may ask of an HTTP/2 connection.
#[derive(Args, Clone)]
pub(crate) struct Http2Limits {
    /// The most calls at once on a gRPC connection; a client that knows HTTP/2 waits with one more
    #[arg(long, env = "DCAMS_CALLS_PER_CONNECTION", value_name = "N", default_value = "100", value_parser = to::<10_000>)]
    pub(crate) calls_per_connection: NonZeroUsize,
    /// The most bytes of a call that a client may send ahead of what is read
    // DESIGN has 64 KiB. A window is what can be sent in a round trip: over one of 20 ms 20 MiB of images would take 6.4 s,
    // more than a call has. Of this it is 1.6 s, and no call has more than a quarter of its connection's window.
    #[arg(long, env = "DCAMS_STREAM_WINDOW", value_name = "BYTES", default_value = "256KiB", value_parser = bytes::<{ 64 * MIB }>)]
    pub(crate) stream_window: usize,
    /// The same of all calls on a gRPC connection: the most memory that its unread bytes take
    #[arg(long, env = "DCAMS_CONNECTION_WINDOW", value_name = "BYTES", default_value = "1MiB", value_parser = bytes::<{ 64 * MIB }>)]
    pub(crate) connection_window: usize,
    /// The most calls on a gRPC connection that were cancelled before they began; with one more it is closed
    #[arg(long, env = "DCAMS_PENDING_RESETS", value_name = "N", default_value = "20", value_parser = to::<10_000>)]
    pub(crate) pending_resets: NonZeroUsize,
    /// The most frames that a gRPC client may send besides its calls, a PING counted twice; some come back with each second, and with what is sent to the client
    #[arg(long, env = "DCAMS_CONTROL_FRAMES", value_name = "N", default_value = "500", value_parser = to::<1_000_000>)]
    pub(crate) control_frames: NonZeroUsize,
    /// How long a gRPC connection may be silent before the client is asked for a sign of life
    #[arg(long, env = "DCAMS_KEEPALIVE", value_name = "TIME", default_value = "60s", value_parser = time)]
    pub(crate) keepalive: Duration,
    /// How long the client has to give it
    #[arg(long, env = "DCAMS_KEEPALIVE_TIMEOUT", value_name = "TIME", default_value = "20s", value_parser = time)]
    pub(crate) keepalive_timeout: Duration,
}

/// What a call may take, over whichever face it comes.
#[derive(Args)]
pub(crate) struct CallLimits {
    /// The most bytes of a request without documents: of a JSON body, and of a gRPC message, also when inflated
    #[arg(long, env = "DCAMS_BODY_LIMIT", value_name = "BYTES", default_value = "64KiB", value_parser = bytes::<MIB>)]
    pub(crate) body_limit: usize,
    /// How long the body of a JSON request may take to arrive
    #[arg(long, env = "DCAMS_BODY_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) body_timeout: Duration,
    /// How long a call may take that names no deadline; JSON requests name none
    #[arg(long, env = "DCAMS_DEADLINE", value_name = "TIME", default_value = "5s", value_parser = time)]
    pub(crate) deadline: Duration,
    /// The longest deadline of a call; one that names a longer one gets this
    #[arg(long, env = "DCAMS_DEADLINE_LIMIT", value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) deadline_limit: Duration,
}
