//! The gRPC face, seen by a client that knows nothing but reflection.

pub mod client;
mod conditional;
mod customers;
pub mod errors;
pub mod feed;
mod grpcurl;
mod health;
mod history;
mod reflection;
mod surface;
pub mod tokens;

use client::{Answer, Client, Metadata};
use tonic::Status;

use crate::support::{Backend, Database, Gateway};

/// A gateway and its database.
struct Served {
    gateway: Gateway,
    database: Database,
}

/// The account and the customer of the sample.
fn prepare(database: &Database) {
    database.create_account("USERNAME", "PASSWORD");
    database.import(
        "USERNAME",
        "email,reference,fn,ln,addr,city,state,zip,dob,phone\n\
         Test@veratad.com,888888812,John,Smith,123 Main St,Stratford,CT,06614,19700101,2015106000\n",
    );
}

fn served(backend: Backend) -> (Served, Client) {
    served_with(backend, &[])
}

fn served_with(backend: Backend, arguments: &[&str]) -> (Served, Client) {
    let database = backend.database();
    prepare(&database);
    let gateway = Gateway::start(&database, arguments);
    let client = Client::connect(gateway.grpc.unwrap());
    (Served { gateway, database }, client)
}

/// The update of the sample.
fn update(client: &Client) -> Result<Answer, Status> {
    client.call(
        "UpdateStatus",
        &[("email", "test@veratad.com"), ("status", "STATUS_PASS")],
        Metadata::of("USERNAME:PASSWORD"),
    )
}

#[test]
fn a_client_made_from_reflection_updates_and_reads_a_status() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        let read = || {
            let metadata = Metadata::of("USERNAME:PASSWORD");
            client
                .call("GetStatus", &[("email", " TEST@VERATAD.COM")], metadata)
                .unwrap()
        };
        let before = read();
        assert_eq!(before.customer("status"), "STATUS_PENDING", "{backend}");

        let updated = update(&client).unwrap();
        for (field, value) in [
            ("email", "Test@veratad.com"),
            ("first_name", "John"),
            ("last_name", "Smith"),
            ("address", "123 Main St"),
            ("city", "Stratford"),
            ("state", "CT"),
            ("zip", "06614"),
            ("date_of_birth", "19700101"),
            ("phone", "2015106000"),
            ("reference", "888888812"),
            ("status", "STATUS_PASS"),
        ] {
            assert_eq!(updated.customer(field), value, "{backend}: {field}");
        }
        assert_ne!(updated.customer("etag"), before.customer("etag"), "{backend}");
        assert_eq!(read().message, updated_as_read(&updated, &client), "{backend}");
        // The same again changes nothing.
        assert_eq!(update(&client).unwrap().message, updated.message, "{backend}");
    }
}

/// What GetStatus must say after an update: the customer in its answer, in an answer of its own kind.
fn updated_as_read(updated: &Answer, client: &Client) -> prost_reflect::DynamicMessage {
    let name = "dcams.storage.v1.GetStatusResponse";
    let mut message = prost_reflect::DynamicMessage::new(client.pool.get_message_by_name(name).unwrap());
    let customer = updated.message.get_field_by_name("customer").unwrap().into_owned();
    message.set_field_by_name("customer", customer);
    message
}

#[test]
fn a_compressed_request_is_accepted() {
    for backend in Backend::BOTH {
        let (_served, client) = served(backend);
        let metadata = Metadata::of("USERNAME:PASSWORD").gzip();
        let answer = client
            .call("GetStatus", &[("email", "test@veratad.com")], metadata)
            .unwrap();
        assert_eq!(answer.customer("first_name"), "John", "{backend}");
    }
}

#[test]
fn a_sound_request_id_comes_back_with_answers_and_errors_and_any_other_is_replaced() {
    let (_served, client) = served(Backend::Sqlite);
    let called = |email: &str, id: &str| {
        let metadata = Metadata::of("USERNAME:PASSWORD").with("x-request-id", id);
        let headers = match client.call("GetStatus", &[("email", email)], metadata) {
            Ok(answer) => answer.headers,
            Err(status) => status.metadata().clone().into_headers(),
        };
        headers["x-request-id"].to_str().unwrap().to_owned()
    };
    for email in ["test@veratad.com", "nobody@veratad.com"] {
        assert_eq!(called(email, "order-7_B.2"), "order-7_B.2");
        let replaced = called(email, "order 7");
        assert_eq!(replaced.len(), 36, "{replaced}");
        assert_ne!(called(email, "order 7"), replaced);
    }
}
