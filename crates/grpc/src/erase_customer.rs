//! `EraseCustomer`: erases a customer, and keeps the history of its status.

use proto::{
    Refusal,
    v1::{EraseCustomerRequest, EraseCustomerResponse},
};
use store::{EmailKey, Erase, IdempotencyKey, Scope};
use tonic::{Request, Response, Status};

use crate::{Service, convert};

pub(crate) async fn answer(
    service: &Service,
    request: Request<EraseCustomerRequest>,
) -> Result<Response<EraseCustomerResponse>, Status> {
    let call = service.begin(&request)?;
    let input = check(request.get_ref());
    let erasure = service
        .perform(&call, Scope::Admin, input, |actor, (email, key)| {
            let erase = Erase {
                principal: actor.principal,
                email,
                key,
                origin: call.origin(actor),
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

fn check(request: &EraseCustomerRequest) -> Result<(EmailKey, Option<IdempotencyKey>), Refusal> {
    let email = convert::customer_key(&request.email)?;
    Ok((email, convert::idempotency_key(&request.idempotency_key)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::Reason;

    use super::*;

    #[test]
    fn the_key_is_read_and_judged_after_the_email() {
        let checked = |email: &str, key: &str| {
            check(&EraseCustomerRequest {
                email: email.to_owned(),
                idempotency_key: key.to_owned(),
            })
        };
        assert_eq!(checked("jane@example.com", "").unwrap().1, None);
        let (_, key) = checked("jane@example.com", "order-7").unwrap();
        assert_eq!(key, Some("order-7".parse().unwrap()));
        let refused = Refusal::fields(Reason::InvalidField, ["idempotency_key"]);
        assert_eq!(checked("jane@example.com", "a b"), Err(refused));
        assert_eq!(checked("jane", "a b").unwrap_err().reason, Reason::InvalidEmail);
    }
}
