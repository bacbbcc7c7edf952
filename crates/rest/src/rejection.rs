//! A request that failed, and the one place where a failure becomes a legacy reply.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{
    HeaderName, HeaderValue,
    header::{ALLOW, CONNECTION, RETRY_AFTER},
};
use proto::{Reason, Refusal};
use serde::Serialize;
use tonic::{Code, Status};

use crate::{customer::legacy_key, reply::Reply, request_id::RequestId};

const X_ERROR_REASON: HeaderName = HeaderName::from_static("x-error-reason");

/// Why there is no reply of the kind that was asked for.
pub(crate) struct Rejection {
    refusal: Refusal,
    /// What the service answered; for what was refused here, the code it would have had there.
    code: Code,
    /// The rest of the body may still be on its way, and nobody will read it.
    is_unread: bool,
}

impl Rejection {
    /// A body was not read, or not to its end.
    pub(crate) fn of_body(reason: Reason) -> Self {
        Self {
            is_unread: matches!(reason, Reason::BodyTimeout | Reason::BodyTooLarge | Reason::Overloaded),
            ..reason.into()
        }
    }

    /// The service said that all is well, and sent what makes no sense.
    pub(crate) fn nonsense() -> Self {
        Self {
            refusal: Reason::Internal.into(),
            code: Code::Ok,
            is_unread: false,
        }
    }

    /// Why.
    pub(crate) fn reason(&self) -> Reason {
        self.refusal.reason
    }

    /// What the service answered, or would have.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Logs a defect, without what was said about it: that stands in the service's own log, under the same name.
    pub(crate) fn log(&self, request_id: &RequestId) {
        if self.reason() == Reason::Internal {
            tracing::error!(%request_id, code = ?self.code, "internal error");
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.reason.code(),
            refusal,
            is_unread: false,
        }
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Refusal::from(reason).into()
    }
}

impl From<Status> for Rejection {
    fn from(status: Status) -> Self {
        Self {
            refusal: Refusal::from(&status),
            code: status.code(),
            is_unread: false,
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            result: &'static str,
            message: &'a str,
        }

        let Refusal {
            reason,
            fields,
            retry_after,
            ..
        } = self.refusal;
        let message = Refusal::fields(reason, fields.iter().map(|field| legacy_key(field))).message();
        let body = Body {
            result: "Error",
            message: &message,
        };
        // Two strings can always be written; the type does not know.
        let mut response = Reply::json(&body).map(Reply::into_response).unwrap_or_default();
        *response.status_mut() = reason.http_status();

        let headers = response.headers_mut();
        headers.insert(X_ERROR_REASON, HeaderValue::from_static(reason.name()));
        if let Some(wait) = retry_after {
            headers.insert(RETRY_AFTER, whole_seconds(wait).into());
        }
        if reason == Reason::MethodNotAllowed {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if self.is_unread {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// `wait` in seconds, rounded up, at least one: to come back too early would be in vain.
fn whole_seconds(wait: Duration) -> u64 {
    let started = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(started).max(1)
}
