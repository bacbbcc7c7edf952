//! The one endpoint: what is served where, and the way of a request from its head to its reply.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use http::{HeaderValue, Method, header::CONTENT_TYPE, request::Parts};
use proto::{Budget, Client, ClientAddress, Hold, Reason, Refusal};

use crate::{
    Settings,
    body::{self, Sent},
    call::Call,
    legacy::LegacyRequest,
    rejection::Rejection,
    reply::{self, Reply},
    request_id::RequestId,
    services::{self, Question},
    terms::Terms,
    tolerances::Tolerances,
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
    settings: Settings,
    budget: Budget,
    tolerances: Tolerances,
}

/// What was in a body.
struct Asked {
    credentials: HeaderValue,
    question: Result<Question, Refusal>,
    hold: Option<Hold>,
}

impl Facade {
    pub(crate) fn new(client: Client, settings: Settings, budget: Budget, tolerances: Tolerances) -> Self {
        Self {
            client,
            settings,
            budget,
            tolerances,
        }
    }

    pub(crate) fn into_router(self) -> Router {
        Router::new()
            .route(PATH, any(storage))
            .route(PATH_WITH_SLASH, any(storage))
            .fallback(unknown_path)
            .with_state(Arc::new(self))
    }

    async fn answer(self: Arc<Self>, request: Request, id: &RequestId) -> Result<Reply, Rejection> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return Err(Reason::MethodNotAllowed.into());
        }
        self.count_tolerated(&head);
        let terms = Terms::of(&head.headers);

        let sent = body::read(&head.headers, body, &self.settings, &self.budget)
            .await
            .map_err(Rejection::of_body)?;
        let asked = if sent.is_heavy() {
            let facade = Arc::clone(&self);
            // It ends early only by a panic, or when the process ends.
            tokio::task::spawn_blocking(move || facade.take_apart(sent, &terms))
                .await
                .map_err(|_| Reason::Internal)?
        } else {
            self.take_apart(sent, &terms)
        }?;
        let call = Call {
            client: &self.client,
            timeout: self.settings.handler_timeout,
            credentials: asked.credentials,
            request_id: id,
            address: head.extensions.get::<ClientAddress>().copied(),
            budget: &self.budget,
            hold: asked.hold,
        };
        services::serve(&call, asked.question).await
    }

    /// Takes a body apart. Nothing is left of its bytes when this returns.
    fn take_apart(&self, sent: Sent, terms: &Terms) -> Result<Asked, Rejection> {
        let body = sent.open().map_err(Rejection::of_body)?;
        let request = LegacyRequest::parse(&body.bytes, &self.tolerances)?;
        if body.is_large && !services::takes_documents(request.service()) {
            return Err(Rejection::of_body(Reason::BodyTooLarge));
        }
        Ok(Asked {
            credentials: request.credentials()?,
            question: services::take_apart(&request, terms, &self.tolerances),
            hold: body.hold,
        })
    }

    fn count_tolerated(&self, head: &Parts) {
        if head.uri.path() == PATH_WITH_SLASH {
            self.tolerances.trailing_slash.increment(1);
        }
        if !is_json(head) {
            self.tolerances.content_type.increment(1);
        }
    }
}

async fn storage(State(facade): State<Arc<Facade>>, request: Request) -> Response {
    let id = RequestId::of(request.headers());
    let answer = facade.answer(request, &id).await;
    reply::finish(answer, id)
}

async fn unknown_path(request: Request) -> Response {
    let id = RequestId::of(request.headers());
    reply::finish(Err(Reason::UnknownPath.into()), id)
}

/// Whether the body is declared as JSON, with whatever parameters.
fn is_json(head: &Parts) -> bool {
    let declared = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    declared
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}
