//! `EraseCustomer`: erases a customer, and keeps the history of its status.

use proto::v1::{EraseCustomerRequest, EraseCustomerResponse};
use store::Erase;
use tonic::{Request, Response, Status};

use crate::{Service, access::Call, convert};

pub(crate) async fn answer(
    service: &Service,
    request: Request<EraseCustomerRequest>,
) -> Result<Response<EraseCustomerResponse>, Status> {
    let call = Call::of(&request)?;
    let input = convert::customer_key(&request.get_ref().email);
    let erasure = service
        .perform(&call, input, |principal, email| {
            let erase = Erase {
                principal,
                email,
                key: None,
                origin: call.origin(),
            };
            service.store.erase_customer(erase, call.deadline)
        })
        .await?;
    Ok(Response::new(EraseCustomerResponse {
        customer_id: erasure.public_id,
        erase_time: Some(erasure.time.into()),
        status_changes: i64::try_from(erasure.status_changes).unwrap_or(i64::MAX),
    }))
}
