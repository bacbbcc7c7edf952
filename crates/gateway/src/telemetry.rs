//! Logs on standard error, and the metrics that the ops listener shows.

use std::{
    io::{self, BufWriter},
    time::Duration,
};

use anyhow::Context;
use credentials::Credentials;
use metrics::{Counter, counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use proto::RequestLog;
use store::Store;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    Layer, filter::Targets, fmt::writer::BoxMakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::{
    audit,
    cli::{LogFormat, LogLevel, LogOptions},
    housekeeping, retention, tls, traces, webhooks,
};

/// The most lines that wait to be written: with the longest names, 8 MiB. One more is left out.
const LINES: usize = 8_192;

/// The log. What it has not written yet is written when this is dropped, within a second.
pub(crate) struct Log {
    /// None where each line is written at once.
    writer: Option<(ErrorCounter, WorkerGuard)>,
}

impl Log {
    fn left_out(&self) -> Option<ErrorCounter> {
        self.writer.as_ref().map(|(left_out, _)| left_out.clone())
    }
}

/// How lines come to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// At once, by whoever has something to say: for a command.
    AtOnce,
    /// From a thread of its own: for a server, whose requests must not wait for whoever reads the log.
    Behind,
}

/// Starts logging. The libraries below us never say more than warnings, whatever the level: at their most verbose some
/// of them print what they carry, and that is personal data.
pub(crate) fn log(options: &LogOptions, writing: Writing) -> Log {
    let level = match options.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("dcams", level);
    let (writer, to) = match writing {
        Writing::AtOnce => (None, BoxMakeWriter::new(io::stderr)),
        Writing::Behind => {
            let (writer, guard) = NonBlockingBuilder::default()
                .buffered_lines_limit(LINES)
                .lossy(true)
                .thread_name("log")
                // It is flushed whenever no line waits.
                .finish(BufWriter::with_capacity(64 * 1024, io::stderr()));
            (Some((writer.error_counter(), guard)), BoxMakeWriter::new(writer))
        }
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(to);
    let layer = match options.format {
        LogFormat::Pretty => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(targets)).init();
    Log { writer }
}

/// How often histograms are put together, also when nobody asks for the metrics.
const UPKEEP: Duration = Duration::from_secs(5);

/// What counts lines that are not in the log.
const LEFT_OUT: &str = "dcams_log_lines_dropped_total";

/// Starts counting; to be called before anything that counts is made.
pub(crate) fn metrics() -> anyhow::Result<PrometheusHandle> {
    const SECONDS: [f64; 12] = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    ];
    const CHANGES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &CHANGES))
        .and_then(PrometheusBuilder::install_recorder)
        .context("the metrics")?;
    for (name, what) in [
        (
            "dcams_calls_total",
            "Calls of the storage service, by the face they came in over, the operation and the gRPC code",
        ),
        (
            retention::EXPIRED,
            "Images of documents that were deleted since they were too old",
        ),
        (
            webhooks::DELIVERIES,
            "Tries to deliver a change to a webhook, by what became of them",
        ),
        (
            webhooks::PARKED,
            "Changes that were given up after a day of tries, until an operator sends them again",
        ),
        (
            webhooks::LAG,
            "How old the oldest change is that a webhook of this gateway was not sent yet",
        ),
        ("dcams_feed_streams", "Streams of the feed that are running"),
        (
            "dcams_feed_changes_sent_total",
            "Changes that were handed to the streams of the feed",
        ),
        (
            housekeeping::HELD_BACK,
            "How old the oldest change is that the feed holds back for a transaction that is left open",
        ),
        (audit::SEALED, "Rows of the history that were sealed"),
        (
            tls::EXPIRY,
            "When the TLS certificate of the faces ends, as seconds since 1970",
        ),
        (
            tls::USABLE,
            "Whether the files of TLS were fit for use when they were last looked at, by what they are for",
        ),
        (tls::FAILURES, "TLS handshakes that came to nothing, by listener"),
        ("dcams_calls_under_way", "Calls that --max-calls counts now"),
        (
            "dcams_connections_refused_total",
            "Connections that were closed unused, since there were too many",
        ),
        (
            "dcams_heads_refused_total",
            "Heads of HTTP/1 that were refused before they were requests",
        ),
        ("dcams_write_queue_depth", "Changes that wait to be written, by worker"),
        (
            "dcams_pool_connections",
            "Connections that read, in use and idle, when this was asked for",
        ),
        (
            "dcams_pool_queue_depth",
            "Reads that wait for a connection, when this was asked for",
        ),
        (
            "dcams_pool_refused_total",
            "Reads that were refused: too many waited, or for too long, or no connection could be had in time",
        ),
        (LEFT_OUT, "Lines that are not in the log, by why they were left out"),
        (traces::SPANS, "Spans of traces, by what became of them"),
        ("dcams_build_info", "1, with the version of the program"),
    ] {
        match name.ends_with("_total") {
            true => metrics::describe_counter!(name, what),
            false => metrics::describe_gauge!(name, what),
        }
    }
    for (name, what) in [
        (
            "dcams_call_seconds",
            "How long calls of the storage service took, by face, operation and gRPC code",
        ),
        (
            "dcams_feed_lag_seconds",
            "How old changes were when they were handed to a stream that had caught up",
        ),
        ("dcams_write_batch_size", "Changes in a transaction"),
        ("dcams_write_commit_seconds", "How long transactions took"),
        ("dcams_pool_wait_seconds", "How long reads waited for a connection"),
    ] {
        metrics::describe_histogram!(name, what);
    }
    gauge!("dcams_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// What is looked at when somebody asks for the metrics, and not before.
pub(crate) struct Observed {
    metrics: PrometheusHandle,
    process: metrics_process::Collector,
    log: Option<ErrorCounter>,
    requests: RequestLog,
    unwritten: Counter,
    flooded: Counter,
    parts: Option<(Store, Credentials)>,
}

impl Observed {
    pub(crate) fn new(metrics: PrometheusHandle, log: &Log, requests: RequestLog) -> Self {
        let process = metrics_process::Collector::default();
        process.describe();
        Self {
            metrics,
            process,
            log: log.left_out(),
            requests,
            unwritten: counter!(LEFT_OUT, "cause" => "slow_reader"),
            flooded: counter!(LEFT_OUT, "cause" => "too_many_refusals"),
            parts: None,
        }
    }

    /// With the parts that only a gateway with a store has.
    pub(crate) fn with(self, store: Store, credentials: Credentials) -> Self {
        Self {
            parts: Some((store, credentials)),
            ..self
        }
    }

    /// The metrics as they are now, as Prometheus reads them.
    pub(crate) fn render(&self) -> String {
        self.process.collect();
        let unwritten = self.log.as_ref().map_or(0, ErrorCounter::dropped_lines);
        self.unwritten.absolute(unwritten as u64);
        self.flooded.absolute(self.requests.dropped());
        if let Some((store, credentials)) = &self.parts {
            store.observe();
            credentials.observe();
        }
        self.metrics.render()
    }
}
