//! `GetDocumentImages`: reads a customer with the images of its documents.

use std::time::Instant;

use proto::{
    Hold,
    v1::{Documents, GetDocumentImagesRequest, GetDocumentImagesResponse},
};
use store::{Customer, EmailKey, Principal, Scope, Store};
use tonic::{Request, Response, Status};

use crate::{Service, convert};

pub(crate) async fn answer(
    service: &Service,
    request: Request<GetDocumentImagesRequest>,
) -> Result<Response<GetDocumentImagesResponse>, Status> {
    let call = service.begin(&request)?;
    let input = convert::customer_key(&request.get_ref().email);
    let bytes = service
        .perform(&call, Scope::Documents, input.clone(), |actor, email| {
            service.store.document_bytes(actor.principal, email, call.deadline)
        })
        .await?;
    let hold = service.budget.take(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    let (customer, documents) = service
        .perform(&call, Scope::Documents, input, |actor, email| {
            read(
                service.store.clone(),
                actor.principal,
                email,
                call.deadline,
                hold.clone(),
            )
        })
        .await?;
    let mut response = Response::new(GetDocumentImagesResponse {
        customer: Some(convert::customer(customer)),
        documents: Some(Documents {
            front: documents.front,
            back: documents.back,
        }),
    });
    // The edge keeps it for the network until all was sent, and the facade in this process takes it from here.
    response.extensions_mut().insert(hold);
    Ok(response)
}

/// Reads the images. A read does not end when its caller goes away, and holds what was taken until then.
async fn read(
    store: Store,
    principal: Principal,
    email: EmailKey,
    deadline: Instant,
    hold: Hold,
) -> store::Result<(Customer, store::Documents)> {
    let reading = tokio::spawn(async move {
        let read = store.documents(principal, email, deadline).await;
        drop(hold);
        read
    });
    reading.await.unwrap_or_else(|error| {
        Err(store::Error::Internal(format!(
            "a read ended without an answer: {error}"
        )))
    })
}
