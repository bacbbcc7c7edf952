//! Conditions, reasons and idempotency keys, said by a client that knows nothing but reflection, on both stores.

use prost::Message;
use prost_reflect::Value;
use tonic::{Code, Status};

use super::{
    client::{Answer, Client, Metadata},
    errors::{Refused, check},
    served,
};
use crate::support::Backend;

const EMAIL: (&str, &str) = ("email", "test@veratad.com");
const JANE: (&str, &str) = ("email", "jane@example.com");

/// What came of a call.
type Asked = Result<Answer, Status>;

fn ask(client: &Client, method: &str, fields: &[(&str, &str)]) -> Asked {
    client.call(method, fields, Metadata::of("USERNAME:PASSWORD"))
}

/// Sets the status of the sample's customer.
fn set(client: &Client, status: &str, terms: &[(&str, &str)]) -> Asked {
    let fields = [&[EMAIL, ("status", status)], terms].concat();
    ask(client, "UpdateStatus", &fields)
}

fn put(client: &Client, terms: &[(&str, &str)]) -> Asked {
    ask(client, "CreateOrUpdateCustomer", &[&[JANE], terms].concat())
}

fn read(client: &Client) -> Answer {
    ask(client, "GetStatus", &[EMAIL]).unwrap()
}

#[track_caller]
fn conflict(answer: Asked) {
    check(&answer.unwrap_err(), &Refused::new(Code::Aborted, "CONFLICT"));
}

#[track_caller]
fn invalid(answer: Asked, reason: &str, field: &str) {
    let expected = Refused {
        fields: vec![field],
        ..Refused::new(Code::InvalidArgument, reason)
    };
    check(&answer.unwrap_err(), &expected);
}

#[track_caller]
fn key_reused(answer: Asked) {
    check(&answer.unwrap_err(), &Refused::new(Code::InvalidArgument, "KEY_REUSED"));
}

#[track_caller]
fn not_found(answer: Asked) {
    let expected = Refused {
        resource: Some("dcams.storage.v1.Customer"),
        ..Refused::new(Code::NotFound, "CUSTOMER_NOT_FOUND")
    };
    check(&answer.unwrap_err(), &expected);
}

#[test]
fn a_status_is_changed_only_if_the_customer_is_as_expected() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        let seen = read(&client).customer("etag");
        let changed = set(&client, "STATUS_PASS", &[("etag", &seen)]).unwrap();
        let etag = changed.customer("etag");
        assert_ne!(etag, seen, "{backend}");

        for terms in [
            [("etag", &*seen)].as_slice(),
            &[("etag", "nonsense")],
            &[("etag", &format!("{etag} "))],
            &[("etag", &format!("\"{etag}\""))],
            &[("expected_status", "STATUS_PENDING")],
            &[("etag", &etag), ("expected_status", "STATUS_FAIL")],
            &[("etag", &seen), ("expected_status", "STATUS_PASS")],
        ] {
            conflict(set(&client, "STATUS_FAIL", terms));
            // Also where there is nothing to do.
            conflict(set(&client, "STATUS_PASS", terms));
        }
        assert_eq!(read(&client).customer("etag"), etag, "{backend}");

        let both = [("etag", &*etag), ("expected_status", "STATUS_PASS")];
        // Nothing to do, and nothing in the way.
        let same = set(&client, "STATUS_PASS", &both).unwrap();
        assert_eq!(same.message, changed.message, "{backend}");
        let changed = set(&client, "STATUS_FAIL", &both).unwrap();
        assert_ne!(changed.customer("etag"), etag, "{backend}");
        let back = set(&client, "STATUS_PENDING", &[("expected_status", "STATUS_FAIL")]).unwrap();
        assert_eq!(back.customer("status"), "STATUS_PENDING", "{backend}");
    }
}

#[test]
fn a_customer_is_changed_only_if_it_has_the_etag() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        // Nobody has one, and nobody is registered.
        conflict(put(&client, &[("etag", "nonsense")]));
        not_found(ask(&client, "GetStatus", &[JANE]));
        let first = put(&client, &[]).unwrap().customer("etag");
        let second = put(&client, &[("city", "Boston"), ("etag", &first)]).unwrap();
        conflict(put(&client, &[("city", "Salem"), ("etag", &first)]));
        conflict(put(&client, &[("etag", &first)]));
        let read = ask(&client, "GetStatus", &[JANE]).unwrap();
        assert_eq!(read.customer("etag"), second.customer("etag"), "{backend}");
        assert_eq!(read.customer("city"), "Boston", "{backend}");

        // Whoever is registered anew is somebody else.
        ask(&client, "EraseCustomer", &[JANE]).unwrap();
        let anew = put(&client, &[]).unwrap().customer("etag");
        assert_ne!(anew, first, "{backend}");
        conflict(put(&client, &[("etag", &first)]));
    }
}

