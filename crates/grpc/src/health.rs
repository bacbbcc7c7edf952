//! `grpc.health.v1`, which asks the store; the same answer serves the readiness probe.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::v1::storage_service_server::StorageServiceServer;
use store::Store;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, server::NamedService};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use crate::Service;

/// How long an answer of the store counts, so that probes cost it nothing.
const FRESH: Duration = Duration::from_millis(500);

/// How long the store has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether requests are served now: the store answers, its last write could be made, and nobody has asked to stop.
#[derive(Clone)]
pub struct Readiness {
    store: Store,
    stop: CancellationToken,
    last: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl Readiness {
    /// Asks `store`, until `stop` is cancelled.
    pub fn new(store: Store, stop: CancellationToken) -> Self {
        Self {
            store,
            stop,
            last: Arc::default(),
        }
    }

    /// Whether requests are served now. The store is asked at most twice a second, whoever asks here.
    pub async fn ready(&self) -> bool {
        if self.stop.is_cancelled() {
            return false;
        }
        let mut last = self.last.lock().await;
        match *last {
            Some((when, ready)) if when.elapsed() < FRESH => ready,
            _ => {
                let ping = self.store.ping(Instant::now() + PATIENCE);
                let ready = matches!(tokio::time::timeout(PATIENCE, ping).await, Ok(Ok(())));
                *last = Some((Instant::now(), ready));
                ready
            }
        }
    }
}

/// The health service.
pub(crate) fn server(readiness: Readiness) -> HealthServer<Probe> {
    HealthServer::new(Probe(readiness))
}

/// Answers for the whole server (the empty name) and for the storage service, which fare alike.
pub(crate) struct Probe(Readiness);

impl Probe {
    async fn status(readiness: &Readiness) -> HealthCheckResponse {
        let serving = if readiness.ready().await {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        HealthCheckResponse { status: serving.into() }
    }

    fn knows(service: &str) -> bool {
        ["", StorageServiceServer::<Service>::NAME].contains(&service)
    }
}

#[tonic::async_trait]
impl Health for Probe {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !Self::knows(&request.get_ref().service) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(Self::status(&self.0).await))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (changes, stream) = mpsc::channel(1);
        let known = Self::knows(&request.get_ref().service);
        let readiness = self.0.clone();
        tokio::spawn(async move {
            let mut said = None;
            // Ends when nobody listens any more, or when the server stops, which it says last.
            loop {
                let unknown = HealthCheckResponse {
                    status: ServingStatus::ServiceUnknown.into(),
                };
                let now = if known { Self::status(&readiness).await } else { unknown };
                if said != Some(now) {
                    said = Some(now);
                    if changes.send(Ok(now)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = changes.closed() => return,
                    () = readiness.stop.cancelled() => {
                        if known && said.is_some_and(|said| said.status == i32::from(ServingStatus::Serving)) {
                            let end = HealthCheckResponse { status: ServingStatus::NotServing.into() };
                            let _ = changes.send(Ok(end)).await;
                        }
                        return;
                    }
                    () = tokio::time::sleep(FRESH) => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
