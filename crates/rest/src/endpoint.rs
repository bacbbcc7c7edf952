//! The one endpoint: what is served where, and the way of a request from its head to its reply.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use http::{Method, header::CONTENT_TYPE, request::Parts};
use proto::{Client, ClientAddress, Reason};

use crate::{
    Settings, body,
    call::Call,
    legacy::LegacyRequest,
    rejection::Rejection,
    reply::{self, Reply},
    request_id::RequestId,
    services,
    tolerances::Tolerances,
};

/// Where the endpoint is.
pub(crate) const PATH: &str = "/v3/stable/api/storage";

/// The same with a trailing slash: served, not redirected, because a redirect turns a POST into a GET in old clients.
pub(crate) const PATH_WITH_SLASH: &str = "/v3/stable/api/storage/";

/// What every request shares.
pub(crate) struct Facade {
    client: Client,
    settings: Settings,
    tolerances: Tolerances,
}

impl Facade {
    pub(crate) fn new(client: Client, settings: Settings, tolerances: Tolerances) -> Self {
        Self {
            client,
            settings,
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

    async fn answer(&self, request: Request, id: &RequestId) -> Result<Reply, Rejection> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return Err(Reason::MethodNotAllowed.into());
        }
        self.count_tolerated(&head);

        let body = body::read(&head.headers, body, &self.settings).await?;
        let request = LegacyRequest::parse(&body, &self.tolerances)?;
        let call = Call {
            client: &self.client,
            timeout: self.settings.handler_timeout,
            credentials: request.credentials()?,
            request_id: id,
            address: head.extensions.get::<ClientAddress>().copied(),
        };
        services::serve(&call, &request, &self.tolerances).await
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
