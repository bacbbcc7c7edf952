//! What every call passes first and last, whether it comes over a network or from the facade in this process: it gets
//! an id, a deadline and the limits of its operation, and what tonic refuses by itself is said in the words of the contract.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use opentelemetry::trace::FutureExt;
use proto::{AUTHENTICATED, Budget, Call, FACE, Gate, Hold, REQUEST_ID, Reason, Refusal, Span, request_id};
use store::Face;
use tonic::{Code, Status, body::Body, server::NamedService};
use tower::Service;

use crate::{
    Settings,
    budget::{Counted, Held, Sizes, Taken},
    telemetry::{Caller, Measures, Record, Told, code},
};

/// The one operation whose messages may be large.
const LARGE: &str = "/dcams.storage.v1.StorageService/CreateOrUpdateCustomer";

/// The operations that wait for the writer.
const CHANGES: [&str; 2] = [LARGE, "/dcams.storage.v1.StorageService/UpdateStatus"];

/// What a call has passed with: an extension of the request.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) request_id: String,
    pub(crate) face: Face,
    pub(crate) deadline: Instant,
    /// Where to note whose credentials hold.
    pub(crate) caller: Caller,
}

/// Wraps the generated server, which comes twice: with the limit for small messages, and with that for large ones.
#[derive(Clone)]
pub struct Edge<S> {
    small: S,
    large: S,
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

impl<S> Edge<S> {
    pub(crate) fn new(small: S, large: S, gate: Gate, settings: &Settings) -> Self {
        let shared = Shared {
            deadline: settings.deadline,
            deadline_limit: settings.deadline_limit,
            unread: settings.unread,
            sizes: settings.sizes(),
            budget: settings.budget.clone(),
            gate,
            measures: Arc::new(Measures::new(settings.telemetry.clone())),
        };
        Self {
            small,
            large,
            shared: Arc::new(shared),
        }
    }

    /// Whether one more call would be refused. The facade in this process asks before it makes a call of a request.
    pub fn gate(&self) -> Gate {
        self.shared.gate.clone()
    }
}

impl Shared {
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

impl<S: NamedService> NamedService for Edge<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.small.poll_ready(context) {
            Poll::Ready(Ok(())) => self.large.poll_ready(context),
            other => other,
        }
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let began = Instant::now();
        let headers = request.headers();
        let time = timeout(headers)
            .unwrap_or(self.shared.deadline)
            .min(self.shared.deadline_limit);
        let id = request_id(headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()));
        let named = headers.get(FACE).map(HeaderValue::as_bytes);
        let face = if named == Some(Face::Rest.as_str().as_bytes()) {
            Face::Rest
        } else {
            Face::Grpc
        };
        let deadline = began + time;
        let record = Record::of(&self.shared.measures, &request, face, &id, began);
        request.extensions_mut().insert(Passed {
            request_id: id.clone(),
            face,
            deadline,
            caller: record.caller().clone(),
        });

        // What is refused anyway is not decoded first.
        let path = request.uri().path();
        let is_large = path == LARGE;
        let kind = match CHANGES.contains(&path) {
            true => Call::Change,
            false => Call::Any,
        };
        let answer = (!self.shared.gate.is_shut(kind)).then(|| {
            if is_large {
                self.large.call(self.shared.counted(request))
            } else {
                self.small.call(request)
            }
        });
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let answer = async {
                let Some(answer) = answer else {
                    return Ok(Status::from(Reason::Overloaded).into_http());
                };
                match record.span().recorded().and_then(Span::context) {
                    // What the store does for it is a part of the trace.
                    Some(context) => answer.with_context(context.clone()).await,
                    None => answer.await,
                }
            };
            let mut response = match tokio::time::timeout_at(deadline.into(), answer).await {
                Ok(response) => in_our_words(response?),
                Err(_) => Status::from(Reason::DeadlineExceeded).into_http(),
            };
            // An id is made of characters that a header may hold.
            if let Ok(id) = HeaderValue::from_str(&id) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            if face == Face::Rest && record.caller().is_known() {
                let name = HeaderName::from_static(AUTHENTICATED);
                response.headers_mut().insert(name, HeaderValue::from_static("true"));
            }
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
