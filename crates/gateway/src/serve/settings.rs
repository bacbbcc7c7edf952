//! What the options of `serve` mean to the store and to each face.

use grpc::StreamSettings;
use store::Settings;
use tokio_util::sync::CancellationToken;

use super::worker_threads;
use crate::cli::ServeOptions;

/// Of the store.
pub(super) fn store(options: &ServeOptions) -> Settings {
    Settings {
        readers: options.readers,
        // Whatever the disk does, one thread goes on answering.
        inline_reads: worker_threads(options) - 1,
        writers: options.writers,
        write_queue: options.write_queue.get(),
        queue_wait: options.overload.queue_wait,
        batch: options.write_batch,
        ..Settings::default()
    }
}

/// Of the gRPC face.
pub(super) fn grpc(
    options: &ServeOptions,
    budget: proto::Budget,
    stop: CancellationToken,
    telemetry: proto::Telemetry,
) -> grpc::Settings {
    grpc::Settings {
        document_limit: options.documents.limit,
        customer_link: options.customer_link.clone().unwrap_or_default(),
        budget,
        account_rate: options.overload.account_rate(),
        calls: options.overload.max_calls.get(),
        lag: options.overload.lag_limit,
        streams: StreamSettings {
            most: options.streams.get(),
            most_per_account: options.overload.streams_per_account(),
            heartbeat: options.heartbeat,
            slow_consumer: options.slow_consumer,
            ..StreamSettings::default()
        },
        stop,
        message_limit: options.calls.body_limit,
        deadline: options.calls.deadline,
        deadline_limit: options.calls.deadline_limit,
        unread: options.connections.write_timeout,
        telemetry,
    }
}

/// What the facade takes, with images of at most so many bytes.
pub(crate) fn rest_settings(document_limit: usize) -> rest::Settings {
    rest::Settings {
        // Two images in Base64, and a little for everything else: 28 MiB for images of 10 MiB.
        document_body_limit: document_limit.saturating_mul(14) / 5,
        ..rest::Settings::default()
    }
}

/// Of the facade.
pub(super) fn facade(options: &ServeOptions) -> rest::Settings {
    rest::Settings {
        body_limit: options.calls.body_limit,
        body_timeout: options.calls.body_timeout,
        handler_timeout: options.calls.deadline.min(options.calls.deadline_limit),
        ..rest_settings(options.documents.limit)
    }
}
