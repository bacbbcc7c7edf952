//! Which call a legacy body becomes, or why it becomes none.

use proto::v1::Status;

use super::support::{Face, Message, SAMPLE, get, update};

/// A body with good credentials for `service`; `rest` is what follows.
fn body(service: &str, rest: &str) -> String {
    format!(r#"{{"user":"USERNAME","pass":"PASSWORD","service":"{service}"{rest}}}"#)
}

#[tokio::test]
async fn a_sound_body_becomes_one_call() {
    let update_with = |rest: &str| body("updateStatus", rest);
    let get_with = |rest: &str| body("getStatus", rest);
    let cases = [
        (SAMPLE.to_owned(), update(Status::Pass)),
        // Every status, in any letter case, with white space around it.
        (
            update_with(r#","target":{"email":"test@veratad.com","status":"PENDING"}"#),
            update(Status::Pending),
        ),
        (
            update_with(r#","target":{"email":"test@veratad.com","status":" fail\t"}"#),
            update(Status::Fail),
        ),
        (
            update_with(r#","target":{"email":" test@veratad.com ","status":"pAsS"}"#),
            update(Status::Pass),
        ),
        // Flat, as the table of the documentation has it; and half flat.
        (
            update_with(r#","email":"test@veratad.com","status":"PASS""#),
            update(Status::Pass),
        ),
        (
            update_with(r#","target":null,"email":"test@veratad.com","status":"PASS""#),
            update(Status::Pass),
        ),
        (
            update_with(r#","target":[],"email":"test@veratad.com","status":"PASS""#),
            update(Status::Pass),
        ),
        (
            update_with(r#","target":{"email":"test@veratad.com"},"status":"FAIL""#),
            update(Status::Fail),
        ),
        (
            update_with(r#","target":{"status":"FAIL"},"email":"test@veratad.com""#),
            update(Status::Fail),
        ),
        // Nested wins, unless nothing stands there.
        (
            update_with(
                r#","email":"flat@veratad.com","status":"FAIL","target":{"email":"test@veratad.com","status":"PASS"}"#,
            ),
            update(Status::Pass),
        ),
        (
            update_with(r#","email":"test@veratad.com","status":"FAIL","target":{"email":null,"status":" "}"#),
            update(Status::Fail),
        ),
        // What the form of an address is, is for the service to say.
        (get_with(r#","target":{"email":"no address"}"#), get("no address")),
        (get_with(r#","target":{"email":"jö@bücher.de"}"#), get("jö@bücher.de")),
        (
            get_with(r#","target":{"email":"j\u00f6@\ud83d\ude00.de"}"#),
            get("jö@😀.de"),
        ),
        (get_with(r#","email":"flat@veratad.com""#), get("flat@veratad.com")),
        // A read stays a read, whatever status comes along.
        (
            get_with(r#","target":{"email":"a@b.c","status":"FAIL"},"status":7"#),
            get("a@b.c"),
        ),
        // Unknown keys are ignored, of whatever kind.
        (
            get_with(
                r#","target":{"email":"a@b.c","fn":1,"age":"21+","x":[{"y":[null,true,-1,1.5e3]}]},"rules":{},"options":[]"#,
            ),
            get("a@b.c"),
        ),
        // The order of keys, white space around the body, user and service with white space around them.
        (
            "\u{feff}\r\n {\"target\":{\"email\":\"a@b.c\"},\"service\":\" getStatus \",\"pass\":\"PASSWORD\",\"user\":\" USERNAME\"}\n\n"
                .to_owned(),
            get("a@b.c"),
        ),
        // Keys and values may be escaped.
        (
            r#"{"us\u0065r":"USERNAM\u0045","pass":"PASSWORD","service":"get\u0053tatus","target":{"em\u0061il":"a@b.c"}}"#.to_owned(),
            get("a@b.c"),
        ),
    ];
    for (body, call) in cases {
        let face = Face::new();
        let reply = face.post(body.clone()).await;
        assert_eq!(reply.summary(), "200", "{body}");
        assert_eq!(face.messages(), [call], "{body}");
    }
}

#[tokio::test]
async fn a_body_without_usable_credentials_never_reaches_the_service() {
    const MISSING: &str = "400 MISSING_INPUT Missing a required input";
    const INCORRECT: &str = "401 BAD_CREDENTIALS Either your username or password is incorrect";
    let long_user = "u".repeat(129);
    let long_pass = "p".repeat(1025);
    let cases = [
        ("{}".to_owned(), MISSING),
        (r#"{"pass":"p","service":"s"}"#.to_owned(), MISSING),
        (r#"{"user":"u","service":"s"}"#.to_owned(), MISSING),
        (r#"{"user":"u","pass":"p"}"#.to_owned(), MISSING),
        (r#"{"user":null,"pass":"p","service":"s"}"#.to_owned(), MISSING),
        (r#"{"user":"u","pass":null,"service":"s"}"#.to_owned(), MISSING),
        (r#"{"user":"u","pass":"p","service":null}"#.to_owned(), MISSING),
        (r#"{"user":" \t","pass":"p","service":"s"}"#.to_owned(), MISSING),
        (r#"{"user":"u","pass":"","service":"s"}"#.to_owned(), MISSING),
        (r#"{"user":"u","pass":"p","service":" "}"#.to_owned(), MISSING),
        // What is missing is said before what is wrong.
        (r#"{"user":7,"pass":"p"}"#.to_owned(), MISSING),
        (
            r#"{"user":7,"pass":"p","service":"s"}"#.to_owned(),
            "400 INVALID_FIELD The user is invalid",
        ),
        (
            r#"{"user":{},"pass":[],"service":"s"}"#.to_owned(),
            "400 INVALID_FIELD The user is invalid",
        ),
        (
            r#"{"user":"u","pass":false,"service":"s"}"#.to_owned(),
            "400 INVALID_FIELD The pass is invalid",
        ),
        // `a:b` with `c` would arrive as `a` with `b:c`.
        (r#"{"user":"a:b","pass":"c","service":"s"}"#.to_owned(), INCORRECT),
        (
            format!(r#"{{"user":"{long_user}","pass":"p","service":"s"}}"#),
            INCORRECT,
        ),
        (
            format!(r#"{{"user":"u","pass":"{long_pass}","service":"s"}}"#),
            INCORRECT,
        ),
    ];
    for (body, summary) in cases {
        let face = Face::new();
        let reply = face.post(body.clone()).await;
        assert_eq!(reply.summary(), summary, "{body}");
        assert!(face.messages().is_empty(), "{body}");
    }
}

#[tokio::test]
async fn a_password_is_taken_as_it_is() {
    for (pass, authorization) in [
        ("PASSWORD ", "Basic VVNFUk5BTUU6UEFTU1dPUkQg"),
        (" ", "Basic VVNFUk5BTUU6IA=="),
        ("a:b", "Basic VVNFUk5BTUU6YTpi"),
        ("ü", "Basic VVNFUk5BTUU6w7w="),
    ] {
        let face = Face::new();
        let body = format!(r#"{{"user":"USERNAME","pass":"{pass}","service":"getStatus","email":"a@b.c"}}"#);
        let reply = face.post(body).await;
        assert_eq!(
            reply.summary(),
            "401 BAD_CREDENTIALS Either your username or password is incorrect"
        );
        assert_eq!(face.seen()[0].headers["authorization"], authorization);
    }
}

#[tokio::test]
async fn the_longest_user_and_password_there_can_be_are_sent_on() {
    let face = Face::new();
    let (user, pass) = ("u".repeat(128), "p".repeat(1024));
    face.post(format!(
        r#"{{"user":"{user}","pass":"{pass}","service":"getStatus","email":"a@b.c"}}"#
    ))
    .await;
    assert_eq!(face.messages(), [get("a@b.c")]);
}

/// Bodies with nothing wrong in their credentials, and why they are refused.
fn refused_after_the_credentials() -> Vec<(String, &'static str)> {
    const MISSING: &str = "400 MISSING_INPUT Missing a required input";
    const UNKNOWN: &str = "400 UNKNOWN_SERVICE The service is unknown";
    const NO_STATUS: &str = "400 INVALID_STATUS The status is invalid";
    const NO_EMAIL: &str = "400 INVALID_EMAIL The email address is invalid";
    const NO_TARGET: &str = "400 INVALID_FIELD The target is invalid";
    let number_for_service = r#"{"user":"USERNAME","pass":"PASSWORD","service":7}"#.to_owned();
    let mut cases = vec![(number_for_service, UNKNOWN)];
    for (service, rest, summary) in [
        ("eraseCustomer", r#","target":{"email":"a@b.c"}"#, UNKNOWN),
        ("createorupdatecustomer", r#","target":{"email":"a@b.c"}"#, UNKNOWN),
        (
            "UPDATESTATUS",
            r#","target":{"email":"a@b.c","status":"PASS"}"#,
            UNKNOWN,
        ),
        ("getStatus", "", MISSING),
        ("getStatus", r#","target":{}"#, MISSING),
        ("getStatus", r#","target":[]"#, MISSING),
        ("getStatus", r#","target":{"email":" "},"email":"""#, MISSING),
        ("getStatus", r#","target":{"email":7}"#, NO_EMAIL),
        ("getStatus", r#","email":{}"#, NO_EMAIL),
        ("getStatus", r#","target":"a@b.c""#, NO_TARGET),
        ("getStatus", r#","target":["a@b.c"],"email":"a@b.c""#, NO_TARGET),
        ("getStatus", r#","target":0"#, NO_TARGET),
        ("updateStatus", r#","target":{"email":"a@b.c"}"#, MISSING),
        ("updateStatus", r#","target":{"status":"PASS"}"#, MISSING),
        ("updateStatus", r#","target":{"email":"a@b.c","status":null}"#, MISSING),
        (
            "updateStatus",
            r#","target":{"email":"a@b.c","status":"DONE"}"#,
            NO_STATUS,
        ),
        ("updateStatus", r#","target":{"email":"a@b.c","status":1}"#, NO_STATUS),
        (
            "updateStatus",
            r#","target":{"email":"a@b.c","status":"STATUS_PASS"}"#,
            NO_STATUS,
        ),
        // Where something stands in target, what stands beside it is no way out.
        (
            "updateStatus",
            r#","target":{"email":"a@b.c","status":"DONE"},"status":"PASS""#,
            NO_STATUS,
        ),
        (
            "updateStatus",
            r#","target":{"email":7,"status":"PASS"},"email":"a@b.c""#,
            NO_EMAIL,
        ),
        // What is missing is said before what is wrong.
        ("updateStatus", r#","target":{"status":"DONE"}"#, MISSING),
        ("updateStatus", r#","target":{"email":7}"#, MISSING),
    ] {
        cases.push((body(service, rest), summary));
    }
    cases
}

#[tokio::test]
async fn a_refusal_is_handed_out_after_the_credentials_were_asked_about() {
    for (body, summary) in refused_after_the_credentials() {
        let face = Face::new();
        let reply = face.post(body.clone()).await;
        assert_eq!(reply.summary(), summary, "{body}");
        // The service was asked once: with an empty message, or with a status that it refuses by itself.
        match face.messages().as_slice() {
            [Message::GetStatus { email }] => assert_eq!(email, "", "{body}"),
            [Message::UpdateStatus { status, .. }] => {
                assert_eq!(*status, Status::Unspecified, "{body}")
            }
            messages => panic!("{body}: {messages:?}"),
        }
    }
}

#[tokio::test]
async fn bad_credentials_are_said_before_anything_else_is() {
    for (body, _) in refused_after_the_credentials() {
        let body = body.replace("PASSWORD", "GUESS");
        let reply = Face::new().post(body.clone()).await;
        assert_eq!(
            reply.summary(),
            "401 BAD_CREDENTIALS Either your username or password is incorrect",
            "{body}"
        );
    }
}
