//! The one table of errors, against the golden files and across the wire.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use proto::{Reason, Refusal};
use tonic::Status;

/// What does not occur on the REST face, and why.
pub const ABSENT: [(Reason, &str); 2] = [
    (Reason::TooSlow, "there are no streams over JSON"),
    (
        Reason::PermissionDenied,
        "a JSON body carries a user and a password, and no token",
    ),
];

/// Name, HTTP status and message of an error.
type Error = (String, u16, String);

/// The errors in all golden replies; the name of a field is `FIELD`.
fn golden_errors() -> BTreeSet<Error> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let mut errors = BTreeSet::new();
    for file in fs::read_dir(golden).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for reply in text.split("\nHTTP/1.1 ").skip(1) {
            let status = reply[..3].parse().unwrap();
            let reason = reply.lines().find_map(|line| line.strip_prefix("x-error-reason: "));
            // A HEAD has no body.
            let body = reply
                .lines()
                .find_map(|line| line.strip_prefix(r#"{"result":"Error","message":""#));
            if let (Some(reason), Some(body)) = (reason, body) {
                let message = body.strip_suffix(r#""}"#).unwrap();
                let message = match reason {
                    "INVALID_FIELD" => message.replace(message.split(' ').nth(1).unwrap(), "FIELD"),
                    _ => message.to_owned(),
                };
                errors.insert((reason.to_owned(), status, message));
            }
        }
    }
    errors
}

#[test]
fn the_table_of_errors_and_the_golden_replies_agree() {
    let expected: BTreeSet<Error> = Reason::ALL
        .into_iter()
        .filter(|reason| !ABSENT.iter().any(|(absent, _)| absent == reason))
        .map(|reason| {
            let status = reason.http_status().as_u16();
            (reason.name().to_owned(), status, reason.message().to_owned())
        })
        .collect();
    assert_eq!(golden_errors(), expected);
}

#[test]
fn every_refusal_survives_the_way_between_the_faces() {
    for reason in Reason::ALL {
        for refusal in [
            Refusal::from(reason),
            Refusal::fields(reason, ["email", "status"]),
            Refusal::retry_after(reason, Duration::from_millis(1_500)),
        ] {
            let sent = Status::from(refusal.clone());
            assert_eq!(sent.code(), reason.code());
            assert_eq!(sent.message(), refusal.message());
            let headers = sent.into_http::<()>();
            let received = Status::from_header_map(headers.headers()).unwrap();
            assert_eq!(Refusal::from(&received), refusal);
        }
    }
}

#[test]
fn what_is_sent_by_somebody_else_is_never_taken_for_one_of_ours() {
    use tonic::Code;
    for code in (0..17).map(Code::from_i32) {
        let refusal = Refusal::from(&Status::new(code, "MISSING_INPUT"));
        let expected = match code {
            Code::Unavailable => Reason::Unavailable,
            Code::ResourceExhausted => Reason::Overloaded,
            Code::DeadlineExceeded | Code::Cancelled => Reason::DeadlineExceeded,
            _ => Reason::Internal,
        };
        assert_eq!(refusal, Refusal::from(expected), "{code:?}");
    }
}
