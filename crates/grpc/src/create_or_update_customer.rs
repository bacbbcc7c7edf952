//! `CreateOrUpdateCustomer`: registers a customer, or changes the one that is there.

use proto::{
    Reason, Refusal,
    v1::{CreateOrUpdateCustomerRequest, CreateOrUpdateCustomerResponse},
};
use store::{Documents, Email, Field, IdempotencyKey, InvalidField, NewCustomer, Profile, Put, Scope, Scopes};
use tonic::{Request, Response, Status};

use crate::{
    Service,
    budget::Taken,
    convert::{self, require},
};

/// What is asked for.
#[derive(Clone)]
pub(crate) struct Wanted {
    new: NewCustomer,
    etag: Option<String>,
    key: Option<IdempotencyKey>,
}

impl Wanted {
    /// What a token needs for it.
    fn scopes(&self) -> Scopes {
        let NewCustomer { documents, cleared, .. } = &self.new;
        let has_images = *documents != Documents::default();
        match has_images || cleared.contains(&Field::Front) || cleared.contains(&Field::Back) {
            true => [Scope::Write, Scope::Documents].into_iter().collect(),
            false => Scope::Write.into(),
        }
    }
}

pub(crate) async fn answer(
    service: &Service,
    request: Request<CreateOrUpdateCustomerRequest>,
) -> Result<Response<CreateOrUpdateCustomerResponse>, Status> {
    let call = service.begin(&request)?;
    let taken = request.extensions().get::<Taken>().cloned().ok_or(Reason::Internal)?;
    let input = check(request.into_inner(), service.document_limit);
    let scopes = input.as_ref().map_or(Scope::Write.into(), Wanted::scopes);
    let registered = service
        .perform(&call, scopes, input, |actor, wanted| {
            let put = Put {
                principal: actor.principal,
                new: wanted.new,
                etag: wanted.etag,
                key: wanted.key,
                origin: call.origin(actor),
                hold: taken.hold(),
            };
            service.store.put_customer(put, call.deadline)
        })
        .await?;
    Ok(Response::new(CreateOrUpdateCustomerResponse {
        customer_link: service.customer_link.to(&registered.customer.public_id),
        customer: Some(convert::customer(registered.customer)),
        created: registered.created,
    }))
}

pub(crate) fn check(request: CreateOrUpdateCustomerRequest, document_limit: usize) -> Result<Wanted, Refusal> {
    require(&[("email", request.email.trim().is_empty())])?;
    let (etag, key) = (
        convert::etag(&request.etag),
        convert::idempotency_key(&request.idempotency_key),
    );
    let email = Email::parse(&request.email).map_err(|_| Refusal::fields(Reason::InvalidEmail, ["email"]))?;
    let text = |text: String| text.trim().to_owned();
    let images = request.documents.unwrap_or_default();
    let mut new = NewCustomer {
        email,
        reference: text(request.reference),
        profile: Profile {
            email: String::new(),
            first_name: text(request.first_name),
            last_name: text(request.last_name),
            address: text(request.address),
            city: text(request.city),
            state: text(request.state),
            zip: text(request.zip),
            date_of_birth: text(request.date_of_birth),
            phone: text(request.phone),
        },
        documents: Documents {
            front: images.front,
            back: images.back,
        },
        status: None,
        cleared: Vec::new(),
    };
    // First of all: what it does not name is not looked at.
    if let Some(mask) = request.field_mask.filter(|mask| !mask.paths.is_empty()) {
        new.restrict(&fields(&mask.paths)?);
    }
    store::check(&new.profile, &new.reference)
        .and_then(|()| store::check_documents(&new.documents, document_limit))
        .map_err(|InvalidField(field)| Refusal::fields(Reason::InvalidField, [field.name()]))?;
    // What the customer is made of is judged first.
    Ok(Wanted {
        new,
        etag: etag?,
        key: key?,
    })
}

/// The fields that a mask names.
fn fields(paths: &[String]) -> Result<Vec<Field>, Refusal> {
    let mut fields = Vec::with_capacity(paths.len());
    for path in paths {
        match Field::ALL.into_iter().find(|field| field.name() == path) {
            Some(field) => fields.push(field),
            None if path == "documents" => fields.extend([Field::Front, Field::Back]),
            None => return Err(Refusal::fields(Reason::InvalidField, ["field_mask"])),
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn checked(etag: &str, idempotency_key: &str) -> Result<Wanted, Refusal> {
        let request = CreateOrUpdateCustomerRequest {
            email: "jane@example.com".to_owned(),
            etag: etag.to_owned(),
            idempotency_key: idempotency_key.to_owned(),
            ..CreateOrUpdateCustomerRequest::default()
        };
        check(request, 1)
    }

    #[test]
    fn the_terms_of_a_change_are_read_and_judged() {
        let wanted = checked("", "").unwrap();
        assert_eq!((wanted.etag, wanted.key), (None, None));
        let wanted = checked("0f8fad5b-1", "order-7").unwrap();
        assert_eq!(wanted.etag.as_deref(), Some("0f8fad5b-1"));
        assert_eq!(wanted.key, Some("order-7".parse().unwrap()));
        for (etag, key, field) in [(&*"x".repeat(65), "", "etag"), ("", "a b", "idempotency_key")] {
            let refusal = checked(etag, key).err().unwrap();
            assert_eq!(refusal, Refusal::fields(Reason::InvalidField, [field]));
        }
    }
}
