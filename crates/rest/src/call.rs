//! A call of the gRPC face: what goes with it, how long it may take, and what its failure means.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use proto::{
    AUTHENTICATED, Budget, Client, ClientAddress, FACE, FORWARDED_FOR, Hold, Near, REQUEST_ID, Reason, Refusal,
    v1::GetStatusRequest,
};
use tonic::{Extensions, Request, Response, Status, metadata::MetadataMap};

use crate::{rejection::Rejection, request_id::RequestId};

/// How much longer than the deadline it was told the service has: its own answer to a passed deadline is the better one.
const GRACE: Duration = Duration::from_millis(250);

/// All that one legacy request brings to the call it becomes.
pub(crate) struct Call<'a> {
    /// The gRPC face.
    pub(crate) client: &'a Client,
    /// How long the service may take.
    pub(crate) timeout: Duration,
    /// The value of `authorization`.
    pub(crate) credentials: HeaderValue,
    /// The name of the request.
    pub(crate) request_id: &'a RequestId,
    /// The headers that make it a part of a trace.
    pub(crate) trace: HeaderMap,
    /// Where to note that the service found the credentials to hold.
    pub(crate) is_authenticated: &'a AtomicBool,
    /// Where the request came from, when the listener knows.
    pub(crate) address: Option<ClientAddress>,
    /// What large messages take from.
    pub(crate) budget: &'a Budget,
    /// What the request has taken already. It is held until the reply is made.
    pub(crate) hold: Option<Hold>,
}

impl Call<'_> {
    /// A client to make the call with.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// `message`, with what goes with it.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.extend(self.trace.clone());
        headers.insert(AUTHORIZATION, self.credentials.clone());
        headers.insert(HeaderName::from_static(REQUEST_ID), self.request_id.header());
        headers.insert(HeaderName::from_static(FACE), HeaderValue::from_static("rest"));

        let mut extensions = Extensions::new();
        extensions.insert(Near);
        if let Some(address) = self.address {
            extensions.insert(address);
            // An address is always a header value; the type does not know.
            if let Ok(value) = HeaderValue::try_from(address.0.to_string()) {
                headers.insert(HeaderName::from_static(FORWARDED_FOR), value);
            }
        }
        if let Some(hold) = &self.hold {
            extensions.insert(hold.clone());
        }

        let mut request = Request::from_parts(MetadataMap::from_headers(headers), extensions, message);
        request.set_timeout(self.timeout);
        request
    }

    /// Waits for `answer`, but not for ever.
    pub(crate) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Response<T>, Rejection> {
        let Ok(answer) = tokio::time::timeout(self.timeout + GRACE, answer).await else {
            return Err(Reason::DeadlineExceeded.into());
        };
        let metadata = match &answer {
            Ok(answer) => answer.metadata(),
            Err(status) => status.metadata(),
        };
        if metadata.contains_key(AUTHENTICATED) {
            self.is_authenticated.store(true, Ordering::Relaxed);
        }
        Ok(answer?)
    }

    /// Lets a translated request pass. A refusal is handed out only once the credentials hold, so that nobody learns
    /// from it what an account could do.
    ///
    /// This face cannot judge credentials. So it asks for the status of nobody: that comes to nothing but `MISSING_INPUT`,
    /// and only after the credentials were found to hold, and costs no look-up. Any other answer (bad credentials,
    /// throttled, unavailable) would have come to a sound request as well, and is the reply.
    pub(crate) async fn admit<T>(&self, translated: Result<T, Refusal>) -> Result<T, Rejection> {
        let refusal = match translated {
            Ok(message) => return Ok(message),
            Err(refusal) => refusal,
        };
        let nobody = GetStatusRequest::default();
        match self.in_time(self.client().get_status(self.request(nobody))).await {
            Ok(_) => Err(Rejection::nonsense()),
            Err(rejection) if rejection.reason() == Reason::MissingInput => Err(refusal.into()),
            Err(rejection) => Err(rejection),
        }
    }
}
