//! One type of client for a service in this process and for one across a network.

use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service, StdError},
};
use tower::{ServiceExt, util::BoxCloneSyncService};

use crate::{Reason, v1::storage_service_client::StorageServiceClient};

/// A client of the storage service, near or far.
pub type Client = StorageServiceClient<Transport>;

/// What carries a call: a server in this process, or a channel to another.
pub type Transport = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// The most bytes of an answer: two images of a server that is set to three times the usual size, with all else. What bounds
/// an answer is the server; this keeps one that has lost its senses from filling the memory.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// A client that sends its calls over `transport`.
pub fn client<S>(transport: S) -> Client
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<StdError>,
    S::Future: Send,
{
    Client::new(BoxCloneSyncService::new(transport.map_err(|error| lost(error.into()))))
        .max_decoding_message_size(ANSWER_LIMIT)
}

/// What it means that a transport failed: whoever is at its other end is not there, or went away before the answer. tonic
/// would call the second an unknown error, and so it is: a write may have been made. It is said as of a call that took too
/// long, since "unavailable" means that nothing was done.
fn lost(error: StdError) -> Status {
    match Status::from_error(error) {
        status if status.code() == Code::Unknown => Reason::DeadlineExceeded.into(),
        status => status,
    }
}
