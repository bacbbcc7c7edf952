//! A call of the gRPC face: what goes with it, how long it may take, and what its failure means.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use proto::{Budget, Client, ClientAddress, Hold, Near, Reason, Refusal, v1::GetStatusRequest};
use tonic::{Extensions, Request, Response, Status, metadata::MetadataMap};

use crate::{
    rejection::Rejection,
    request_id::{REQUEST_ID, RequestId},
};

/// How much longer than the deadline it was told the service has: its own answer to a passed deadline is the better one.
const GRACE: Duration = Duration::from_millis(250);

// Made once, and not for each call.
const AUTHENTICATED: HeaderName = HeaderName::from_static(proto::AUTHENTICATED);
const FACE: HeaderName = HeaderName::from_static(proto::FACE);
const FORWARDED_FOR: HeaderName = HeaderName::from_static(proto::FORWARDED_FOR);
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How long a service may take.
pub(crate) struct Limit {
    time: Duration,
    /// The same, as calls have it in their headers.
    header: Option<HeaderValue>,
}

impl From<Duration> for Limit {
    fn from(time: Duration) -> Self {
        let mut example = Request::new(());
        example.set_timeout(time);
        let header = example.into_parts().0.into_headers().remove(TIMEOUT);
        Self { time, header }
    }
}

/// All that one legacy request brings to the call it becomes.
pub(crate) struct Call<'a> {
    /// The gRPC face.
    pub(crate) client: &'a Client,
    /// How long the service may take.
    pub(crate) limit: &'a Limit,
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

impl<'a> Call<'a> {
    /// `message`, with what goes with it.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.extend(self.trace.clone());
        headers.insert(AUTHORIZATION, self.credentials.clone());
        headers.insert(REQUEST_ID, self.request_id.header());
        headers.insert(FACE, HeaderValue::from_static("rest"));

        let mut extensions = Extensions::new();
        extensions.insert(Near);
        if let Some(address) = self.address {
            extensions.insert(address);
            // An address is always a header value; the type does not know.
            if let Ok(value) = HeaderValue::try_from(address.0.to_string()) {
                headers.insert(FORWARDED_FOR, value);
            }
        }
        if let Some(hold) = &self.hold {
            extensions.insert(hold.clone());
        }

        if let Some(limit) = &self.limit.header {
            headers.insert(TIMEOUT, limit.clone());
        }
        Request::from_parts(MetadataMap::from_headers(headers), extensions, message)
    }

    /// Makes the call with `message` by the client's `method`, and waits for the answer, but not for ever.
    pub(crate) async fn make<T, A, F>(
        &self,
        message: T,
        method: impl FnOnce(&'a Client, Request<T>) -> F,
    ) -> Result<Response<A>, Rejection>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        // It is large, and is made where it stays.
        let answer = pin!(method(self.client, self.request(message)));
        let Ok(answer) = tokio::time::timeout(self.limit.time + GRACE, answer).await else {
            return Err(Reason::DeadlineExceeded.into());
        };
        let metadata = match &answer {
            Ok(answer) => answer.metadata(),
            Err(status) => status.metadata(),
        };
        if metadata.as_ref().contains_key(&AUTHENTICATED) {
            self.is_authenticated.store(true, Ordering::Relaxed);
        }
        Ok(answer?)
    }

    /// Why a request that could not be translated is refused. That is said only once the credentials hold, so that nobody learns
    /// from it what an account could do.
    ///
    /// This face cannot judge credentials. So it asks for the status of nobody: that comes to nothing but `MISSING_INPUT`,
    /// and only after the credentials were found to hold, and costs no look-up. Any other answer (bad credentials,
    /// throttled, unavailable) would have come to a sound request as well, and is the reply.
    pub(crate) async fn refuse(&self, refusal: Refusal) -> Rejection {
        let nobody = GetStatusRequest::default();
        let answer = self.make(nobody, Client::get_status);
        match answer.await {
            Ok(_) => Rejection::nonsense(),
            Err(rejection) if rejection.reason() == Reason::MissingInput => refusal.into(),
            Err(rejection) => rejection,
        }
    }
}
