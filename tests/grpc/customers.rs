//! Registering, changing, reading and erasing customers with their images, on both stores.

use prost::Message;
use prost_reflect::{DynamicMessage, Value};
use tonic::{Code, Status};

use super::{
    client::{Answer, Client, Metadata},
    errors::{Refused, check},
    served, served_with,
};
use crate::support::{Backend, eventually};

/// What begins like a PNG, with zeros up to that size.
fn png(bytes: usize) -> Vec<u8> {
    let mut image = b"\x89PNG\r\n\x1a\n".to_vec();
    image.resize(bytes, 0);
    image
}

const JPEG: &[u8] = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01";

/// The most bytes of an image, unless it is set otherwise.
const IMAGE: usize = 10 * 1024 * 1024;

/// What is registered or changed.
#[derive(Default)]
struct Put<'a> {
    fields: &'a [(&'a str, &'a str)],
    front: &'a [u8],
    back: &'a [u8],
    mask: &'a [&'a str],
}

impl Put<'_> {
    fn message(&self, client: &Client) -> Vec<u8> {
        let mut message = client.request("CreateOrUpdateCustomer", self.fields);
        let new = |name: &str| DynamicMessage::new(client.pool.get_message_by_name(name).unwrap());
        if !self.front.is_empty() || !self.back.is_empty() {
            let mut documents = new("dcams.storage.v1.Documents");
            documents.set_field_by_name("front", Value::Bytes(self.front.to_vec().into()));
            documents.set_field_by_name("back", Value::Bytes(self.back.to_vec().into()));
            message.set_field_by_name("documents", Value::Message(documents));
        }
        if !self.mask.is_empty() {
            let mut mask = new("google.protobuf.FieldMask");
            let paths = self.mask.iter().map(|path| Value::String((*path).to_owned())).collect();
            mask.set_field_by_name("paths", Value::List(paths));
            message.set_field_by_name("field_mask", Value::Message(mask));
        }
        message.encode_to_vec()
    }

    fn send(&self, client: &Client) -> Result<Answer, Status> {
        let metadata = Metadata::of("USERNAME:PASSWORD");
        client.call_with("CreateOrUpdateCustomer", self.message(client), metadata)
    }
}

fn created(answer: &Answer) -> bool {
    answer.message.get_field_by_name("created").unwrap().as_bool().unwrap()
}

fn named(client: &Client, method: &str, email: &str) -> Result<Answer, Status> {
    client.call(method, &[("email", email)], Metadata::of("USERNAME:PASSWORD"))
}

/// The front and the back that are stored.
fn images(client: &Client, email: &str) -> [Vec<u8>; 2] {
    let answer = named(client, "GetDocumentImages", email).unwrap();
    let documents = answer.message.get_field_by_name("documents").unwrap().into_owned();
    ["front", "back"].map(|side| {
        let image = documents.as_message().unwrap().get_field_by_name(side).unwrap();
        image.as_bytes().unwrap().to_vec()
    })
}

#[test]
fn a_customer_is_registered_once_and_changed_after_that() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let new = Put {
            fields: &[
                ("email", " Jane@Example.com "),
                ("first_name", " Jane "),
                ("city", "Boston"),
                ("date_of_birth", "19800229"),
                ("reference", "4711"),
            ],
            ..Put::default()
        };
        let first = new.send(&client).unwrap();
        assert!(created(&first), "{backend}");
        for (field, value) in [
            ("email", "Jane@Example.com"),
            ("first_name", "Jane"),
            ("last_name", ""),
            ("city", "Boston"),
            ("date_of_birth", "19800229"),
            ("reference", "4711"),
            ("status", "STATUS_PENDING"),
        ] {
            assert_eq!(first.customer(field), value, "{backend}: {field}");
        }

        // The same again changes nothing.
        let again = new.send(&client).unwrap();
        assert!(!created(&again), "{backend}");
        assert_eq!(again.customer("etag"), first.customer("etag"), "{backend}");

        let status = [("email", "jane@example.com"), ("status", "STATUS_FAIL")];
        let metadata = Metadata::of("USERNAME:PASSWORD");
        client.call("UpdateStatus", &status, metadata).unwrap();
        let changed = Put {
            fields: &[("email", "JANE@example.com"), ("last_name", "Doe"), ("city", "")],
            ..Put::default()
        };
        let changed = changed.send(&client).unwrap();
        assert!(!created(&changed), "{backend}");
        for (field, value) in [
            ("email", "Jane@Example.com"),
            ("first_name", "Jane"),
            ("last_name", "Doe"),
            ("city", "Boston"),
            ("reference", "4711"),
            ("status", "STATUS_FAIL"),
        ] {
            assert_eq!(changed.customer(field), value, "{backend}: {field}");
        }
        assert_ne!(changed.customer("etag"), first.customer("etag"), "{backend}");
        let read = named(&client, "GetStatus", "jane@example.com").unwrap();
        assert_eq!(read.customer("etag"), changed.customer("etag"), "{backend}");
        let kept = served
            .database
            .session()
            .number("(SELECT count(*) FROM status_changes WHERE face = 2)");
        assert_eq!(kept, 2, "{backend}: created, and set");
    }
}

