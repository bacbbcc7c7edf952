//! The headers `Idempotency-Key` and `If-Match` of a request, and `ETag` of a reply.

use http::HeaderValue;
use proto::{Reason, v1::Customer};

use super::support::{Answer, Face, Reply, SAMPLE, Terms, john, post};

const SERVICES: [&str; 4] = [
    "updateStatus",
    "createOrUpdateCustomer",
    "getStatus",
    "getDocumentImages",
];

/// The two services that change something.
const CHANGES: [&str; 2] = [SERVICES[0], SERVICES[1]];

async fn send(face: &Face, body: &str, headers: &[(&str, &[u8])]) -> Reply {
    let request = headers.iter().fold(post(), |request, (name, value)| {
        request.header(*name, HeaderValue::from_bytes(value).unwrap())
    });
    face.send(request.body(body.to_owned().into()).unwrap()).await
}

fn sample_for(service: &str) -> String {
    SAMPLE.replace("updateStatus", service)
}

/// What reaches the service with a header; none where it is refused.
async fn terms(service: &str, headers: &[(&str, &[u8])]) -> Option<Terms> {
    let face = Face::new();
    let reply = send(&face, &sample_for(service), headers).await;
    match reply.status.as_u16() {
        200 => Some(face.seen()[0].terms.clone()),
        _ => {
            let name = headers[0].0;
            assert_eq!(reply.summary(), format!("400 INVALID_FIELD The {name} is invalid"));
            // Nothing but the question whether the credentials hold.
            assert_eq!(face.messages(), [super::support::get("")]);
            None
        }
    }
}

#[tokio::test]
async fn an_etag_goes_without_its_quotes_and_one_that_no_customer_has_as_it_stands() {
    for service in CHANGES {
        for (sent, etag) in [
            (r#""0f8fad5b-1""#, "0f8fad5b-1"),
            (r#"  "a,b" "#, "a,b"),
            (r#""*""#, "*"),
            (r#"W/"0f8fad5b-1""#, r#"W/"0f8fad5b-1""#),
            (r#""""#, r#""""#),
        ] {
            let terms = terms(service, &[("If-Match", sent.as_bytes())]).await.unwrap();
            assert_eq!(terms.etag, etag, "{service}: {sent}");
            assert_eq!(terms.idempotency_key, "");
        }
    }
}

#[tokio::test]
async fn any_etag_will_do_where_a_customer_must_be_there_anyway() {
    let any = [("If-Match", &b"*"[..])];
    assert_eq!(terms("updateStatus", &any).await, Some(Terms::default()));
    assert_eq!(terms("createOrUpdateCustomer", &any).await, None);
}

#[tokio::test]
async fn what_is_not_one_etag_is_refused() {
    for service in CHANGES {
        for sent in [
            "",
            "0f8fad5b-1",
            "\"",
            "\"a",
            "a\"",
            r#""a", "b""#,
            r#""a", *"#,
            "*, *",
            r#"w/"a""#,
            r#""a b""#,
            "\"a\tb\"",
            "\"é\"",
        ] {
            let refused = terms(service, &[("If-Match", sent.as_bytes())]).await;
            assert_eq!(refused, None, "{service}: {sent}");
        }
        let twice: [(&str, &[u8]); 2] = [("If-Match", b"\"a\""), ("If-Match", b"\"a\"")];
        assert_eq!(terms(service, &twice).await, None);
    }
}

#[tokio::test]
async fn a_key_goes_as_it_stands_and_twice_is_refused() {
    for service in CHANGES {
        let longest = "x".repeat(200);
        for key in ["order-7", "\"order-7\"", "a b", &longest] {
            let terms = terms(service, &[("Idempotency-Key", key.as_bytes())]).await.unwrap();
            assert_eq!(terms.idempotency_key, key, "{service}");
            assert_eq!(terms.etag, "");
        }
        for key in [&b""[..], b" ", b"\xff"] {
            assert_eq!(terms(service, &[("Idempotency-Key", key)]).await, None, "{key:?}");
        }
        let twice: [(&str, &[u8]); 2] = [("Idempotency-Key", b"a"), ("Idempotency-Key", b"a")];
        assert_eq!(terms(service, &twice).await, None);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_header_is_said_after_the_credentials() {
    for service in CHANGES {
        for name in ["If-Match", "Idempotency-Key"] {
            let body = sample_for(service).replace("PASSWORD", "wrong");
            let reply = send(&Face::new(), &body, &[(name, b"")]).await;
            let summary = "401 BAD_CREDENTIALS Either your username or password is incorrect";
            assert_eq!(reply.summary(), summary);
            let body = sample_for(service).replace("test@veratad.com", "");
            let reply = send(&Face::new(), &body, &[(name, b"")]).await;
            assert_eq!(reply.summary(), "400 MISSING_INPUT Missing a required input");
        }
    }
}

#[tokio::test]
async fn a_read_has_no_terms() {
    for service in &SERVICES[2..] {
        let face = Face::new();
        let headers: [(&str, &[u8]); 2] = [("If-Match", b"nonsense"), ("Idempotency-Key", b"")];
        let reply = send(&face, &sample_for(service), &headers).await;
        assert_eq!(reply.summary(), "200", "{service}");
        assert_eq!(face.seen()[0].terms, Terms::default());
    }
}

#[tokio::test]
async fn a_reply_with_a_customer_names_its_state() {
    for service in SERVICES {
        let reply = Face::new().post(sample_for(service)).await;
        assert_eq!(reply.header("etag"), Some("\"opaque\""), "{service}");
        // What cannot be an etag is none.
        for etag in ["", "a\"b", "a b", "é", "\n"] {
            let customer = Customer {
                etag: etag.to_owned(),
                ..john()
            };
            let face = Face::answering(Answer::Customer(customer.into()));
            let reply = face.post(sample_for(service)).await;
            assert_eq!((reply.summary().as_str(), reply.header("etag")), ("200", None));
        }
        for reason in [Reason::Conflict, Reason::KeyReused, Reason::CustomerNotFound] {
            let reply = Face::refusing(reason).post(sample_for(service)).await;
            assert_eq!(reply.header("etag"), None, "{service}");
        }
    }
}
