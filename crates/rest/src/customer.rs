//! A customer as legacy clients see it.

use http::HeaderValue;
use proto::v1;
use serde::Serialize;

use crate::{rejection::Rejection, status};

/// What a reply is made from: the customer of an answer, with its status in words.
pub(crate) struct Found {
    customer: v1::Customer,
    /// The word for the customer's status.
    pub(crate) status: &'static str,
}

impl Found {
    /// The customer in an answer; an answer without one, or with one that has no status, is a defect of the service.
    pub(crate) fn in_answer(customer: Option<v1::Customer>) -> Result<Self, Rejection> {
        let customer = customer.ok_or_else(Rejection::nonsense)?;
        let status = status::word(customer.status()).ok_or_else(Rejection::nonsense)?;
        Ok(Self { customer, status })
    }

    /// The account's own reference.
    pub(crate) fn reference(&self) -> &str {
        &self.customer.reference
    }

    /// The customer's etag, as a strong one of RFC 9110; none where the service sent none that can be one.
    pub(crate) fn etag(&self) -> Option<HeaderValue> {
        let etag = &self.customer.etag;
        let is_tag = !etag.is_empty() && etag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        let quoted = is_tag.then(|| HeaderValue::try_from(["\"", etag, "\""].concat()));
        quoted?.ok()
    }

    /// The object `target`, without the status.
    pub(crate) fn target(&self) -> Target<'_> {
        let customer = &self.customer;
        Target {
            first_name: &customer.first_name,
            last_name: &customer.last_name,
            address: &customer.address,
            city: &customer.city,
            state: &customer.state,
            zip: &customer.zip,
            date_of_birth: &customer.date_of_birth,
            email: &customer.email,
            phone: &customer.phone,
            status: None,
        }
    }

    /// The object `target` with the status inside.
    pub(crate) fn target_with_status(&self) -> Target<'_> {
        Target {
            status: Some(self.status),
            ..self.target()
        }
    }
}

/// The object `target` of a reply; the order of the fields is the order of the keys.
#[derive(Serialize)]
pub(crate) struct Target<'a> {
    #[serde(rename = "fn")]
    first_name: &'a str,
    #[serde(rename = "ln")]
    last_name: &'a str,
    #[serde(rename = "addr")]
    address: &'a str,
    city: &'a str,
    state: &'a str,
    zip: &'a str,
    #[serde(rename = "dob")]
    date_of_birth: &'a str,
    email: &'a str,
    phone: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

/// The legacy key, or the header, of a field of the contract.
pub(crate) fn legacy_key(field: &str) -> &str {
    match field {
        "first_name" => "fn",
        "last_name" => "ln",
        "address" => "addr",
        "date_of_birth" => "dob",
        "documents.front" => "front",
        "documents.back" => "back",
        "etag" => "If-Match",
        "idempotency_key" => "Idempotency-Key",
        same => same,
    }
}
