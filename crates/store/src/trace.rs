//! The spans of what a recorded request waits for here: its turn, and its transaction or query.

use std::time::SystemTime;

use opentelemetry::{
    Context, KeyValue, global,
    trace::{Span, Status, TraceContextExt, Tracer},
};

/// The request that somebody waits for, if it is recorded.
pub(crate) struct Traced {
    parent: Context,
    /// Since when it waits for its turn.
    since: SystemTime,
}

impl Traced {
    /// The request that this task works on. Costs a look at a variable of the thread where there are no traces.
    pub(crate) fn here() -> Option<Self> {
        Context::map_current(|context| {
            (context.has_active_span() && context.span().is_recording()).then(|| Self {
                parent: context.clone(),
                since: SystemTime::now(),
            })
        })
    }

    /// Tells of the wait until `from`, and of the work from then until now. What is done again waits anew.
    pub(crate) fn tell(&mut self, work: &'static str, from: SystemTime, failed: bool, attributes: Vec<KeyValue>) {
        let tracer = global::tracer("dcams-gateway");
        let until = SystemTime::now();
        tracer
            .span_builder("store.queue")
            .with_start_time(self.since)
            .start_with_context(&tracer, &self.parent)
            .end_with_timestamp(from);
        let mut span = tracer
            .span_builder(work)
            .with_start_time(from)
            .with_attributes(attributes)
            .start_with_context(&tracer, &self.parent);
        if failed {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(until);
        self.since = until;
    }
}
