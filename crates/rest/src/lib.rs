//! The REST face: takes the legacy JSON of one endpoint, calls the gRPC face with it, near or far, and answers in
//! legacy JSON.
//!
//! A request passes the modules in this order: `endpoint` → `body` → `legacy` (over `json` and `image`) → `services` →
//! `call` → `reply` (over `document_body`) or `rejection`; `record` tells of it at the end.

mod body;
mod call;
mod customer;
mod document_body;
mod endpoint;
mod image;
mod json;
mod legacy;
mod openapi;
mod record;
mod rejection;
mod reply;
mod request_id;
mod services;
mod status;
mod terms;
#[cfg(test)]
mod tests;
mod tolerances;

use std::time::Duration;

use axum::Router;
pub use endpoint::PATHS;
pub use openapi::{Described, SAMPLE, Server, openapi};

use crate::{endpoint::Facade, record::Records};

/// How much and how long the face takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most bytes of a body, as sent and as inflated, unless it may hold documents. A larger one takes from the
    /// budget. Default: 64 KiB.
    pub body_limit: usize,
    /// The most bytes of a body that may hold documents, as sent and as inflated: two images of 10 MiB in Base64, with line
    /// breaks, and all else. Default: 28 MiB.
    pub document_body_limit: usize,
    /// How long a body may take to arrive in full. Default: 10 seconds.
    pub body_timeout: Duration,
    /// How long the service may take to answer. Default: 5 seconds.
    pub handler_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_limit: 64 * 1024,
            document_body_limit: 28 * 1024 * 1024,
            body_timeout: Duration::from_secs(10),
            handler_timeout: Duration::from_secs(5),
        }
    }
}

/// The REST face in front of `client`, whose large messages take from `budget`. While `gate` is shut, requests are refused
/// before they are taken apart.
///
/// The listener puts a [`proto::ClientAddress`] into the extensions of each request. The recorder of metrics is to be
/// installed before: the counters are registered here, once.
pub fn router(
    client: proto::Client,
    gate: proto::Gate,
    settings: Settings,
    budget: proto::Budget,
    telemetry: proto::Telemetry,
) -> Router {
    Facade::new(client, gate, settings, budget, Records::register(telemetry)).into_router()
}
