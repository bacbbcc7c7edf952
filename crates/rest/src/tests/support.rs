//! The face in front of a service that remembers what it was asked, and answers what it was told to.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
};

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use proto::{
    Budget, ClientAddress, Gate, Hold, Reason, Telemetry,
    v1::{
        self,
        storage_service_server::{StorageService, StorageServiceServer},
    },
};
use tonic::Status;
use tower::ServiceExt;

use crate::{
    Settings,
    endpoint::{Facade, PATH},
    record::Records,
    tolerances::Tolerance,
};

pub(super) use crate::SAMPLE;

/// `USERNAME` with `PASSWORD`: the only credentials that hold.
const GOOD: &str = "Basic VVNFUk5BTUU6UEFTU1dPUkQ=";

/// A message that reached the service.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    UpdateStatus { email: String, status: v1::Status },
    GetStatus { email: String },
    CreateOrUpdateCustomer(Box<Put>),
    GetDocumentImages { email: String },
}

impl Message {
    fn email(&self) -> &str {
        match self {
            Self::UpdateStatus { email, .. } | Self::GetStatus { email } | Self::GetDocumentImages { email } => email,
            Self::CreateOrUpdateCustomer(put) => &put.email,
        }
    }
}

/// What a customer is to be made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Put {
    pub(super) email: String,
    pub(super) first_name: String,
    pub(super) last_name: String,
    pub(super) address: String,
    pub(super) city: String,
    pub(super) state: String,
    pub(super) zip: String,
    pub(super) date_of_birth: String,
    pub(super) phone: String,
    pub(super) reference: String,
    pub(super) front: Bytes,
    pub(super) back: Bytes,
}

impl From<v1::CreateOrUpdateCustomerRequest> for Put {
    fn from(request: v1::CreateOrUpdateCustomerRequest) -> Self {
        assert_eq!(request.field_mask, None);
        let documents = request.documents.unwrap_or_default();
        Self {
            email: request.email,
            first_name: request.first_name,
            last_name: request.last_name,
            address: request.address,
            city: request.city,
            state: request.state,
            zip: request.zip,
            date_of_birth: request.date_of_birth,
            phone: request.phone,
            reference: request.reference,
            front: documents.front,
            back: documents.back,
        }
    }
}

/// The call that sets the status of the sample's customer.
pub(super) fn update(status: v1::Status) -> Message {
    Message::UpdateStatus {
        email: "test@veratad.com".to_owned(),
        status,
    }
}

/// The call that reads `email`.
pub(super) fn get(email: &str) -> Message {
    Message::GetStatus {
        email: email.to_owned(),
    }
}

/// The call that registers a customer, or changes one.
pub(super) fn create(put: Put) -> Message {
    Message::CreateOrUpdateCustomer(put.into())
}

/// The terms of a change, as its message has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Terms {
    pub(super) etag: String,
    pub(super) idempotency_key: String,
}

/// A call that reached the service, with what came with it.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) message: Message,
    pub(super) terms: Terms,
    pub(super) headers: HeaderMap,
    pub(super) address: Option<ClientAddress>,
    /// Whether the request was counted.
    pub(super) is_held: bool,
    /// What was left of the budget, as far as the test asked for.
    pub(super) left: usize,
}

/// What the service answers once the credentials hold.
#[derive(Clone)]
pub(super) enum Answer {
    Customer(Box<v1::Customer>),
    /// A customer with images, which takes nothing from the budget.
    Images(Bytes, Bytes),
    /// The same, counted by the service.
    HeldImages(Bytes, Bytes, Hold),
    Nothing,
    Status(Status),
    Never,
}

/// The customer of the vendor's documentation.
pub(super) fn john() -> v1::Customer {
    v1::Customer {
        email: "test@veratad.com".to_owned(),
        first_name: "John".to_owned(),
        last_name: "Smith".to_owned(),
        address: "123 Main St".to_owned(),
        city: "Stratford".to_owned(),
        state: "CT".to_owned(),
        zip: "06614".to_owned(),
        date_of_birth: "19700101".to_owned(),
        phone: "2015106000".to_owned(),
        reference: "888888812".to_owned(),
        status: v1::Status::Pass.into(),
        etag: "opaque".to_owned(),
        ..v1::Customer::default()
    }
}

/// What all tests log.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Begins to log, before the first request: a place in the code that logs before there is anyone to listen may stay
/// silent for ever.
static LOGGING: LazyLock<()> = LazyLock::new(|| {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_ansi(false)
        .with_writer(|| LogWriter)
        .init();
});

struct LogWriter;

