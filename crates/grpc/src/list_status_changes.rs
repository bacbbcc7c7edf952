//! `ListStatusChanges`.

use proto::v1::{ListStatusChangesRequest, ListStatusChangesResponse};
use tonic::{Request, Response, Status};

use crate::Service;

pub(crate) async fn answer(
    _service: &Service,
    _request: Request<ListStatusChangesRequest>,
) -> Result<Response<ListStatusChangesResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
