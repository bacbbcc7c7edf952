//! Traces: which requests take part in one, and what of it goes along with a call (W3C Trace Context).
//!
//! Nothing is recorded, and nothing costs more than a look at an empty option, unless the program has installed a provider
//! of OpenTelemetry and says so with [`Traces::on`].

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context, KeyValue, Value,
    global::{self, BoxedTracer},
    propagation::{Extractor, Injector},
    trace::{SpanKind, Status, TraceContextExt, Tracer},
};

/// What carries the context, as W3C names it.
const HEADERS: [HeaderName; 2] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// Begins the spans of requests. A cheap handle.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<BoxedTracer>>);

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traces").field(&self.0.is_some()).finish()
    }
}

impl Traces {
    /// Those of the provider and the propagator that are installed now.
    pub fn on() -> Self {
        Self(Some(Arc::new(global::tracer("dcams-gateway"))))
    }

    /// Begins the span of a request, as a child of the one that its headers name. Whether it is recorded, the caller has
    /// decided, or else the provider does.
    pub fn begin(&self, name: &'static str, headers: &HeaderMap) -> Span {
        let Some(tracer) = &self.0 else {
            return Span(None);
        };
        let parent = global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&Context::new(), &Carrier(headers))
        });
        let span = tracer
            .span_builder(name)
            .with_kind(SpanKind::Server)
            .start_with_context(&**tracer, &parent);
        Span(Some(parent.with_span(span)))
    }
}

/// The span of a request; nothing at all where there are no traces.
#[derive(Clone, Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// The span, if it is recorded: what a span holds need not be made for one that is not.
    pub fn recorded(&self) -> Option<&Self> {
        let context = self.0.as_ref()?;
        context.span().is_recording().then_some(self)
    }

    /// Notes something that is no personal data.
    pub fn note(&self, key: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Says that the request failed by a fault of ours.
    pub fn fail(&self) {
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(""));
        }
    }

    /// Ends it, though what was done for it may still hold it.
    pub fn end(&self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }

    /// The trace that the span is part of.
    pub fn trace_id(&self) -> Option<String> {
        let context = self.0.as_ref()?;
        Some(context.span().span_context().trace_id().to_string())
    }

    /// What is to be current while the request is worked on, so that what it waits for becomes a part of the trace.
    pub fn context(&self) -> Option<&Context> {
        self.0.as_ref()
    }

    /// The headers that make a call a part of the trace. Where there are no traces, those that the request came with: who is
    /// called may record it.
    pub fn headers(&self, came_with: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match &self.0 {
            Some(context) => global::get_text_map_propagator(|propagator| {
                propagator.inject_context(context, &mut Carrier(&mut headers));
            }),
            None => {
                for name in HEADERS {
                    if let Some(value) = came_with.get(&name) {
                        headers.insert(name, value.clone());
                    }
                }
            }
        }
        headers
    }
}

/// Headers as OpenTelemetry reads and writes them.
struct Carrier<T>(T);

impl Extractor for Carrier<&HeaderMap> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

impl Injector for Carrier<&mut HeaderMap> {
    fn set(&mut self, key: &str, value: String) {
        // Without a state of the trace its value is empty, and better not sent.
        if !value.is_empty()
            && let (Ok(name), Ok(value)) = (key.parse::<HeaderName>(), HeaderValue::try_from(value))
        {
            self.0.insert(name, value);
        }
    }
}
