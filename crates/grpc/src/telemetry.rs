//! What is told of a call once it has ended, whatever became of it: numbers, a line in the log, and its span.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use http::{Extensions, HeaderMap};
use http_body::{Frame, SizeHint};
use metrics::{Counter, Histogram};
use proto::{Ended, Near, Reason, Refusal, Span, Telemetry};
use store::Face;
use tonic::{Code, Status, body::Body};

/// The operations, by their names as a method and as that of a span.
const OPERATIONS: [(&str, &str); 8] = [
    ("UpdateStatus", "dcams.storage.v1.StorageService/UpdateStatus"),
    ("GetStatus", "dcams.storage.v1.StorageService/GetStatus"),
    (
        "CreateOrUpdateCustomer",
        "dcams.storage.v1.StorageService/CreateOrUpdateCustomer",
    ),
    ("GetDocumentImages", "dcams.storage.v1.StorageService/GetDocumentImages"),
    ("EraseCustomer", "dcams.storage.v1.StorageService/EraseCustomer"),
    ("ListStatusChanges", "dcams.storage.v1.StorageService/ListStatusChanges"),
    ("GetStatusAt", "dcams.storage.v1.StorageService/GetStatusAt"),
    (
        "WatchStatusChanges",
        "dcams.storage.v1.StorageService/WatchStatusChanges",
    ),
];

/// An operation of the contract, or none: what a caller makes up stands nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operation(usize);

impl Operation {
    const UNKNOWN: Self = Self(OPERATIONS.len());

    fn of(path: &str) -> Self {
        let found = OPERATIONS
            .iter()
            .position(|(_, name)| path.strip_prefix('/') == Some(name));
        found.map_or(Self::UNKNOWN, Self)
    }

    fn method(self) -> Option<&'static str> {
        OPERATIONS.get(self.0).map(|(method, _)| *method)
    }

    fn span(self) -> &'static str {
        OPERATIONS
            .get(self.0)
            .map_or("dcams.storage.v1.StorageService", |(_, name)| name)
    }

    fn streams(self) -> bool {
        self.method() == Some("WatchStatusChanges")
    }
}

/// How many calls there were and how long they took, by face, operation and code. A series is made when it is needed first:
/// most never are.
pub(crate) struct Measures {
    series: Box<[OnceLock<(Counter, Histogram)>]>,
    telemetry: Telemetry,
}

impl Measures {
    const FACES: [Face; 2] = [Face::Rest, Face::Grpc];
    /// gRPC's codes are 0 to 16.
    const CODES: usize = 17;

    pub(crate) fn new(telemetry: Telemetry) -> Self {
        let series = Self::FACES.len() * (OPERATIONS.len() + 1) * Self::CODES;
        let measures = Self {
            series: (0..series).map(|_| OnceLock::new()).collect(),
            telemetry,
        };
        // Of what usually comes there is a series from the beginning: a rate sees its first call.
        for face in Self::FACES {
            for operation in (0..OPERATIONS.len()).map(Operation) {
                measures.of(face, operation, Code::Ok);
            }
        }
        measures
    }

    fn of(&self, face: Face, operation: Operation, code: Code) -> Option<&(Counter, Histogram)> {
        let number = usize::try_from(i32::from(code)).unwrap_or_default();
        let row = usize::from(face != Face::Rest) * (OPERATIONS.len() + 1) + operation.0;
        let series = self.series.get(row * Self::CODES + number)?;
        Some(series.get_or_init(|| {
            let (face, code) = (face.as_str(), format!("{code:?}"));
            let operation = operation.method().unwrap_or("unknown");
            (
                metrics::counter!("dcams_calls_total", "face" => face, "operation" => operation, "code" => code.clone()),
                metrics::histogram!("dcams_call_seconds", "face" => face, "operation" => operation, "code" => code),
            )
        }))
    }
}

/// Where the account of a call is noted while its credentials hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(Arc<Mutex<Option<String>>>);

impl Caller {
    /// Notes whose credentials hold, or that they do not any more.
    pub(crate) fn note(&self, account: Option<&str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = account.map(str::to_owned);
    }

