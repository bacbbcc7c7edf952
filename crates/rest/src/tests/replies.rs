//! The replies, byte for byte: of success, and of every way to fail.

use std::time::Duration;

use bytes::Bytes;
use proto::{
    Reason, Refusal,
    v1::{self, Customer},
};
use tonic::{Code, Status};

use super::support::{Answer, Face, SAMPLE, john, logged, post};

fn sample_for(service: &str) -> String {
    SAMPLE.replace("updateStatus", service)
}

#[tokio::test]
async fn update_status_has_the_status_inside_of_target() {
    let reply = Face::new().post(SAMPLE).await;
    assert_eq!(
        reply.body,
        concat!(
            r#"{"result":"Success","reference":"888888812","target":{"fn":"John","ln":"Smith","addr":"123 Main St","#,
            r#""city":"Stratford","state":"CT","zip":"06614","dob":"19700101","email":"test@veratad.com","#,
            r#""phone":"2015106000","status":"PASS"}}"#
        )
    );
}

#[tokio::test]
async fn get_status_has_the_status_at_the_top() {
    let reply = Face::new().post(sample_for("getStatus")).await;
    assert_eq!(
        reply.body,
        concat!(
            r#"{"result":"Success","reference":"888888812","status":"PASS","target":{"fn":"John","ln":"Smith","#,
            r#""addr":"123 Main St","city":"Stratford","state":"CT","zip":"06614","dob":"19700101","#,
            r#""email":"test@veratad.com","phone":"2015106000"}}"#
        )
    );
}

#[tokio::test]
async fn create_or_update_customer_says_which_of_the_two_it_was() {
    for (email, kind) in [
        ("new@veratad.com", "createCustomer"),
        ("test@veratad.com", "updateCustomer"),
    ] {
        let sample = sample_for("createOrUpdateCustomer").replace("test@veratad.com", email);
        let reply = Face::new().post(sample).await;
        assert_eq!(
            reply.body,
            format!(
                concat!(
                    r#"{{"result":"Success","reference":"888888812","customer_link":"https://example.com/customers/7","#,
                    r#""status":"PASS","type":"{}","target":{{"fn":"John","ln":"Smith","addr":"123 Main St","#,
                    r#""city":"Stratford","state":"CT","zip":"06614","dob":"19700101","email":"test@veratad.com","#,
                    r#""phone":"2015106000"}}}}"#
                ),
                kind
            )
        );
    }
}

