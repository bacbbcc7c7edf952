//! What the service says of a call before it looks anything up, for whoever wants to know without a store.

use proto::{
    Reason, Refusal,
    v1::{CreateOrUpdateCustomerRequest, GetDocumentImagesRequest, GetStatusRequest, UpdateStatusRequest},
};
use tonic::Request;

use crate::{access, convert, create_or_update_customer, update_status};

/// A message that can be refused for what it holds.
pub trait Judged {
    /// Judges it as the service does once the credentials hold; an image may have `document_limit` bytes.
    ///
    /// # Errors
    /// The refusal that the service would answer with.
    fn judge(&self, document_limit: usize) -> Result<(), Refusal>;
}

impl Judged for UpdateStatusRequest {
    fn judge(&self, _: usize) -> Result<(), Refusal> {
        update_status::check(self).map(drop)
    }
}

impl Judged for GetStatusRequest {
    fn judge(&self, _: usize) -> Result<(), Refusal> {
        convert::customer_key(&self.email).map(drop)
    }
}

impl Judged for CreateOrUpdateCustomerRequest {
    fn judge(&self, document_limit: usize) -> Result<(), Refusal> {
        create_or_update_customer::check(self.clone(), document_limit).map(drop)
    }
}

impl Judged for GetDocumentImagesRequest {
    fn judge(&self, _: usize) -> Result<(), Refusal> {
        convert::customer_key(&self.email).map(drop)
    }
}

/// The user of a call with `authorization: Basic`.
///
/// # Errors
/// When its credentials can be those of no account.
pub fn user<T>(request: &Request<T>) -> Result<String, Refusal> {
    let user = access::user(request).ok_or(Reason::BadCredentials)?;
    Ok(user.as_str().to_owned())
}
