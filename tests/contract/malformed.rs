//! Bodies that are no request, and fields that are not what they should be.

use super::{check, documented::JOHN, rows, shared};

#[test]
fn a_body_that_is_no_json_object_is_refused_whatever_is_wrong_with_it() {
    let mut rows = shared(rows::malformed_bodies());
    rows.insert(
        rows.len() - 1,
        (
            "gzip that is none",
            b"POST /v3/stable/api/storage HTTP/1.1\r\nHost: dcams\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
                .into(),
        ),
    );
    check("malformed_bodies", JOHN, &rows);
}

#[test]
fn an_unknown_service_and_invalid_fields_are_named() {
    check("invalid_fields", JOHN, &shared(rows::invalid_fields()));
}