#[test]
fn a_mask_clears_what_it_names_and_ignores_what_it_does_not() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        let put = |mask: &[&str], fields: &[(&str, &str)], front: &[u8], back: &[u8]| {
            let email = ("email", "test@veratad.com");
            let fields = [&[email], fields].concat();
            let put = Put {
                fields: &fields,
                front,
                back,
                mask,
            };
            put.send(&client)
        };
        let image = png(100);
        put(&[], &[], &image, JPEG).unwrap();

        // What is not named may be anything.
        let changed = put(
            &["first_name", "phone"],
            &[
                ("first_name", "Jack"),
                ("last_name", "a\nb"),
                ("date_of_birth", "never"),
            ],
            b"no image",
            b"",
        )
        .unwrap();
        for (field, value) in [
            ("first_name", "Jack"),
            ("last_name", "Smith"),
            ("phone", ""),
            ("zip", "06614"),
            ("date_of_birth", "19700101"),
        ] {
            assert_eq!(changed.customer(field), value, "{backend}: {field}");
        }
        assert_eq!(images(&client, "test@veratad.com"), [&image, JPEG], "{backend}");

        put(&["documents.front"], &[], b"", &image).unwrap();
        assert_eq!(images(&client, "test@veratad.com"), [b"", JPEG], "{backend}");
        put(&["documents"], &[], &image, b"").unwrap();
        assert_eq!(images(&client, "test@veratad.com"), [&*image, b""], "{backend}");
        put(&["reference", "date_of_birth"], &[], b"", b"").unwrap();
        let read = named(&client, "GetStatus", "test@veratad.com").unwrap();
        for (field, value) in [("reference", ""), ("date_of_birth", ""), ("first_name", "Jack")] {
            assert_eq!(read.customer(field), value, "{backend}: {field}");
        }

        for path in ["email", "status", "documents.left", "firstName", "", "*"] {
            let refused = put(&["city", path], &[("city", "Boston")], b"", b"").unwrap_err();
            check(&refused, &invalid("INVALID_FIELD", "field_mask"));
        }
        let read = named(&client, "GetStatus", "test@veratad.com").unwrap();
        assert_eq!(read.customer("city"), "Stratford", "{backend}");
    }
}

fn invalid<'a>(reason: &'a str, field: &'a str) -> Refused<'a> {
    Refused {
        fields: vec![field],
        ..Refused::new(Code::InvalidArgument, reason)
    }
}

#[test]
fn images_come_back_as_they_were_sent() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        assert_eq!(images(&client, "test@veratad.com"), [b"", b""], "{backend}");
        let put = |front: &[u8], back: &[u8]| {
            let put = Put {
                fields: &[("email", "test@veratad.com")],
                front,
                back,
                mask: &[],
            };
            put.send(&client)
        };
        // Two of the largest there are.
        let largest = [png(IMAGE), [JPEG, &vec![0x5a; IMAGE - JPEG.len()]].concat()];
        let answer = put(&largest[0], &largest[1]).unwrap();
        assert_eq!(answer.customer("first_name"), "John", "{backend}");
        assert!(images(&client, "test@veratad.com") == largest, "{backend}");
        // One is replaced, and the other stays.
        put(b"", JPEG).unwrap();
        assert!(images(&client, "test@veratad.com") == [&largest[0], JPEG], "{backend}");
        // The status is read and set without them.
        let read = named(&client, "GetStatus", "test@veratad.com").unwrap();
        assert!(read.message.encoded_len() < 1_000, "{backend}");
    }
}

