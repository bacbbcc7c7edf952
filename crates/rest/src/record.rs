//! What is told of a request once it has ended, whatever became of it: numbers, a line in the log, its span, and what was
//! tolerated for it.

use std::{
    mem,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};
use proto::{Ended, Reason, Span, Telemetry};
use tonic::Code;

use crate::{
    endpoint::PATH,
    rejection::Rejection,
    reply::{self, Reply},
    request_id::RequestId,
    services,
    tolerances::{Needed, Tolerances},
};

/// The face, as the log, the metrics and the history call it.
const FACE: &str = "rest";

/// The statuses that are replied, and last what stands for none: the client went away before there was a reply.
const STATUSES: [(u16, &str); 15] = [
    (200, "200"),
    (400, "400"),
    (401, "401"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (504, "504"),
    (0, "none"),
];

/// What stands for a service where none was recognized.
const NO_SERVICE: &str = "none";

/// Tells of the requests of a face.
pub(crate) struct Records {
    telemetry: Telemetry,
    tolerances: Tolerances,
    /// By service and status; each is made when it is needed first.
    requests: Box<[OnceLock<Counter>]>,
    /// By service.
    seconds: Box<[OnceLock<Histogram>]>,
}

impl Records {
    /// With the recorder of metrics that is installed.
    pub(crate) fn register(telemetry: Telemetry) -> Self {
        describe_counter!(
            "dcams_rest_requests_total",
            "Requests of the JSON endpoint, by service and status"
        );
        describe_histogram!(
            "dcams_rest_request_seconds",
            "How long requests of the JSON endpoint took, their bodies included, by service"
        );
        let services = services::NAMES.len() + 1;
        let records = Self {
            telemetry,
            tolerances: Tolerances::register(),
            requests: (0..services * STATUSES.len()).map(|_| OnceLock::new()).collect(),
            seconds: (0..services).map(|_| OnceLock::new()).collect(),
        };
        // Of what usually comes there is a series from the beginning: a rate sees its first request.
        for service in services::NAMES {
            records.measures(Some(service), 200);
        }
        records
    }

    fn measures(&self, service: Option<&'static str>, status: u16) -> Option<(&Counter, &Histogram)> {
        let names = services::NAMES;
        let row = names
            .iter()
            .position(|name| Some(*name) == service)
            .unwrap_or(names.len());
        let name = service.unwrap_or(NO_SERVICE);
        let column = STATUSES.iter().position(|(known, _)| *known == status)?;
        let (_, status) = STATUSES.get(column)?;
        let requests = self.requests.get(row * STATUSES.len() + column)?;
        let seconds = self.seconds.get(row)?;
        Some((
            requests.get_or_init(|| counter!("dcams_rest_requests_total", "service" => name, "status" => *status)),
            seconds.get_or_init(|| histogram!("dcams_rest_request_seconds", "service" => name)),
        ))
    }
}

/// A request that is under way. It is told of when it has ended, and that is also when its client goes away.
pub(crate) struct Record {
    records: Arc<Records>,
    pub(crate) id: RequestId,
    pub(crate) span: Span,
    /// What is tolerated for it.
    pub(crate) needed: Arc<Needed>,
    /// The service, if it named one that there is.
    pub(crate) service: Option<&'static str>,
    /// Who it said that it comes from. That is told only if it is known to be true.
    pub(crate) user: Option<String>,
    /// Whether the service found the credentials to hold.
    pub(crate) is_authenticated: AtomicBool,
    began: Instant,
    has_ended: bool,
}

impl Record {
    pub(crate) fn of(records: &Arc<Records>, headers: &HeaderMap) -> Self {
        Self {
            records: Arc::clone(records),
            id: RequestId::of(headers),
            span: records.telemetry.traces.begin("POST /v3/stable/api/storage", headers),
            needed: Arc::default(),
            service: None,
            user: None,
            is_authenticated: AtomicBool::new(false),
            began: Instant::now(),
            has_ended: false,
        }
    }

    /// Makes the response, and tells of the request.
    pub(crate) fn finish(mut self, answer: Result<Reply, Rejection>) -> Response {
        let (code, reason) = match &answer {
            Ok(_) => (Code::Ok, None),
            Err(rejection) => (rejection.code(), Some(rejection.reason())),
        };
        let response = reply::finish(answer, &self.id);
        self.tell(Some(response.status()), code, reason);
        response
    }

    fn tell(&mut self, status: Option<StatusCode>, code: Code, reason: Option<Reason>) {
        if mem::replace(&mut self.has_ended, true) {
            return;
        }
        let duration = self.began.elapsed();
        let status = status.map(|status| status.as_u16());
        if let Some((requests, seconds)) = self.records.measures(self.service, status.unwrap_or_default()) {
            requests.increment(1);
            seconds.record(duration);
        }
        let account = self.user.as_deref();
        let account = account.filter(|_| self.is_authenticated.load(Ordering::Relaxed));
        self.records.tolerances.count(&self.needed, account);
        let span = self.span.recorded();
        let log = &self.records.telemetry.log;
        // What made no sense is an error, though the service called it a success.
        let outcome = reason.filter(|_| code == Code::Ok).map_or(code, Reason::code);
        if log.wants(outcome) {
            log.write(&Ended {
                request_id: &self.id.to_string(),
                account,
                face: FACE,
                service: self.service,
                status,
                code: outcome,
                reason,
                duration,
                trace_id: span.and_then(Span::trace_id),
            });
        }
        if let Some(span) = span {
            span.note("http.route", PATH);
            if let Some(status) = status {
                span.note("http.response.status_code", i64::from(status));
            }
            span.note("dcams.request_id", self.id.to_string());
            if let Some(service) = self.service {
                span.note("dcams.service", service);
            }
            if let Some(account) = account {
                span.note("dcams.account", account.to_owned());
            }
            if let Some(reason) = reason {
                span.note("dcams.reason", reason.name());
            }
            if status.is_some_and(|status| status >= 500) {
                span.fail();
            }
            span.end();
        }
    }
}

/// A client that goes away before its reply drops what was made for it.
impl Drop for Record {
    fn drop(&mut self) {
        self.tell(None, Code::Cancelled, None);
    }
}
