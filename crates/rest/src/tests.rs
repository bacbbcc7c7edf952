//! What the face does, seen from its two sides: legacy bodies go in, calls come out at the service.

mod bodies;
mod endpoint;
mod replies;
mod strict_json;
mod support;
mod tolerated;
