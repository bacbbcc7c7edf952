//! Every row of the contract's table of errors, on both stores.

use std::{collections::HashMap, sync::mpsc, thread, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{
    client::{Client, Metadata, basic},
    served,
};
use crate::support::{Backend, Gateway, Ground, eventually};

/// What a refusal is, its text aside.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    pub code: Code,
    pub reason: &'a str,
    pub fields: Vec<&'a str>,
    pub resource: Option<&'a str>,
    pub retries: bool,
}

impl<'a> Refused<'a> {
    pub fn new(code: Code, reason: &'a str) -> Self {
        Self {
            code,
            reason,
            fields: Vec::new(),
            resource: None,
            retries: false,
        }
    }
}

/// Checks a refusal against what it must be; whatever the caller named must not stand in it.
#[track_caller]
pub fn check(status: &Status, expected: &Refused<'_>) {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "dcams.storage");
    assert_eq!(info.metadata, HashMap::new());
    let violations = details
        .bad_request()
        .map(|bad| &*bad.field_violations)
        .unwrap_or_default();
    assert!(
        violations
            .iter()
            .all(|violation| violation.description == status.message())
    );
    let resource = details.resource_info();
    assert!(resource.is_none_or(|resource| resource.resource_name.is_empty()));
    let wait = details.retry_info().map(|retry| retry.retry_delay.unwrap());
    assert!(wait.is_none_or(|wait| wait >= Duration::from_secs(1)));
    let refused = Refused {
        code: status.code(),
        reason: &info.reason,
        fields: violations.iter().map(|violation| &*violation.field).collect(),
        resource: resource.map(|resource| &*resource.resource_type),
        retries: wait.is_some(),
    };
    assert_eq!(&refused, expected, "{}", status.message());
    for told in ["veratad", "nonsense"] {
        assert!(!status.message().contains(told));
        assert!(!String::from_utf8_lossy(status.details()).contains(told));
    }
}

#[test]
fn input_that_is_missing_or_invalid_is_named_by_its_field() {
    for backend in Backend::BOTH {
        let (_gateway, client) = served(backend);
        let refused = |method: &str, fields: &[(&str, &str)]| {
            client
                .call(method, fields, Metadata::of("USERNAME:PASSWORD"))
                .unwrap_err()
        };
        let expected = |reason, fields: &[&'static str]| Refused {
            fields: fields.to_vec(),
            ..Refused::new(Code::InvalidArgument, reason)
        };
        check(
            &refused("UpdateStatus", &[]),
            &expected("MISSING_INPUT", &["email", "status"]),
        );
        check(
            &refused("UpdateStatus", &[("email", " "), ("status", "STATUS_PASS")]),
            &expected("MISSING_INPUT", &["email"]),
        );
        check(
            &refused(
                "UpdateStatus",
                &[("email", "test@veratad.com"), ("status", "STATUS_UNSPECIFIED")],
            ),
            &expected("MISSING_INPUT", &["status"]),
        );
        check(&refused("GetStatus", &[]), &expected("MISSING_INPUT", &["email"]));
        check(
            &refused("GetStatus", &[("email", "nonsense.veratad.com")]),
            &expected("INVALID_EMAIL", &["email"]),
        );
        // Field 2 is the status, and 9 is none.
        let strange = [b"\x0a\x10test@veratad.com".as_slice(), b"\x10\x09"].concat();
        check(
            &client
                .call_with("UpdateStatus", strange, Metadata::of("USERNAME:PASSWORD"))
                .unwrap_err(),
            &expected("INVALID_STATUS", &["status"]),
        );
    }
}

