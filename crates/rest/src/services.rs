//! The services of the endpoint, one file each: take apart, call, put together.

mod create_or_update_customer;
mod get_document_images;
mod get_status;
mod update_status;

use proto::{
    Reason, Refusal,
    v1::{CreateOrUpdateCustomerRequest, GetDocumentImagesRequest, GetStatusRequest, UpdateStatusRequest},
};

use crate::{call::Call, legacy::LegacyRequest, rejection::Rejection, reply::Reply, terms::Terms, tolerances::Needed};

/// What `result` says in every reply that is no error.
const SUCCESS: &str = "Success";

/// All that there are.
pub(crate) const NAMES: [&str; 4] = ["updateStatus", "getStatus", WITH_DOCUMENTS, "getDocumentImages"];

/// The one service whose requests may be large.
const WITH_DOCUMENTS: &str = "createOrUpdateCustomer";

/// What a service is asked, with nothing in it of the body that it came in: that can be megabytes, and is dropped before
/// the call.
pub(crate) enum Question {
    UpdateStatus(UpdateStatusRequest),
    GetStatus(GetStatusRequest),
    CreateOrUpdateCustomer(Box<CreateOrUpdateCustomerRequest>),
    GetDocumentImages(GetDocumentImagesRequest),
}

impl Question {
    /// Whether it asks for a change.
    pub(crate) fn changes(&self) -> bool {
        matches!(self, Self::UpdateStatus(_) | Self::CreateOrUpdateCustomer(_))
    }
}

/// Those that change a customer.
const CHANGES: [&str; 2] = ["updateStatus", WITH_DOCUMENTS];

/// The service that a body, which was not taken apart, probably asks to change a customer. A body that spells it with escapes is
/// not seen, and one that has the name elsewhere is: it tells enough to refuse a request when there is no room for changes.
pub(crate) fn probable_change(body: &[u8]) -> Option<&'static str> {
    CHANGES.into_iter().find(|name| {
        body.windows(name.len() + 2)
            .any(|part| part.strip_prefix(b"\"").and_then(|part| part.strip_suffix(b"\"")) == Some(name.as_bytes()))
    })
}

/// Whether a request of `service` may be large.
pub(crate) fn takes_documents(service: &str) -> bool {
    service == WITH_DOCUMENTS
}

/// The service of that name, if there is one: what a client makes up is told nowhere.
pub(crate) fn known(service: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|name| *name == service)
}

/// Makes of `request` the question to the service that it names.
pub(crate) fn take_apart(request: &LegacyRequest<'_>, terms: &Terms, needed: &Needed) -> Result<Question, Refusal> {
    Ok(match request.service() {
        "updateStatus" => Question::UpdateStatus(update_status::take_apart(request, terms, needed)?),
        "getStatus" => Question::GetStatus(get_status::take_apart(request, needed)?),
        WITH_DOCUMENTS => {
            Question::CreateOrUpdateCustomer(create_or_update_customer::take_apart(request, terms, needed)?.into())
        }
        "getDocumentImages" => Question::GetDocumentImages(get_document_images::take_apart(request, needed)?),
        _ => return Err(Reason::UnknownService.into()),
    })
}

/// Calls the service with its question, or hands out why there is none.
pub(crate) async fn serve(call: &Call<'_>, question: Result<Question, Refusal>) -> Result<Reply, Rejection> {
    let question = match question {
        Ok(question) => question,
        Err(refusal) => return Err(Box::pin(call.refuse(refusal)).await),
    };
    match question {
        Question::UpdateStatus(message) => update_status::serve(call, message).await,
        Question::GetStatus(message) => get_status::serve(call, message).await,
        // Boxed, as every request has room for the largest call that it could become, and this one is twice the others.
        Question::CreateOrUpdateCustomer(message) => Box::pin(create_or_update_customer::serve(call, *message)).await,
        Question::GetDocumentImages(message) => get_document_images::serve(call, message).await,
    }
}
