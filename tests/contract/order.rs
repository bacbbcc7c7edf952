//! The order in which a request is checked: parse, required inputs, credentials, the target, the look-up.

use super::{documented::JOHN, documented::READ, everywhere, posted, transcript::transcript};
use crate::support::Database;

#[test]
fn nothing_about_a_customer_is_said_before_the_credentials_hold() {
    let prepare = |database: &Database| {
        database.create_account("USERNAME", "PASSWORD");
        database.create_account("COLON", "PASS:WORD");
        database.import("USERNAME", JOHN);
    };
    let rows = posted([
        (
            "JSON before the inputs: user is missing, but the body is cut off",
            r#"{"pass":"PASSWORD","service":"getStatus""#,
        ),
        (
            "required inputs before the credentials: service is missing",
            r#"{"user":"USERNAME","pass":"wrong","target":{"email":"test@veratad.com"}}"#,
        ),
        (
            "credentials before the service: it is unknown",
            r#"{"user":"USERNAME","pass":"wrong","service":"deleteStatus"}"#,
        ),
        (
            "credentials before the target: it is missing",
            r#"{"user":"USERNAME","pass":"wrong","service":"getStatus"}"#,
        ),
        (
            "credentials before the target: it is no object",
            r#"{"user":"USERNAME","pass":"wrong","service":"getStatus","target":1}"#,
        ),
        (
            "credentials before the email's form",
            r#"{"user":"USERNAME","pass":"wrong","service":"getStatus","target":{"email":"nonsense"}}"#,
        ),
        (
            "credentials before the status",
            r#"{"user":"USERNAME","pass":"wrong","service":"updateStatus","target":{"email":"test@veratad.com","status":"NONSENSE"}}"#,
        ),
        (
            "credentials before the look-up: the customer is there",
            r#"{"user":"USERNAME","pass":"wrong","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
        ),
        (
            "credentials before the look-up: the customer is not there",
            r#"{"user":"USERNAME","pass":"wrong","service":"updateStatus","target":{"email":"nobody@veratad.com","status":"PASS"}}"#,
        ),
        (
            "a user with a colon is not another user with a longer password",
            r#"{"user":"COLON:PASS","pass":"WORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#,
        ),
        (
            "a colon in a password is part of it",
            r#"{"user":"COLON","pass":"PASS:WORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#,
        ),
        (
            "missing before invalid: no email, and a status that is none",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"status":"NONSENSE"}}"#,
        ),
        (
            "missing before invalid: no status, and an email that is none",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"nonsense"}}"#,
        ),
        (
            "the email before the status: both are none",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"nobody","status":"NONSENSE"}}"#,
        ),
        (
            "the target before the look-up: the status is none, and nobody has that email",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"nobody@veratad.com","status":"NONSENSE"}}"#,
        ),
        (
            "the last of all: the look-up",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"nobody@veratad.com","status":"PASS"}}"#,
        ),
        ("after all that the status is what it was", READ),
    ]);
    everywhere("order_of_checks", &[], prepare, |deployment| {
        transcript(deployment.face().rest, &rows)
    });
}