#[test]
fn a_customer_that_is_not_there_is_not_named() {
    for backend in Backend::BOTH {
        let (_gateway, client) = served(backend);
        for (method, fields) in [
            (
                "UpdateStatus",
                [("email", "nobody@veratad.com"), ("status", "STATUS_PASS")].as_slice(),
            ),
            ("GetStatus", &[("email", "nobody@veratad.com")]),
        ] {
            let status = client
                .call(method, fields, Metadata::of("USERNAME:PASSWORD"))
                .unwrap_err();
            check(
                &status,
                &Refused {
                    resource: Some("dcams.storage.v1.Customer"),
                    ..Refused::new(Code::NotFound, "CUSTOMER_NOT_FOUND")
                },
            );
        }
    }
}

#[test]
fn credentials_that_are_missing_malformed_or_wrong_are_refused_alike() {
    for backend in Backend::BOTH {
        let (_gateway, client) = served(backend);
        let bad = Refused::new(Code::Unauthenticated, "BAD_CREDENTIALS");
        let mut texts = Vec::new();
        let mut refused = |metadata: Metadata| {
            // Nothing else is said before the credentials hold: no email is given.
            let status = client.call("GetStatus", &[], metadata).unwrap_err();
            check(&status, &bad);
            texts.push(status.message().to_owned());
        };
        refused(Metadata::default());
        for authorization in [
            "",
            "Basic",
            "Basic ",
            "Basic not base64",
            "Bearer VVNFUk5BTUU6UEFTU1dPUkQ=",
            // Base64 of `USERNAME`, of a NUL and of what is not UTF-8.
            "Basic VVNFUk5BTUU=",
            "Basic AA==",
            "Basic /zr/",
        ] {
            refused(Metadata::default().with("authorization", authorization));
        }
        for credentials in ["USERNAME:password", "NOBODY:PASSWORD", "USERNAME:", ":PASSWORD"] {
            refused(Metadata::default().with("authorization", &basic(credentials)));
        }
        texts.dedup();
        assert_eq!(texts, ["Either your username or password is incorrect"]);
        // The scheme is read in any letter case.
        let lower = basic("USERNAME:PASSWORD").replace("Basic", "basic");
        let metadata = Metadata::default().with("authorization", &lower);
        client
            .call("GetStatus", &[("email", "test@veratad.com")], metadata)
            .unwrap();
    }
}

#[test]
fn too_many_failed_logins_are_throttled() {
    for backend in Backend::BOTH {
        let (_gateway, client) = served(backend);
        let guess = |number: u32| {
            client
                .call("GetStatus", &[], Metadata::of(&format!("USERNAME:nonsense {number}")))
                .unwrap_err()
        };
        for number in 0..10 {
            check(&guess(number), &Refused::new(Code::Unauthenticated, "BAD_CREDENTIALS"));
        }
        check(
            &guess(10),
            &Refused {
                retries: true,
                ..Refused::new(Code::ResourceExhausted, "THROTTLED")
            },
        );
    }
}

#[test]
fn what_the_service_does_not_have_is_refused_in_the_words_of_the_contract() {
    let (_gateway, client) = served(Backend::Sqlite);
    let unknown = client
        .call_with("NoSuchMethod", Vec::new(), Metadata::of("USERNAME:PASSWORD"))
        .unwrap_err();
    check(&unknown, &Refused::new(Code::Unimplemented, "UNKNOWN_PATH"));
    let deflated = Metadata::of("USERNAME:PASSWORD").with("grpc-encoding", "deflate");
    let encoded = client.call_with("GetStatus", Vec::new(), deflated).unwrap_err();
    check(&encoded, &Refused::new(Code::Unimplemented, "UNSUPPORTED_ENCODING"));
}

#[test]
fn only_a_trusted_peer_may_say_that_a_call_came_in_over_rest() {
    for backend in Backend::BOTH {
        for (arguments, face) in [(&[][..], 2), (&["--trusted-proxy", "127.0.0.1"][..], 1)] {
            let database = backend.database();
            let gateway = Gateway::start(&database, &[&["--demo"], arguments].concat());
            let client = Client::connect(gateway.grpc.unwrap());
            let metadata = Metadata::of("USERNAME:PASSWORD").with("x-dcams-face", "rest");
            client
                .call(
                    "UpdateStatus",
                    &[("email", "test@veratad.com"), ("status", "STATUS_PASS")],
                    metadata,
                )
                .unwrap();
            let kept = database
                .session()
                .number("(SELECT face FROM status_changes WHERE version = 2)");
            assert_eq!(kept, face, "{backend}: {arguments:?}");
        }
    }
}

