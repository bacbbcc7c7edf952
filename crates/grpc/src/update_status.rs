//! `UpdateStatus`: sets the status of a customer.

use proto::{
    Refusal,
    v1::{UpdateStatusRequest, UpdateStatusResponse},
};
use store::{Change, EmailKey, Status};
use tonic::{Request, Response};

use crate::{
    Service,
    access::Call,
    convert::{self, require},
};

pub(crate) async fn answer(
    service: &Service,
    request: Request<UpdateStatusRequest>,
) -> Result<Response<UpdateStatusResponse>, tonic::Status> {
    let call = Call::of(&request)?;
    let input = check(request.get_ref());
    let customer = service
        .perform(&call, input, |principal, (email, status)| {
            let change = Change::new(principal, email, status, call.origin());
            service.store.set_status(change, call.deadline)
        })
        .await?;
    Ok(Response::new(UpdateStatusResponse {
        customer: Some(convert::customer(customer)),
    }))
}

fn check(request: &UpdateStatusRequest) -> Result<(EmailKey, Status), Refusal> {
    require(&[
        ("email", request.email.trim().is_empty()),
        ("status", request.status == 0),
    ])?;
    Ok((convert::email_key(&request.email)?, convert::status(request.status)?))
}
