//! What a call carries beside its message and its credentials.

use std::net::IpAddr;

/// Names the request in replies, logs and the history. A face makes one where the caller gave none.
pub const REQUEST_ID: &str = "x-request-id";

/// Names the face that a call came in over. The REST facade sets it to `rest`; without it a call came over gRPC.
pub const FACE: &str = "x-dcams-face";

/// Carries the client's address from a facade to a server elsewhere; believed only from trusted peers.
pub const FORWARDED_FOR: &str = "x-forwarded-for";

/// Extension of a request: the address of the client that sent it, as the listener has established it. It travels
/// with a call inside one process, and never over a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);
