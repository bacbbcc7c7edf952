//! What every call passes first and last, whether it comes over a network or from the facade in this process: it gets
//! an id, a deadline and the limits of its operation, and what tonic refuses by itself is said in the words of the contract.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response};
use opentelemetry::trace::FutureExt;
use proto::{
    AUTHENTICATED, Budget, Call, Client, FACE, Gate, Hold, NearService, REQUEST_ID, Reason, Refusal, Span, request_id,
    v1::{
        GetStatusRequest, GetStatusResponse, UpdateStatusRequest, UpdateStatusResponse,
        storage_service_server::StorageServiceServer,
    },
};
use store::Face;
use tonic::{Code, Status, body::Body, codec::CompressionEncoding, metadata::MetadataValue, server::NamedService};

use crate::{
    Service, Settings,
    budget::{Counted, Held, Sizes, Taken},
    get_status,
    telemetry::{Caller, Measures, Record, Told, code},
    update_status,
};

/// The one operation whose messages may be large.
const LARGE: &str = "/dcams.storage.v1.StorageService/CreateOrUpdateCustomer";
const UPDATE_STATUS: &str = "/dcams.storage.v1.StorageService/UpdateStatus";
const GET_STATUS: &str = "/dcams.storage.v1.StorageService/GetStatus";

/// The operations that wait for the writer.
const CHANGES: [&str; 2] = [LARGE, UPDATE_STATUS];

/// What a call has passed with: an extension of the request.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) request_id: String,
    pub(crate) face: Face,
    pub(crate) deadline: Instant,
    /// Where to note whose credentials hold.
    pub(crate) caller: Caller,
}

/// Wraps the service, and the generated server before it, which comes twice: with the limit for small messages, and with
/// that for large ones.
#[derive(Clone)]
pub struct Edge {
    service: Arc<Service>,
    small: StorageServiceServer<Service>,
    large: StorageServiceServer<Service>,
    /// One allocation, as this is cloned for every call.
    shared: Arc<Shared>,
}

struct Shared {
    deadline: Duration,
    deadline_limit: Duration,
    unread: Duration,
    sizes: Sizes,
    budget: Budget,
    gate: Gate,
    measures: Arc<Measures>,
}

impl Edge {
    pub(crate) fn new(service: Service, gate: Gate, settings: &Settings) -> Self {
        let service = Arc::new(service);
        // tonic has one limit for all operations of a server.
        let server = |limit| {
            StorageServiceServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(limit)
                .accept_compressed(CompressionEncoding::Gzip)
        };
        let sizes = settings.sizes();
        let shared = Shared {
            deadline: settings.deadline,
            deadline_limit: settings.deadline_limit,
            unread: settings.unread,
            sizes,
            budget: settings.budget.clone(),
            gate,
            measures: Arc::new(Measures::new(settings.telemetry.clone())),
        };
        Self {
            small: server(sizes.free),
            large: server(sizes.most),
            service,
            shared: Arc::new(shared),
        }
    }

    /// Whether one more call would be refused. The facade in this process asks before it makes a call of a request.
    pub fn gate(&self) -> Gate {
        self.shared.gate.clone()
    }

    /// A client in this process.
    pub fn client(&self) -> Client {
        proto::client(self.clone()).near(Arc::new(self.clone()))
    }

    /// Answers a call of the method at `path` that comes as a message.
    async fn near<M, A, F>(
        &self,
        path: &str,
        request: tonic::Request<M>,
        answer: impl FnOnce(tonic::Request<M>) -> F,
    ) -> Result<tonic::Response<A>, Status>
    where
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let (metadata, mut extensions, message) = request.into_parts();
        let begun = self.shared.begin(path, metadata.as_ref(), &mut extensions);
        let request = tonic::Request::from_parts(metadata, extensions, message);
        let answer = self.shared.takes(path).then(|| answer(request));
        let mut result = begun.answer(answer, |reason| Err(reason.into())).await;
        if begun.has_known_caller() {
            let metadata = match &mut result {
                Ok(response) => response.metadata_mut(),
                Err(status) => status.metadata_mut(),
            };
            metadata.insert(AUTHENTICATED, MetadataValue::from_static("true"));
        }
        begun.record.end_with(result.as_ref().err());
        result
    }
}

#[tonic::async_trait]
impl NearService for Edge {
    async fn update_status(
        &self,
        request: tonic::Request<UpdateStatusRequest>,
    ) -> Result<tonic::Response<UpdateStatusResponse>, Status> {
        let answer = |request| update_status::answer(&self.service, request);
        self.near(UPDATE_STATUS, request, answer).await
    }

    async fn get_status(
        &self,
        request: tonic::Request<GetStatusRequest>,
    ) -> Result<tonic::Response<GetStatusResponse>, Status> {
        let answer = |request| get_status::answer(&self.service, request);
        self.near(GET_STATUS, request, answer).await
    }
}

/// A call that has begun, and what is known of it.
struct Begun {
    id: String,
    face: Face,
    deadline: Instant,
    record: Record,
}