    fn known(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the credentials hold.
    pub(crate) fn is_known(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// A call that is under way. It is told of when it has ended, and that is also when its caller goes away.
pub(crate) struct Record {
    measures: Arc<Measures>,
    operation: Operation,
    face: Face,
    request_id: String,
    caller: Caller,
    span: Span,
    /// The facade in this process writes the line.
    is_near: bool,
    began: Instant,
    has_ended: bool,
}

impl Record {
    /// One of a call of the method at `path`, with its headers and extensions.
    pub(crate) fn of(
        measures: &Arc<Measures>,
        (path, headers, extensions): (&str, &HeaderMap, &Extensions),
        face: Face,
        request_id: &str,
        began: Instant,
    ) -> Self {
        let operation = Operation::of(path);
        Self {
            measures: Arc::clone(measures),
            operation,
            face,
            request_id: request_id.to_owned(),
            caller: Caller::default(),
            span: measures.telemetry.traces.begin(operation.span(), headers),
            is_near: extensions.get::<Near>().is_some(),
            began,
            has_ended: false,
        }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Whether the call ends later than its answer begins.
    pub(crate) fn streams(&self) -> bool {
        self.operation.streams()
    }

    /// Tells of the call, which has ended with these headers or trailers.
    pub(crate) fn end(mut self, headers: &HeaderMap) {
        self.tell(code(headers), || reason(headers));
    }

    /// Tells of the call, which has ended with this status, or well.
    pub(crate) fn end_with(mut self, status: Option<&Status>) {
        let code = status.map_or(Code::Ok, Status::code);
        self.tell(code, || status.map(|status| Refusal::from(status).reason));
    }

    fn tell(&mut self, code: Code, reason: impl FnOnce() -> Option<Reason>) {
        if mem::replace(&mut self.has_ended, true) {
            return;
        }
        let duration = self.began.elapsed();
        if let Some((calls, seconds)) = self.measures.of(self.face, self.operation, code) {
            calls.increment(1);
            seconds.record(duration);
        }
        let log = &self.measures.telemetry.log;
        let is_logged = !self.is_near && log.wants(code);
        let span = self.span.recorded();
        if !is_logged && span.is_none() {
            return;
        }
        let account = self.caller.known();
        let account = account.as_deref();
        // To read it costs more than all else here.
        let reason = if code == Code::Ok { None } else { reason() };
        if is_logged {
            log.write(&Ended {
                request_id: &self.request_id,
                account,
                face: self.face.as_str(),
                service: self.operation.method(),
                status: None,
                code,
                reason,
                duration,
                trace_id: span.and_then(Span::trace_id),
            });
        }
        if let Some(span) = span {
            span.note("rpc.system.name", "grpc");
            span.note("rpc.method", self.operation.span());
            span.note("rpc.response.status_code", format!("{code:?}"));
            span.note("dcams.request_id", self.request_id.clone());
            span.note("dcams.face", self.face.as_str());
            if let Some(account) = account {
                span.note("dcams.account", account.to_owned());
            }
            if let Some(reason) = reason {
                span.note("dcams.reason", reason.name());
            }
            if matches!(
                code,
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            ) {
                span.fail();
            }
            span.end();
        }
    }
}

/// A caller that goes away before its answer drops what was made for it.
impl Drop for Record {
    fn drop(&mut self) {
        self.tell(Code::Cancelled, || None);
    }
}

/// The code of an answer. A success has it in its trailers, which come later.
pub(crate) fn code(headers: &HeaderMap) -> Code {
    headers
        .get("grpc-status")
        .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

fn reason(headers: &HeaderMap) -> Option<Reason> {
    Some(Refusal::from(&Status::from_header_map(headers)?).reason)
}

/// The answers of a stream, which is told of when they end.
pub(crate) struct Told {
    body: Body,
    record: Option<Record>,
}

impl Told {
    pub(crate) fn new(body: Body, record: Record) -> Self {
        Self {
            body,
            record: Some(record),
        }
    }
}

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(record) = self.record.take()
        {
            record.end(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_one_of_the_contract_or_none() {
        assert_eq!(
            Operation::of("/dcams.storage.v1.StorageService/GetStatus").method(),
            Some("GetStatus")
        );
        for path in [
            "",
            "/",
            "/GetStatus",
            "dcams.storage.v1.StorageService/GetStatus",
            "/dcams.storage.v1.StorageService/GetStatus/",
            "/dcams.storage.v1.StorageService/jane@example.com",
        ] {
            assert_eq!(Operation::of(path), Operation::UNKNOWN, "{path}");
            assert_eq!(Operation::of(path).method(), None);
        }
    }

    #[test]
    fn every_operation_and_code_has_a_series_of_its_own() {
        let measures = Measures::new(Telemetry::default());
        let mut seen = Vec::new();
        for face in Measures::FACES {
            for operation in 0..=OPERATIONS.len() {
                for code in 0..=16 {
                    let series = measures.of(face, Operation(operation), Code::from_i32(code));
                    let address = std::ptr::from_ref(series.unwrap_or_else(|| panic!("{face:?} {operation} {code}")));
                    assert!(!seen.contains(&address), "{face:?} {operation} {code}");
                    seen.push(address);
                }
            }
        }
    }
}
