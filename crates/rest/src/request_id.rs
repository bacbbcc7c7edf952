//! The name of a request, in the form that travels: as the value of a header.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that names a request, here and to the service.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static(proto::REQUEST_ID);

/// The name of a request, in replies, logs and the history.
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The name that `headers` give, or a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
        // Letters, digits and a few signs are always a header value; the type does not know.
        Self(HeaderValue::try_from(proto::request_id(given)).unwrap_or(HeaderValue::from_static("unknown")))
    }

    /// The name as the value of a header.
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.to_str().unwrap_or_default())
    }
}
