//! The ops listener: what supervisors and monitoring ask for, and nobody else should reach.

use std::{sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use grpc::Readiness;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{docs, telemetry::Observed};

/// Who knows whether requests are served now.
#[derive(Clone)]
pub(crate) enum Ready {
    /// The store of this process.
    Here(Readiness),
    /// The gRPC face that this facade stands before.
    Upstream(Channel, CancellationToken),
}

/// How long the upstream has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

impl Ready {
    async fn ready(self) -> bool {
        match self {
            Self::Here(readiness) => readiness.ready().await,
            Self::Upstream(_, stop) if stop.is_cancelled() => false,
            Self::Upstream(channel, _) => {
                let mut client = HealthClient::new(channel);
                let check = client.check(HealthCheckRequest::default());
                match tokio::time::timeout(PATIENCE, check).await {
                    Ok(Ok(answer)) => answer.get_ref().status() == ServingStatus::Serving,
                    _ => false,
                }
            }
        }
    }
}

/// `/healthz`: the process lives. `/readyz`: it serves requests. `/metrics`: Prometheus text. And the [`docs`], which send to
/// `facade` if there is one.
pub(crate) fn router(ready: Ready, metrics: Observed, openapi: String, facade: Option<Router>) -> Router {
    let metrics = Arc::new(metrics);
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || match ready.ready().await {
                true => (StatusCode::OK, "ready\n"),
                false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            }),
        )
        .route("/metrics", get(async move || metrics.render()))
        .merge(docs::router(openapi, facade))
}