impl Begun {
    /// What becomes of it: its answer, if there is to be one and that comes in time.
    async fn answer<T>(&self, answer: Option<impl Future<Output = T>>, refused: impl Fn(Reason) -> T) -> T {
        let answer = async {
            let Some(answer) = answer else {
                return refused(Reason::Overloaded);
            };
            match self.record.span().recorded().and_then(Span::context) {
                // What the store does for it is a part of the trace.
                Some(context) => answer.with_context(context.clone()).await,
                None => answer.await,
            }
        };
        let answer = tokio::time::timeout_at(self.deadline.into(), answer).await;
        answer.unwrap_or_else(|_| refused(Reason::DeadlineExceeded))
    }

    /// Whether a facade is to be told that the credentials hold.
    fn has_known_caller(&self) -> bool {
        self.face == Face::Rest && self.record.caller().is_known()
    }
}

impl Shared {
    /// Begins a call of the method at `path`, and puts what it passes with into its extensions.
    fn begin(&self, path: &str, headers: &HeaderMap, extensions: &mut Extensions) -> Begun {
        let began = Instant::now();
        let time = timeout(headers).unwrap_or(self.deadline).min(self.deadline_limit);
        let id = request_id(headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()));
        let named = headers.get(FACE).map(HeaderValue::as_bytes);
        let face = if named == Some(Face::Rest.as_str().as_bytes()) {
            Face::Rest
        } else {
            Face::Grpc
        };
        let deadline = began + time;
        let record = Record::of(&self.measures, (path, headers, extensions), face, &id, began);
        extensions.insert(Passed {
            request_id: id.clone(),
            face,
            deadline,
            caller: record.caller().clone(),
        });
        Begun {
            id,
            face,
            deadline,
            record,
        }
    }

    /// Whether a call of the method at `path` is taken now. What is refused anyway is not decoded first.
    fn takes(&self, path: &str) -> bool {
        let kind = match CHANGES.contains(&path) {
            true => Call::Change,
            false => Call::Any,
        };
        !self.gate.is_shut(kind)
    }

    /// The request, which takes from the budget unless the facade in this process has done so.
    fn counted(&self, mut request: Request<Body>) -> Request<Body> {
        if let Some(hold) = request.extensions_mut().remove::<Hold>() {
            request.extensions_mut().insert(Taken::before(hold));
            return request;
        }
        let taken = Taken::default();
        request.extensions_mut().insert(taken.clone());
        request.map(|body| Body::new(Counted::new(body, self.budget.clone(), self.sizes, taken)))
    }
}

impl NamedService for Edge {
    const NAME: &'static str = StorageServiceServer::<Service>::NAME;
}

impl tower::Service<Request<Body>> for Edge {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    /// The generated server is always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path();
        let begun = self.shared.begin(path, &head.headers, &mut head.extensions);
        let (takes, is_large) = (self.shared.takes(path), path == LARGE);
        let request = Request::from_parts(head, body);
        let answer = takes.then(|| match is_large {
            true => self.large.call(self.shared.counted(request)),
            false => self.small.call(request),
        });
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let refused = |reason| Ok(Status::from(reason).into_http());
            let mut response = in_our_words(begun.answer(answer, refused).await?);
            // An id is made of characters that a header may hold.
            if let Ok(id) = HeaderValue::from_str(&begun.id) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            if begun.has_known_caller() {
                let name = HeaderName::from_static(AUTHENTICATED);
                response.headers_mut().insert(name, HeaderValue::from_static("true"));
            }
            let record = begun.record;
            let response = if record.streams() && code(response.headers()) == Code::Ok {
                response.map(|body| Body::new(Told::new(body, record)))
            } else {
                record.end(response.headers());
                response
            };
            Ok(match response.extensions().get::<Hold>().cloned() {
                Some(hold) => response.map(|body| Body::new(Held::new(body, hold, shared.unread))),
                None => response,
            })
        })
    }
}

/// The time that a caller gives, as gRPC writes it: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Every refusal of ours carries details; one without them is tonic's own. It calls a message that is too large
/// OUT_OF_RANGE, or RESOURCE_EXHAUSTED where it is so only when inflated, and one that cannot be decoded INTERNAL.
fn in_our_words(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    if headers.contains_key("grpc-status-details-bin") {
        return response;
    }
    let (reason, message) = match code(headers) {
        Code::OutOfRange | Code::ResourceExhausted => (Reason::BodyTooLarge, Reason::BodyTooLarge.message()),
        Code::Internal => (Reason::MalformedBody, "The request message is malformed"),
        // Then tonic says which encodings it would take.
        Code::Unimplemented if headers.contains_key("grpc-accept-encoding") => {
            (Reason::UnsupportedEncoding, Reason::UnsupportedEncoding.message())
        }
        Code::Unimplemented => (Reason::UnknownPath, "The method is unknown"),
        _ => return response,
    };
    let mut answer = Refusal::from(reason).into_status(message.to_owned()).into_http();
    if let Some(encodings) = headers.get("grpc-accept-encoding") {
        answer.headers_mut().insert("grpc-accept-encoding", encodings.clone());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        timeout(&headers)
    }

    #[test]
    fn a_timeout_is_read_in_every_unit() {
        assert_eq!(read("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("4S"), Some(Duration::from_secs(4)));
        assert_eq!(read("5m"), Some(Duration::from_millis(5)));
        assert_eq!(read("99999999u"), Some(Duration::from_micros(99_999_999)));
        assert_eq!(read("7n"), Some(Duration::from_nanos(7)));
    }

    #[test]
    fn what_is_no_timeout_is_none() {
        for text in ["", "S", "5", "-5S", "5s", "999999999S", "5 S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
