//! The store's types and the contract's, both ways; the one place where a store's error becomes a reason.

use std::time::SystemTime;

use prost_types::Timestamp;
use proto::{Reason, Refusal, v1};
use store::{Change, Customer, Email, EmailKey, Error, Face, FeedItem, IdempotencyKey, StatusChange};

/// The most characters of an etag that a request has; those of customers are shorter.
const ETAG: usize = 64;

/// Refuses a request that lacks inputs: pairs of a field and whether it is missing.
pub(crate) fn require(inputs: &[(&str, bool)]) -> Result<(), Refusal> {
    let missing: Vec<_> = inputs
        .iter()
        .filter(|(_, missing)| *missing)
        .map(|(field, _)| *field)
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Refusal::fields(Reason::MissingInput, missing))
    }
}

/// The customer that a request names, and nothing else.
pub(crate) fn customer_key(email: &str) -> Result<EmailKey, Refusal> {
    require(&[("email", email.trim().is_empty())])?;
    email_key(email)
}

pub(crate) fn email_key(text: &str) -> Result<EmailKey, Refusal> {
    match Email::parse(text) {
        Ok(email) => Ok(email.key().clone()),
        Err(_) => Err(Refusal::fields(Reason::InvalidEmail, ["email"])),
    }
}

/// The status in a field of that name.
pub(crate) fn status(number: i32, field: &str) -> Result<store::Status, Refusal> {
    match v1::Status::try_from(number) {
        Ok(v1::Status::Pass) => Ok(store::Status::Pass),
        Ok(v1::Status::Pending) => Ok(store::Status::Pending),
        Ok(v1::Status::Fail) => Ok(store::Status::Fail),
        Ok(v1::Status::Unspecified) | Err(_) => Err(Refusal::fields(Reason::InvalidStatus, [field])),
    }
}

/// The etag that a customer must have. What no customer has for one is no fault: it is a condition that does not hold.
pub(crate) fn etag(text: &str) -> Result<Option<String>, Refusal> {
    if text.chars().count() > ETAG {
        return Err(Refusal::fields(Reason::InvalidField, ["etag"]));
    }
    Ok(given(text).map(str::to_owned))
}

/// Why a status is changed.
pub(crate) fn reason_given(text: &str) -> Result<Option<String>, Refusal> {
    let text = text.trim();
    if text.chars().count() > Change::REASON || text.chars().any(char::is_control) {
        return Err(Refusal::fields(Reason::InvalidField, ["reason"]));
    }
    Ok(given(text).map(str::to_owned))
}

/// What the caller calls a change.
pub(crate) fn idempotency_key(text: &str) -> Result<Option<IdempotencyKey>, Refusal> {
    let key = given(text).map(str::parse).transpose();
    key.map_err(|_| Refusal::fields(Reason::InvalidField, ["idempotency_key"]))
}

/// A text that is empty was not given.
fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

pub(crate) fn status_of(status: store::Status) -> v1::Status {
    match status {
        store::Status::Pass => v1::Status::Pass,
        store::Status::Pending => v1::Status::Pending,
        store::Status::Fail => v1::Status::Fail,
    }
}

/// A row of the history. `customer` is the customer as it is now; none once it is erased.
pub(crate) fn status_change(change: StatusChange, customer: Option<&Customer>, account: &str) -> v1::StatusChange {
    v1::StatusChange {
        sequence: change.place.position,
        customer_id: change.customer_id,
        email: customer
            .map(|customer| customer.profile.email.clone())
            .unwrap_or_default(),
        reference: customer.map(|customer| customer.reference.clone()).unwrap_or_default(),
        from_status: change.from.map_or(v1::Status::Unspecified, status_of).into(),
        to_status: status_of(change.to).into(),
        version: change.version,
        account: account.to_owned(),
        actor: change.origin.actor,
        face: match change.origin.face {
            Face::Rest => v1::Face::Rest,
            Face::Grpc => v1::Face::Grpc,
            Face::Cli => v1::Face::Cli,
        }
        .into(),
        request_id: change.origin.request_id,
        change_time: Some(change.time.into()),
        reason: change.reason.unwrap_or_default(),
        erased: change.erased,
    }
}

/// A change, and its customer as it is now.
pub(crate) fn feed_item(item: FeedItem, account: &str) -> v1::StatusChange {
    status_change(item.change, item.customer.as_ref(), account)
}