impl io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of the log that name the request.
pub(super) fn logged(request_id: &str) -> Vec<String> {
    let log = LOG.lock().unwrap();
    let lines = std::str::from_utf8(&log).unwrap().lines();
    lines
        .filter(|line| line.contains(request_id))
        .map(str::to_owned)
        .collect()
}

struct Service {
    answer: Answer,
    seen: Arc<Mutex<Vec<Seen>>>,
    budget: Budget,
}

/// How many whole steps of 64 KiB are left of a budget.
pub(super) fn left(budget: &Budget) -> usize {
    let mut taken = Vec::new();
    while let Ok(hold) = budget.take(64 * 1024) {
        taken.push(hold);
    }
    taken.len()
}

impl Service {
    /// Remembers the call and goes through the checks in the order that the real service has.
    async fn handle<T>(
        &self,
        request: &tonic::Request<T>,
        message: Message,
        terms: Terms,
    ) -> Result<Option<v1::Customer>, Status> {
        let headers = request.metadata().clone().into_headers();
        let allowed = headers.get("authorization").is_some_and(|value| value == GOOD);
        let no_email = message.email().is_empty();
        self.seen.lock().unwrap().push(Seen {
            message,
            terms,
            headers,
            address: request.extensions().get().copied(),
            is_held: request.extensions().get::<Hold>().is_some(),
            left: left(&self.budget),
        });
        match &self.answer {
            Answer::Never => std::future::pending().await,
            Answer::Status(status) => Err(status.clone()),
            _ if !allowed => Err(Reason::BadCredentials.into()),
            _ if no_email => Err(Reason::MissingInput.into()),
            Answer::Nothing => Ok(None),
            Answer::Customer(customer) => Ok(Some(v1::Customer::clone(customer))),
            Answer::Images(..) | Answer::HeldImages(..) => Ok(Some(john())),
        }
    }
}

#[tonic::async_trait]
impl StorageService for Service {
    async fn update_status(
        &self,
        request: tonic::Request<v1::UpdateStatusRequest>,
    ) -> Result<tonic::Response<v1::UpdateStatusResponse>, Status> {
        let message = Message::UpdateStatus {
            email: request.get_ref().email.clone(),
            status: request.get_ref().status(),
        };
        let terms = Terms {
            etag: request.get_ref().etag.clone(),
            idempotency_key: request.get_ref().idempotency_key.clone(),
        };
        let customer = self.handle(&request, message, terms).await?;
        if request.get_ref().status() == v1::Status::Unspecified {
            return Err(Reason::InvalidStatus.into());
        }
        Ok(v1::UpdateStatusResponse { customer }.into())
    }

    async fn get_status(
        &self,
        request: tonic::Request<v1::GetStatusRequest>,
    ) -> Result<tonic::Response<v1::GetStatusResponse>, Status> {
        let message = get(&request.get_ref().email);
        let customer = self.handle(&request, message, Terms::default()).await?;
        Ok(v1::GetStatusResponse { customer }.into())
    }

    async fn create_or_update_customer(
        &self,
        request: tonic::Request<v1::CreateOrUpdateCustomerRequest>,
    ) -> Result<tonic::Response<v1::CreateOrUpdateCustomerResponse>, Status> {
        let message = create(request.get_ref().clone().into());
        let terms = Terms {
            etag: request.get_ref().etag.clone(),
            idempotency_key: request.get_ref().idempotency_key.clone(),
        };
        let customer = self.handle(&request, message, terms).await?;
        Ok(v1::CreateOrUpdateCustomerResponse {
            created: request.get_ref().email.starts_with("new"),
            customer_link: "https://example.com/customers/7".to_owned(),
            customer,
        }
        .into())
    }

    async fn get_document_images(
        &self,
        request: tonic::Request<v1::GetDocumentImagesRequest>,
    ) -> Result<tonic::Response<v1::GetDocumentImagesResponse>, Status> {
        let email = request.get_ref().email.clone();
        let message = Message::GetDocumentImages { email };
        let customer = self.handle(&request, message, Terms::default()).await?;
        let (documents, hold) = match self.answer.clone() {
            Answer::Images(front, back) => (Some(v1::Documents { front, back }), None),
            Answer::HeldImages(front, back, hold) => (Some(v1::Documents { front, back }), Some(hold)),
            _ => (None, None),
        };
        let mut response = tonic::Response::new(v1::GetDocumentImagesResponse { customer, documents });
        if let Some(hold) = hold {
            response.extensions_mut().insert(hold);
        }
        Ok(response)
    }

    async fn erase_customer(
        &self,
        _: tonic::Request<v1::EraseCustomerRequest>,
    ) -> Result<tonic::Response<v1::EraseCustomerResponse>, Status> {
        Err(no_such_service())
    }

