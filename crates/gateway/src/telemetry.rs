//! Logs on standard error, and the metrics that the ops listener shows.

use std::{io, time::Duration};

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    audit,
    cli::{LogFormat, LogLevel, LogOptions},
    retention, webhooks,
};

/// Starts logging. The libraries below us never say more than warnings, whatever the level: at their most verbose some
/// of them print what they carry, and that is personal data.
pub(crate) fn log(options: &LogOptions) {
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
    let writer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match options.format {
        LogFormat::Pretty => writer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => writer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(targets)).init();
}

/// How often histograms are put together, also when nobody asks for the metrics.
const UPKEEP: Duration = Duration::from_secs(5);

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
            "Calls of the storage service, by the face they came in over and the gRPC code",
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
        (audit::SEALED, "Rows of the history that were sealed"),
        ("dcams_calls_under_way", "Calls that --max-calls counts now"),
        ("dcams_write_queue_depth", "Changes that wait to be written, by worker"),
    ] {
        match name.ends_with("_total") {
            true => metrics::describe_counter!(name, what),
            false => metrics::describe_gauge!(name, what),
        }
    }
    for (name, what) in [
        (
            "dcams_call_seconds",
            "How long calls of the storage service took, by face",
        ),
        (
            "dcams_feed_lag_seconds",
            "How old changes were when they were handed to a stream that had caught up",
        ),
        ("dcams_write_batch_size", "Changes in a transaction"),
        ("dcams_write_commit_seconds", "How long transactions took"),
    ] {
        metrics::describe_histogram!(name, what);
    }
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
