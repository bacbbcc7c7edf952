//! The order in which a request is checked: parse, required inputs, credentials, the target, the look-up.

use super::{documented::JOHN, everywhere, posted, rows, shared, transcript::transcript};
use crate::support::Database;

#[test]
fn nothing_about_a_customer_is_said_before_the_credentials_hold() {
    let prepare = |database: &Database| {
        database.create_account("USERNAME", "PASSWORD");
        database.create_account("COLON", "PASS:WORD");
        database.import("USERNAME", JOHN);
    };
    let mut rows = shared(rows::order_of_checks());
    // A user that is another one up to its colon: accounts of the test's own.
    let colons = posted([
        (
            "a user with a colon is not another user with a longer password",
            r#"{"user":"COLON:PASS","pass":"WORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#,
        ),
        (
            "a colon in a password is part of it",
            r#"{"user":"COLON","pass":"PASS:WORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#,
        ),
    ]);
    rows.splice(9..9, colons);
    everywhere("order_of_checks", &[], prepare, |deployment| {
        transcript(deployment.face().rest, &rows)
    });
}
