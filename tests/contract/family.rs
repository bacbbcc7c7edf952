//! The sisters of `updateStatus`: `createOrUpdateCustomer` and `getDocumentImages`, the same on a store that is encrypted.

use std::{collections::HashMap, sync::Mutex, thread};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{Row, documented::JOHN, everywhere_on, posted, transcript::transcript};
use crate::support::{Backend, Connection, Database, Gateway, post};

/// The smallest PNG there is: one pixel.
pub const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// What begins like a JPEG, with a padding that Base64 may leave out.
const JPEG: &str = "/9j/4AAQSkZJRgABAQAAAQABAAA=";

#[test]
fn the_storage_family_is_answered_as_documented_in_clear_and_encrypted() {
    let rows = rows();
    for set_up in [(|database| database) as fn(Database) -> Database, Database::encrypted] {
        everywhere_on(
            set_up,
            "storage_family",
            &["--customer-link", "https://admin.example.com/customers/{id}"],
            |database| {
                database.create_account("USERNAME", "PASSWORD");
                database.create_account("OTHER", "PASSWORD");
                database.import("USERNAME", JOHN);
            },
            |deployment| transcript(deployment.face().rest, &rows),
        );
    }
}

fn rows() -> Vec<Row> {
    let jane = |rest: &str| {
        format!(
            r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"jane@example.com"{rest}}}}}"#
        )
    };
    let images = |user: &str, pass: &str, email: &str| {
        format!(r#"{{"user":"{user}","pass":"{pass}","service":"getDocumentImages","target":{{"email":"{email}"}}}}"#)
    };
    let created = r#"{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","reference":"4711","target":{"fn":"Jane","ln":"Doe","addr":"1 Elm St","city":"Boston","state":"MA","zip":"02108","dob":"19800229","email":"Jane@Example.com","phone":"6175550100"}}"#;
    let read = r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"jane@example.com"}}"#;
    let documents = jane(&format!(r#","documents":{{"front":"{PNG}","back":"{JPEG}"}}"#));
    let without_padding = jane(&format!(r#","documents":{{"back":"{}"}}"#, JPEG.trim_end_matches('=')));
    let broken_lines = jane(&format!(
        r#","documents":{{"front":"{}\r\n{}\n"}}"#,
        &PNG[..40],
        PNG[40..].replace('/', "\\/")
    ));
    let text = BASE64_STANDARD.encode("this is no image");
    posted([
        ("a new customer is PENDING, and its type is createCustomer", created),
        (
            "the same again changes nothing, and its type is updateCustomer",
            created,
        ),
        ("a read shows the address as it was registered", read),
        (
            "the status of a customer that is there stays: it is set",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"jane@example.com","status":"FAIL"}}"#,
        ),
        (
            "and stays, also when one comes with it; empty, null and absent keep what is stored; numbers are text",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","reference":47110,"target":{"fn":"","ln":null,"addr":" 2 Oak Ave ","zip":2109,"dob":19800301,"phone":6175550199,"email":"JANE@example.com","status":"PASS"}}"#,
        ),
        (
            "only the email is required, and it may stand flat",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","email":"flat@example.com"}"#,
        ),
        ("documents: nothing of them comes back", &documents),
        (
            "they come back when they are asked for",
            &images("USERNAME", "PASSWORD", "jane@example.com"),
        ),
        ("one is replaced, without padding; the other stays", &without_padding),
        ("one has broken lines and escaped slashes", &broken_lines),
        (
            "both are as they were",
            &images("USERNAME", "PASSWORD", "jane@example.com"),
        ),
        (
            "a customer without documents has empty ones",
            &images("USERNAME", "PASSWORD", "test@veratad.com"),
        ),
        (
            "documents may be PHP's empty array, or null",
            &jane(r#","documents":[]"#),
        ),
        (
            "400: a document that is no Base64",
            &jane(r#","documents":{"front":"?"}"#),
        ),
        (
            "400: a document that is no image",
            &jane(&format!(r#","documents":{{"back":"{text}"}}"#)),
        ),
        ("400: a document that is no text", &jane(r#","documents":{"front":1}"#)),
        ("400: documents that are none", &jane(r#","documents":"front""#)),
        ("400: a name that is no text", &jane(r#","fn":1"#)),
        ("400: a name with a control character", &jane(r#","ln":"a\u0000b""#)),
        (
            "400: a city that is too long",
            &jane(&format!(r#","city":"{}""#, "x".repeat(101))),
        ),
        ("400: a dob that is no date", &jane(r#","dob":"19800230""#)),
        ("400: a dob that is no whole number", &jane(r#","dob":19800229.5"#)),
        (
            "400: a reference that is too long",
            &created.replace("4711", &"4".repeat(129)),
        ),
        (
            "400: an email that is none",
            &created.replace("Jane@Example.com", "jane"),
        ),
        ("400: no email", &created.replace("Jane@Example.com", "")),
        (
            "400: getDocumentImages without an email",
            &images("USERNAME", "PASSWORD", ""),
        ),
        ("401 before all of that", &documents.replace("PASSWORD", "wrong")),
        (
            "401: getDocumentImages",
            &images("USERNAME", "wrong", "jane@example.com"),
        ),
        (
            "404: getDocumentImages of nobody",
            &images("USERNAME", "PASSWORD", "nobody@example.com"),
        ),
        (
            "404: getDocumentImages of another account's customer",
            &images("OTHER", "PASSWORD", "jane@example.com"),
        ),
        (
            "413: no other service takes a body that large",
            &format!(
                r#"{{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","x":"{}","target":{{"email":"jane@example.com"}}}}"#,
                "x".repeat(64 * 1024)
            ),
        ),
        ("after all that the customer is what it was", read),
    ])
}

/// How many creates there are, and of how many customers.
const CREATES: usize = 10_000;
const CUSTOMERS: usize = 1_000;
const CLIENTS: usize = 50;
const WAYS: usize = CUSTOMERS * CLIENTS / CREATES;

#[test]
fn of_many_who_create_a_customer_at_once_one_creates_it() {
    for backend in Backend::BOTH {
        let database = backend.database();
        database.create_account("USERNAME", "PASSWORD");
        // On PostgreSQL two gateways serve: neither knows what the other is about.
        let mut gateways = vec![Gateway::start(&database, &[])];
        if backend == Backend::Postgres {
            gateways.push(Gateway::start(&database, &[]));
        }
        let created: Mutex<HashMap<usize, usize>> = Mutex::default();
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (created, gateway) = (&created, &gateways[client % gateways.len()]);
                scope.spawn(move || {
                    let mut connection = Connection::open(gateway.rest);
                    for number in (client..CREATES).step_by(CLIENTS) {
                        // Ten clients go the same way, so that they meet at each customer.
                        let customer = number / CLIENTS * WAYS + client % WAYS;
                        let reply = connection.exchange(&post(create(customer, client).as_bytes()));
                        assert_eq!(reply.status, 200, "{backend}: {}", reply.text());
                        let is_new = reply.text().contains(r#""type":"createCustomer""#);
                        assert!(is_new || reply.text().contains(r#""type":"updateCustomer""#));
                        *created.lock().unwrap().entry(customer).or_default() += usize::from(is_new);
                    }
                });
            }
        });
        let created = created.into_inner().unwrap();
        assert_eq!(
            database.session().number("(SELECT count(*) FROM customers)"),
            created.len() as i64
        );
        assert!(created.values().all(|creates| *creates == 1), "{backend}: {created:?}");
        let changes = database
            .session()
            .number("(SELECT count(*) FROM status_changes WHERE version = 1)");
        assert_eq!(changes, created.len() as i64, "{backend}");
        assert_eq!(created.len(), CUSTOMERS, "{backend}: not every customer was created");
    }
}

fn create(customer: usize, client: usize) -> String {
    format!(
        r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer","target":{{"email":"customer{customer}@example.com","city":"City {client}"}}}}"#
    )
}
