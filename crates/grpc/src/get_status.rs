//! `GetStatus`: reads a customer and its status.

use proto::v1::{GetStatusRequest, GetStatusResponse};
use store::Scope;
use tonic::{Request, Response, Status};

use crate::{Service, convert};

pub(crate) async fn answer(
    service: &Service,
    request: Request<GetStatusRequest>,
) -> Result<Response<GetStatusResponse>, Status> {
    let call = service.begin(&request)?;
    let input = convert::customer_key(&request.get_ref().email);
    let customer = service
        .perform(&call, Scope::Read, input, |actor, email| {
            service.store.customer(actor.principal, email, call.deadline)
        })
        .await?;
    Ok(Response::new(GetStatusResponse {
        customer: Some(convert::customer(customer)),
    }))
}
