//! What a call carries beside its message and its credentials.

use std::net::IpAddr;

use uuid::Uuid;

/// Names the request in replies, logs and the history.
pub const REQUEST_ID: &str = "x-request-id";

/// Names the face that a call came in over. The REST facade sets it to `rest`; without it a call came over gRPC.
pub const FACE: &str = "x-dcams-face";

/// Carries the client's address from a facade to a server elsewhere; believed only from trusted peers.
pub const FORWARDED_FOR: &str = "x-forwarded-for";

/// In an answer to the REST facade: the credentials of the call were found to hold, whatever became of it. Only then is the
/// name of the account known to be one, and may be logged and counted.
pub const AUTHENTICATED: &str = "x-dcams-authenticated";

/// The most bytes of a user name, which holds no `:`.
pub const MAX_USER: usize = 128;

/// The most bytes of a password.
pub const MAX_PASSWORD: usize = 1_024;

/// Extension of a request: the address of the client that sent it, as the listener has established it. It travels
/// with a call inside one process, and never over a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

/// Extension of a request: it comes from the facade in this process, which logs it itself. It travels with a call inside one
/// process, and never over a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near;

/// The id of a request: the one that came with it, if that has 1 to 64 letters, digits, `.`, `_` or `-` (it will stand
/// in logs), else a new UUID, which sorts by time.
pub fn request_id(given: Option<&str>) -> String {
    let fits = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    given
        .filter(fits)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}
