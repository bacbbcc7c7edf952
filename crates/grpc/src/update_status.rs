//! `UpdateStatus`: sets the status of a customer.

use proto::{
    Refusal,
    v1::{UpdateStatusRequest, UpdateStatusResponse},
};
use store::{Change, Condition, EmailKey, IdempotencyKey, Scope, Status};
use tonic::{Request, Response};

use crate::{
    Service,
    convert::{self, require},
};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    email: EmailKey,
    status: Status,
    condition: Condition,
    reason: Option<String>,
    key: Option<IdempotencyKey>,
}

pub(crate) async fn answer(
    service: &Service,
    request: Request<UpdateStatusRequest>,
) -> Result<Response<UpdateStatusResponse>, tonic::Status> {
    let call = service.begin(&request)?;
    let input = check(request.get_ref());
    let customer = service
        .perform(&call, Scope::Write, input, |actor, wanted| {
            let change = Change {
                principal: actor.principal,
                email: wanted.email,
                status: wanted.status,
                condition: wanted.condition,
                reason: wanted.reason,
                key: wanted.key,
                origin: call.origin(actor),
            };
            service.store.set_status(change, call.deadline)
        })
        .await?;
    Ok(Response::new(UpdateStatusResponse {
        customer: Some(convert::customer(customer)),
    }))
}

pub(crate) fn check(request: &UpdateStatusRequest) -> Result<Wanted, Refusal> {
    require(&[
        ("email", request.email.trim().is_empty()),
        ("status", request.status == 0),
    ])?;
    let expected = Some(request.expected_status).filter(|number| *number != 0);
    Ok(Wanted {
        email: convert::email_key(&request.email)?,
        status: convert::status(request.status, "status")?,
        condition: Condition {
            etag: convert::etag(&request.etag)?,
            status: expected
                .map(|number| convert::status(number, "expected_status"))
                .transpose()?,
        },
        reason: convert::reason_given(&request.reason)?,
        key: convert::idempotency_key(&request.idempotency_key)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::Reason;

    use super::*;

    fn request() -> UpdateStatusRequest {
        UpdateStatusRequest {
            email: "test@veratad.com".to_owned(),
            status: 1,
            ..UpdateStatusRequest::default()
        }
    }

    #[test]
    fn a_change_depends_on_nothing_unless_it_says_so() {
        let wanted = check(&request()).unwrap();
        assert_eq!(wanted.condition, Condition::default());
        assert_eq!((wanted.reason, wanted.key), (None, None));
    }

    #[test]
    fn the_terms_of_a_change_are_read() {
        let wanted = check(&UpdateStatusRequest {
            etag: "0f8fad5b-1".to_owned(),
            expected_status: 3,
            reason: " by hand ".to_owned(),
            idempotency_key: "order-7".to_owned(),
            ..request()
        });
        let wanted = wanted.unwrap();
        assert_eq!(
            wanted.condition,
            Condition {
                etag: Some("0f8fad5b-1".to_owned()),
                status: Some(Status::Fail),
            }
        );
        assert_eq!(wanted.reason.as_deref(), Some("by hand"));
        assert_eq!(wanted.key, Some("order-7".parse().unwrap()));
    }

    #[test]
    fn what_is_expected_must_be_a_status() {
        for number in [4, -1, i32::MAX] {
            let refusal = check(&UpdateStatusRequest {
                expected_status: number,
                ..request()
            });
            let expected = Refusal::fields(Reason::InvalidStatus, ["expected_status"]);
            assert_eq!(refusal, Err(expected), "{number}");
        }
    }
}