    async fn list_status_changes(
        &self,
        _: tonic::Request<v1::ListStatusChangesRequest>,
    ) -> Result<tonic::Response<v1::ListStatusChangesResponse>, Status> {
        Err(no_such_service())
    }

    async fn get_status_at(
        &self,
        _: tonic::Request<v1::GetStatusAtRequest>,
    ) -> Result<tonic::Response<v1::GetStatusAtResponse>, Status> {
        Err(no_such_service())
    }

    type WatchStatusChangesStream =
        std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::WatchStatusChangesResponse, Status>> + Send>>;

    async fn watch_status_changes(
        &self,
        _: tonic::Request<v1::WatchStatusChangesRequest>,
    ) -> Result<tonic::Response<Self::WatchStatusChangesStream>, Status> {
        Err(no_such_service())
    }
}

fn no_such_service() -> Status {
    Status::unimplemented("the facade has no such service")
}

/// The face and what can be seen behind it.
pub(super) struct Face {
    router: Router,
    seen: Arc<Mutex<Vec<Seen>>>,
    recorder: PrometheusRecorder,
}

impl Face {
    /// In front of a service that answers with the customer of the documentation.
    pub(super) fn new() -> Self {
        Self::answering(Answer::Customer(john().into()))
    }

    pub(super) fn answering(answer: Answer) -> Self {
        Self::within(Budget::default(), answer)
    }

    /// With that budget.
    pub(super) fn within(budget: Budget, answer: Answer) -> Self {
        Self::behind(Gate::default(), budget, answer)
    }

    /// Behind that gate.
    pub(super) fn behind(gate: Gate, budget: Budget, answer: Answer) -> Self {
        LazyLock::force(&LOGGING);
        let seen = Arc::default();
        let service = StorageServiceServer::new(Service {
            answer,
            seen: Arc::clone(&seen),
            budget: budget.clone(),
        })
        .max_decoding_message_size(64 * 1024 * 1024);
        let recorder = PrometheusBuilder::new().build_recorder();
        let records = metrics::with_local_recorder(&recorder, || Records::register(Telemetry::default()));
        let facade = Facade::new(proto::client(service), gate, Settings::default(), budget, records);
        Self {
            router: facade.into_router(),
            seen,
            recorder,
        }
    }

    /// In front of a service that refuses everything with `status`.
    pub(super) fn refusing(status: impl Into<Status>) -> Self {
        Self::answering(Answer::Status(status.into()))
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Reply {
        Reply::of(self.respond(request).await).await
    }

    /// The same, with the body of the reply not read yet.
    pub(super) async fn respond(&self, request: Request<Body>) -> Response {
        let mut answer = std::pin::pin!(self.router.clone().oneshot(request));
        // What is counted is made by the thread that serves, which is known for a poll only.
        std::future::poll_fn(|context| metrics::with_local_recorder(&self.recorder, || answer.as_mut().poll(context)))
            .await
            .unwrap()
    }

    /// Posts `body` as JSON.
    pub(super) async fn post(&self, body: impl Into<Body>) -> Reply {
        self.send(post().body(body.into()).unwrap()).await
    }

    /// The calls that reached the service.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Their messages.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.seen().into_iter().map(|seen| seen.message).collect()
    }

    /// The metrics, as Prometheus sees them.
    pub(super) fn metrics(&self) -> String {
        self.recorder.handle().render()
    }

    /// The tolerances that were taken, in alphabetical order, with how often, whoever needed them.
    pub(super) fn tolerated(&self) -> Vec<(&'static str, u64)> {
        let metrics = self.metrics();
        let mut taken: Vec<_> = Tolerance::ALL
            .into_iter()
            .map(|tolerance| {
                let series = format!(r#"dcams_tolerated_total{{kind="{}","#, tolerance.kind());
                let values = metrics.lines().filter(|line| line.starts_with(&series));
                let count = values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
                (tolerance.kind(), count.sum())
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        taken.sort_unstable();
        taken
    }
}

/// A request that posts JSON to the endpoint.
pub(super) fn post() -> http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri(PATH)
        .header("content-type", "application/json")
}

/// A reply, read in full.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Reply {
    async fn of(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Self {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status, reason and message in one line; `200` alone for a success.
    pub(super) fn summary(&self) -> String {
        match self.header("x-error-reason") {
            None => self.status.as_str().to_owned(),
            Some(reason) => {
                let message = self
                    .body
                    .strip_prefix(r#"{"result":"Error","message":""#)
                    .and_then(|rest| rest.strip_suffix(r#""}"#))
                    .unwrap_or("(no error envelope)");
                format!("{} {reason} {message}", self.status.as_str())
            }
        }
    }
}
