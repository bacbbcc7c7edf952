//! `getDocumentImages`: reads a customer with the images of its documents.

use proto::{
    Client, Hold, Reason, Refusal,
    v1::{GetDocumentImagesRequest, GetDocumentImagesResponse},
};
use serde::Serialize;
use tonic::Response;

use super::SUCCESS;
use crate::{
    call::Call,
    customer::{Found, Target},
    legacy::LegacyRequest,
    rejection::Rejection,
    reply::Reply,
    tolerances::Needed,
};

pub(super) async fn serve(call: &Call<'_>, message: GetDocumentImagesRequest) -> Result<Reply, Rejection> {
    let answer = call.make(message, Client::get_document_images).await?;
    let hold = held(&answer, call)?;
    put_together(answer.into_inner(), hold)
}

pub(super) fn take_apart(request: &LegacyRequest<'_>, needed: &Needed) -> Result<GetDocumentImagesRequest, Refusal> {
    let inputs = request.inputs(needed)?;
    let email = inputs.email()?;
    Ok(GetDocumentImagesRequest {
        email: email.trimmed().ok_or(Reason::InvalidEmail)?.to_owned(),
    })
}

/// What the images have taken of the budget: a service in this process has counted them, one elsewhere could not.
fn held(answer: &Response<GetDocumentImagesResponse>, call: &Call<'_>) -> Result<Hold, Reason> {
    if let Some(hold) = answer.extensions().get::<Hold>() {
        return Ok(hold.clone());
    }
    let documents = answer.get_ref().documents.as_ref();
    let length = documents.map_or(0, |documents| {
        documents.front.len().saturating_add(documents.back.len())
    });
    call.budget.take(length)
}

fn put_together(answer: GetDocumentImagesResponse, hold: Hold) -> Result<Reply, Rejection> {
    /// The order of the fields is the order of the keys. What stands after the images is [`BETWEEN`] and [`AFTER`].
    #[derive(Serialize)]
    struct Body<'a> {
        result: &'static str,
        reference: &'a str,
        status: &'static str,
        target: WithDocuments<'a>,
    }

    #[derive(Serialize)]
    struct WithDocuments<'a> {
        #[serde(flatten)]
        target: Target<'a>,
        documents: Documents,
    }

    /// The places of the images, which are written into them while the reply is sent.
    #[derive(Default, Serialize)]
    struct Documents {
        front: &'static str,
        back: &'static str,
    }

    let found = Found::in_answer(answer.customer)?;
    let images = answer.documents.unwrap_or_default();
    let reply = Reply::with_images(
        &Body {
            result: SUCCESS,
            reference: found.reference(),
            status: found.status,
            target: WithDocuments {
                target: found.target(),
                documents: Documents::default(),
            },
        },
        [(images.front, BETWEEN), (images.back, AFTER)],
        hold,
    )?;
    Ok(reply.with_etag(found.etag()))
}

/// What stands between the image of the front side and that of the back side.
const BETWEEN: &str = r#"","back":""#;

/// What stands after the image of the back side.
const AFTER: &str = r#""}}}"#;