#[test]
fn a_message_that_is_too_large_or_none_is_refused() {
    for backend in Backend::BOTH {
        let (_gateway, client) = served(backend);
        let refused =
            |message: Vec<u8>, metadata: Metadata| client.call_with("GetStatus", message, metadata).unwrap_err();
        let credentials = || Metadata::of("USERNAME:PASSWORD");
        let too_large = Refused::new(Code::ResourceExhausted, "BODY_TOO_LARGE");
        check(&refused(vec![b' '; 64 * 1024 + 1], credentials()), &too_large);
        check(&refused(vec![b' '; 1024 * 1024], credentials().gzip()), &too_large);
        let malformed = Refused::new(Code::InvalidArgument, "MALFORMED_BODY");
        // A field number that is none, a length beyond the end, a text that is not UTF-8.
        for garbage in [b"\x00".as_slice(), b"\x0a\x7fnonsense", b"\x0a\x01\xff"] {
            check(&refused(garbage.to_vec(), credentials()), &malformed);
        }
    }
}

#[test]
fn a_deadline_that_passes_is_said_by_the_server_with_details() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        let _blocked = served.database.session().holding_customers();
        let status = client
            .call(
                "UpdateStatus",
                &[("email", "test@veratad.com"), ("status", "STATUS_PASS")],
                Metadata::of("USERNAME:PASSWORD").with("grpc-timeout", "500m"),
            )
            .unwrap_err();
        check(&status, &Refused::new(Code::DeadlineExceeded, "TIMEOUT"));
    }
}

#[test]
fn a_full_queue_is_said_at_once() {
    const CALLERS: usize = 6;
    for backend in Backend::BOTH {
        let narrow = ["--write-queue", "1", "--write-batch", "1", "--writers", "1"];
        let (served, _) = super::served_with(backend, &narrow);
        let blocked = served.database.session().holding_customers();
        let (answers, arrived) = mpsc::channel();
        for _ in 0..CALLERS {
            let (answers, address) = (answers.clone(), served.gateway.grpc.unwrap());
            thread::spawn(move || drop(answers.send(super::update(&Client::connect(address)))));
        }
        // One is being written and one waits, at most: the others must be refused while these hang.
        for answer in arrived.iter().take(CALLERS - 2) {
            check(
                &answer.unwrap_err(),
                &Refused {
                    retries: true,
                    ..Refused::new(Code::ResourceExhausted, "UNAVAILABLE")
                },
            );
        }
        drop(blocked);
        assert!(arrived.iter().take(2).any(|answer| answer.is_ok()));
    }
}

#[test]
fn a_store_that_is_down_is_unavailable_until_it_is_back() {
    for backend in Backend::BOTH {
        let (ground, database) = Ground::new(backend);
        super::prepare(&database);
        let gateway = Gateway::start(&database, &[]);
        let client = Client::connect(gateway.grpc.unwrap());
        let away = ground.take_away();
        check(
            &super::update(&client).unwrap_err(),
            &Refused {
                retries: true,
                ..Refused::new(Code::Unavailable, "UNAVAILABLE")
            },
        );
        away.bring_back();
        eventually("it serves again", || super::update(&client).is_ok());
    }
}

#[test]
fn a_defect_is_internal_and_says_no_more() {
    for backend in Backend::BOTH {
        let (served, client) = served(backend);
        served.database.session().execute("DROP TABLE status_changes");
        let status = super::update(&client).unwrap_err();
        check(&status, &Refused::new(Code::Internal, "INTERNAL"));
        assert_eq!(status.message(), "Internal error");
    }
}
