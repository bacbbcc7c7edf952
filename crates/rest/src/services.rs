//! The services of the endpoint, one file each: take apart, call, put together.

mod get_status;
mod update_status;

use proto::Reason;

use crate::{call::Call, legacy::LegacyRequest, rejection::Rejection, reply::Reply, tolerances::Tolerances};

/// What `result` says in every reply that is no error.
const SUCCESS: &str = "Success";

/// Hands `request` to the service it names.
pub(crate) async fn serve(
    call: &Call<'_>,
    request: &LegacyRequest<'_>,
    tolerances: &Tolerances,
) -> Result<Reply, Rejection> {
    match request.service() {
        "updateStatus" => update_status::serve(call, request, tolerances).await,
        "getStatus" => get_status::serve(call, request, tolerances).await,
        _ => call.admit(Err(Reason::UnknownService.into())).await,
    }
}
