//! Which call a body of `createOrUpdateCustomer` or `getDocumentImages` becomes, or why it becomes none.

use bytes::Bytes;

use super::support::{Face, Message, Put, create};

const MISSING: &str = "400 MISSING_INPUT Missing a required input";

/// A body with good credentials for `createOrUpdateCustomer`; `rest` is what follows.
fn body(rest: &str) -> String {
    format!(r#"{{"user":"USERNAME","pass":"PASSWORD","service":"createOrUpdateCustomer"{rest}}}"#)
}

fn email() -> Put {
    Put {
        email: "a@b.c".to_owned(),
        ..Put::default()
    }
}

#[tokio::test]
async fn a_sound_body_becomes_one_call() {
    let cases = [
        (
            concat!(
                r#","reference":" R-7 ","target":{"email":" Test@Veratad.com ","fn":"John","ln":" Smith\t","addr":"123 Main St","#,
                r#""city":"Stratford","state":"CT","zip":"06614","dob":"19700101","phone":"201 510 6000","#,
                r#""documents":{"front":"ZnJvbnQ=","back":"YmFjaw=="}},"options":{}"#
            ),
            Put {
                email: "Test@Veratad.com".to_owned(),
                first_name: "John".to_owned(),
                last_name: "Smith".to_owned(),
                address: "123 Main St".to_owned(),
                city: "Stratford".to_owned(),
                state: "CT".to_owned(),
                zip: "06614".to_owned(),
                date_of_birth: "19700101".to_owned(),
                phone: "201 510 6000".to_owned(),
                reference: "R-7".to_owned(),
                front: Bytes::from_static(b"front"),
                back: Bytes::from_static(b"back"),
            },
        ),
        // Nothing to write is to keep all.
        (r#","target":{"email":"a@b.c"}"#, email()),
        (
            r#","reference":"","target":{"email":"a@b.c","fn":"","ln":null,"addr":" ","zip":"","dob":null,"documents":{"front":"","back":null}}"#,
            email(),
        ),
        (
            r#","reference":null,"target":{"email":"a@b.c","documents":null}"#,
            email(),
        ),
        (r#","target":{"email":"a@b.c","documents":[]}"#, email()),
        (r#","target":{"email":"a@b.c","documents":{"front":" \r\n"}}"#, email()),
        // The email may stand flat, and nothing else may; the reference stands flat only.
        (r#","email":"a@b.c","fn":"John","documents":7"#, email()),
        (r#","email":"a@b.c","target":[]"#, email()),
        (
            r#","target":{"email":"a@b.c","reference":"no","status":"PASS","ssn":1}"#,
            email(),
        ),
        // Numbers.
        (
            r#","reference":888888812,"target":{"email":"a@b.c","zip":6614,"dob":19700101,"phone":2015106000}"#,
            Put {
                reference: "888888812".to_owned(),
                zip: "6614".to_owned(),
                date_of_birth: "19700101".to_owned(),
                phone: "2015106000".to_owned(),
                ..email()
            },
        ),
        // Escapes, also in what is not text for people.
        (
            r#","target":{"email":"a@b.c","fn":"Zo\u00eb \ud83d\ude00","documents":{"back":"\/\u002b8="}}"#,
            Put {
                first_name: "Zoë 😀".to_owned(),
                back: Bytes::from_static(b"\xff\xef"),
                ..email()
            },
        ),
    ];
    for (rest, put) in cases {
        let face = Face::new();
        let reply = face.post(body(rest)).await;
        assert_eq!(reply.summary(), "200", "{rest}");
        assert_eq!(face.messages(), [create(put)], "{rest}");
    }
}

#[tokio::test]
async fn a_number_is_kept_as_it_was_written_if_it_is_whole() {
    let long = "9".repeat(128);
    for (number, text) in [
        ("0", Some("0")),
        ("-0", Some("-0")),
        ("-17", Some("-17")),
        ("18446744073709551616", Some("18446744073709551616")),
        (&long, Some(&*long)),
        ("6614.0", Some("6614")),
        ("-2.0", Some("-2")),
        ("-0.0", Some("0")),
        ("1.97e7", Some("19700000")),
        ("2015106000.000", Some("2015106000")),
        ("9007199254740991.0", Some("9007199254740991")),
        ("9007199254740992.0", None),
        ("1E16", None),
        ("6614.5", None),
        ("1e-1", None),
        ("1e999", None),
    ] {
        for (key, rest) in [
            ("reference", format!(r#","email":"a@b.c","reference":{number}"#)),
            ("zip", format!(r#","target":{{"email":"a@b.c","zip": {number} }}"#)),
            ("dob", format!(r#","target":{{"email":"a@b.c","dob":{number}}}"#)),
            ("phone", format!(r#","target":{{"phone":{number},"email":"a@b.c"}}"#)),
        ] {
            let face = Face::new();
            let reply = face.post(body(&rest)).await;
            let Some(text) = text else {
                assert_eq!(
                    reply.summary(),
                    format!("400 INVALID_FIELD The {key} is invalid"),
                    "{number}"
                );
                continue;
            };
            assert_eq!(reply.summary(), "200", "{number}");
            let [Message::CreateOrUpdateCustomer(put)] = &*face.messages() else {
                panic!("{number}: {:?}", face.messages());
            };
            let texts = [&put.reference, &put.zip, &put.date_of_birth, &put.phone];
            assert_eq!(texts.into_iter().filter(|there| *there == text).count(), 1, "{number}");
        }
    }
}

/// Bodies with nothing wrong in their credentials, and why they are refused.
fn refused() -> Vec<(String, String)> {
    let invalid = |key: &str| format!("400 INVALID_FIELD The {key} is invalid");
    let mut refused = Vec::new();
    for key in ["fn", "ln", "addr", "city", "state", "zip", "dob", "phone", "documents"] {
        for value in ["true", "{}", "[1]", r#"{"a":[]}"#] {
            if key != "documents" || !value.starts_with('{') {
                refused.push((
                    body(&format!(r#","target":{{"email":"a@b.c","{key}":{value}}}"#)),
                    invalid(key),
                ));
            }
        }
    }
    for (key, value) in [
        ("fn", "1"),
        ("ln", "1.0"),
        ("addr", "-1"),
        ("city", "0"),
        ("state", "7"),
        ("zip", "[]"),
        ("documents", r#""front""#),
        ("documents", "1"),
        ("documents", r#"[{"front":""}]"#),
    ] {
        refused.push((
            body(&format!(r#","target":{{"email":"a@b.c","{key}":{value}}}"#)),
            invalid(key),
        ));
    }
    for value in ["false", "{}", "[]", "0.5"] {
        refused.push((
            body(&format!(r#","email":"a@b.c","reference":{value}"#)),
            invalid("reference"),
        ));
    }
    for key in ["front", "back"] {
        for value in ["1", "true", "[]", "{}", r#""?""#, r#""YQ==YQ==""#] {
            let rest = format!(r#","target":{{"email":"a@b.c","documents":{{"{key}":{value}}}}}"#);
            refused.push((body(&rest), invalid(key)));
        }
    }
    for (rest, summary) in [
        ("", MISSING),
        (r#","target":{}"#, MISSING),
        (r#","target":{"email":" "},"email":null"#, MISSING),
        // What is missing is said before what is wrong.
        (r#","reference":{},"target":{"fn":1,"documents":{"front":1}}"#, MISSING),
        (
            r#","target":{"email":7,"fn":1}"#,
            "400 INVALID_EMAIL The email address is invalid",
        ),
        (r#","target":"a@b.c""#, "400 INVALID_FIELD The target is invalid"),
    ] {
        refused.push((body(rest), summary.to_owned()));
        if !rest.contains(r#""fn""#) {
            let images = body(rest).replace("createOrUpdateCustomer", "getDocumentImages");
            refused.push((images, summary.to_owned()));
        }
    }
    refused
}

#[tokio::test]
async fn a_refusal_is_handed_out_after_the_credentials_were_asked_about() {
    for (body, summary) in refused() {
        let face = Face::new();
        assert_eq!(face.post(body.clone()).await.summary(), summary, "{body}");
        let nobody = Message::GetStatus { email: String::new() };
        assert_eq!(face.messages(), [nobody], "{body}");

        let body = body.replace("PASSWORD", "GUESS");
        assert_eq!(
            Face::new().post(body.clone()).await.summary(),
            "401 BAD_CREDENTIALS Either your username or password is incorrect",
            "{body}"
        );
    }
}

#[tokio::test]
async fn the_form_of_an_address_is_for_the_service_to_judge() {
    for service in ["createOrUpdateCustomer", "getDocumentImages"] {
        let face = Face::new();
        let body = body(r#","target":{"email":" no address "}"#).replace("createOrUpdateCustomer", service);
        assert_eq!(face.post(body).await.summary(), "200");
        let expected = match service {
            "getDocumentImages" => Message::GetDocumentImages {
                email: "no address".to_owned(),
            },
            _ => create(Put {
                email: "no address".to_owned(),
                ..Put::default()
            }),
        };
        assert_eq!(face.messages(), [expected]);
    }
}

#[tokio::test]
async fn images_of_another_service_are_not_looked_at() {
    let rest = r#","target":{"email":"a@b.c","zip":true,"documents":{"front":"?","back":7}},"reference":[]"#;
    for service in ["getStatus", "getDocumentImages"] {
        let body = body(rest).replace("createOrUpdateCustomer", service);
        assert_eq!(Face::new().post(body).await.summary(), "200");
    }
}