#[test]
fn what_is_no_customer_or_no_image_is_refused_and_nothing_of_it_is_kept() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let refused = |fields: &[(&str, &str)], front: &[u8], back: &[u8]| {
            let put = Put {
                fields,
                front,
                back,
                mask: &[],
            };
            put.send(&client).unwrap_err()
        };
        let jane = ("email", "jane@example.com");
        let too_long = "x".repeat(201);
        for (name, text) in [
            ("first_name", &*too_long),
            ("last_name", "a\u{0}b"),
            ("zip", "12345678901234567"),
            ("date_of_birth", "19800230"),
            ("reference", "a\tb"),
        ] {
            check(
                &refused(&[jane, (name, text)], b"", b""),
                &invalid("INVALID_FIELD", name),
            );
        }
        let field = |name| invalid("INVALID_FIELD", name);
        check(&refused(&[jane], b"nonsense", b""), &field("documents.front"));
        check(&refused(&[jane], &png(8), b"GIF89a"), &field("documents.back"));
        check(&refused(&[jane], b"", &png(IMAGE + 1)), &field("documents.back"));
        check(&refused(&[], &png(8), b""), &invalid("MISSING_INPUT", "email"));
        check(
            &refused(&[("email", "nonsense.veratad.com")], b"", b""),
            &invalid("INVALID_EMAIL", "email"),
        );
        // Nothing is said of them before the credentials hold.
        let put = Put {
            fields: &[jane],
            front: b"nonsense",
            ..Put::default()
        };
        let stranger = client.call_with(
            "CreateOrUpdateCustomer",
            put.message(&client),
            Metadata::of("USERNAME:nonsense"),
        );
        check(
            &stranger.unwrap_err(),
            &Refused::new(Code::Unauthenticated, "BAD_CREDENTIALS"),
        );
        let mut session = served.database.session();
        assert_eq!(session.number("(SELECT count(*) FROM customers)"), 1, "{backend}");
        assert_eq!(session.number("(SELECT count(*) FROM documents)"), 0, "{backend}");
    }
}

#[test]
fn every_operation_has_its_own_limit_for_messages() {
    // 20 MiB of images, and 64 KiB of everything else.
    const LARGE: usize = 2 * IMAGE + 64 * 1024;
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        let refused = |method: &str, bytes: usize, metadata: Metadata| {
            client.call_with(method, unknown_field(bytes), metadata).unwrap_err()
        };
        let credentials = || Metadata::of("USERNAME:PASSWORD");
        let too_large = Refused::new(Code::ResourceExhausted, "BODY_TOO_LARGE");
        let no_email = invalid("MISSING_INPUT", "email");
        for method in ["GetStatus", "GetDocumentImages", "EraseCustomer"] {
            check(&refused(method, 64 * 1024, credentials()), &no_email);
            check(&refused(method, 64 * 1024 + 1, credentials()), &too_large);
        }
        let method = "CreateOrUpdateCustomer";
        check(&refused(method, LARGE, credentials()), &no_email);
        check(&refused(method, LARGE, credentials().gzip()), &no_email);
        check(&refused(method, LARGE + 1, credentials()), &too_large);
        check(&refused(method, LARGE + 1, credentials().gzip()), &too_large);
        check(&refused(method, 2 * LARGE, credentials()), &too_large);
        // The connection has taken no harm.
        named(&client, "GetStatus", "test@veratad.com").unwrap();
    }
}

/// A message of that many bytes with nothing but a field that nobody knows.
fn unknown_field(bytes: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(bytes);
    prost::encoding::encode_key(99, prost::encoding::WireType::LengthDelimited, &mut message);
    // The length takes three bytes, or four.
    let head = if bytes < 1 << 21 { 3 } else { 4 };
    prost::encoding::encode_varint((bytes - message.len() - head) as u64, &mut message);
    message.resize(bytes, 0);
    message
}

