//! `GetStatusAt`.

use proto::v1::{GetStatusAtRequest, GetStatusAtResponse};
use tonic::{Request, Response, Status};

use crate::Service;

pub(crate) async fn answer(
    _service: &Service,
    _request: Request<GetStatusAtRequest>,
) -> Result<Response<GetStatusAtResponse>, Status> {
    Err(Status::unimplemented("not yet"))
}
