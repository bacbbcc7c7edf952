//! A reply: JSON, and the headers that every reply has.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::Serialize;

use crate::{rejection::Rejection, request_id::RequestId};

/// The bytes of a reply.
pub(crate) struct Reply(Vec<u8>);

impl Reply {
    /// `body` as compact JSON.
    pub(crate) fn json(body: &impl Serialize) -> Result<Self, Rejection> {
        serde_json::to_vec(body).map(Self).map_err(|_| Rejection::nonsense())
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        Response::new(Body::from(self.0))
    }
}

/// Makes the response to the request of that name, whatever became of it.
pub(crate) fn finish(answer: Result<Reply, Rejection>, request_id: RequestId) -> Response {
    if let Err(rejection) = &answer {
        rejection.log(&request_id);
    }
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static(proto::REQUEST_ID), request_id.header());
    response
}