#[test]
fn terms_that_cannot_be_are_named_by_their_field() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        let set = |terms: &[(&str, &str)]| set(&client, "STATUS_PASS", terms);
        let long = |length: usize| "x".repeat(length);
        conflict(set(&[("etag", &long(64))]));
        invalid(set(&[("etag", &long(65))]), "INVALID_FIELD", "etag");
        invalid(put(&client, &[("etag", &long(65))]), "INVALID_FIELD", "etag");
        for reason in [&*long(201), "a\nb", "\0"] {
            invalid(set(&[("reason", reason)]), "INVALID_FIELD", "reason");
        }
        for key in [&*long(129), " ", "a b", "a\n", "é"] {
            let key = [("idempotency_key", key)];
            invalid(set(&key), "INVALID_FIELD", "idempotency_key");
            invalid(put(&client, &key), "INVALID_FIELD", "idempotency_key");
            let erased = ask(&client, "EraseCustomer", &[EMAIL, key[0]]);
            invalid(erased, "INVALID_FIELD", "idempotency_key");
        }
        let mut strange = client.request("UpdateStatus", &[EMAIL, ("status", "STATUS_PASS")]);
        strange.set_field_by_name("expected_status", Value::EnumNumber(9));
        let metadata = Metadata::of("USERNAME:PASSWORD");
        let refused = client.call_with("UpdateStatus", strange.encode_to_vec(), metadata);
        invalid(refused, "INVALID_STATUS", "expected_status");
        assert_eq!(read(&client).customer("status"), "STATUS_PENDING", "{backend}");
    }
}

#[test]
fn a_reason_stands_in_the_history() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let longest = "é".repeat(200);
        set(&client, "STATUS_PASS", &[("reason", &format!(" {longest}\n"))]).unwrap();
        set(&client, "STATUS_FAIL", &[("reason", " ")]).unwrap();
        let mut session = served.database.session();
        let with = |reason: &str| format!("(SELECT version FROM status_changes WHERE reason = '{reason}')");
        assert_eq!(session.number(&with(&longest)), 2, "{backend}");
        let without = "(SELECT count(*) FROM status_changes WHERE reason IS NULL)";
        assert_eq!(session.number(without), 2, "{backend}");
    }
}

#[test]
fn a_change_that_is_sent_again_is_answered_as_the_first_time() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let key = ("idempotency_key", "order-7");
        // A refused call leaves no key behind.
        conflict(set(&client, "STATUS_PASS", &[key, ("etag", "nonsense")]));
        not_found(ask(
            &client,
            "UpdateStatus",
            &[("email", "nobody@veratad.com"), ("status", "STATUS_PASS"), key],
        ));

        let expected = ("expected_status", "STATUS_PENDING");
        let first = set(&client, "STATUS_PASS", &[key, expected]).unwrap();
        set(&client, "STATUS_FAIL", &[]).unwrap();
        let now = read(&client);
        // The condition does not hold any more, and is not looked at.
        for _ in 0..2 {
            let again = set(&client, "STATUS_PASS", &[key, expected]).unwrap();
            assert_eq!(
                again.message.encode_to_vec(),
                first.message.encode_to_vec(),
                "{backend}"
            );
        }
        assert_eq!(read(&client).message, now.message, "{backend}");

        key_reused(set(&client, "STATUS_FAIL", &[key, expected]));
        key_reused(set(&client, "STATUS_PASS", &[key]));
        key_reused(set(&client, "STATUS_PASS", &[key, expected, ("reason", "why")]));
        key_reused(put(&client, &[key]));
        key_reused(ask(&client, "EraseCustomer", &[EMAIL, key]));
        assert_eq!(read(&client).message, now.message, "{backend}");
        let mut session = served.database.session();
        assert_eq!(session.number("(SELECT count(*) FROM status_changes)"), 3, "{backend}");

        // Keys belong to the account.
        served.database.create_account("OTHER", "PASSWORD");
        let other = client.call("CreateOrUpdateCustomer", &[EMAIL, key], Metadata::of("OTHER:PASSWORD"));
        assert_eq!(other.unwrap().customer("status"), "STATUS_PENDING", "{backend}");
    }
}

#[test]
fn a_registration_that_is_sent_again_is_answered_as_the_first_time() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        let terms = [("idempotency_key", "jane"), ("first_name", "Jane"), ("city", "Boston")];
        let first = put(&client, &terms).unwrap();
        assert_eq!(
            first.message.get_field_by_name("created").unwrap().as_bool(),
            Some(true)
        );
        put(&client, &[("city", "Salem")]).unwrap();
        let again = put(&client, &terms).unwrap();
        assert_eq!(
            again.message.encode_to_vec(),
            first.message.encode_to_vec(),
            "{backend}"
        );
        key_reused(put(&client, &terms[..2]));
        let now = ask(&client, "GetStatus", &[JANE]).unwrap();
        assert_eq!(now.customer("city"), "Salem", "{backend}");
    }
}

#[test]
fn an_erasure_that_is_sent_again_is_answered_as_the_first_time() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        let change = ("idempotency_key", "change");
        let erasure = [EMAIL, ("idempotency_key", "erasure")];
        set(&client, "STATUS_PASS", &[change]).unwrap();
        let first = ask(&client, "EraseCustomer", &erasure).unwrap();
        let again = ask(&client, "EraseCustomer", &erasure).unwrap();
        assert_eq!(
            again.message.encode_to_vec(),
            first.message.encode_to_vec(),
            "{backend}"
        );
        not_found(ask(&client, "EraseCustomer", &[EMAIL]));
        // What was answered then is gone with the customer.
        not_found(set(&client, "STATUS_PASS", &[change]));

        // Somebody else has the address now, whom the erasure does not mean.
        ask(&client, "CreateOrUpdateCustomer", &[EMAIL]).unwrap();
        let again = ask(&client, "EraseCustomer", &erasure).unwrap();
        assert_eq!(
            again.message.encode_to_vec(),
            first.message.encode_to_vec(),
            "{backend}"
        );
        assert_eq!(read(&client).customer("status"), "STATUS_PENDING", "{backend}");
    }
}