#[tokio::test]
async fn get_document_images_has_the_images_inside_of_target() {
    let customer = concat!(
        r#"{"result":"Success","reference":"888888812","status":"PASS","target":{"fn":"John","ln":"Smith","#,
        r#""addr":"123 Main St","city":"Stratford","state":"CT","zip":"06614","dob":"19700101","#,
        r#""email":"test@veratad.com","phone":"2015106000","documents":"#
    );
    let (some, more) = (Bytes::from_static(b"\xff\xef\xbe!"), Bytes::from_static(b"back"));
    for (front, back, documents) in [
        (
            some.clone(),
            more.clone(),
            r#"{"front":"/+++IQ==","back":"YmFjaw=="}}}"#,
        ),
        (some, Bytes::new(), r#"{"front":"/+++IQ==","back":""}}}"#),
        (Bytes::new(), more, r#"{"front":"","back":"YmFjaw=="}}}"#),
        (Bytes::new(), Bytes::new(), r#"{"front":"","back":""}}}"#),
    ] {
        let reply = Face::answering(Answer::Images(front, back))
            .post(sample_for("getDocumentImages"))
            .await;
        assert_eq!(reply.body, format!("{customer}{documents}"));
    }
    // A service that sends no documents at all has none.
    let reply = Face::new().post(sample_for("getDocumentImages")).await;
    assert_eq!(reply.body, format!(r#"{customer}{{"front":"","back":""}}}}}}"#));
}

#[tokio::test]
async fn what_is_not_stored_is_empty_and_every_key_is_there() {
    let customer = Customer {
        first_name: "Zoë \"Ω\" </script>".to_owned(),
        status: v1::Status::Pending.into(),
        ..Customer::default()
    };
    let reply = Face::answering(Answer::Customer(customer.into())).post(SAMPLE).await;
    assert_eq!(
        reply.body,
        concat!(
            r#"{"result":"Success","reference":"","target":{"fn":"Zoë \"Ω\" </script>","ln":"","addr":"","city":"","#,
            r#""state":"","zip":"","dob":"","email":"","phone":"","status":"PENDING"}}"#
        )
    );
}

#[tokio::test]
async fn every_refusal_of_the_service_has_its_row_of_the_table() {
    for reason in Reason::ALL {
        let reply = Face::refusing(Refusal::fields(reason, ["zip"])).post(SAMPLE).await;
        let message = reason.message().replace("FIELD", "zip");
        assert_eq!(reply.status, reason.http_status(), "{reason:?}");
        assert_eq!(
            reply.body,
            format!(r#"{{"result":"Error","message":"{message}"}}"#),
            "{reason:?}"
        );
        assert_eq!(reply.header("x-error-reason"), Some(reason.name()), "{reason:?}");
        assert_eq!(
            reply.header("retry-after"),
            reason.retryable().then_some("1"),
            "{reason:?}"
        );
    }
}

#[tokio::test]
async fn an_invalid_field_is_named_by_its_legacy_key() {
    for (field, key) in [
        ("first_name", "fn"),
        ("last_name", "ln"),
        ("address", "addr"),
        ("city", "city"),
        ("state", "state"),
        ("zip", "zip"),
        ("date_of_birth", "dob"),
        ("phone", "phone"),
        ("reference", "reference"),
        ("documents", "documents"),
        ("documents.front", "front"),
        ("documents.back", "back"),
        ("etag", "If-Match"),
        ("idempotency_key", "Idempotency-Key"),
    ] {
        let face = Face::refusing(Refusal::fields(Reason::InvalidField, [field, "zip"]));
        let summary = face.post(SAMPLE).await.summary();
        assert_eq!(summary, format!("400 INVALID_FIELD The {key} is invalid"));
    }
}

#[tokio::test]
async fn retry_after_is_in_whole_seconds_rounded_up() {
    for (wait, seconds) in [
        (Duration::ZERO, "1"),
        (Duration::from_millis(1), "1"),
        (Duration::from_secs(1), "1"),
        (Duration::from_millis(1001), "2"),
        (Duration::from_secs(900), "900"),
    ] {
        let reply = Face::refusing(Refusal::retry_after(Reason::Throttled, wait))
            .post(SAMPLE)
            .await;
        assert_eq!(reply.summary(), "429 THROTTLED Too many requests");
        assert_eq!(reply.header("retry-after"), Some(seconds), "{wait:?}");
    }
}

#[tokio::test]
async fn a_status_that_is_not_ours_is_mapped_by_its_code_and_leaks_nothing() {
    for (code, summary) in [
        (Code::Unavailable, "503 UNAVAILABLE The service is unavailable"),
        (Code::ResourceExhausted, "503 UNAVAILABLE The service is unavailable"),
        (Code::DeadlineExceeded, "504 TIMEOUT The request timed out"),
        (Code::Cancelled, "504 TIMEOUT The request timed out"),
        (Code::NotFound, "500 INTERNAL Internal error"),
        (Code::Unauthenticated, "500 INTERNAL Internal error"),
        (Code::Internal, "500 INTERNAL Internal error"),
        (Code::Unknown, "500 INTERNAL Internal error"),
    ] {
        let reply = Face::refusing(Status::new(code, "secret detail")).post(SAMPLE).await;
        assert_eq!(reply.summary(), summary, "{code:?}");
        assert!(!format!("{:?}", reply.headers).contains("secret"), "{code:?}");
    }
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_a_defect() {
    for status in [0, 4, -1] {
        let customer = Customer { status, ..john() };
        for service in [
            "updateStatus",
            "getStatus",
            "createOrUpdateCustomer",
            "getDocumentImages",
        ] {
            let reply = Face::answering(Answer::Customer(customer.clone().into()))
                .post(sample_for(service))
                .await;
            assert_eq!(reply.summary(), "500 INTERNAL Internal error");
        }
    }
    let reply = Face::answering(Answer::Nothing).post(SAMPLE).await;
    assert_eq!(reply.summary(), "500 INTERNAL Internal error");
}

#[tokio::test]
async fn a_defect_is_logged_once_with_the_name_of_the_request_and_no_detail() {
    let face = Face::refusing(Status::new(Code::NotFound, "secret detail"));
    let request = post().header("x-request-id", "a-defect").body(SAMPLE.into());
    face.send(request.unwrap()).await;
    let lines = logged("a-defect");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("code=NotFound"), "{lines:?}");
    for secret in ["secret", "USERNAME", "PASSWORD", "veratad"] {
        assert!(!lines[0].contains(secret), "{lines:?}");
    }
}

#[tokio::test]
async fn what_is_no_defect_is_not_logged() {
    for reason in [Reason::BadCredentials, Reason::Unavailable] {
        let request = post().header("x-request-id", "no-defect").body(SAMPLE.into());
        Face::refusing(reason).send(request.unwrap()).await;
    }
    assert!(logged("no-defect").is_empty());
}

#[tokio::test]
async fn what_the_service_says_about_the_caller_goes_before_a_refusal_of_ours() {
    let refused_here = sample_for("noSuchService");
    for (reason, summary) in [
        (Reason::Throttled, "429 THROTTLED Too many requests"),
        (Reason::Unavailable, "503 UNAVAILABLE The service is unavailable"),
        (Reason::Internal, "500 INTERNAL Internal error"),
        (Reason::MissingInput, "400 UNKNOWN_SERVICE The service is unknown"),
    ] {
        let reply = Face::refusing(reason).post(refused_here.clone()).await;
        assert_eq!(reply.summary(), summary);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_answers_is_not_waited_for() {
    for body in [
        sample_for("updateStatus"),
        sample_for("getStatus"),
        sample_for("createOrUpdateCustomer"),
        sample_for("getDocumentImages"),
        sample_for("noSuchService"),
    ] {
        let reply = Face::answering(Answer::Never).post(body).await;
        assert_eq!(reply.summary(), "504 TIMEOUT The request timed out");
    }
}