#[test]
fn while_the_budget_is_spent_large_messages_are_refused_and_small_ones_are_served() {
    const MIB: usize = 1024 * 1024;
    for backend in Backend::BOTH {
        let (_served, client) = served_with(backend, &["--document-budget", "2MiB"]);
        let put = |bytes: usize| {
            let put = Put {
                fields: &[("email", "test@veratad.com")],
                front: &png(bytes),
                ..Put::default()
            };
            put.send(&client)
        };
        let overloaded = Refused {
            retries: true,
            ..Refused::new(Code::ResourceExhausted, "UNAVAILABLE")
        };
        // No budget has room for this one, which is refused while it is sent.
        check(&put(8 * MIB).unwrap_err(), &overloaded);
        put(MIB).unwrap();

        // Somebody sends most of a message, and then nothing; again, if there was no room for it yet. A refusal may be due to the
        // message before, whose memory is given back a moment after its answer: so the two are looked at one after the other.
        let mut stalled = Vec::new();
        eventually("the budget is spent, and there is none for images either", || {
            stalled.push(client.begin("CreateOrUpdateCustomer", 10 * MIB, 7 * MIB / 4));
            let refused = |status| check(&status, &overloaded);
            put(MIB).map_err(refused).is_err()
                && named(&client, "GetDocumentImages", "test@veratad.com")
                    .map_err(refused)
                    .is_err()
        });
        put(60 * 1024).unwrap();
        super::update(&client).unwrap();
        drop(stalled);
        eventually("it is given back", || put(MIB).is_ok());
        assert_eq!(images(&client, "test@veratad.com")[0].len(), MIB, "{backend}");
    }
}

#[test]
fn an_erased_customer_leaves_its_history_and_its_address_can_be_registered_anew() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        super::update(&client).unwrap();
        let put = Put {
            fields: &[("email", "test@veratad.com")],
            front: JPEG,
            ..Put::default()
        };
        put.send(&client).unwrap();

        let erased = named(&client, "EraseCustomer", " TEST@veratad.com").unwrap();
        let field = |name| erased.message.get_field_by_name(name).unwrap().into_owned();
        // The last of them is the erasure.
        assert_eq!(field("status_changes").as_i64(), Some(3), "{backend}");
        assert!(erased.message.has_field_by_name("erase_time"), "{backend}");
        let public_id = field("customer_id").as_str().unwrap().to_owned();
        assert!(!public_id.is_empty() && public_id.bytes().all(|byte| byte.is_ascii_graphic()));

        let mut session = served.database.session();
        assert_eq!(session.number("(SELECT count(*) FROM customers)"), 0, "{backend}");
        assert_eq!(session.number("(SELECT count(*) FROM documents)"), 0, "{backend}");
        let proof = format!(
            "(SELECT count(*) FROM erasures JOIN status_changes USING (customer_id)
              WHERE public_id = '{public_id}' AND erasures.actor = 'USERNAME' AND erasures.face = 2)"
        );
        assert_eq!(session.number(&proof), 3, "{backend}");
        for method in ["EraseCustomer", "GetStatus", "GetDocumentImages"] {
            let nobody = Refused {
                resource: Some("dcams.storage.v1.Customer"),
                ..Refused::new(Code::NotFound, "CUSTOMER_NOT_FOUND")
            };
            check(&named(&client, method, "test@veratad.com").unwrap_err(), &nobody);
        }

        let put = Put {
            fields: &[("email", "test@veratad.com"), ("first_name", "Joan")],
            ..Put::default()
        };
        let anew = put.send(&client).unwrap();
        assert!(created(&anew), "{backend}");
        for (field, value) in [("first_name", "Joan"), ("last_name", ""), ("status", "STATUS_PENDING")] {
            assert_eq!(anew.customer(field), value, "{backend}: {field}");
        }
        assert_eq!(images(&client, "test@veratad.com"), [b"", b""], "{backend}");
        // It is another customer, whose history begins anew; that of the one before is as it was.
        let of = |which: &str| {
            format!("(SELECT count(*) FROM status_changes WHERE customer_id {which} (SELECT id FROM customers))")
        };
        assert_eq!(session.number(&of("IN")), 1, "{backend}");
        assert_eq!(session.number(&of("NOT IN")), 3, "{backend}");
        let versions = "(SELECT count(*) FROM status_changes WHERE version = 1)";
        assert_eq!(session.number(versions), 2, "{backend}");
    }
}
