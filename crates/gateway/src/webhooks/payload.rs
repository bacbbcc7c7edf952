//! What is sent: the flat JSON object that the vendor's callbacks have.

use serde::Serialize;
use store::{FeedItem, Profile};

/// The object. Its keys are those of the REST face, in this order.
#[derive(Serialize)]
struct Payload<'a> {
    r#fn: &'a str,
    ln: &'a str,
    addr: &'a str,
    city: &'a str,
    state: &'a str,
    zip: &'a str,
    dob: &'a str,
    email: &'a str,
    reference: &'a str,
    status: &'a str,
}

impl<'a> Payload<'a> {
    fn new(profile: &'a Profile, reference: &'a str, status: &'a str) -> Self {
        Self {
            r#fn: &profile.first_name,
            ln: &profile.last_name,
            addr: &profile.address,
            city: &profile.city,
            state: &profile.state,
            zip: &profile.zip,
            dob: &profile.date_of_birth,
            email: &profile.email,
            reference,
            status,
        }
    }

    fn json(&self) -> Vec<u8> {
        // Text alone, which JSON has room for.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The body for a change: its status, and the customer as it is now; nothing of one that was erased. None for an erasure,
/// which the object has no way to say.
pub(crate) fn body(item: &FeedItem) -> Option<Vec<u8>> {
    let none = Profile::default();
    let (profile, reference) = item
        .customer
        .as_ref()
        .map_or((&none, ""), |customer| (&customer.profile, customer.reference.as_str()));
    (!item.change.erased).then(|| Payload::new(profile, reference, item.change.to.as_str()).json())
}

/// The body of a test: a customer that does not exist.
pub(crate) fn sample() -> Vec<u8> {
    let text = |text: &str| text.to_owned();
    let profile = Profile {
        email: text("jane.doe@example.com"),
        first_name: text("Jane"),
        last_name: text("Doe"),
        address: text("1 Test Street"),
        city: text("Testville"),
        state: text("CA"),
        zip: text("00000"),
        date_of_birth: text("19700101"),
        ..Profile::default()
    };
    Payload::new(&profile, "test", "PENDING").json()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use store::{Customer, Face, Origin, Place, Status, StatusChange};

    use super::*;

    fn item() -> FeedItem {
        FeedItem {
            change: StatusChange {
                place: Place::default(),
                customer: 1,
                customer_id: "c".to_owned(),
                version: 2,
                from: None,
                to: Status::Pass,
                erased: false,
                origin: Origin {
                    actor: "a".to_owned(),
                    face: Face::Rest,
                    request_id: "r".to_owned(),
                },
                reason: None,
                time: SystemTime::UNIX_EPOCH,
            },
            customer: Some(Customer {
                id: 1,
                public_id: "c".to_owned(),
                reference: "ref".to_owned(),
                profile: Profile {
                    email: "zoe@example.com".to_owned(),
                    last_name: "O\"Neil".to_owned(),
                    phone: "1".to_owned(),
                    ..Profile::default()
                },
                status: Status::Fail,
                revision: 3,
                create_time: SystemTime::UNIX_EPOCH,
                update_time: SystemTime::UNIX_EPOCH,
            }),
        }
    }

    #[test]
    fn the_status_is_that_of_the_change_and_the_rest_is_as_it_is_now() {
        assert_eq!(
            String::from_utf8(body(&item()).unwrap()).unwrap(),
            r#"{"fn":"","ln":"O\"Neil","addr":"","city":"","state":"","zip":"","dob":"","email":"zoe@example.com","reference":"ref","status":"PASS"}"#
        );
    }

    #[test]
    fn of_an_erased_customer_nothing_but_the_status_is_sent() {
        let mut item = item();
        item.customer = None;
        assert_eq!(
            String::from_utf8(body(&item).unwrap()).unwrap(),
            r#"{"fn":"","ln":"","addr":"","city":"","state":"","zip":"","dob":"","email":"","reference":"","status":"PASS"}"#
        );
        item.change.erased = true;
        assert_eq!(body(&item), None);
    }
}
