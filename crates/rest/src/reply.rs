//! A reply: JSON, and the headers that every reply has.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG},
};
use proto::Hold;
use serde::Serialize;

use crate::{
    document_body::DocumentBody,
    rejection::Rejection,
    request_id::{REQUEST_ID, RequestId},
};

/// The body of a reply, and what names the state of the customer in it.
pub(crate) struct Reply {
    body: Body,
    etag: Option<HeaderValue>,
}

impl Reply {
    /// `body` as compact JSON.
    pub(crate) fn json(body: &impl Serialize) -> Result<Self, Rejection> {
        Ok(Body::from(text(body)?).into())
    }

    /// The same with images, in Base64, in empty strings at its end: each comes with the text that stands after it.
    pub(crate) fn with_images<const N: usize>(
        body: &impl Serialize,
        images: [(Bytes, &'static str); N],
        hold: Hold,
    ) -> Result<Self, Rejection> {
        let mut before = text(body)?;
        for (_, after) in images.iter().rev() {
            let rest = before.strip_suffix(after.as_bytes()).ok_or_else(Rejection::nonsense)?;
            before.truncate(rest.len());
        }
        let images = images.map(|(image, after)| (image, Bytes::from_static(after.as_bytes())));
        Ok(Body::new(DocumentBody::new(before.into(), images, hold)).into())
    }

    /// The same, with the header `ETag`.
    pub(crate) fn with_etag(self, etag: Option<HeaderValue>) -> Self {
        Self { etag, ..self }
    }
}

/// Room for the reply about most customers.
const USUAL: usize = 512;

fn text(body: &impl Serialize) -> Result<Vec<u8>, Rejection> {
    let mut text = Vec::with_capacity(USUAL);
    serde_json::to_writer(&mut text, body).map_err(|_| Rejection::nonsense())?;
    Ok(text)
}

impl From<Body> for Reply {
    fn from(body: Body) -> Self {
        Self { body, etag: None }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.body);
        if let Some(etag) = self.etag {
            response.headers_mut().insert(ETAG, etag);
        }
        response
    }
}

/// Makes the response to the request of that name, whatever became of it.
pub(crate) fn finish(answer: Result<Reply, Rejection>, request_id: &RequestId) -> Response {
    if let Err(rejection) = &answer {
        rejection.log(request_id);
    }
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, request_id.header());
    response
}
