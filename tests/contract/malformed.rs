//! Bodies that are no request, and fields that are not what they should be.

use super::{Row, check, documented::JOHN, documented::READ, posted};
use crate::support::post;

/// `levels` arrays in each other.
fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

#[test]
fn a_body_that_is_no_json_object_is_refused_whatever_is_wrong_with_it() {
    let mut rows = posted([
        ("no body", ""),
        ("white space", " \r\n"),
        (
            "form data, not just its header",
            "user=USERNAME&pass=PASSWORD&service=getStatus",
        ),
        ("a body that is cut off", r#"{"user":"USERNAME","pass":"PASS"#),
        ("something after the object", r#"{"user":"USERNAME"}x"#),
        ("two objects", "{}{}"),
        ("an array", r#"["USERNAME","PASSWORD","getStatus"]"#),
        ("a string", r#""USERNAME""#),
        ("a number", "1"),
        ("null", "null"),
        ("quotes that are not JSON's", "{'user':'USERNAME'}"),
        ("a comma too many", r#"{"user":"USERNAME",}"#),
        ("a comment", r#"{"user":"USERNAME"} // me"#),
        (
            "a key twice",
            r#"{"user":"USERNAME","user":"OTHER","pass":"PASSWORD","service":"getStatus"}"#,
        ),
        (
            "a key twice, once escaped",
            r#"{"user":"USERNAME","\u0075ser":"OTHER","pass":"PASSWORD","service":"getStatus"}"#,
        ),
        (
            "a key twice in target",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":{"email":"a@b.com","email":"test@veratad.com"}}"#,
        ),
        (
            "a key twice where nobody looks",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","options":[{"a":1,"a":2}]}"#,
        ),
        ("half of a surrogate pair", r#"{"user":"\ud800"}"#),
        ("a control character in a string", "{\"user\":\"USER\nNAME\"}"),
        ("two byte order marks", "\u{feff}\u{feff}{}"),
    ]);
    rows.push(("not UTF-8", post(b"{\"user\":\"\xe9\"}")));
    rows.push(("not UTF-8 where nobody looks", post(b"{\"options\":\"\xff\"}")));
    rows.push((
        "33 levels, the object included",
        post(format!(r#"{{"options":{}}}"#, nested(32)).as_bytes()),
    ));
    rows.push((
        "gzip that is none",
        b"POST /v3/stable/api/storage HTTP/1.1\r\nHost: dcams\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
            .into(),
    ));
    rows.push((
        "32 levels are read: what is missing is only an input",
        post(format!(r#"{{"options":{}}}"#, nested(31)).as_bytes()),
    ));
    check("malformed_bodies", JOHN, &rows);
}

#[test]
fn an_unknown_service_and_invalid_fields_are_named() {
    check("invalid_fields", JOHN, &invalid_fields());
}

fn invalid_fields() -> Vec<Row> {
    posted([
        (
            "another service",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"deleteStatus","target":{"email":"test@veratad.com"}}"#,
        ),
        (
            "a service in another letter case",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updatestatus","target":{"email":"test@veratad.com","status":"PASS"}}"#,
        ),
        (
            "a service that is no text",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":7,"target":{"email":"test@veratad.com"}}"#,
        ),
        (
            "another status",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"PASSED"}}"#,
        ),
        (
            "a status of the other face",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":"STATUS_PASS"}}"#,
        ),
        (
            "a status that is no text",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"updateStatus","target":{"email":"test@veratad.com","status":1}}"#,
        ),
        (
            "a user that is no text",
            r#"{"user":1,"pass":"PASSWORD","service":"getStatus","target":{"email":"test@veratad.com"}}"#,
        ),
        (
            "a pass that is no text",
            r#"{"user":"USERNAME","pass":{},"service":"getStatus","target":{"email":"test@veratad.com"}}"#,
        ),
        (
            "a target that is no object",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":"test@veratad.com"}"#,
        ),
        (
            "a target that is a list",
            r#"{"user":"USERNAME","pass":"PASSWORD","service":"getStatus","target":[{"email":"test@veratad.com"}]}"#,
        ),
        ("after all that the status is what it was", READ),
    ])
}
