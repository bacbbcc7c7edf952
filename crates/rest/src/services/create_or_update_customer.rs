//! `createOrUpdateCustomer`: registers a customer, or changes the one that is there. What comes empty keeps what is stored.

use proto::{
    Client, Reason, Refusal,
    v1::{CreateOrUpdateCustomerRequest, CreateOrUpdateCustomerResponse, Documents},
};
use serde::Serialize;

use super::SUCCESS;
use crate::{
    call::Call,
    customer::{Found, Target},
    legacy::{Images, LegacyRequest},
    rejection::Rejection,
    reply::Reply,
    terms::Terms,
    tolerances::Needed,
};

pub(super) async fn serve(call: &Call<'_>, message: CreateOrUpdateCustomerRequest) -> Result<Reply, Rejection> {
    let answer = call.make(message, Client::create_or_update_customer).await?;
    put_together(answer.into_inner())
}

pub(super) fn take_apart(
    request: &LegacyRequest<'_>,
    terms: &Terms,
    needed: &Needed,
) -> Result<CreateOrUpdateCustomerRequest, Refusal> {
    let inputs = request.inputs(needed)?;
    let email = inputs.email()?;
    let message = CreateOrUpdateCustomerRequest {
        email: email.trimmed().ok_or(Reason::InvalidEmail)?.to_owned(),
        first_name: inputs.attribute("fn", |target| &target.first_name)?,
        last_name: inputs.attribute("ln", |target| &target.last_name)?,
        address: inputs.attribute("addr", |target| &target.address)?,
        city: inputs.attribute("city", |target| &target.city)?,
        state: inputs.attribute("state", |target| &target.state)?,
        zip: inputs.attribute("zip", |target| &target.zip)?,
        date_of_birth: inputs.attribute("dob", |target| &target.date_of_birth)?,
        phone: inputs.attribute("phone", |target| &target.phone)?,
        reference: inputs.reference()?,
        documents: documents(inputs.images()?),
        // Without a mask the service keeps what comes empty.
        field_mask: None,
        etag: terms.etag_or_new()?,
        idempotency_key: terms.idempotency_key()?,
    };
    inputs.count_numbers();
    Ok(message)
}

fn documents(Images { front, back }: Images) -> Option<Documents> {
    let nothing = front.is_empty() && back.is_empty();
    (!nothing).then_some(Documents { front, back })
}

fn put_together(answer: CreateOrUpdateCustomerResponse) -> Result<Reply, Rejection> {
    /// The order of the fields is the order of the keys.
    #[derive(Serialize)]
    struct Body<'a> {
        result: &'static str,
        reference: &'a str,
        customer_link: &'a str,
        status: &'static str,
        #[serde(rename = "type")]
        kind: &'static str,
        target: Target<'a>,
    }

    let found = Found::in_answer(answer.customer)?;
    let reply = Reply::json(&Body {
        result: SUCCESS,
        reference: found.reference(),
        customer_link: &answer.customer_link,
        status: found.status,
        kind: if answer.created {
            "createCustomer"
        } else {
            "updateCustomer"
        },
        target: found.target(),
    })?;
    Ok(reply.with_etag(found.etag()))
}
