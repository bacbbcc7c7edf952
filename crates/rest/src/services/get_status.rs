//! `getStatus`: reads the status of a customer. It never writes, also when a status comes with it.

use proto::{
    Client, Reason, Refusal,
    v1::{GetStatusRequest, GetStatusResponse},
};
use serde::Serialize;

use super::SUCCESS;
use crate::{
    call::Call,
    customer::{Found, Target},
    legacy::LegacyRequest,
    rejection::Rejection,
    reply::Reply,
    tolerances::Needed,
};

pub(super) async fn serve(call: &Call<'_>, message: GetStatusRequest) -> Result<Reply, Rejection> {
    let answer = call.make(message, Client::get_status).await?;
    put_together(answer.into_inner())
}

pub(super) fn take_apart(request: &LegacyRequest<'_>, needed: &Needed) -> Result<GetStatusRequest, Refusal> {
    let inputs = request.inputs(needed)?;
    inputs.ignore_status();
    let email = inputs.email()?;
    Ok(GetStatusRequest {
        email: email.trimmed().ok_or(Reason::InvalidEmail)?.to_owned(),
    })
}

fn put_together(answer: GetStatusResponse) -> Result<Reply, Rejection> {
    /// The order of the fields is the order of the keys.
    #[derive(Serialize)]
    struct Body<'a> {
        result: &'static str,
        reference: &'a str,
        status: &'static str,
        target: Target<'a>,
    }

    let found = Found::in_answer(answer.customer)?;
    let reply = Reply::json(&Body {
        result: SUCCESS,
        reference: found.reference(),
        status: found.status,
        target: found.target(),
    })?;
    Ok(reply.with_etag(found.etag()))
}
