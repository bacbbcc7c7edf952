//! Sends spans to a collector of OpenTelemetry, from a thread of its own. Whatever becomes of the collector, requests do not
//! wait for it, and what waits for it is bounded.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use metrics::{Counter, counter};
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{SpanExporter as Exporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
    },
};
use tonic::transport::Channel;

/// What counts the spans, by what became of them.
pub(crate) const SPANS: &str = "dcams_trace_spans_total";

/// The most spans that wait to be sent: some megabytes. One more is dropped.
const WAITING: usize = 8_192;

/// The most spans in a message.
const BATCH: usize = 512;

/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);

/// How long the collector has for a message.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often is said that the collector takes nothing.
const REMINDER: Duration = Duration::from_secs(60);

/// Traces that are sent to a collector.
pub(crate) struct Exporting(SdkTracerProvider);

impl Exporting {
    /// Begins to send to the collector at the other end of a channel. Needs the recorder of metrics.
    pub(crate) fn begin(collector: Channel, endpoint: &http::Uri, ratio: f64) -> anyhow::Result<Self> {
        let exporter = Exporter::builder()
            .with_tonic()
            .with_channel(collector)
            .with_timeout(PATIENCE)
            .build()
            .context("the traces")?;
        let waiting = Arc::default();
        let config = BatchConfigBuilder::default()
            // Its own bound is never met: ours is counted.
            .with_max_queue_size(WAITING + BATCH)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let batches = BatchSpanProcessor::builder(Watched::new(exporter, endpoint, &waiting))
            .with_batch_config(config)
            .build();
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("dcams-gateway");
        }
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Bounded::new(batches, waiting))
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
            .with_resource(
                resource
                    .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
                    .build(),
            )
            .build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        global::set_tracer_provider(provider.clone());
        Ok(Self(provider))
    }

    /// Sends what waits, and ends. Blocks, for as long as a message may take and a little more.
    pub(crate) fn end(self) {
        if self.0.shutdown_with_timeout(PATIENCE + DELAY).is_err() {
            tracing::warn!("the last traces could not be sent");
        }
    }
}

/// A processor that is given no more spans than may wait.
#[derive(Debug)]
struct Bounded {
    batches: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    dropped: Count,
}

impl Bounded {
    fn new(batches: BatchSpanProcessor, waiting: Arc<AtomicUsize>) -> Self {
        Self {
            batches,
            waiting,
            dropped: Count::of("dropped"),
        }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &opentelemetry::Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING {
            self.batches.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.0.increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// An exporter that counts, and says now and then that it fails.
#[derive(Debug)]
struct Watched {
    exporter: Exporter,
    endpoint: String,
    waiting: Arc<AtomicUsize>,
    sent: Count,
    failed: Count,
    /// When it was said last that nothing is taken; none while all is well.
    said: Mutex<Option<Instant>>,
}

impl Watched {
    fn new(exporter: Exporter, endpoint: &http::Uri, waiting: &Arc<AtomicUsize>) -> Self {
        Self {
            exporter,
            endpoint: endpoint.to_string(),
            waiting: Arc::clone(waiting),
            sent: Count::of("sent"),
            failed: Count::of("failed"),
            said: Mutex::default(),
        }
    }

    fn tell(&self, result: &OTelSdkResult) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) if said.take().is_some() => {
                tracing::info!(endpoint = self.endpoint, "the collector takes traces again");
            }
            Ok(()) => {}
            Err(_) if said.is_some_and(|said| said.elapsed() < REMINDER) => {}
            Err(error) => {
                *said = Some(Instant::now());
                tracing::warn!(
                    endpoint = self.endpoint,
                    %error,
                    "the collector does not take traces: what cannot be sent is dropped"
                );
            }
        }
    }
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let count = if result.is_ok() { &self.sent } else { &self.failed };
        count.0.increment(spans as u64);
        self.tell(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A counter of spans.
struct Count(Counter);

impl Count {
    fn of(outcome: &'static str) -> Self {
        let counter = counter!(SPANS, "outcome" => outcome);
        counter.increment(0);
        Self(counter)
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Count")
    }
}
