//! Messages and frames of gRPC as no client sends them: each is refused in the words of the contract, and the same connection
//! serves the next call.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt;
use tower::Service;

use crate::{
    grpc::client::{Client, SERVICE, basic},
    support::{Backend, Gateway},
};

/// What comes of a call: none where it succeeds, and else its code and reason.
type Outcome = Option<(Code, &'static str)>;

const MALFORMED: Outcome = Some((Code::InvalidArgument, "MALFORMED_BODY"));
const TOO_LARGE: Outcome = Some((Code::ResourceExhausted, "BODY_TOO_LARGE"));
const UNSUPPORTED: Outcome = Some((Code::Unimplemented, "UNSUPPORTED_ENCODING"));
const GOOD: Outcome = None;

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A field with a length before it.
fn field(number: u64, content: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | 2)[..], &varint(content.len() as u64), content].concat()
}

/// The address of the customer that there is, in the field that has it in every request.
fn email() -> Vec<u8> {
    field(1, b"test@veratad.com")
}

fn then(more: &[u8]) -> Vec<u8> {
    [&email(), more].concat()
}

/// A message behind the head of its frame.
fn framed(flag: u8, length: usize, message: &[u8]) -> Vec<u8> {
    [&[flag], &u32::try_from(length).unwrap().to_be_bytes()[..], message].concat()
}

