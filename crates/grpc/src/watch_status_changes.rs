//! `WatchStatusChanges`.

use std::pin::Pin;

use proto::v1::{WatchStatusChangesRequest, WatchStatusChangesResponse};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::Service;

/// The answers of a call.
pub(crate) type Answers = Pin<Box<dyn Stream<Item = Result<WatchStatusChangesResponse, Status>> + Send>>;

pub(crate) async fn answer(
    _service: &Service,
    _request: Request<WatchStatusChangesRequest>,
) -> Result<Response<Answers>, Status> {
    Err(Status::unimplemented("not yet"))
}
