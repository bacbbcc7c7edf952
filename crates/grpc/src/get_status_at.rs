//! `GetStatusAt`: tells which status a customer had at a time.

use std::time::SystemTime;

use proto::{
    Reason, Refusal,
    v1::{GetStatusAtRequest, GetStatusAtResponse},
};
use store::{EmailKey, Scope};
use tonic::{Request, Response, Status};

use crate::{
    Service,
    convert::{self, require},
};

pub(crate) async fn answer(
    service: &Service,
    request: Request<GetStatusAtRequest>,
) -> Result<Response<GetStatusAtResponse>, Status> {
    let call = service.begin(&request)?;
    let input = check(request.into_inner());
    let (item, account) = service
        .perform(&call, Scope::Read, input, async |actor, (email, time)| {
            let item = service.store.status_at(actor.principal, email, time, call.deadline);
            Ok((item.await?, actor.account().to_owned()))
        })
        .await?;
    Ok(Response::new(GetStatusAtResponse {
        status: convert::status_of(item.change.to).into(),
        change: Some(convert::feed_item(item, &account)),
    }))
}

fn check(request: GetStatusAtRequest) -> Result<(EmailKey, SystemTime), Refusal> {
    require(&[
        ("email", request.email.trim().is_empty()),
        ("time", request.time.is_none()),
    ])?;
    let email = convert::email_key(&request.email)?;
    let time = request.time.ok_or(Reason::MissingInput)?;
    Ok((email, convert::time(time, "time")?))
}
