//! What surrounds a body: path, method, encoding, size, versions of HTTP.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::{Row, check, documented::JOHN, documented::READ, documented::SAMPLE};
use crate::support::post;

/// The most bytes of a body.
const LIMIT: usize = 64 * 1024;

/// A request, each line of its head ended as HTTP wants it.
fn request(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut request = head.replace('\n', "\r\n").into_bytes();
    request.extend_from_slice(b"\r\n\r\n");
    request.extend_from_slice(body.as_ref());
    request
}

/// A POST with headers of its own; `Content-Length` is added.
fn post_with(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let length = body.as_ref().len();
    let head = format!("POST /v3/stable/api/storage HTTP/1.1\nHost: dcams\n{headers}\nContent-Length: {length}");
    request(&head, body)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The read, with white space after it: `length` bytes in all.
fn padded(length: usize) -> String {
    READ.to_owned() + &" ".repeat(length - READ.len())
}

#[test]
fn one_path_is_served_and_one_method() {
    let bare = |line: &str| request(&format!("{line} HTTP/1.1\nHost: dcams"), "");
    let rows: Vec<Row> = vec![
        ("GET", bare("GET /v3/stable/api/storage")),
        ("HEAD", bare("HEAD /v3/stable/api/storage")),
        ("OPTIONS", bare("OPTIONS /v3/stable/api/storage")),
        ("DELETE", bare("DELETE /v3/stable/api/storage")),
        ("GET with a trailing slash", bare("GET /v3/stable/api/storage/")),
        (
            "PUT of what a POST would be",
            request(
                &format!(
                    "PUT /v3/stable/api/storage HTTP/1.1\nHost: dcams\nContent-Length: {}",
                    READ.len()
                ),
                READ,
            ),
        ),
        ("the root", bare("GET /")),
        ("a path above", bare("GET /v3/stable/api")),
        (
            "two slashes, which are not merged by a redirect",
            bare("GET //v3/stable/api/storage"),
        ),
        ("another letter case", bare("GET /V3/stable/api/storage")),
        (
            "a POST to another path",
            request(
                &format!(
                    "POST /v3/stable/api/storages HTTP/1.1\nHost: dcams\nContent-Length: {}",
                    READ.len()
                ),
                READ,
            ),
        ),
        ("the probes are not here", bare("GET /healthz")),
        ("the metrics are not here", bare("GET /metrics")),
    ];
    check("paths_and_methods", JOHN, &rows);
}

#[test]
fn a_body_may_have_64_kib_and_come_in_plain_or_gzip() {
    let chunked = "POST /v3/stable/api/storage HTTP/1.1\nHost: dcams\nTransfer-Encoding: chunked";
    let chunk = |body: &str| format!("{:x}\r\n{body}\r\n", body.len());
    let rows: Vec<Row> = vec![
        ("65,536 bytes", post(padded(LIMIT).as_bytes())),
        (
            "28 MiB and a byte are announced: refused before any of them is sent",
            request(
                "POST /v3/stable/api/storage HTTP/1.1\nHost: dcams\nContent-Length: 29360129",
                "",
            ),
        ),
        (
            "65,536 bytes in chunks",
            request(chunked, chunk(&padded(LIMIT - 10)) + &chunk("          ") + "0\r\n\r\n"),
        ),
        (
            "65,537 bytes in chunks",
            request(chunked, chunk(&padded(LIMIT + 1)) + "0\r\n\r\n"),
        ),
        ("gzip", post_with("Content-Encoding: gzip", gzip(SAMPLE.as_bytes()))),
        ("GZIP", post_with("Content-Encoding: GZIP", gzip(READ.as_bytes()))),
        (
            "gzip of 65,536 bytes",
            post_with("Content-Encoding: gzip", gzip(padded(LIMIT).as_bytes())),
        ),
        (
            "gzip of 65,537 bytes",
            post_with("Content-Encoding: gzip", gzip(padded(LIMIT + 1).as_bytes())),
        ),
        ("identity", post_with("Content-Encoding: identity", READ)),
        ("br", post_with("Content-Encoding: br", READ)),
        ("deflate", post_with("Content-Encoding: deflate", READ)),
        ("two encodings", post_with("Content-Encoding: gzip, gzip", READ)),
    ];
    check("sizes_and_encodings", JOHN, &rows);
}

#[test]
fn http_1_0_is_served() {
    check(
        "http_1_0",
        JOHN,
        &[(
            "HTTP/1.0, without Host",
            request(
                &format!("POST /v3/stable/api/storage HTTP/1.0\nContent-Length: {}", SAMPLE.len()),
                SAMPLE,
            ),
        )],
    );
}

#[test]
fn a_sound_request_id_comes_back_and_any_other_is_replaced() {
    let longest = "x".repeat(64);
    check(
        "request_ids",
        JOHN,
        &[
            ("a success", post_with("X-Request-Id: order-7_B.2", READ)),
            ("an error", post_with("X-Request-Id: order-7_B.3", "{}")),
            (
                "an unknown path",
                request("GET / HTTP/1.1\nHost: dcams\nX-Request-Id: order-7_B.4", ""),
            ),
            ("64 characters", post_with(&format!("X-Request-Id: {longest}"), "{}")),
            ("65 characters", post_with(&format!("X-Request-Id: {longest}x"), "{}")),
            ("white space in it", post_with("X-Request-Id: order 7", "{}")),
            ("an address in it", post_with("X-Request-Id: test@veratad.com", "{}")),
            ("empty", post_with("X-Request-Id:", "{}")),
        ],
    );
}

#[test]
fn any_content_type_will_do() {
    check(
        "content_types",
        JOHN,
        &[
            (
                "as curl -d and PHP send it",
                post_with("Content-Type: application/x-www-form-urlencoded", SAMPLE),
            ),
            (
                "with a charset",
                post_with("Content-Type: application/json; charset=utf-8", SAMPLE),
            ),
            ("text", post_with("Content-Type: text/plain", SAMPLE)),
            ("nonsense", post_with("Content-Type: ;;;", SAMPLE)),
            ("none", post_with("Accept: */*", SAMPLE)),
            (
                "what else is asked for is not looked at",
                post_with("Accept: text/html\nOrigin: https://example.com\nCookie: a=b", SAMPLE),
            ),
            (
                "the path with a trailing slash, and a query",
                request(
                    &format!(
                        "POST /v3/stable/api/storage/?debug=1 HTTP/1.1\nHost: dcams\nContent-Length: {}",
                        SAMPLE.len()
                    ),
                    SAMPLE,
                ),
            ),
        ],
    );
}
