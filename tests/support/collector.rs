//! A collector of OpenTelemetry that keeps what it is sent.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::Runtime,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

use super::tls::{Authority, Identity};

/// A collector, as long as this is there.
pub struct Collector {
    pub address: SocketAddr,
    scheme: &'static str,
    kept: Kept,
    _runtime: Runtime,
}

/// What was sent.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts one on a free port.
    pub fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Starts one on an address.
    pub fn start_at(address: SocketAddr) -> Self {
        Self::run(address, None)
    }

    /// Starts one that speaks TLS, and takes spans of those only who show a certificate of the authority.
    pub fn start_with_tls(identity: &Identity, authority: &Authority) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(authority.server("h2", identity)));
        Self::run((Ipv4Addr::LOCALHOST, 0).into(), Some(acceptor))
    }

    fn run(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Kept::default();
        let service = TraceServiceServer::new(kept.clone());
        let scheme = if tls.is_some() { "https" } else { "http" };
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, tls) = (service.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => serve(tls.accept(stream).await?, service).await,
                        None => serve(stream, service).await,
                    }
                });
            }
        });
        Self {
            address,
            scheme,
            kept,
            _runtime: runtime,
        }
    }

    /// The URL that the program is given.
    pub fn url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.address.port())
    }

    /// All that was sent, with nothing left out.
    pub fn everything(&self) -> String {
        format!("{:?}", self.kept.0.lock().unwrap())
    }

    /// The spans of a trace, given as in a traceparent.
    pub fn spans(&self, trace: &str) -> Vec<Span> {
        let mut spans = self.all();
        spans.retain(|span| hex(&span.trace_id) == trace);
        spans
    }

    /// All spans.
    pub fn all(&self) -> Vec<Span> {
        let kept = self.kept.0.lock().unwrap();
        let resources = kept.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// What is said of those who sent.
    pub fn resources(&self) -> Vec<(String, String)> {
        let kept = self.kept.0.lock().unwrap();
        let resources = kept.iter().flat_map(|request| &request.resource_spans);
        let all = resources.flat_map(|resource| resource.resource.as_ref().unwrap().attributes.iter().map(pair));
        all.collect()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: TraceServiceServer<Kept>,
) -> io::Result<()> {
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await
        .map_err(io::Error::other)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of an attribute, as text.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().map(pair).find(|(name, _)| name == key);
    found.map(|(_, value)| value)
}

fn pair(attribute: &KeyValue) -> (String, String) {
    let value = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    (attribute.key.clone(), value)
}
