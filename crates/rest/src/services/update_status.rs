//! `updateStatus`: sets the status of a customer.

use proto::{
    Client, Reason, Refusal,
    v1::{UpdateStatusRequest, UpdateStatusResponse},
};
use serde::Serialize;

use super::SUCCESS;
use crate::{
    call::Call,
    customer::{Found, Target},
    legacy::LegacyRequest,
    rejection::Rejection,
    reply::Reply,
    status,
    terms::Terms,
    tolerances::Needed,
};

pub(super) async fn serve(call: &Call<'_>, message: UpdateStatusRequest) -> Result<Reply, Rejection> {
    let answer = call.make(message, Client::update_status).await?;
    put_together(answer.into_inner())
}

pub(super) fn take_apart(
    request: &LegacyRequest<'_>,
    terms: &Terms,
    needed: &Needed,
) -> Result<UpdateStatusRequest, Refusal> {
    let inputs = request.inputs(needed)?;
    // What is missing is said before what is wrong.
    let (email, status) = (inputs.email()?, inputs.status()?);
    Ok(UpdateStatusRequest {
        email: email.trimmed().ok_or(Reason::InvalidEmail)?.to_owned(),
        status: status::number(status, needed),
        etag: terms.etag()?,
        idempotency_key: terms.idempotency_key()?,
        ..UpdateStatusRequest::default()
    })
}

fn put_together(answer: UpdateStatusResponse) -> Result<Reply, Rejection> {
    /// The order of the fields is the order of the keys.
    #[derive(Serialize)]
    struct Body<'a> {
        result: &'static str,
        reference: &'a str,
        target: Target<'a>,
    }

    let found = Found::in_answer(answer.customer)?;
    let reply = Reply::json(&Body {
        result: SUCCESS,
        reference: found.reference(),
        target: found.target_with_status(),
    })?;
    Ok(reply.with_etag(found.etag()))
}
