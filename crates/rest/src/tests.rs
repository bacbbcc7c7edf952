//! What the face does, seen from its two sides: legacy bodies go in, calls come out at the service.

mod bodies;
mod customers;
mod documents;
mod endpoint;
mod large;
mod replies;
mod strict_json;
mod support;
mod terms;
mod tolerated;
