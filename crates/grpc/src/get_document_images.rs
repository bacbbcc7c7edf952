//! `GetDocumentImages`: reads a customer with the images of its documents.

use proto::v1::{Documents, GetDocumentImagesRequest, GetDocumentImagesResponse};
use tonic::{Request, Response, Status};

use crate::{Service, access::Call, convert};

pub(crate) async fn answer(
    service: &Service,
    request: Request<GetDocumentImagesRequest>,
) -> Result<Response<GetDocumentImagesResponse>, Status> {
    let call = Call::of(&request)?;
    let input = convert::customer_key(&request.get_ref().email);
    let (customer, documents) = service
        .perform(&call, input, |principal, email| {
            service.store.documents(principal, email, call.deadline)
        })
        .await?;
    Ok(Response::new(GetDocumentImagesResponse {
        customer: Some(convert::customer(customer)),
        documents: Some(Documents {
            front: documents.front,
            back: documents.back,
        }),
    }))
}
