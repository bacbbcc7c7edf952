//! The one endpoint: what is served where, and the way of a request from its head to its reply.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use http::{HeaderValue, Method, header::CONTENT_TYPE, request::Parts};
use proto::{Budget, Client, ClientAddress, Gate, Hold, Reason, Refusal};

use crate::{
    Settings,
    body::{self, Sent},
    call::{Call, Limit},
    legacy::LegacyRequest,
    record::{Record, Records},
    rejection::Rejection,
    reply::Reply,
    services::{self, Question},
    terms::Terms,
    tolerances::{Needed, Tolerance},
};

/// Where the endpoint is.
pub(crate) const PATH: &str = "/v3/stable/api/storage";

/// The same with a trailing slash: served, not redirected, because a redirect turns a POST into a GET in old clients.
pub(crate) const PATH_WITH_SLASH: &str = "/v3/stable/api/storage/";

/// Where this face is, for whoever puts it beside something else.
pub const PATHS: [&str; 2] = [PATH, PATH_WITH_SLASH];

/// What every request shares.
pub(crate) struct Facade {
    client: Client,
    gate: Gate,
    settings: Settings,
    limit: Limit,
    budget: Budget,
    records: Arc<Records>,
}

/// What was in a body.
struct Asked {
    user: Option<String>,
    service: Option<&'static str>,
    credentials: HeaderValue,
    question: Result<Question, Refusal>,
    hold: Option<Hold>,
}

impl Facade {
    pub(crate) fn new(client: Client, gate: Gate, settings: Settings, budget: Budget, records: Records) -> Self {
        Self {
            client,
            gate,
            limit: settings.handler_timeout.into(),
            settings,
            budget,
            records: Arc::new(records),
        }
    }

    pub(crate) fn into_router(self) -> Router {
        Router::new()
            .route(PATH, any(storage))
            .route(PATH_WITH_SLASH, any(storage))
            .fallback(unknown_path)
            .with_state(Arc::new(self))
    }

    async fn answer(self: Arc<Self>, request: Request, record: &mut Record) -> Result<Reply, Rejection> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return Err(Reason::MethodNotAllowed.into());
        }
        note_tolerated(&head, &record.needed);
        let terms = Terms::of(&head.headers);

        let sent = body::read(&head.headers, body, &self.settings, &self.budget)
            .await
            .map_err(Rejection::of_body)?;
        // The body has been read, so that the connection can be kept.
        if self.gate.is_shut(proto::Call::Any) {
            return Err(Reason::Overloaded.into());
        }
        // Before it is taken apart: that is work which a refusal does without.
        if !sent.is_heavy()
            && self.gate.is_shut(proto::Call::Change)
            && let Some(service) = services::probable_change(sent.as_sent())
        {
            record.service = Some(service);
            return Err(Reason::Overloaded.into());
        }
        let asked = if sent.is_heavy() {
            let (facade, needed) = (Arc::clone(&self), Arc::clone(&record.needed));
            // It ends early only by a panic, or when the process ends.
            tokio::task::spawn_blocking(move || facade.take_apart(sent, &terms, &needed))
                .await
                .map_err(|_| Reason::Internal)?
        } else {
            self.take_apart(sent, &terms, &record.needed)
        }?;
        (record.user, record.service) = (asked.user, asked.service);
        if asked.question.as_ref().is_ok_and(Question::changes) && self.gate.is_shut(proto::Call::Change) {
            return Err(Reason::Overloaded.into());
        }
        let call = Call {
            client: &self.client,
            limit: &self.limit,
            credentials: asked.credentials,
            request_id: &record.id,
            trace: record.span.headers(&head.headers),
            is_authenticated: &record.is_authenticated,
            address: head.extensions.get::<ClientAddress>().copied(),
            budget: &self.budget,
            hold: asked.hold,
        };
        services::serve(&call, asked.question).await
    }

    /// Takes a body apart. Nothing is left of its bytes when this returns.
    fn take_apart(&self, sent: Sent, terms: &Terms, needed: &Needed) -> Result<Asked, Rejection> {
        let body = sent.open().map_err(Rejection::of_body)?;
        let request = LegacyRequest::parse(&body.bytes, needed)?;
        if body.is_large && !services::takes_documents(request.service()) {
            return Err(Rejection::of_body(Reason::BodyTooLarge));
        }
        Ok(Asked {
            credentials: request.credentials()?,
            user: request.user().map(str::to_owned),
            service: services::known(request.service()),
            question: services::take_apart(&request, terms, needed),
            hold: body.hold,
        })
    }
}

async fn storage(State(facade): State<Arc<Facade>>, request: Request) -> Response {
    let mut record = Record::of(&facade.records, request.headers());
    let answer = facade.answer(request, &mut record).await;
    record.finish(answer)
}

async fn unknown_path(State(facade): State<Arc<Facade>>, request: Request) -> Response {
    Record::of(&facade.records, request.headers()).finish(Err(Reason::UnknownPath.into()))
}

/// Notes what is tolerated of a head.
fn note_tolerated(head: &Parts, needed: &Needed) {
    if head.uri.path() == PATH_WITH_SLASH {
        needed.note(Tolerance::TrailingSlash);
    }
    if !is_json(head) {
        needed.note(Tolerance::ContentType);
    }
}

/// Whether the body is declared as JSON, with whatever parameters.
fn is_json(head: &Parts) -> bool {
    let declared = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    declared
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}
