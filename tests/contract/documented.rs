//! What the seed document shows: its sample, its replies, its errors.

use super::{
    Configuration, Deployment, check, everywhere, posted, rows, shared,
    transcript::{entry, transcript},
};
use crate::support::{Connection, Database, dcams, post};

/// The customer of the sample, not yet verified.
pub const JOHN: &str = "\
email,reference,fn,ln,addr,city,state,zip,dob,phone
test@veratad.com,888888812,John,Smith,123 Main St,Stratford,CT,06614,19700101,2015106000
";

pub(crate) use super::rows::{READ, SAMPLE};

#[test]
fn the_samples_of_the_seed_are_answered_as_it_shows() {
    let mut rows = posted([("a customer begins as PENDING", READ)]);
    rows.extend(shared(rows::samples()));
    check("samples", JOHN, &rows);
}

#[test]
fn the_four_documented_errors_are_as_documented_to_the_byte() {
    check("documented_errors", JOHN, &shared(rows::documented_errors()));
}

#[test]
fn an_account_sees_only_its_own_customers_and_a_disabled_one_none() {
    let prepare = |database: &Database| {
        for account in ["USERNAME", "OTHER", "DISABLED"] {
            database.create_account(account, "PASSWORD");
        }
        database.import("USERNAME", JOHN);
        database.import(
            "OTHER",
            "email,fn,status\ntest@veratad.com,Johanna,FAIL\nother@veratad.com,Jo,\n",
        );
        database.import("DISABLED", "email\ntest@veratad.com\n");
        dcams(database, &["account", "disable", "DISABLED"], "").ok();
    };
    let rows = posted([
        ("USERNAME changes its own customer", SAMPLE),
        (
            "OTHER has a customer with the same address, which was not changed",
            r#"{"user":"OTHER","pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#,
        ),
        (
            "USERNAME does not see the customer that only OTHER has",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"other@veratad.com"}}"#,
        ),
        (
            "USERNAME cannot change it",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"other@veratad.com","status":"PASS"}}"#,
        ),
        (
            "it was not changed",
            r#"{"user":"OTHER","pass":"PASSWORD","service":"getStatus","target":{"email":"other@veratad.com"}}"#,
        ),
        (
            "a disabled account is refused like a wrong password",
            r#"{"user":"DISABLED","pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#,
        ),
    ]);
    everywhere("accounts", &[], prepare, |deployment| {
        transcript(deployment.face().rest, &rows)
    });
}

#[test]
fn every_attribute_is_in_the_reply_as_it_is_stored_or_empty() {
    let customers = "\
email,reference,fn,ln,addr,city,state,zip,dob,phone
full@example.com,00042,Zoë 🦊,\"O'Brien \"\"Œ\"\" \\ Łącki\",Straße 1/2 <b>&amp;</b>,東京,Île-de-France,00501,19000101,+49 (0)30 0123
bare@example.com,,,,,,,,,
";
    check(
        "attributes",
        customers,
        &posted([
            (
                "text of every kind; leading zeros stay",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"full@example.com","status":"PASS"}}"#,
            ),
            (
                "the same, read",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"full@example.com"}}"#,
            ),
            (
                "what is not stored is empty",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"bare@example.com","status":"FAIL"}}"#,
            ),
            (
                "the same, read",
                r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"bare@example.com"}}"#,
            ),
        ]),
    );
}

#[test]
fn many_requests_are_served_on_one_connection() {
    let rows = posted([
        ("first a change", SAMPLE),
        ("then an error", "{}"),
        ("then a read", READ),
    ]);
    let prepare = |database: &Database| {
        database.create_account("USERNAME", "PASSWORD");
        database.import("USERNAME", JOHN);
    };
    everywhere("one_connection", &[], prepare, |deployment| {
        let mut connection = Connection::open(deployment.face().rest);
        rows.iter()
            .map(|(name, request)| entry(name, request, &connection.exchange(request)))
            .collect::<Vec<_>>()
            .join("\n")
    });
}

/// Not golden: the request is sent in two parts, and there are two replies.
#[test]
fn a_client_that_waits_for_permission_to_send_its_body_is_told_to_go_on() {
    for configuration in Configuration::ALL {
        let database = configuration.backend.database();
        database.create_account("USERNAME", "PASSWORD");
        database.import("USERNAME", JOHN);
        let deployment = Deployment::start(configuration, database, &[]);
        let usual = String::from_utf8(post(SAMPLE.as_bytes())).unwrap();
        let (head, body) = usual.split_once("\r\n\r\n").unwrap();

        let mut connection = Connection::open(deployment.face().rest);
        let permission = connection.exchange(format!("{head}\r\nExpect: 100-continue\r\n\r\n").as_bytes());
        assert_eq!(permission.head, "HTTP/1.1 100 Continue\r\n\r\n", "{configuration}");
        let reply = connection.exchange(body.as_bytes());
        assert_eq!(reply.status, 200, "{configuration}");
        assert_eq!(reply.body, deployment.face().post(SAMPLE).body, "{configuration}");
    }
}
