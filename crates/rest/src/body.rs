//! Takes a body off the wire: whole, in time, within the limit, and inflated.

use std::io::Read;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use proto::Reason;
use tokio::time::timeout;

use crate::Settings;

/// How a body is encoded.
#[derive(Clone, Copy)]
enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Reason> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let encoding = match values.next().map(|value| value.as_bytes().trim_ascii()) {
            None | Some(b"") => Self::Identity,
            Some(value) if value.eq_ignore_ascii_case(b"identity") => Self::Identity,
            Some(value) if value.eq_ignore_ascii_case(b"gzip") => Self::Gzip,
            Some(_) => return Err(Reason::UnsupportedEncoding),
        };
        // A second encoding lies over the first.
        match values.next() {
            None => Ok(encoding),
            Some(_) => Err(Reason::UnsupportedEncoding),
        }
    }
}

/// Reads the body that belongs to `headers`.
pub(crate) async fn read(headers: &HeaderMap, body: Body, settings: &Settings) -> Result<Bytes, Reason> {
    let limit = settings.body_limit;
    let encoding = Encoding::of(headers)?;
    // The size that Content-Length declares: too much is refused before a byte of it is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(Reason::BodyTooLarge);
    }
    let bytes = timeout(settings.body_timeout, collect(body, limit))
        .await
        .map_err(|_| Reason::BodyTimeout)??;
    match encoding {
        Encoding::Identity => Ok(bytes),
        Encoding::Gzip => inflate(&bytes, limit),
    }
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, Reason> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Reason::BodyTooLarge),
        // The client went away in the middle, or broke the framing.
        Err(_) => Err(Reason::MalformedBody),
    }
}

fn inflate(bytes: &[u8], limit: usize) -> Result<Bytes, Reason> {
    // One byte more than the limit tells "over the limit" from "just full", and a bomb goes no further.
    let allowed = (limit as u64).saturating_add(1);
    let mut inflated = Vec::new();
    MultiGzDecoder::new(bytes)
        .take(allowed)
        .read_to_end(&mut inflated)
        .map_err(|_| Reason::MalformedBody)?;
    if inflated.len() > limit {
        return Err(Reason::BodyTooLarge);
    }
    Ok(inflated.into())
}
