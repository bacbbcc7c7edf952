//! The options of `serve`.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

use clap::{ArgAction, Args, builder::BoolishValueParser};
use grpc::CustomerLink;
use store::Migrate;

use super::{
    limits::{CallLimits, ConnectionLimits},
    overload::OverloadOptions,
    telemetry::TelemetryOptions,
    tls::{TlsOptions, UpstreamTlsOptions},
    values::{GIB, MIB, age, bytes, seconds, to},
};
use crate::webhooks::Rules;

/// How to serve.
#[derive(Args)]
pub(crate) struct ServeOptions {
    /// Add an account USERNAME with the password PASSWORD and a customer, to try things out; on loopback only
    #[arg(long, conflicts_with = "upstream")]
    pub(crate) demo: bool,
    /// Where the JSON endpoint listens; port 0 takes a free one
    #[arg(long, env = "DCAMS_REST_ADDR", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) rest_addr: SocketAddr,
    /// Where gRPC listens
    #[arg(
        long,
        env = "DCAMS_GRPC_ADDR",
        value_name = "ADDR",
        default_value = "127.0.0.1:50051"
    )]
    pub(crate) grpc_addr: SocketAddr,
    /// Where /healthz, /readyz, /metrics, /openapi.json and /docs are; never a public address
    #[arg(long, env = "DCAMS_OPS_ADDR", value_name = "ADDR", default_value = "127.0.0.1:9090")]
    pub(crate) ops_addr: SocketAddr,
    #[command(flatten)]
    pub(crate) tls: TlsOptions,
    /// Let people send calls from /docs: the JSON endpoint is then on the ops listener too, if that is on loopback or plain text is allowed; true or false
    #[arg(long, env = "DCAMS_DOCS_SEND", value_name = "BOOL", default_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) docs_send: bool,
    /// Serve the JSON endpoint alone, in front of the gRPC face at this URL (https://HOST:PORT or http://HOST:PORT); no store is opened
    #[arg(long, env = "DCAMS_UPSTREAM", value_name = "URL")]
    pub(crate) upstream: Option<http::Uri>,
    #[command(flatten)]
    pub(crate) upstream_tls: UpstreamTlsOptions,
    /// What to do about the store's schema at start: auto applies what is missing, check refuses to start, off does not look
    #[arg(long, env = "DCAMS_MIGRATE", value_name = "HOW", default_value = "auto")]
    pub(crate) migrate: Migrate,
    /// Believe what this address says of where a request comes from (X-Forwarded-For, x-dcams-face); no networks; may be given many times, or as a list with commas
    #[arg(
        long = "trusted-proxy",
        env = "DCAMS_TRUSTED_PROXIES",
        value_name = "IP",
        value_delimiter = ','
    )]
    pub(crate) trusted_proxies: Vec<IpAddr>,
    #[command(flatten)]
    pub(crate) connections: ConnectionLimits,
    #[command(flatten)]
    pub(crate) calls: CallLimits,
    /// The most changes in one transaction; 1 means a transaction for each
    #[arg(long, env = "DCAMS_WRITE_BATCH", value_name = "N", default_value = "256", value_parser = to::<10_000>)]
    pub(crate) write_batch: NonZeroUsize,
    /// The most changes that wait to be written; one more is refused
    #[arg(long, env = "DCAMS_WRITE_QUEUE", value_name = "N", default_value = "1024", value_parser = to::<1_000_000>)]
    pub(crate) write_queue: NonZeroUsize,
    #[command(flatten)]
    pub(crate) overload: OverloadOptions,
    /// The threads that talk with clients; the default is one for each core
    #[arg(long, env = "DCAMS_WORKER_THREADS", value_name = "N", value_parser = to::<1_024>)]
    pub(crate) worker_threads: Option<NonZeroUsize>,
    /// The connections that write; the default is 1 on SQLite, which lets one write at a time, and 2 on PostgreSQL
    #[arg(long, env = "DCAMS_WRITERS", value_name = "N", value_parser = to::<256>)]
    pub(crate) writers: Option<NonZeroUsize>,
    /// The connections that read
    #[arg(long, env = "DCAMS_READERS", value_name = "N", default_value = "4", value_parser = to::<256>)]
    pub(crate) readers: NonZeroUsize,
    /// The link to a customer in replies: an http:// or https:// URL with {id} where the customer's public id goes
    #[arg(long, env = "DCAMS_CUSTOMER_LINK", value_name = "TEMPLATE")]
    pub(crate) customer_link: Option<CustomerLink>,
    #[command(flatten)]
    pub(crate) documents: DocumentOptions,
    /// The most memory that large requests and replies take at once; a number of bytes, or with KiB, MiB or GiB
    #[arg(long, env = "DCAMS_DOCUMENT_BUDGET", value_name = "BYTES", default_value = "128MiB", value_parser = bytes::<{ 64 * GIB }>)]
    pub(crate) document_budget: usize,
    /// Delete images of documents that are older than this: a number with s, m, h or d, such as 90d; by default they are
    /// kept
    #[arg(long, env = "DCAMS_RETAIN_DOCUMENTS_FOR", value_name = "AGE", value_parser = age)]
    pub(crate) retain_documents_for: Option<Duration>,
    #[command(flatten)]
    pub(crate) webhooks: WebhookOptions,
    /// For tests: how many milliseconds a webhook is kept by a gateway that is gone
    #[arg(long, hide = true, value_name = "MILLISECONDS", default_value = "30000", value_parser = clap::value_parser!(u32).range(300..))]
    pub(crate) webhook_lease: u32,
    /// For tests: how many times shorter the waits of webhooks are
    #[arg(long, hide = true, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) webhook_tempo: u32,
    /// The most streams of WatchStatusChanges; one more is refused
    #[arg(long, env = "DCAMS_STREAMS", value_name = "N", default_value = "256", value_parser = to::<10_000>)]
    pub(crate) streams: NonZeroUsize,
    /// A stream that has had nothing to send for so long sends a heartbeat: a number with s, m, h or d
    #[arg(long, env = "DCAMS_HEARTBEAT", value_name = "TIME", default_value = "10s", value_parser = age)]
    pub(crate) heartbeat: Duration,
    /// A stream ends when its consumer reads nothing for so long while more is there: a number with s, m, h or d
    #[arg(long, env = "DCAMS_SLOW_CONSUMER", value_name = "TIME", default_value = "30s", value_parser = age)]
    pub(crate) slow_consumer: Duration,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryOptions,
    /// How many seconds the gateway serves on after SIGTERM while it already says that it is not ready, so that whoever sends it requests can turn away
    #[arg(long, env = "DCAMS_DRAIN_DELAY", value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) drain_delay: Duration,
    /// How many seconds work under way has to end after that
    #[arg(long, env = "DCAMS_DRAIN", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) drain: Duration,
}

/// What images of documents may be.
#[derive(Args)]
pub(crate) struct DocumentOptions {
    /// The most bytes of an image of a document, at most 28MiB; a number of bytes, or with KiB or MiB
    #[arg(long = "document-limit", env = "DCAMS_DOCUMENT_LIMIT", value_name = "BYTES", default_value = "10MiB", value_parser = bytes::<{ 28 * MIB }>)]
    pub(crate) limit: usize,
}

/// Where webhooks may send to.
#[derive(Args)]
pub(crate) struct WebhookOptions {
    /// Let webhooks send to addresses that are not public, such as 10.0.0.1; with TLS all the same
    #[arg(long = "webhook-allow-private", env = "DCAMS_WEBHOOK_ALLOW_PRIVATE", value_parser = BoolishValueParser::new())]
    private: bool,
}

impl WebhookOptions {
    pub(crate) fn rules(&self) -> Rules {
        Rules { private: self.private }
    }
}
