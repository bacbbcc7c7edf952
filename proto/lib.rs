//! The contract: generated messages, client and server of `dcams.storage.v1`, the one table of errors that both faces
//! speak, and what a call carries beside its message.

mod budget;
mod client;
mod codec;
mod context;
mod gate;
mod reason;
mod refusal;
mod request_log;
mod trace;

pub use budget::{Budget, Hold};
pub use client::{Client, NearService, Transport, client};
pub use context::{
    AUTHENTICATED, ClientAddress, FACE, FORWARDED_FOR, MAX_PASSWORD, MAX_USER, Near, REQUEST_ID, request_id,
};
pub use gate::{Call, Gate};
pub use reason::Reason;
pub use refusal::Refusal;
pub use request_log::{Ended, Logged, RequestLog};
pub use trace::{Span, Traces};

/// What both faces tell of the requests that they serve, beside their metrics. By default nothing.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// Lines in the log.
    pub log: RequestLog,
    /// Spans.
    pub traces: Traces,
}

/// The generated code of package `dcams.storage.v1`; its documentation stands in the proto file.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("dcams.storage.v1");
}

/// The descriptor set, comments included: what reflection serves.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