pub(crate) fn customer(customer: Customer) -> v1::Customer {
    let etag = customer.etag();
    let profile = customer.profile;
    v1::Customer {
        email: profile.email,
        first_name: profile.first_name,
        last_name: profile.last_name,
        address: profile.address,
        city: profile.city,
        state: profile.state,
        zip: profile.zip,
        date_of_birth: profile.date_of_birth,
        phone: profile.phone,
        reference: customer.reference,
        status: status_of(customer.status).into(),
        etag,
        create_time: Some(customer.create_time.into()),
        update_time: Some(customer.update_time.into()),
    }
}

/// How a request is refused when the store says this.
pub(crate) fn refusal(error: Error, request_id: &str) -> Refusal {
    match error {
        Error::InvalidPageToken => Refusal::fields(Reason::InvalidField, ["page_token"]),
        Error::InvalidCursor => Refusal::fields(Reason::InvalidField, ["cursor"]),
        other => reason(other, request_id).into(),
    }
}

/// A time of a request, in the field with this name.
pub(crate) fn time(time: Timestamp, field: &str) -> Result<SystemTime, Refusal> {
    // From the year 1 to 9999, as the type says of itself; to convert it would take others as well.
    let is_one =
        (-62_135_596_800..=253_402_300_799).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    Some(time)
        .filter(|_| is_one)
        .and_then(|time| SystemTime::try_from(time).ok())
        .ok_or_else(|| Refusal::fields(Reason::InvalidField, [field]))
}

/// Why a request is refused when the store says this. A cause that an operator must know of is logged here, once.
pub(crate) fn reason(error: Error, request_id: &str) -> Reason {
    match error {
        Error::CustomerNotFound => Reason::CustomerNotFound,
        Error::StaleCredentials | Error::AccountNotFound => Reason::BadCredentials,
        Error::Full => Reason::Overloaded,
        Error::Expired => Reason::DeadlineExceeded,
        Error::Conflict => Reason::Conflict,
        Error::KeyReused => Reason::KeyReused,
        Error::InvalidPageToken | Error::InvalidCursor => Reason::InvalidField,
        Error::Unknown(_) => {
            tracing::warn!(request_id, %error, "the outcome of a request is not known");
            Reason::DeadlineExceeded
        }
        // A ring that lacks a key is read again: it may have it soon.
        Error::Unavailable(_) | Error::Collision(_) | Error::Keys(_) => {
            tracing::warn!(request_id, %error, "the store did not serve a request");
            Reason::Unavailable
        }
        Error::AccountExists | Error::Schema(_) | Error::Differs(_) | Error::Internal(_) => {
            tracing::error!(request_id, %error, "a request failed");
            Reason::Internal
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[track_caller]
    fn refused<T>(result: Result<T, Refusal>, field: &str) {
        let refusal = result.err().unwrap();
        assert_eq!(refusal, Refusal::fields(Reason::InvalidField, [field]));
    }

    #[test]
    fn an_etag_may_be_any_text_that_is_short() {
        assert_eq!(etag(""), Ok(None));
        for text in ["0f8fad5b-1", " ", "W/\"x\"", "é\n", &"é".repeat(64)] {
            assert_eq!(etag(text), Ok(Some(text.to_owned())));
        }
        refused(etag(&"x".repeat(65)), "etag");
    }

    #[test]
    fn a_reason_is_trimmed_and_short_and_has_no_control_characters() {
        assert_eq!(reason_given(" \t\n"), Ok(None));
        assert_eq!(reason_given(" vom Prüfer \n"), Ok(Some("vom Prüfer".to_owned())));
        let longest = "é".repeat(Change::REASON);
        assert_eq!(reason_given(&longest), Ok(Some(longest.clone())));
        for text in [longest + "é", "a\nb".to_owned(), "a\u{85}b".to_owned(), "\0".to_owned()] {
            refused(reason_given(&text), "reason");
        }
    }

    #[test]
    fn an_idempotency_key_has_printable_ascii_characters_and_no_space() {
        assert_eq!(idempotency_key(""), Ok(None));
        let longest = "~".repeat(IdempotencyKey::MAX);
        for text in ["order-7", "\"quoted\"", &longest] {
            assert_eq!(idempotency_key(text).unwrap().unwrap().as_str(), text);
        }
        for text in [" ", "a b", "a\n", "é", "\u{7f}", &(longest.clone() + "~")] {
            refused(idempotency_key(text), "idempotency_key");
        }
    }
}