fn whole(message: &[u8]) -> Vec<u8> {
    framed(0, message.len(), message)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Sends what is no more than a head and a body, and gives the status at the end.
fn send(client: &Client, method: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<(), Status> {
    let (mut connection, origin) = client.transport();
    let mut request = Request::post(format!("{origin}{SERVICE}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", basic("USERNAME:PASSWORD"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Body::new(Full::from(body));
    client.block_on(async {
        let response = connection
            .call(request.body(body).unwrap())
            .await
            .expect("there is an answer");
        assert_eq!(response.status(), 200, "gRPC has its own statuses");
        let (head, body) = response.into_parts();
        let trailers = body.collect().await.expect("the answer is whole").trailers().cloned();
        let of = |headers: &HeaderMap| Status::from_header_map(headers);
        let status = of(&head.headers).or_else(|| of(&trailers?)).expect("there is a status");
        if status.code() == Code::Ok { Ok(()) } else { Err(status) }
    })
}

/// Messages of `GetStatus`, each in a sound frame.
fn messages() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let missing = Some((Code::InvalidArgument, "MISSING_INPUT"));
    let many = (100..2_000).flat_map(|number| field(number, b"x")).collect::<Vec<_>>();
    // Groups in each other, which a parser that calls itself for each would not survive.
    let groups = |levels: usize| then(&[vec![0x4b; levels], vec![0x4c; levels]].concat());
    vec![
        ("nothing", vec![], missing),
        ("an address", email(), GOOD),
        (
            "a field twice: the last one counts",
            [field(1, b"x"), email()].concat(),
            GOOD,
        ),
        ("an empty field last", then(&field(1, b"")), missing),
        ("a varint nobody knows", then(&[0x48, 0x01]), GOOD),
        ("64 bits nobody knows", then(&[0x49, 1, 2, 3, 4, 5, 6, 7, 8]), GOOD),
        ("32 bits nobody knows", then(&[0x4d, 1, 2, 3, 4]), GOOD),
        ("bytes nobody knows", then(&field(9, b"\xff\xfe\x00")), GOOD),
        ("2,000 fields nobody knows", then(&many), GOOD),
        (
            "the largest field number",
            then(&[&varint(0x1fff_ffff << 3)[..], &[1]].concat()),
            GOOD,
        ),
        ("a group nobody knows", then(&[0x4b, 0x08, 0x01, 0x4c]), GOOD),
        ("a key longer than it must be", then(&[0xc8, 0x80, 0x00, 0x01]), GOOD),
        (
            "a varint of ten bytes",
            then(&[0x48, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
            GOOD,
        ),
        ("50 groups in each other", groups(50), GOOD),
        ("200 groups in each other", groups(200), MALFORMED),
        ("30,000 groups in each other", groups(30_000), MALFORMED),
        ("a group that does not end", then(&[0x4b]), MALFORMED),
        ("a group that ends another one", then(&[0x4b, 0x54]), MALFORMED),
        ("an end of no group", then(&[0x4c]), MALFORMED),
        ("a key cut off", then(&[0x80]), MALFORMED),
        ("a varint cut off", then(&[0x48, 0x80]), MALFORMED),
        (
            "a varint of eleven bytes",
            then(&[&[0x48][..], &[0x80; 10], &[1]].concat()),
            MALFORMED,
        ),
        (
            "a varint beyond 64 bits",
            then(&[0x48, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]),
            MALFORMED,
        ),
        ("64 bits cut off", then(&[0x49, 1, 2, 3]), MALFORMED),
        ("32 bits cut off", then(&[0x4d, 1]), MALFORMED),
        ("the field number 0", then(&[0x00, 0x00]), MALFORMED),
        (
            "a field number beyond the largest",
            then(&[0xf8, 255, 255, 255, 0x7f, 0]),
            MALFORMED,
        ),
        ("the wire type 6", then(&[0x4e]), MALFORMED),
        ("the wire type 7", then(&[0x4f]), MALFORMED),
        ("a number for a text", vec![0x08, 0x01], MALFORMED),
        ("64 bits for a text", vec![0x09, 1, 2, 3, 4, 5, 6, 7, 8], MALFORMED),
        ("32 bits for a text", vec![0x0d, 1, 2, 3, 4], MALFORMED),
        ("a group for a text", vec![0x0b, 0x0c], MALFORMED),
        ("a length beyond the end", vec![0x0a, 0x05, b'a'], MALFORMED),
        (
            "a length of 2 GiB",
            [&[0x0a][..], &varint(1 << 31), b"a"].concat(),
            MALFORMED,
        ),
        (
            "a length of 2^64 - 1",
            [&[0x0a][..], &varint(u64::MAX), b"a"].concat(),
            MALFORMED,
        ),
        (
            "the same where nobody knows it",
            then(&[&[0x4a][..], &varint(u64::MAX)].concat()),
            MALFORMED,
        ),
        ("a length and nothing", vec![0x0a], MALFORMED),
        ("a text that is not UTF-8", field(1, b"\xff@example.com"), MALFORMED),
        (
            "a text with half a surrogate pair",
            field(1, b"\xed\xa0\x80@example.com"),
            MALFORMED,
        ),
        ("an overlong text", field(1, b"\xc0\xaf@example.com"), MALFORMED),
        (
            "a zero in a text",
            field(1, b"a\x00@example.com"),
            Some((Code::InvalidArgument, "INVALID_EMAIL")),
        ),
        ("JSON", br#"{"email":"test@veratad.com"}"#.to_vec(), MALFORMED),
        ("more than a message may have", vec![b' '; 65 * 1024], TOO_LARGE),
    ]
}

/// Bodies of `GetStatus` as they are sent, with headers beside those of a call.
type Sent = (&'static str, &'static [(&'static str, &'static str)], Vec<u8>, Outcome);

fn frames() -> Vec<Sent> {
    const GZIP: &[(&str, &str)] = &[("grpc-encoding", "gzip")];
    let zipped = gzip(&email());
    let bomb = gzip(&vec![0; 64 * 1024 * 1024]);
    vec![
        ("a frame", &[], whole(&email()), GOOD),
        ("no frame", &[], vec![], MALFORMED),
        ("half a head", &[], vec![0, 0, 0], MALFORMED),
        ("a head and no message", &[], framed(0, 18, &[]), MALFORMED),
        ("a message cut off", &[], framed(0, 18, &email()[..9]), MALFORMED),
        (
            "a head of a message that is too large",
            &[],
            framed(0, 1 << 31, &[]),
            TOO_LARGE,
        ),
        (
            "two messages: the first one counts",
            &[],
            [whole(&email()), whole(&email())].concat(),
            GOOD,
        ),
        (
            "something behind the message",
            &[],
            [whole(&email()), vec![1]].concat(),
            MALFORMED,
        ),
        (
            "a flag that is none",
            &[],
            framed(7, email().len(), &email()),
            MALFORMED,
        ),
        (
            "compressed, without saying how",
            &[],
            framed(1, zipped.len(), &zipped),
            MALFORMED,
        ),
        ("gzip", GZIP, framed(1, zipped.len(), &zipped), GOOD),
        ("gzip that is not used", GZIP, whole(&email()), GOOD),
        ("gzip that is none", GZIP, framed(1, email().len(), &email()), MALFORMED),
        (
            "gzip cut off",
            GZIP,
            framed(1, zipped.len() - 9, &zipped[..zipped.len() - 9]),
            MALFORMED,
        ),
        ("64 MiB in a few KiB", GZIP, framed(1, bomb.len(), &bomb), TOO_LARGE),
        (
            "an encoding that nobody knows",
            &[("grpc-encoding", "br")],
            framed(1, 1, b"x"),
            UNSUPPORTED,
        ),
        (
            "a timeout that is none",
            &[("grpc-timeout", "soon")],
            whole(&email()),
            GOOD,
        ),
        (
            "binary metadata that is none",
            &[("x-trace-bin", "!!!")],
            whole(&email()),
            GOOD,
        ),
    ]
}

#[track_caller]
fn judge(client: &Client, name: &str, outcome: Result<(), Status>, expected: Outcome) {
    let told = outcome.as_ref().err().map(|status| {
        let reason = status.get_details_error_info().map(|info| info.reason);
        (status.code(), reason.unwrap_or_default())
    });
    let expected = expected.map(|(code, reason)| (code, reason.to_owned()));
    assert_eq!(told, expected, "{name}: {outcome:?}");
    send(client, "GetStatus", &[], whole(&email())).unwrap_or_else(|status| panic!("after {name}: {status}"));
}

#[test]
fn a_message_or_a_frame_that_is_none_is_refused_and_the_connection_goes_on() {
    let database = Backend::Sqlite.database();
    let gateway = Gateway::start(&database, &["--demo"]);
    let client = Client::bare(gateway.grpc.unwrap());
    let (messages, frames) = (messages(), frames());
    let mut count = 0;
    for (name, message, expected) in &messages {
        for method in ["GetStatus", "GetDocumentImages"] {
            judge(&client, name, send(&client, method, &[], whole(message)), *expected);
            count += 1;
        }
        // Other fields have other types, but what is no message of the one is none of the others.
        for method in [
            "UpdateStatus",
            "CreateOrUpdateCustomer",
            "EraseCustomer",
            "ListStatusChanges",
            "GetStatusAt",
            "WatchStatusChanges",
        ] {
            if *expected == MALFORMED && !name.contains("text") {
                judge(&client, name, send(&client, method, &[], whole(message)), MALFORMED);
                count += 1;
            }
        }
    }
    for (name, headers, body, expected) in frames {
        judge(&client, name, send(&client, "GetStatus", headers, body), expected);
        count += 1;
    }
    // Deep below a field that is known, and a number beyond all that an enum has.
    let nested = field(3, &[0x08, 0x80]);
    judge(
        &client,
        "a time cut off",
        send(&client, "ListStatusChanges", &[], whole(&then(&nested))),
        MALFORMED,
    );
    let invalid = Some((Code::InvalidArgument, "INVALID_STATUS"));
    for status in [
        &[0x10, 0x63][..],
        &[0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
    ] {
        judge(
            &client,
            "a status that is none",
            send(&client, "UpdateStatus", &[], whole(&then(status))),
            invalid,
        );
    }
    assert_eq!(gateway.stop().code, 0);
    super::tell(&format!(
        "gRPC: {} messages and frames answered as the contract says, all on one connection",
        count + 3
    ));
}
