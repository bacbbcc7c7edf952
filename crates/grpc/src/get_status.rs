//! `GetStatus`: reads a customer and its status.

use proto::{
    Refusal,
    v1::{GetStatusRequest, GetStatusResponse},
};
use store::EmailKey;
use tonic::{Request, Response, Status};

use crate::{
    Service,
    access::Call,
    convert::{self, require},
};

pub(crate) async fn answer(
    service: &Service,
    request: Request<GetStatusRequest>,
) -> Result<Response<GetStatusResponse>, Status> {
    let call = Call::of(&request)?;
    let input = check(request.get_ref());
    let customer = service
        .perform(&call, input, |principal, email| {
            service.store.customer(principal, email, call.deadline)
        })
        .await?;
    Ok(Response::new(GetStatusResponse {
        customer: Some(convert::customer(customer)),
    }))
}

fn check(request: &GetStatusRequest) -> Result<EmailKey, Refusal> {
    require(&[("email", request.email.trim().is_empty())])?;
    convert::email_key(&request.email)
}
